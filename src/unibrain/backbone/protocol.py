"""What a backbone is to the rest of the package: the ten members that everything above `unibrain.backbone` uses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.backbone.config import SamplingSettings
from unibrain.errors import InputError

Array = NDArray[np.float32]
Pictures = NDArray[np.uint8]
Items = Pictures | Sequence[str]
Callback = Callable[[int, int, Array], None]


class SamplingError(InputError):
    """Sampling left the range of numbers; `row` is the first such row of the call."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def require_finite(values: NDArray[np.floating[Any]]) -> None:
    """Raise `SamplingError` for the first row that holds a NaN or infinite value."""
    sound = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not sound.all():
        raise SamplingError("a value is not finite", int(sound.argmin()))


class Backbone(Protocol):
    """A frozen generative network: it encodes what was seen into latents, and decodes latents.

    Every method takes and returns NumPy arrays. Rows are independent: the result of a row depends on its own inputs and
    its own seed. Rounding may differ by the rows that are computed together and by the number of threads, so the same
    bytes come only from the same rows in the same batches on the same machine; a call of at most `scans_at_once` rows
    is computed as one batch.

    An implementation says which kinds it decodes (`kinds`) and knows some latents by name. The ones of UniBrain are
    ``z_image`` and ``z_text``, where the diffusion of a picture or a caption starts, and ``c_image`` and ``c_text``,
    the contexts that guide it. Others may be added: names are an open set.

    Raises
    ------
    InputError
        By every method: if a name or kind is not known, items or arrays have another type or shape than the backbone's,
        or a part of the network that is needed was not loaded.
    """

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies weights and configuration: equal fingerprints decode equally."""
        ...

    @property
    def precision(self) -> str:
        """What the networks compute in, ``"fp32"``, ``"bf16"`` or ``"fp16"``: it changes results beyond rounding."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it decodes, for example ``("picture", "caption")``."""
        ...

    def sampling(self, kind: str) -> SamplingSettings:
        """Return the settings that this backbone recommends for a kind."""
        ...

    def scans_at_once(self, kind: str) -> int:
        """Return how many scans are sampled in one batch; the same on the same machine."""
        ...

    def encode(self, latent: str, items: Items) -> Array:
        """Encode pictures or captions.

        Parameters
        ----------
        latent : str
            Name of the latent, for example ``"z_image"``.
        items : ndarray of shape (n, height, width, 3), uint8, or sequence of n str
            Pictures, or captions, whichever the latent is made of.

        Returns
        -------
        ndarray of shape (n, ...), float32
        """
        ...

    def embed(self, kind: str, items: Items) -> Array:
        """Embed pictures or captions in one shared space, in which similar ones have a large inner product.

        Returns
        -------
        ndarray of shape (n, width), float32
            Rows of norm 1.
        """
        ...

    def sample(
        self,
        kind: str,
        start: Array | None,
        contexts: Mapping[str, Array],
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
        callback: Callback | None = None,
    ) -> Pictures | list[str]:
        """Denoise latents under contexts, and decode them.

        Parameters
        ----------
        kind : str
            One of `kinds`.
        start : ndarray of shape (n, ...), float32, or None
            Latents to start from, brought to the noise level of ``settings.strength``; None starts from pure noise and
            takes all steps.
        contexts : mapping of str to ndarray of shape (n, tokens, width), float32
            By the name of the latent. One that is absent gives its share to the others; without any, the diffusion is
            guided by the backbone's unconditional contexts alone.
        settings : SamplingSettings
        seeds : ndarray of shape (n,), int64
            Seeds of the noise, one per row.
        callback : callable, optional
            ``callback(step, steps, x0)`` is called after each denoising step: `step` counts from 1 to `steps`, and `x0`
            (float32) is the latent that is predicted at this step. More rows than `scans_at_once` are sampled in
            several batches, one after the other; each shows its own rows.

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8, or list of n str

        Raises
        ------
        SamplingError
            If a latent is not finite at some step; its attribute `row` says which row.
        """
        ...

    def decode(self, kind: str, start: Array) -> Pictures | list[str]:
        """Decode latents as they are, without diffusion; the shapes are those of `sample`."""
        ...
