"""The frozen Versatile Diffusion as one object: pictures and captions in, latents and contexts out, and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone import autokl as autokl_part
from unibrain.backbone import clip as clip_part
from unibrain.backbone.batches import Batches, Task
from unibrain.backbone.caption_cleanup import remove_repeated_phrases
from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.devices import Precision, precision_of
from unibrain.backbone.flow_sampling import check_rows, denoise
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.guidance import CONTEXT_KINDS, context_shares
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.parts import Parts
from unibrain.backbone.pictures import check_pictures, resize_pictures
from unibrain.backbone.products import state_dtype
from unibrain.backbone.protocol import Array, Callback, Items, Pictures, SamplingError
from unibrain.backbone.tokenization import Gpt2Tokens
from unibrain.backbone.vocabularies import Tokenizers
from unibrain.errors import InputError


class _Kind(NamedTuple):
    autoencoder: str
    flow: Task
    item: str


_KINDS = {"picture": _Kind("autokl", "image flow", "picture"), "caption": _Kind("optimus", "text flow", "caption")}
_LATENTS = {"z_image": "picture", "z_text": "caption", "c_image": "picture", "c_text": "caption"}


class VersatileDiffusion:
    """Versatile Diffusion, frozen, at any size: the `unibrain.backbone.Backbone` that UniBrain decodes with.

    Items are worked through in batches. Noise is drawn per scan, from its own seed, so scans do not depend on each
    other; but rounding does depend on how many rows are computed together and on the number of threads, which can
    change a picture by a grey level and, rarely, a word.

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
        self._empty: dict[str, Tensor] = {}
        self._prepared: dict[str, PreparedContext] = {}

    def __repr__(self) -> str:
        return (
            f"VersatileDiffusion({self.name!r}, {self.precision} on {self.device}, parts {', '.join(self.parts.names)})"
        )

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.config.name

    @property
    def precision(self) -> Precision:
        """What the networks compute in: it changes results beyond rounding."""
        return precision_of(self.dtype)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds whose autoencoder was loaded."""
        return tuple(name for name, kind in _KINDS.items() if kind.autoencoder in self.parts)

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
    def gpt2_tokens(self) -> Gpt2Tokens:
        """Tokenizer of Optimus' decoder."""
        self.parts.get("optimus")
        assert self.tokenizers.gpt2 is not None
        return self.tokenizers.gpt2

    def sampling(self, kind: str) -> SamplingSettings:
        """Return the recommended settings for pictures or captions."""
        return self.config.image if self._kind(kind).item == "picture" else self.config.text

    def scans_at_once(self, kind: str) -> int:
        """Return how many scans are sampled in one batch."""
        return self._batches.size(self._kind(kind).flow)

    def extend(self, other: "VersatileDiffusion") -> None:
        """Take over the parts of another loading of the same backbone on the same device."""
        self.parts.add({name: other.parts.get(name) for name in other.parts.names})
        self.tokenizers = self.tokenizers.joined(other.tokenizers)
        self._processor = self._processor or other._processor

    def encode(self, latent: str, items: Items) -> Array:
        """Encode pictures to ``z_image`` or ``c_image``, or captions to ``z_text`` or ``c_text``.

        ``z_image`` and ``z_text`` are the mean of the autoencoder's posterior, ``c_image`` and ``c_text`` CLIP's tokens.

        Parameters
        ----------
        latent : {"z_image", "z_text", "c_image", "c_text"}
        items : ndarray of shape (n, height, width, 3), uint8, or sequence of n str
            Pictures of another size than the backbone's are resized.

        Returns
        -------
        ndarray, float32
            Of shape (n, channels, h, w), (n, width) or (n, tokens, width).

        Raises
        ------
        InputError
            If the latent is not known, items are not of its type, or its network was not loaded.
        """
        if latent not in _LATENTS:
            raise InputError(f"backbone {self.name} has no latent {latent!r}. Take one of {', '.join(_LATENTS)}.")
        given = self._items(_LATENTS[latent], items)
        encoders: dict[str, tuple[Literal["autokl", "optimus", "clip"], Callable[..., Tensor]]] = {
            "z_image": ("autokl", self._image_latent),
            "z_text": ("optimus", self._text_latent),
            "c_image": ("clip", self._image_context),
            "c_text": ("clip", lambda captions, clip: self._text_context(captions, clip)[0]),
        }
        return self._batched(*encoders[latent], given)

    def embed(self, kind: str, items: Items) -> Array:
        """Embed pictures or captions with CLIP.

        Parameters
        ----------
        kind : {"picture", "caption"}
        items : ndarray of shape (n, height, width, 3), uint8, or sequence of n str

        Returns
        -------
        ndarray of shape (n, width), float32
            Rows of norm 1.
        """
        if self._kind(kind).item == "picture":
            return self.encode("c_image", items)[:, 0]

        def embed(captions: Sequence[str], clip: Any) -> Tensor:
            contexts, ends = self._text_context(captions, clip)
            return contexts[torch.arange(len(captions)), ends]

        return self._batched("clip", embed, self._items("caption", items))

    def sample(
        self,
        kind: str,
        start: Array | None,
        contexts: Mapping[str, Array],
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
        callback: Callback | None = None,
    ) -> Any:
        """Denoise latents under contexts, and decode them, as `unibrain.backbone.Backbone.sample` describes.

        Parameters
        ----------
        kind : {"picture", "caption"}
        start : ndarray of shape (n, channels, h, w) or (n, width), float32, or None
        contexts : mapping of str to ndarray of shape (n, tokens, width), float32
            Some of ``"c_image"`` and ``"c_text"``, or none.
        settings : SamplingSettings
        seeds : ndarray of shape (n,), int64
        callback : callable, optional

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8, or list of n str

        Raises
        ------
        InputError
            If arrays have another shape than the backbone's, or as many rows are not given of each.
        SamplingError
            If a latent is not finite at some step.
        """
        chosen = self._kind(kind)
        self.parts.get(chosen.autoencoder)
        side = self.config.autokl.latent_size
        shape: tuple[int, ...] = (self.config.optimus.latent_width,)
        if kind == "picture":
            shape = (self.config.autokl.latent_channels, side, side)
        seeds = np.asarray(seeds, dtype=np.int64)
        check_rows(self.config, start, shape, contexts, seeds)
        self._check_any(seeds)
        shares = context_shares(settings.image_weight, contexts)
        empty = self._prepared_empty(shares) if settings.guidance_scale != 1 or not contexts else {}
        states = state_dtype(self.dtype, self.device)

        def work(rows: slice) -> Array:
            given = {name: contexts[name][rows] for name in shares if name in contexts}
            begin = None if start is None else start[rows]
            with torch.inference_mode():
                try:
                    return denoise(
                        flows,
                        self.config,
                        begin,
                        shape,
                        given,
                        empty,
                        settings,
                        seeds[rows],
                        self.device,
                        states,
                        callback,
                    )
                except SamplingError as error:
                    row = (rows.start or 0) + error.row
                    remedy = "" if self.precision == "fp32" else f", or a wider precision than {self.precision}"
                    raise SamplingError(
                        f"backbone {self.name}: sampling the {kind} of row {row} left the range of numbers. Choose a "
                        f"lower guidance_scale than {settings.guidance_scale:g}{remedy}.",
                        row,
                    ) from None

        with self.parts.use("flows") as flows:
            latents = np.concatenate(self._batches.run(chosen.flow, len(seeds), work))
        return self.decode(kind, latents)

    def decode(self, kind: str, start: Array) -> Any:
        """Decode latents without diffusion.

        Parameters
        ----------
        kind : {"picture", "caption"}
        start : ndarray of shape (n, channels, h, w) or (n, width), float32

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8, or list of n str
            Captions are the most probable ones, with repeats taken out.
        """
        latents = np.asarray(start, dtype=np.float32)
        self._check_any(latents)
        return self._decode_pictures(latents) if self._kind(kind).item == "picture" else self._decode_captions(latents)

    def unconditional_contexts(self) -> dict[str, Tensor]:
        """Contexts of the unconditional half, ``c_image`` and ``c_text``, each (1, tokens, width); computed once."""
        if not self._empty:
            size = self.config.clip.resize
            level = {"grey": 127, "black": 0, "zeros": 0}[self.config.unconditional_image]
            image = torch.from_numpy(self.encode("c_image", np.full((1, size, size, 3), level, dtype=np.uint8)))
            if self.config.unconditional_image == "zeros":
                image = torch.zeros_like(image)
            text = torch.from_numpy(self.encode("c_text", [""]))
            states = state_dtype(self.dtype, self.device)
            self._empty = {"c_image": image.to(self.device, states), "c_text": text.to(self.device, states)}
        return dict(self._empty)

    def _prepared_empty(self, names: Mapping[str, float]) -> Mapping[str, PreparedContext]:
        """Keys and values of some unconditional contexts, one row each, computed once."""
        contexts = self.unconditional_contexts()
        with self.parts.use("flows") as flows, torch.inference_mode():
            for name in names:
                if name not in self._prepared:
                    self._prepared[name] = flows.prepare(CONTEXT_KINDS[name], contexts[name])
        return self._prepared

    def _image_latent(self, pictures: Pictures, autokl: Any) -> Tensor:
        pixels = torch.from_numpy(resize_pictures(pictures, self.config.autokl.image_size)).permute(0, 3, 1, 2) / 255
        return autokl_part.encode_pictures(autokl, self._there(pixels), self.config.autokl.scale_factor)

    def _text_latent(self, captions: Sequence[str], optimus: Optimus) -> Tensor:
        assert self.tokenizers.bert is not None
        ids, mask = self.tokenizers.bert(captions)
        return optimus.encode(ids.to(self.device), mask.to(self.device))[0]

    def _image_context(self, pictures: Pictures, clip: Any) -> Tensor:
        pixels = clip_part.preprocess(self._processor, pictures, self.config.clip.resize)
        return clip_part.image_context(clip, self._there(pixels))

    def _text_context(self, captions: Sequence[str], clip: Any) -> tuple[Tensor, Tensor]:
        """Contexts of captions, and the position of the first end token of each."""
        assert self.tokenizers.clip is not None
        ids, end = self.tokenizers.clip(captions), self.tokenizers.clip.eos
        return clip_part.text_context(clip, ids.to(self.device), end), (ids == end).int().argmax(dim=1)

    def _decode_pictures(self, z_image: Array) -> Pictures:
        def decode(batch: Array, autokl: Any) -> Tensor:
            latents = self._there(torch.from_numpy(batch))
            return autokl_part.decode_latents(autokl, latents, self.config.autokl.scale_factor)

        pixels = self._batched("autokl", decode, z_image)
        return np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def _decode_captions(self, z_text: Array) -> list[str]:
        def write(rows: slice) -> list[list[int]]:
            with torch.inference_mode():
                return optimus.write(self._there(torch.from_numpy(z_text[rows])))  # type: ignore[no-any-return]

        with self.parts.use("optimus") as optimus:
            written = [ids for batch in self._batches.run("optimus", len(z_text), write) for ids in batch]
        return [remove_repeated_phrases(self.gpt2_tokens.caption(ids)) for ids in written]

    def _kind(self, kind: str) -> _Kind:
        if kind not in _KINDS:
            raise InputError(f"backbone {self.name} decodes no {kind!r}. Take {' or '.join(_KINDS)}.")
        return _KINDS[kind]

    def _items(self, kind: str, items: Items) -> Any:
        self._check_any(items)
        if kind == "picture":
            return check_pictures(np.asarray(items))
        if isinstance(items, str) or not all(isinstance(item, str) for item in items):
            raise InputError("captions are no list of strings. Give one string per caption.")
        return list(items)

    def _check_any(self, items: Any) -> None:
        if not len(items):
            raise InputError(f"backbone {self.name} was given nothing to encode or decode. Give at least one item.")

    def _there(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype)

    def _batched(
        self, part: Literal["autokl", "optimus", "clip"], function: Callable[..., Tensor], items: Any
    ) -> Array:
        def work(rows: slice) -> Array:
            with torch.inference_mode():
                return function(items[rows], module).float().cpu().numpy()

        with self.parts.use(part) as module:
            return np.concatenate(self._batches.run(part, len(items), work))
