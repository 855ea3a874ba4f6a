"""Writes one tiny model in every published layout. The names come from the published tables, not from our code."""

import gzip
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibrain.backbone.config import BackboneConfig
from unibrain.weights.manifest import Role

HERE = Path(__file__).parent
TABLES: dict[str, Any] = json.loads(gzip.decompress((HERE / "data" / "published-layouts.json.gz").read_bytes()))

Weights = dict[str, Tensor]


def diffusers_weights(flows: Any, latent: str, context: str) -> Weights:
    file = HERE.parents[1] / "backbone" / "diffusers_names.py"
    spec = importlib.util.spec_from_file_location("names_of_diffusers", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.diffusers_weights(flows, latent, context)  # type: ignore[no-any-return]


def published_autokl(weights: Mapping[str, Tensor], levels: int) -> Weights:
    """Under the names of the latent-diffusion code, with its 1x1 convolutions."""
    published = {}
    for key, value in weights.items():
        new = key.replace("down_blocks", "down").replace("resnets", "block").replace("downsamplers.0", "downsample")
        new = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", new)
        new = new.replace("upsamplers.0", "upsample").replace("mid_block.block.0", "mid.block_1")
        new = new.replace("mid_block.block.1", "mid.block_2").replace("mid_block.attentions.0", "mid.attn_1")
        new = new.replace("group_norm", "norm").replace("to_out.0", "proj_out").replace("conv_norm_out", "norm_out")
        new = re.sub(r"attn_1\.to_([qkv])", r"attn_1.\1", new).replace("conv_shortcut", "nin_shortcut")
        published[new] = value[:, :, None, None] if "attn_1" in new and value.ndim == 2 else value
    return published


def published_optimus(weights: Mapping[str, Tensor], layers: int, positions: int) -> Weights:
    """Under the names of the public code, with the masks and ids that it stores."""
    special = {
        "to_posterior": "encoder.linear",
        "to_memory": "decoder.transformer.linear",
        "to_embedding": "decoder.transformer.linear_emb",
    }
    published = {}
    for key, value in weights.items():
        first, rest = key.split(".", 1)
        name = special.get(first) or {"bert": "encoder", "gpt2": "decoder"}[first]
        published[f"{name}.{rest}"] = value
    for layer in range(layers):
        published[f"decoder.transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, positions, positions).tril()
    return published


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
        return published_autokl(self.weights("autokl"), len(self.config.autokl.widths))

    @property
    def optimus(self) -> Weights:
        gpt2 = self.config.optimus.gpt2
        return published_optimus(self.weights("optimus"), gpt2["n_layer"], gpt2["n_positions"])

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

    def vocabulary_files(self) -> dict[Role, Path]:
        names: dict[Role, str] = {
            "clip-vocab": "clip-vocab.json",
            "clip-merges": "clip-merges.txt",
            "bert-vocab": "bert-vocab.txt",
            "gpt2-vocab": "gpt2-vocab.json",
            "gpt2-merges": "gpt2-merges.txt",
        }
        return {role: self.vocabularies / name for role, name in names.items()}

    def write(self, folder: Path, flows: Weights, **options: Any) -> dict[Role, Path]:
        """The flows and the parts' own files, as `torch.save` writes them, with the vocabularies."""
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[Role, Path] = {
            "flows": folder / "vd-four-flow-v1-0.pth",
            "autokl": folder / "kl-f8.pth",
            "optimus": folder / "optimus-vae.pth",
            "clip": folder / "pytorch_model.bin",
        }
        for path, content in zip(files.values(), (flows, self.autokl, self.optimus, self.clip), strict=True):
            torch.save(content, path, **options)
        return {**files, **self.vocabulary_files()}

    def write_diffusers(self, folder: Path, safe: bool = True, shard: str = "10GB") -> Path:
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
        halves = (
            CLIPTextModelWithProjection(clip.config.text_config),
            CLIPVisionModelWithProjection(clip.config.vision_config),
        )
        for half in halves:
            half.load_state_dict(clip.state_dict(), strict=False)
        image.save_pretrained(folder / "image_unet", safe_serialization=safe, max_shard_size=shard)
        text.save_pretrained(folder / "text_unet", safe_serialization=safe, max_shard_size=shard)
        self.modules["autokl"].save_pretrained(folder / "vae", safe_serialization=safe)
        halves[0].save_pretrained(folder / "text_encoder")
        halves[1].save_pretrained(folder / "image_encoder")
        (folder / "tokenizer").mkdir()
        for ours, theirs in (("clip-vocab.json", "vocab.json"), ("clip-merges.txt", "merges.txt")):
            (folder / "tokenizer" / theirs).write_bytes((self.vocabularies / ours).read_bytes())
        (folder / "model_index.json").write_text('{"_class_name": "VersatileDiffusionPipeline"}')
        return folder
