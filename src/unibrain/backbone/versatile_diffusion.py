"""The frozen backbone as one object: pictures and captions in, latents and contexts out, and back."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.batches import Task
from unibrain.backbone.coders import Array, Coders
from unibrain.backbone.config import SamplingSettings
from unibrain.backbone.flow_sampling import check_rows, denoise
from unibrain.backbone.flows import PreparedContext
from unibrain.backbone.guidance import shares_of
from unibrain.backbone.products import state_dtype

__all__ = ["VersatileDiffusion"]


class VersatileDiffusion(Coders):
    """Versatile Diffusion, frozen, at any size.

    Every method takes and returns NumPy arrays and works through them in batches. Results do not depend on the batch
    size beyond rounding: noise is drawn per scan, from its own seed. A method whose networks were not loaded raises
    `InputError`.

    Parameters
    ----------
    config : BackboneConfig
    parts : Parts
        The networks.
    tokenizers : Tokenizers
    fingerprint : str
        Identifies weights and configuration.
    dtype : torch.dtype
        What the networks compute in.
    batch_size : int, optional
        Most pictures, captions or scans in one call of a network; found by itself if left out.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._empty: dict[str, Tensor] = {}
        self._prepared: dict[str, PreparedContext] = {}

    def extend(self, other: "VersatileDiffusion") -> None:
        """Take over the parts of another loading of the same backbone on the same device."""
        self.parts.add({name: other.parts.get(name) for name in other.parts.names})
        self.tokenizers = self.tokenizers.joined(other.tokenizers)
        self._processor = self._processor or other._processor

    def scans_at_once(self, kind: Literal["pictures", "captions"]) -> int:
        """How many scans are sampled in one batch."""
        return self._batches.size("image flow" if kind == "pictures" else "text flow")

    def unconditional_contexts(self) -> dict[str, Tensor]:
        """Contexts of the unconditional half, ``"image"`` and ``"text"``, each of shape (1, tokens, width).

        They are computed once.
        """
        if not self._empty:
            size = self.config.clip.resize
            level = {"grey": 127, "black": 0, "zeros": 0}[self.config.unconditional_image]
            image = torch.from_numpy(self.picture_contexts(np.full((1, size, size, 3), level, dtype=np.uint8)))
            if self.config.unconditional_image == "zeros":
                image = torch.zeros_like(image)
            text = torch.from_numpy(self.caption_contexts([""]))
            states = state_dtype(self.dtype, self.device)
            self._empty = {"image": image.to(self.device, states), "text": text.to(self.device, states)}
        return dict(self._empty)

    def _prepared_empty(self, settings: SamplingSettings) -> Mapping[str, PreparedContext]:
        """Keys and values of the unconditional contexts that `settings` reads, one row each, computed once."""
        if settings.guidance_scale == 1:
            return {}
        contexts = self.unconditional_contexts()
        with self.parts.use("flows") as flows, torch.inference_mode():
            for kind in shares_of(settings.image_weight):
                if kind not in self._prepared:
                    self._prepared[kind] = flows.prepare(kind, contexts[kind])
        return self._prepared

    def sample_pictures(
        self,
        z_image: Array | None,
        c_image: Array,
        c_text: Array,
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """Denoise image latents under both contexts, and decode them.

        Parameters
        ----------
        z_image : ndarray of shape (n, channels, h, w), float32, or None
            Where to start; None starts from pure noise.
        c_image, c_text : ndarray of shape (n, tokens, width), float32
        settings : SamplingSettings
        seeds : ndarray of shape (n,), int64
            One per scan.

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8

        Raises
        ------
        InputError
            If the latents are of another shape, or the inputs of different numbers of scans.
        """
        side = self.config.autokl.latent_size
        shape = (self.config.autokl.latent_channels, side, side)
        self.parts.get("autokl")
        return self.decode_pictures(self._sample(z_image, shape, c_image, c_text, settings, seeds))

    def sample_captions(
        self,
        z_text: Array | None,
        c_image: Array,
        c_text: Array,
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
    ) -> list[str]:
        """Denoise text latents under both contexts, and write them out; parameters as in `sample_pictures`.

        Returns
        -------
        list of str
        """
        shape = (self.config.optimus.latent_width,)
        self.parts.get("optimus")
        return self.decode_captions(self._sample(z_text, shape, c_image, c_text, settings, seeds))

    def _sample(
        self,
        z: Array | None,
        shape: tuple[int, ...],
        c_image: Array,
        c_text: Array,
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
    ) -> Array:
        check_rows(self.config, z, shape, c_image, c_text, seeds)
        empty = self._prepared_empty(settings)
        states = state_dtype(self.dtype, self.device)
        task: Task = "image flow" if len(shape) > 1 else "text flow"

        def work(rows: slice) -> Array:
            contexts = {"image": c_image[rows], "text": c_text[rows]}
            start = None if z is None else z[rows]
            with torch.inference_mode():
                return denoise(
                    flows, self.config, start, shape, contexts, empty, settings, seeds[rows], self.device, states
                )

        with self.parts.use("flows") as flows:
            results = self._batches.run(task, len(seeds), work)
        return np.concatenate(results) if results else np.zeros((0, *shape), dtype=np.float32)
