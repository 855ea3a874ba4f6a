"""A probe: one small computation whose result is known, and the libraries that it leans on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.doctor.fingerprint import Fingerprint
from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion

__all__ = ["FP32", "Bench", "Probe"]

FP32 = 2e-4
"""Allowed difference of a network's fp32 output.

Threads, BLAS and kernels round differently, by 1e-6 of the output's size or less; an epsilon of CLIP's layer norms
that is ten times as large moves it by 1e-3.
"""


class Bench:
    """What probes work on.

    Parameters
    ----------
    folder : Path
        The small backbone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _opened(self) -> "VersatileDiffusion | InputError":
        from unibrain.backbone import load_backbone

        try:
            return load_backbone(self.folder, device="cpu", dtype="fp32")
        except InputError as error:
            return error

    @property
    def backbone(self) -> "VersatileDiffusion":
        """The small backbone on the processor, loaded once.

        Raises
        ------
        InputError
            If it cannot be loaded; the same one every time.
        """
        if isinstance(self._opened, InputError):
            raise self._opened
        return self._opened


@dataclass(frozen=True)
class Probe:
    """One computation.

    Attributes
    ----------
    name : str
    what : str
        For people.
    leans_on : tuple of str
        Libraries whose change can move it, the most likely one first.
    compute : callable
        Takes the bench, gives the fingerprint.
    tolerance : float
        Allowed difference in units of the result's root mean square.
    reads : tuple of str
        Files of the backbone folder that it depends on: of other files no comparison is possible.
    builds_on : tuple of str
        Probes whose result goes into this one: if one of them moved, this one had to.
    """

    name: str
    what: str
    leans_on: tuple[str, ...]
    compute: Callable[[Bench], Fingerprint]
    tolerance: float = 0.0
    reads: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()
