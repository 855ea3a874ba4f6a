"""A backbone folder of any size with random weights, written without holding them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.folder import PARTS
from unibrain.backbone.loading import build_empty

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def _write_part(path: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """Write a safetensors file: length of the header, header, numbers."""
    header: dict[str, Any] = {}
    end = 0
    for key, value in module.named_parameters():  # tied weights once
        size = value.numel() * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            numbers = torch.empty(entry["shape"], dtype=dtype).uniform_(-0.02, 0.02)
            file.write(numbers.reshape(-1).view(torch.uint8).numpy().tobytes())


def _words(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def write_random_folder(folder: Path, config: BackboneConfig, dtype: torch.dtype) -> None:
    """Write configuration, random weights, and vocabularies of the right sizes with made-up words; `folder` is new."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    sizes = {}
    for part in PARTS:
        module = build_empty(config, part)
        if part == "optimus":
            sizes["bert"], sizes["gpt2"] = module.bert.config.vocab_size, module.gpt2.config.vocab_size
        elif part == "clip":
            sizes["clip"] = module.config.text_config.vocab_size
        _write_part(folder / f"{part}.safetensors", module, dtype)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    (folder / "bert-vocab.txt").write_text("\n".join([*marks, *_words(sizes["bert"] - 4)]) + "\n", encoding="utf-8")
    clip = [*_words(sizes["clip"] - 2), "<|startoftext|>", "<|endoftext|>"]
    for name, words in (("gpt2", _words(sizes["gpt2"] - 3)), ("clip", clip)):
        vocabulary = {word: number for number, word in enumerate(words)}
        (folder / f"{name}-vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / f"{name}-merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
