"""Pictures and captions to latents and contexts, and latents back: the encoders and decoders of the backbone."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone import autokl as autokl_part
from unibrain.backbone import clip as clip_part
from unibrain.backbone.batches import Batches
from unibrain.backbone.caption_cleanup import remove_repeated_phrases
from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.devices import Precision, precision_of
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.parts import Parts
from unibrain.backbone.pictures import check_pictures, resize_pictures
from unibrain.backbone.tokenization import Gpt2Tokens
from unibrain.backbone.vocabularies import Tokenizers
from unibrain.errors import InputError

__all__ = ["Array", "Coders"]

Array = NDArray[np.float32]


class Coders:
    """Encoders and decoders around the flows; parameters as of `VersatileDiffusion`."""

    def __init__(
        self,
        config: BackboneConfig,
        parts: Parts,
        tokenizers: Tokenizers,
        fingerprint: str = "",
        dtype: torch.dtype = torch.float32,
        batch_size: int | None = None,
    ) -> None:
        self.config, self.parts, self.tokenizers = config, parts, tokenizers
        self.fingerprint, self.device, self.dtype = fingerprint, parts.device, dtype
        self._batches = Batches(config, parts.device, dtype.itemsize, batch_size)
        self._processor = clip_part.make_image_processor(config.clip) if "clip" in parts else None

    @property
    def flows(self) -> FourFlows:
        """The four flows."""
        return self.parts.get("flows")  # type: ignore[no-any-return]

    @property
    def autokl(self) -> Any:
        """The image autoencoder, `diffusers.AutoencoderKL`."""
        return self.parts.get("autokl")

    @property
    def optimus(self) -> Optimus:
        """The text autoencoder."""
        return self.parts.get("optimus")  # type: ignore[no-any-return]

    @property
    def clip(self) -> Any:
        """`transformers.CLIPModel`; one copy for images and text."""
        return self.parts.get("clip")

    @property
    def batch_size(self) -> int:
        """Pictures or captions that are encoded at once."""
        return self._batches.size("clip")

    @property
    def gpt2_tokens(self) -> Gpt2Tokens:
        """Tokenizer of Optimus' decoder.

        Raises
        ------
        InputError
            If Optimus was not loaded.
        """
        self.parts.get("optimus")
        assert self.tokenizers.gpt2 is not None
        return self.tokenizers.gpt2

    @property
    def precision(self) -> Precision:
        """What the networks compute in: it changes results beyond rounding."""
        return precision_of(self.dtype)

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.config.name

    @property
    def image_settings(self) -> SamplingSettings:
        """Recommended settings for pictures."""
        return self.config.image

    @property
    def text_settings(self) -> SamplingSettings:
        """Recommended settings for captions."""
        return self.config.text

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> Array:
        """Image latents (the posterior's mean) of pictures.

        Parameters
        ----------
        pictures : ndarray of shape (n, height, width, 3), uint8
            Resized to the backbone's picture size where they have another one.

        Returns
        -------
        ndarray of shape (n, channels, h, w), float32
        """

        def encode(batch: NDArray[np.uint8], autokl: Any) -> Tensor:
            pixels = torch.from_numpy(resize_pictures(batch, self.config.autokl.image_size)).permute(0, 3, 1, 2) / 255
            return autokl_part.encode_pictures(autokl, self._there(pixels), self.config.autokl.scale_factor)

        return self._batched("autokl", encode, check_pictures(pictures))

    def decode_pictures(self, z_image: Array) -> NDArray[np.uint8]:
        """Pictures of image latents.

        Parameters
        ----------
        z_image : ndarray of shape (n, channels, h, w), float32

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8
        """

        def decode(batch: Array, autokl: Any) -> Tensor:
            latents = self._there(torch.from_numpy(batch))
            return autokl_part.decode_latents(autokl, latents, self.config.autokl.scale_factor)

        pixels = self._batched("autokl", decode, np.asarray(z_image, dtype=np.float32))
        return np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def encode_captions(self, captions: Sequence[str]) -> Array:
        """Text latents (the posterior's mean), ndarray of shape (n, width), float32."""

        def encode(batch: Sequence[str], optimus: Optimus) -> Tensor:
            assert self.tokenizers.bert is not None
            ids, mask = self.tokenizers.bert(batch)
            return optimus.encode(ids.to(self.device), mask.to(self.device))[0]

        return self._batched("optimus", encode, list(captions))

    def decode_captions(self, z_text: Array) -> list[str]:
        """Most probable caption of each text latent (n, width), with repeats taken out."""
        self._check_any(z_text)
        latents = torch.from_numpy(np.asarray(z_text, dtype=np.float32))

        def write(rows: slice) -> list[list[int]]:
            with torch.inference_mode():
                return optimus.write(self._there(latents[rows]))  # type: ignore[no-any-return]

        with self.parts.use("optimus") as optimus:
            written = [ids for batch in self._batches.run("optimus", len(latents), write) for ids in batch]
        return [remove_repeated_phrases(self.gpt2_tokens.caption(ids)) for ids in written]

    def picture_contexts(self, pictures: NDArray[np.uint8]) -> Array:
        """CLIP-Image tokens of 8-bit pictures, ndarray of shape (n, tokens, width), float32."""

        def encode(batch: NDArray[np.uint8], clip: Any) -> Tensor:
            pixels = clip_part.preprocess(self._processor, batch, self.config.clip.resize)
            return clip_part.image_context(clip, self._there(pixels))

        return self._batched("clip", encode, check_pictures(pictures))

    def caption_contexts(self, captions: Sequence[str]) -> Array:
        """CLIP-Text tokens of captions, ndarray of shape (n, tokens, width), float32."""
        return self._batched("clip", lambda batch, clip: self._text_context(batch, clip)[0], list(captions))

    def picture_embeddings(self, pictures: NDArray[np.uint8]) -> Array:
        """CLIP embedding of pictures, norm 1, ndarray of shape (n, width), float32."""
        return self.picture_contexts(pictures)[:, 0]

    def caption_embeddings(self, captions: Sequence[str]) -> Array:
        """CLIP embedding of captions, norm 1, ndarray of shape (n, width), float32."""

        def embed(batch: Sequence[str], clip: Any) -> Tensor:
            contexts, ends = self._text_context(batch, clip)
            return contexts[torch.arange(len(batch)), ends]

        return self._batched("clip", embed, list(captions))

    def _text_context(self, captions: Sequence[str], clip: Any) -> tuple[Tensor, Tensor]:
        """Contexts of captions, and the position of the first end token of each."""
        assert self.tokenizers.clip is not None
        ids, end = self.tokenizers.clip(captions), self.tokenizers.clip.eos
        return clip_part.text_context(clip, ids.to(self.device), end), (ids == end).int().argmax(dim=1)

    def _there(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype)

    def _check_any(self, items: Any) -> None:
        if not len(items):
            raise InputError(
                f"nothing was given to backbone {self.name} to encode or decode, expected one item or more"
            )

    def _batched(
        self, part: Literal["autokl", "optimus", "clip"], function: Callable[..., Tensor], items: Any
    ) -> Array:
        self._check_any(items)

        def work(rows: slice) -> Array:
            with torch.inference_mode():
                return function(items[rows], module).float().cpu().numpy()

        with self.parts.use(part) as module:
            return np.concatenate(self._batches.run(part, len(items), work))
