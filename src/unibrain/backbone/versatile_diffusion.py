"""The frozen backbone as one object: pictures and captions in, latents and contexts out, and back."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone import autokl as autokl_part
from unibrain.backbone import clip as clip_part
from unibrain.backbone.caption_cleanup import remove_repeated_phrases
from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.guidance import guided_model
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.pictures import check_pictures, resize_pictures
from unibrain.backbone.sampler import add_noise, sample_ddim, start_index
from unibrain.backbone.schedule import ddim_steps
from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError

__all__ = ["VersatileDiffusion"]

Array = NDArray[np.float32]


class VersatileDiffusion:
    """Versatile Diffusion, frozen, at any size.

    Every method takes and returns NumPy arrays and works through them in batches. Results do not depend on the batch
    size beyond rounding: noise is drawn per scan, from its own seed.

    Parameters
    ----------
    config : BackboneConfig
    flows : FourFlows
    autokl : diffusers.AutoencoderKL
    optimus : Optimus
    clip : transformers.CLIPModel
    bert_pieces, gpt2_tokens, clip_tokens
        The tokenizers.
    fingerprint : str
        Identifies weights and configuration.
    device : torch.device
    batch_size : int
        Most pictures or captions in one call of a network.
    """

    def __init__(
        self,
        config: BackboneConfig,
        flows: FourFlows,
        autokl: Any,
        optimus: Optimus,
        clip: Any,
        bert_pieces: BertPieces,
        gpt2_tokens: Gpt2Tokens,
        clip_tokens: ClipTokens,
        fingerprint: str = "",
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.config, self.fingerprint, self.batch_size = config, fingerprint, batch_size
        self.device = torch.device(device)
        self.flows, self.autokl, self.optimus, self.clip = flows, autokl, optimus, clip
        for part in (flows, autokl, optimus, clip):
            part.to(self.device).eval().requires_grad_(False)
        self.bert_pieces, self.gpt2_tokens, self.clip_tokens = bert_pieces, gpt2_tokens, clip_tokens
        self._processor = clip_part.make_image_processor(config.clip)

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

        def encode(batch: NDArray[np.uint8]) -> Tensor:
            pixels = torch.from_numpy(resize_pictures(batch, self.config.autokl.image_size)).permute(0, 3, 1, 2) / 255
            return autokl_part.encode_pictures(self.autokl, pixels.to(self.device), self.config.autokl.scale_factor)

        return self._batched(encode, check_pictures(pictures))

    def decode_pictures(self, z_image: Array) -> NDArray[np.uint8]:
        """Pictures of image latents.

        Parameters
        ----------
        z_image : ndarray of shape (n, channels, h, w), float32

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8
        """

        def decode(batch: Array) -> Tensor:
            latents = torch.from_numpy(batch).to(self.device)
            return autokl_part.decode_latents(self.autokl, latents, self.config.autokl.scale_factor)

        pixels = self._batched(decode, np.asarray(z_image, dtype=np.float32))
        return np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def encode_captions(self, captions: Sequence[str]) -> Array:
        """Text latents (the posterior's mean), ndarray of shape (n, width), float32."""

        def encode(batch: Sequence[str]) -> Tensor:
            ids, mask = self.bert_pieces(batch)
            return self.optimus.encode(ids.to(self.device), mask.to(self.device))[0]

        return self._batched(encode, list(captions))

    def decode_captions(self, z_text: Array) -> list[str]:
        """Most probable caption of each text latent (n, width), with repeats taken out."""
        self._check_any(z_text)
        sentences: list[str] = []
        latents = torch.from_numpy(np.asarray(z_text, dtype=np.float32))
        for batch in latents.split(self.batch_size):
            with torch.inference_mode():
                written = self.optimus.write(batch.to(self.device))
            sentences += [remove_repeated_phrases(self.gpt2_tokens.caption(ids)) for ids in written]
        return sentences

    def picture_contexts(self, pictures: NDArray[np.uint8]) -> Array:
        """CLIP-Image tokens of 8-bit pictures, ndarray of shape (n, tokens, width), float32."""

        def encode(batch: NDArray[np.uint8]) -> Tensor:
            pixels = clip_part.preprocess(self._processor, batch, self.config.clip.resize)
            return clip_part.image_context(self.clip, pixels.to(self.device))

        return self._batched(encode, check_pictures(pictures))

    def caption_contexts(self, captions: Sequence[str]) -> Array:
        """CLIP-Text tokens of captions, ndarray of shape (n, tokens, width), float32."""
        return self._batched(self._text_context, list(captions))

    def picture_embeddings(self, pictures: NDArray[np.uint8]) -> Array:
        """CLIP embedding of pictures, norm 1, ndarray of shape (n, width), float32."""
        return self.picture_contexts(pictures)[:, 0]

    def caption_embeddings(self, captions: Sequence[str]) -> Array:
        """CLIP embedding of captions, norm 1, ndarray of shape (n, width), float32."""

        def embed(batch: Sequence[str]) -> Tensor:
            ends = (self.clip_tokens(batch) == self.clip_tokens.eos).int().argmax(dim=1)
            return self._text_context(batch)[torch.arange(len(batch)), ends]

        return self._batched(embed, list(captions))

    def unconditional_contexts(self) -> dict[str, Tensor]:
        """Contexts of the unconditional half, ``"image"`` and ``"text"``, each of shape (1, tokens, width)."""
        size = self.config.clip.resize
        level = {"grey": 127, "black": 0, "zeros": 0}[self.config.unconditional_image]
        image = torch.from_numpy(self.picture_contexts(np.full((1, size, size, 3), level, dtype=np.uint8)))
        if self.config.unconditional_image == "zeros":
            image = torch.zeros_like(image)
        text = torch.from_numpy(self.caption_contexts([""]))
        return {"image": image.to(self.device), "text": text.to(self.device)}

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
        if z is not None and z.shape[1:] != shape:
            raise InputError(
                f"latents have shape {z.shape}, expected (n, {', '.join(map(str, shape))}): they are not of backbone "
                f"{self.name}"
            )
        width = self.config.flows.context_width
        if c_image.shape[2:] != (width,) or c_text.shape[2:] != (width,):
            raise InputError(
                f"contexts have shapes {c_image.shape} and {c_text.shape}, expected (n, tokens, {width}): they are not "
                f"of backbone {self.name}"
            )
        counts = {len(rows) for rows in (z, c_image, c_text, seeds) if rows is not None}
        if len(counts) > 1:
            raise InputError(
                f"latents, contexts and seeds are of {sorted(counts)} scans, expected as many of each: give one row "
                "per scan"
            )
        steps = ddim_steps(self.config.schedule, settings.steps, settings.eta)
        empty = self.unconditional_contexts()
        results = []
        for first in range(0, len(seeds), self.batch_size):
            rows = slice(first, first + self.batch_size)
            generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[rows]]

            def draw(_: int = 0, generators: list[torch.Generator] = generators) -> Tensor:
                return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

            contexts = {
                "image": torch.from_numpy(np.array(c_image[rows], dtype=np.float32)).to(self.device),
                "text": torch.from_numpy(np.array(c_text[rows], dtype=np.float32)).to(self.device),
            }
            with torch.inference_mode():
                model = guided_model(self.flows, contexts, empty, settings.image_weight, settings.guidance_scale)
                if z is None:
                    start, count = draw(), len(steps.timesteps)
                else:
                    count = start_index(settings)
                    clean = torch.from_numpy(np.array(z[rows], dtype=np.float32)).to(self.device)
                    start = add_noise(clean, draw(), steps.alphas[count])
                x = sample_ddim(model, start, steps, count, self.config.schedule.prediction, draw)
            results.append(x.float().cpu().numpy())
        return np.concatenate(results) if results else np.zeros((0, *shape), dtype=np.float32)

    def _text_context(self, captions: Sequence[str]) -> Tensor:
        return clip_part.text_context(self.clip, self.clip_tokens(captions).to(self.device), self.clip_tokens.eos)

    def _check_any(self, items: Any) -> None:
        if not len(items):
            raise InputError(
                f"nothing was given to backbone {self.name} to encode or decode, expected one item or more"
            )

    def _batched(self, function: Callable[[Any], Tensor], items: Any) -> Array:
        self._check_any(items)
        with torch.inference_mode():
            parts = [
                function(items[first : first + self.batch_size]).float().cpu().numpy()
                for first in range(0, len(items), self.batch_size)
            ]
        return np.concatenate(parts)
