"""Which caption of an image feeds which latent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["CaptionChoice", "CaptionUse", "ContextUse", "drawn_caption"]

CaptionUse = Literal["first", "random"]
"""For `z_text`. A mean over Optimus latents of differently worded sentences is no sentence, so there is none."""

ContextUse = Literal["mean", "first", "random"]
"""For `c_text`: of all captions averaged (as in Brain-Diffuser), of the first, or of one that is drawn."""


def drawn_caption(seed: int, stimulus_id: int, count: int) -> int:
    """Draw one of an image's captions.

    Parameters
    ----------
    seed : int
        At least 0.
    stimulus_id : int
        At least 0.
    count : int
        How many captions the image has, at least 1.

    Returns
    -------
    int
        Its place, from 0. It depends on the arguments only, neither on other images nor on order or batches.
    """
    state = np.random.SeedSequence((seed, stimulus_id)).generate_state(1, np.uint64)[0]
    return int(state) % count


@dataclass(frozen=True)
class CaptionChoice:
    """Which captions are encoded.

    Attributes
    ----------
    caption : {"first", "random"}
        For `z_text`.
    context : {"mean", "first", "random"}
        For `c_text`. Where both are random, both encode the same caption.
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        If a choice is none of those.
    """

    caption: CaptionUse = "first"
    context: ContextUse = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.caption not in ("first", "random"):
            raise InputError(f"caption is {self.caption!r}, expected 'first' or 'random': choose one of them")
        if self.context not in ("mean", "first", "random"):
            raise InputError(
                f"caption_context is {self.context!r}, expected 'mean', 'first' or 'random': choose one of them"
            )
        if self.seed < 0:
            raise InputError(f"caption_seed is {self.seed}, expected at least 0: choose another")

    def of(
        self, stimulus_ids: NDArray[np.int64], captions: Sequence[tuple[str, ...]]
    ) -> tuple[list[str], list[tuple[str, ...]]]:
        """Choose.

        Parameters
        ----------
        stimulus_ids : ndarray of shape (n,), int64
        captions : sequence of n tuples of str
            At least one each.

        Returns
        -------
        list of n str
            For `z_text`.
        list of n tuples of str
            For `c_text`, whose contexts are averaged.
        """
        drawn = [
            texts[drawn_caption(self.seed, int(identity), len(texts))] if self._draws else texts[0]
            for identity, texts in zip(stimulus_ids, captions, strict=True)
        ]
        firsts = [texts[0] for texts in captions]
        whole = drawn if self.caption == "random" else firsts
        if self.context == "mean":
            return whole, list(captions)
        return whole, [(text,) for text in (drawn if self.context == "random" else firsts)]

    @property
    def _draws(self) -> bool:
        return "random" in (self.caption, self.context)

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        about: dict[str, Any] = {"caption": self.caption, "caption_context": self.context}
        return about | {"caption_seed": self.seed} if self._draws else about
