"""The frozen Versatile Diffusion as one object: pictures and captions in, latents and contexts out, and back."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone import coders
from unibrain.backbone.coders import Optimus
from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.devices import Batches, Parts, Precision, Task, precision_of
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.products import state_dtype
from unibrain.backbone.protocol import Array, Callback, Items, Pictures, SamplingError, require_finite
from unibrain.backbone.sampling import CONTEXTS, context_shares, denoise, guided_model
from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens, remove_repeated_phrases
from unibrain.errors import InputError

_KINDS: dict[str, tuple[str, Task]] = {"picture": ("autokl", "image flow"), "caption": ("optimus", "text flow")}
"""Kind to the autoencoder and the flow that decode it."""

_LATENTS = {"z_image": "picture", "z_text": "caption", "c_image": "picture", "c_text": "caption"}
"""Latent to the kind of item that it is encoded from."""


def resize_pictures(pictures: Pictures, size: int) -> Pictures:
    """Resize 8-bit pictures to a square (bicubic, Pillow's way); those of that size are copied."""
    if pictures.shape[1:3] == (size, size):
        return np.array(pictures)
    from PIL import Image

    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(picture).resize((size, size), bicubic)) for picture in pictures])


class VersatileDiffusion:
    """Versatile Diffusion, frozen, at any size: the `unibrain.backbone.Backbone` that UniBrain decodes with.

    Items are worked through in batches. Noise is drawn per scan, from its own seed, so scans do not depend on each
    other; but rounding does depend on how many rows are computed together and on the number of threads, which can
    change a picture by a grey level and, rarely, a caption by a word.

    Parameters
    ----------
    config : BackboneConfig
    parts : Parts
        The networks, loaded when they are first used.
    folder : Path
        Where the vocabularies are.
    fingerprint : str
        Identifies weights and configuration.
    dtype : torch.dtype
        What the networks compute in.
    batch_size : int, optional
        Most pictures, captions or scans in one call of a network; found by itself if left out.
    weights : int
        Bytes of all networks: what they leave of the memory is for batches.
    """

    def __init__(
        self,
        config: BackboneConfig,
        parts: Parts,
        folder: Path,
        fingerprint: str,
        dtype: torch.dtype,
        batch_size: int | None = None,
        weights: int = 0,
    ) -> None:
        self.config, self.parts, self.folder = config, parts, folder
        self.fingerprint, self.device, self.dtype = fingerprint, parts.device, dtype
        self._batches = Batches(config, parts.device, dtype.itemsize, weights, batch_size)
        self._empty: dict[str, Tensor] = {}
        self._prepared: dict[str, PreparedContext] = {}

    def __repr__(self) -> str:
        return f"VersatileDiffusion({self.name!r}, {self.precision} on {self.device})"

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
        """``"picture"`` and, if the folder has Optimus, ``"caption"``."""
        return tuple(kind for kind, (autoencoder, _) in _KINDS.items() if autoencoder in self.parts)

    @property
    def flows(self) -> FourFlows:
        """The four flows, whole."""
        for flow in ("image flow", "text flow"):
            self.parts.get(flow)
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

    @cached_property
    def bert_pieces(self) -> BertPieces:
        """Tokenizer of Optimus' encoder."""
        pieces = BertPieces(self.folder / "bert-vocab.txt", self.config.optimus.max_pieces)
        pieces.require_size(self.optimus.bert.config.vocab_size)
        return pieces

    @cached_property
    def gpt2_tokens(self) -> Gpt2Tokens:
        """Tokenizer of Optimus' decoder."""
        tokens = Gpt2Tokens(self.folder / "gpt2-vocab.json", self.folder / "gpt2-merges.txt")
        tokens.require_size(self.optimus.gpt2.config.vocab_size)
        return tokens

    @cached_property
    def clip_tokens(self) -> ClipTokens:
        """Tokenizer of CLIP."""
        text = self.clip.config.text_config
        vocabulary, merges = self.folder / "clip-vocab.json", self.folder / "clip-merges.txt"
        tokens = ClipTokens(vocabulary, merges, text.max_position_embeddings)
        tokens.require_size(text.vocab_size)
        tokens.require_end(self.config.clip.eos_token_id)
        return tokens

    @cached_property
    def _processor(self) -> Any:
        return coders.make_image_processor(self.config.clip)

    def sampling(self, kind: str) -> SamplingSettings:
        """Return the recommended settings for pictures or captions."""
        return {"picture": self.config.image, "caption": self.config.text}[self._kind(kind)]

    def scans_at_once(self, kind: str) -> int:
        """Return how many scans are sampled in one batch: `batch_size`, or what the machine's memory holds."""
        return self._batches.size(_KINDS[self._kind(kind)][1])

    def encode(self, latent: str, items: Items) -> Array:
        """Encode pictures to ``z_image`` or ``c_image``, or captions to ``z_text`` or ``c_text``, float32.

        ``z_image`` (n, channels, h, w) and ``z_text`` (n, width) are the mean of an autoencoder's posterior,
        ``c_image`` and ``c_text`` (n, tokens, width) CLIP's tokens. Pictures of another size than the backbone's are
        resized.
        """
        if latent not in _LATENTS:
            raise InputError(f"backbone {self.name} has no latent {latent!r}. Take one of {', '.join(_LATENTS)}.")
        encoders: dict[str, tuple[Literal["autokl", "optimus", "clip"], Callable[..., Tensor]]] = {
            "z_image": ("autokl", self._image_latent),
            "z_text": ("optimus", self._text_latent),
            "c_image": ("clip", self._image_context),
            "c_text": ("clip", lambda captions, clip: self._text_context(captions, clip)[0]),
        }
        return self._batched(*encoders[latent], self._items(_LATENTS[latent], items))

    def embed(self, kind: str, items: Items) -> Array:
        """Embed pictures or captions with CLIP: rows (n, width) of norm 1, float32."""
        if self._kind(kind) == "picture":
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
    ) -> Pictures | list[str]:
        """Denoise latents under contexts, and decode them, as `unibrain.backbone.Backbone.sample` describes.

        The contexts are some of ``"c_image"`` and ``"c_text"``, (n, tokens, width), or none. The start of a picture has
        shape (n, channels, h, w), that of a caption (n, width). A latent that leaves the range of numbers at some step
        raises `SamplingError`.
        """
        autoencoder, flow = _KINDS[self._kind(kind)]
        self.parts.get(autoencoder)
        seeds = np.asarray(seeds, dtype=np.int64)
        self._check_latents(kind, start, contexts, seeds)
        shares = context_shares(settings.image_weight, contexts)
        empty = {} if contexts and settings.guidance_scale == 1 else self._prepared_empty(flow, shares)
        states = state_dtype(self.dtype, self.device)
        remedy = f"Choose a lower guidance_scale than {settings.guidance_scale:g}"

        def work(rows: slice) -> Array:
            given = {
                name: torch.from_numpy(np.array(contexts[name][rows], dtype=np.float32)).to(self.device, states)
                for name in shares
                if name in contexts
            }
            begin = None if start is None else start[rows]
            with torch.inference_mode(), self._naming_rows(kind, rows, remedy):
                make = partial(
                    guided_model,
                    flows,
                    given,
                    empty,
                    settings.image_weight,
                    settings.guidance_scale,
                    guided_from=settings.guidance_end * self.config.schedule.timesteps,
                )
                return denoise(
                    make, self.config.schedule, settings, begin, self._shape(kind), seeds[rows], self.device, callback
                )

        with self.parts.use(flow) as flows:
            latents = np.concatenate(self._batches.run(flow, len(seeds), work))
        return self.decode(kind, latents)

    def decode(self, kind: str, start: Array) -> Pictures | list[str]:
        """Decode latents without diffusion, as `unibrain.backbone.Backbone.decode` describes.

        Captions are the most probable ones, with repeats taken out.
        """
        latents = np.asarray(start, dtype=np.float32)
        self._check_latents(kind, latents, {}, latents)
        return self._decode_pictures(latents) if kind == "picture" else self._decode_captions(latents)

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

    def _prepared_empty(self, flow: Task, names: Collection[str]) -> Mapping[str, PreparedContext]:
        """Keys and values of some unconditional contexts, one row each, computed once."""
        contexts = self.unconditional_contexts()
        with self.parts.use(flow) as flows, torch.inference_mode():
            for name in names:
                if name not in self._prepared:
                    self._prepared[name] = flows.prepare(name, contexts[name])
        return self._prepared

    def _image_latent(self, pictures: Pictures, autokl: Any) -> Tensor:
        pixels = torch.from_numpy(resize_pictures(pictures, self.config.autokl.image_size)).permute(0, 3, 1, 2) / 255
        return coders.encode_pictures(autokl, self._there(pixels), self.config.autokl.scale_factor)

    def _text_latent(self, captions: Sequence[str], optimus: Optimus) -> Tensor:
        ids, mask = self.bert_pieces(captions)
        return optimus.encode(ids.to(self.device), mask.to(self.device))[0]

    def _image_context(self, pictures: Pictures, clip: Any) -> Tensor:
        pixels = coders.preprocess(self._processor, pictures, self.config.clip.resize)
        return coders.image_context(clip, self._there(pixels))

    def _text_context(self, captions: Sequence[str], clip: Any) -> tuple[Tensor, Tensor]:
        """Contexts of captions, and the position of the first end token of each."""
        ids, end = self.clip_tokens(captions), self.clip_tokens.eos
        return coders.text_context(clip, ids.to(self.device), end), (ids == end).int().argmax(dim=1)

    def _decode_pictures(self, z_image: Array) -> Pictures:
        def decode(batch: Array, autokl: Any) -> Tensor:
            latents = self._there(torch.from_numpy(batch))
            return coders.decode_latents(autokl, latents, self.config.autokl.scale_factor)

        pixels = self._batched("autokl", decode, z_image)
        with self._naming_rows("picture", slice(0, len(pixels))):
            require_finite(pixels)
        return np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def _decode_captions(self, z_text: Array) -> list[str]:
        tokens = self.gpt2_tokens

        def write(rows: slice) -> list[list[int]]:
            with torch.inference_mode(), self._naming_rows("caption", rows):
                return optimus.write(self._there(torch.from_numpy(z_text[rows])))  # type: ignore[no-any-return]

        with self.parts.use("optimus") as optimus:
            written = [ids for batch in self._batches.run("optimus", len(z_text), write) for ids in batch]
        return [remove_repeated_phrases(tokens.caption(ids)) for ids in written]

    @contextmanager
    def _naming_rows(self, kind: str, rows: slice, remedy: str = "Check the latent") -> Iterator[None]:
        """Make the row of a batch that left the range of numbers one of the call, and say what to do."""
        try:
            yield
        except SamplingError as error:
            row = rows.start + error.row
            wider = "" if self.precision == "fp32" else f", or a wider precision than {self.precision}"
            raise SamplingError(f"the {kind} of row {row} left the range of numbers. {remedy}{wider}.", row) from None

    def _kind(self, kind: str) -> str:
        if kind not in _KINDS:
            raise InputError(f"backbone {self.name} decodes no {kind!r}. Take one of {', '.join(_KINDS)}.")
        return kind

    def _shape(self, kind: str) -> tuple[int, ...]:
        """Shape of the latent that a kind is decoded from."""
        autokl = self.config.autokl
        if self._kind(kind) == "caption":
            return (self.config.optimus.latent_width,)
        return (autokl.latent_channels, autokl.latent_size, autokl.latent_size)

    def _check_latents(self, kind: str, start: Array | None, contexts: Mapping[str, Array], rows: NDArray[Any]) -> None:
        """Refuse latents and contexts of another shape than the backbone's, or not as many of each."""
        shape, width = self._shape(kind), self.config.flows.context_width
        if start is not None and start.shape[1:] != shape:
            raise InputError(
                f"latents have shape {start.shape}, and backbone {self.name} decodes a {kind} from (n, "
                f"{', '.join(map(str, shape))}). Extract them with this backbone."
            )
        for name, context in contexts.items():
            if name not in CONTEXTS:
                raise InputError(f"backbone {self.name} has no context {name!r}. Give some of {', '.join(CONTEXTS)}.")
            if context.ndim != 3 or context.shape[2] != width:
                raise InputError(
                    f"{name} has shape {context.shape}, and backbone {self.name} reads (n, tokens, {width}). Extract "
                    "it with this backbone."
                )
        counts = {len(array) for array in (start, rows, *contexts.values()) if array is not None}
        if len(counts) > 1 or not all(counts):
            raise InputError(
                f"latents, contexts and seeds are of {sorted(counts)} scans. Give one row per scan, and at least one."
            )

    def _items(self, kind: str, items: Items) -> Any:
        if not len(items):
            raise InputError(f"backbone {self.name} was given nothing to encode. Give at least one {kind}.")
        if kind == "caption":
            if isinstance(items, str) or not all(isinstance(item, str) for item in items):
                raise InputError("captions are no list of strings. Give one string per caption.")
            return list(items)
        pictures = np.asarray(items)
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise InputError(
                f"pictures are {pictures.dtype} of shape {pictures.shape}, not uint8 of shape (n, height, width, 3). "
                "Convert them: floats mean different things to different libraries."
            )
        return pictures

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
