"""Writes one tiny model in every published layout; the names come from the published tables, or from diffusers."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers_names import diffusers_weights
from torch import Tensor

from unibrain.backbone.config import BackboneConfig
from unibrain.weights.layouts import autokl_name, optimus_name
from unibrain.weights.published import VOCABULARY_FILES, Role

HERE = Path(__file__).parent
TABLES: dict[str, Any] = json.loads(gzip.decompress((HERE / "data" / "published-layouts.json.gz").read_bytes()))

Weights = dict[str, Tensor]
Files = dict[Role, Path]


def write_vocabularies(folder: Path) -> tuple[int, int, int]:
    """Vocabularies of single characters and bytes; returns their sizes with marks: BERT's, GPT-2's, CLIP's."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    gpt2 = [*letters, "Ġ", "<|endoftext|>"]
    clip = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "bert-vocab.txt").write_text("\n".join(bert) + "\n")
    (folder / "gpt2-vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(gpt2)}))
    (folder / "clip-vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(clip)}))
    (folder / "gpt2-merges.txt").write_text("#version: 0.2\n")
    (folder / "clip-merges.txt").write_text('#version: 0.2 "</w>"\n')
    return len(bert), len(gpt2) + 3, len(clip)


def deprecated_flows(weights: Mapping[str, Tensor]) -> Weights:
    """Under the names of the deprecated layout, by the published table of prefixes."""
    old = {new: old for old, new in TABLES["prefixes"].items()}
    renamed = {}
    for key, value in weights.items():
        prefix = max((new for new in old if f"diffuser.{key}".startswith(f"{new}.")), key=len)
        renamed[old[prefix] + f"diffuser.{key}".removeprefix(prefix)] = value
    return renamed


def prefixed(prefix: str, weights: Mapping[str, Tensor]) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


@dataclass(frozen=True)
class Tiny:
    """A tiny model in our names, and how to publish it."""

    config: BackboneConfig
    modules: dict[str, Any]
    vocabularies: Path

    def weights(self, part: str) -> Weights:
        return {key: value.detach().clone() for key, value in self.modules[part].state_dict().items()}

    @property
    def autokl(self) -> Weights:
        """In the latent-diffusion code's names, with its 1 x 1 convolutions."""
        levels = len(self.config.autokl.widths)
        return {
            autokl_name(key, levels): value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value
            for key, value in self.weights("autokl").items()
        }

    @property
    def optimus(self) -> Weights:
        gpt2 = self.config.optimus.gpt2
        masks = {
            f"decoder.transformer.h.{layer}.attn.bias": torch.ones(1, 1, gpt2["n_positions"], gpt2["n_positions"])
            for layer in range(gpt2["n_layer"])
        }
        return {**{optimus_name(key): value for key, value in self.weights("optimus").items()}, **masks}

    @property
    def clip(self) -> Weights:
        ids = {
            "text_model.embeddings.position_ids": torch.arange(self.config.clip.text["max_position_embeddings"])[None],
            "vision_model.embeddings.position_ids": torch.arange(5)[None],
        }
        return {**self.weights("clip"), **ids}

    @property
    def schedule(self) -> Weights:
        return {key: torch.rand(1000) for key in TABLES["schedule"]}

    def current(self, repeat: bool = False) -> Weights:
        weights = {**self.schedule, **prefixed("diffuser.", self.weights("flows"))}
        if repeat:
            weights |= prefixed("vae.image.", self.autokl) | prefixed("vae.text.", self.optimus)
            weights |= prefixed("ctx.image.model.", self.clip) | prefixed("ctx.text.model.", self.clip)
        return weights

    def deprecated(self, repeat: bool = False) -> Weights:
        weights = {**self.schedule, **deprecated_flows(self.weights("flows"))}
        if repeat:
            weights |= prefixed("autokl.", self.autokl) | prefixed("optimus.", self.optimus)
            weights |= prefixed("clip.model.", self.clip)
        return weights

    def vocabulary_files(self) -> Files:
        return {role: self.vocabularies / name for role, name in VOCABULARY_FILES.items()}

    def write(self, folder: Path, flows: Weights | None = None, **options: Any) -> Files:
        """The flows and the parts' own files, as `torch.save` writes them, with the vocabularies."""
        folder.mkdir(parents=True, exist_ok=True)
        files: Files = {
            "flows": folder / "vd-four-flow-v1-0.pth",
            "autokl": folder / "kl-f8.pth",
            "optimus": folder / "optimus-vae.pth",
            "clip": folder / "pytorch_model.bin",
        }
        contents = (flows or self.current(), self.autokl, self.optimus, self.clip)
        for path, content in zip(files.values(), contents, strict=True):
            torch.save(content, path, **options)
        return {**files, **self.vocabulary_files()}

    def write_diffusers(self, folder: Path) -> Path:
        """The pipeline's folder, written by the libraries' own classes."""
        from diffusers import UNet2DConditionModel
        from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel
        from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

        sizes, flows, clip = self.config.flows, self.modules["flows"], self.modules["clip"]
        options = {
            "block_out_channels": tuple(sizes.model_channels * multiple for multiple in sizes.channel_mult),
            "layers_per_block": sizes.res_blocks,
            "cross_attention_dim": sizes.context_width,
            "attention_head_dim": sizes.heads,
        }
        down = [("CrossAttnDownBlock" if a else "DownBlock") for a in sizes.attention]
        up = [("CrossAttnUpBlock" if a else "UpBlock") for a in reversed(sizes.attention)]
        image = UNet2DConditionModel(
            in_channels=sizes.image_channels,
            out_channels=sizes.image_channels,
            down_block_types=tuple(f"{name}2D" for name in down),
            up_block_types=tuple(f"{name}2D" for name in up),
            **options,
        )
        image.load_state_dict(diffusers_weights(flows, "image", "image"), strict=True)
        text = UNetFlatConditionModel(
            in_channels=(sizes.text_width, 1, 1),
            out_channels=(sizes.text_width, 1, 1),
            down_block_types=tuple(f"{name}Flat" for name in down),
            up_block_types=tuple(f"{name}Flat" for name in up),
            **options,
        )
        text.load_state_dict(diffusers_weights(flows, "text", "text"), strict=True)
        halves = {
            "text_encoder": CLIPTextModelWithProjection(clip.config.text_config),
            "image_encoder": CLIPVisionModelWithProjection(clip.config.vision_config),
        }
        for component, half in halves.items():
            half.load_state_dict(clip.state_dict(), strict=False)
            half.save_pretrained(folder / component)
        image.save_pretrained(folder / "image_unet")
        text.save_pretrained(folder / "text_unet")
        self.modules["autokl"].save_pretrained(folder / "vae")
        (folder / "tokenizer").mkdir()
        for ours, theirs in (("clip-vocab.json", "vocab.json"), ("clip-merges.txt", "merges.txt")):
            (folder / "tokenizer" / theirs).write_bytes((self.vocabularies / ours).read_bytes())
        return folder
