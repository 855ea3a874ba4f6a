"""Fingerprints: a few numbers that stand for a result, and how far two of them are apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.doctor.patterns import mixed

__all__ = ["Fingerprint", "difference", "of_array", "of_exact"]

_POINTS = 8
_DIGITS = 7


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a result.

    Attributes
    ----------
    exact : mapping
        JSON-ready; must be equal: a shape, tokens, sentences.
    numbers : tuple of float
        Equal up to a tolerance.
    scale : float
        Root mean square of the result; tolerances are in units of it.
    """

    exact: Mapping[str, Any]
    numbers: tuple[float, ...] = ()
    scale: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready copy."""
        return {"exact": dict(self.exact), "numbers": list(self.numbers), "scale": self.scale}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Fingerprint":
        """Read what `as_dict` gave."""
        return cls(dict(content["exact"]), tuple(map(float, content["numbers"])), float(content["scale"]))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def of_array(array: NDArray[Any]) -> Fingerprint:
    """Fingerprint an array: its shape, mean and size, eight of its values, and eight sums under fixed signs.

    The signs are those of fixed noise, so that a sum is as large as a value (it is divided by the root of the count),
    and moves with any change, wherever it happens. Mean and values are for people, who can see what moved.

    Parameters
    ----------
    array : ndarray of numbers, not empty

    Returns
    -------
    Fingerprint
    """
    flat = np.asarray(array, dtype=np.float64).ravel()
    scale = math.sqrt(float(np.mean(flat**2)))
    # Not evenly spaced: in a picture that could be one column.
    places = mixed(_POINTS, 99) % flat.size
    signs = [np.where(mixed(flat.size, 100 + number) >> np.uint32(31), 1.0, -1.0) for number in range(_POINTS)]
    sums = [float(flat @ sign) / math.sqrt(flat.size) for sign in signs]
    numbers = (float(flat.mean()), scale, *(float(value) for value in flat[places]), *sums)
    return Fingerprint({"shape": list(array.shape)}, tuple(map(_rounded, numbers)), _rounded(scale))


def of_exact(**content: Any) -> Fingerprint:
    """Fingerprint of JSON-ready content that must be equal."""
    return Fingerprint(content)


def difference(found: Fingerprint, stored: Fingerprint) -> float:
    """Largest difference of two fingerprints' numbers, in units of the stored one's scale.

    Returns
    -------
    float
        Infinite if the exact content differs, or a number is not finite.

    Examples
    --------
    >>> difference(of_exact(tokens=[1, 2]), of_exact(tokens=[1, 2]))
    0.0
    >>> difference(of_exact(tokens=[1, 2]), of_exact(tokens=[1, 3]))
    inf
    """
    if dict(found.exact) != dict(stored.exact) or len(found.numbers) != len(stored.numbers):
        return math.inf
    apart = [abs(one - other) for one, other in zip(found.numbers, stored.numbers, strict=True)]
    if not all(map(math.isfinite, apart)):
        return math.inf
    return max(apart, default=0.0) / (stored.scale or 1.0)
