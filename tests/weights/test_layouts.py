"""One model in every published layout becomes one and the same backbone, also by its keys at full size."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_disk import TABLES, Files, Tiny, Weights, deprecated_flows
from safetensors.torch import load_file, save_file

from unibrain.backbone import load_backbone
from unibrain.backbone.config import OFFICIAL
from unibrain.weights import conversion
from unibrain.weights.conversion import TIED, Shapes, convert, expected_shapes, verify
from unibrain.weights.layouts import blocks, places
from unibrain.weights.manifest import Manifest

PARTS = ("flows", "autokl", "optimus", "clip")
PUBLISHED = Path(__file__).parents[1] / "backbone" / "data" / "published-keys.json.gz"


def without(files: Files, *roles: str) -> Files:
    return {role: path for role, path in files.items() if role not in roles}


def wrapped(model: Tiny, folder: Path) -> Files:
    files = model.write(folder)
    torch.save({"state_dict": model.current(), "step": 7}, files["flows"])
    parameters = {key: torch.nn.Parameter(value) for key, value in model.autokl.items()}
    torch.save({"epoch": 3, "state_dict": {"global_step": 9, **parameters}}, files["autokl"])
    return files


def as_safetensors(model: Tiny, folder: Path) -> Files:
    files = model.write(folder)
    parts: dict[Any, Weights] = {"flows": model.current(), "autokl": model.weights("autokl"), "clip": model.clip}
    for role, weights in parts.items():
        files[role] = folder / f"{role}.safetensors"
        save_file({key: value.contiguous() for key, value in weights.items()}, files[role])
    return files


def diffusers(model: Tiny, folder: Path) -> Files:
    files = without(model.write(folder), "flows", "autokl", "clip")
    return {**files, "diffusers": model.write_diffusers(folder / "versatile-diffusion")}


def diffusers_pickled(model: Tiny, folder: Path) -> Files:
    """As published in 2022: pickles, and the attention of the autoencoder under its old names."""
    files = diffusers(model, folder)
    for component in ("image_unet", "text_unet", "vae", "text_encoder", "image_encoder"):
        (safe,) = (files["diffusers"] / component).glob("*.safetensors")
        weights = load_file(safe)
        if component == "vae":
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
            assert any("proj_attn" in key for key in weights)
        if component.endswith("encoder"):
            weights[f"{component}.embeddings.position_ids"] = torch.arange(5)[None]
        name = "pytorch_model.bin" if component.endswith("encoder") else "diffusion_pytorch_model.bin"
        torch.save(weights, safe.with_name(name))
        safe.unlink()
    return files


LAYOUTS: dict[str, Callable[[Tiny, Path], Files]] = {
    "repeating, alone": lambda model, folder: without(
        model.write(folder, model.current(repeat=True)), "autokl", "optimus", "clip"
    ),
    "wrapped": wrapped,
    "older torch.save": lambda model, folder: model.write(folder, _use_new_zipfile_serialization=False),
    "deprecated, alone": lambda model, folder: without(
        model.write(folder, model.deprecated(repeat=True)), "autokl", "optimus", "clip"
    ),
    "safetensors": as_safetensors,
    "diffusers": diffusers,
    "diffusers, pickled": diffusers_pickled,
}


@pytest.fixture(scope="module")
def reference(model: Tiny, published: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("reference") / "backbone"
    return folder, convert(published, folder, config=model.config)


def test_the_reference_is_the_model(model: Tiny, reference: tuple[Path, Manifest]) -> None:
    for part in PARTS:
        weights, expected = load_file(reference[0] / f"{part}.safetensors"), model.weights(part)
        # GPT-2's output layer is its embedding, and is written once.
        assert expected.keys() - weights.keys() == ({TIED} if part == "optimus" else set())
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())
        assert reference[1].parts[part].parameters == sum(value.numel() for value in weights.values())
    assert (reference[0] / "flows.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_backbone_decodes(reference: tuple[Path, Manifest]) -> None:
    backbone = load_backbone(reference[0], device="cpu")
    pictures = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    contexts = {
        "c_image": backbone.encode("c_image", pictures),
        "c_text": backbone.encode("c_text", ["a red bus", "the sea"]),
    }
    seeds = np.arange(2)
    start = backbone.encode("z_image", pictures)
    assert backbone.sample("picture", start, contexts, backbone.sampling("picture"), seeds).shape == (2, 16, 16, 3)
    start = backbone.encode("z_text", ["a red bus", "the sea"])
    assert len(backbone.sample("caption", start, contexts, backbone.sampling("caption"), seeds)) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bytes(
    layout: str, model: Tiny, reference: tuple[Path, Manifest], tmp_path: Path
) -> None:
    manifest = convert(LAYOUTS[layout](model, tmp_path / "published"), tmp_path / "backbone", config=model.config)
    assert manifest.notes == ()
    assert manifest.files == reference[1].files


@pytest.mark.parametrize("dtype", ["as-stored", "fp32", "bf16", "fp16"])
def test_precisions(dtype: Any, model: Tiny, tmp_path: Path) -> None:
    """From flows in half precision; the library's reader finds what PyTorch rounds."""
    halves = {key: value.half() for key, value in model.current().items()}
    files = model.write(tmp_path / "published", halves)
    manifest = convert(files, tmp_path / "backbone", dtype=dtype, config=model.config)
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for part in PARTS:
        kind = kinds.get(dtype, torch.float16 if part == "flows" else torch.float32)
        stored = {key: value.half() if part == "flows" else value for key, value in model.weights(part).items()}
        weights = load_file(tmp_path / "backbone" / f"{part}.safetensors")
        assert all(torch.equal(value, stored[key].to(kind)) for key, value in weights.items())
        assert {value.dtype for value in weights.values()} == {kind}
        assert manifest.parts[part].dtype == str(kind).removeprefix("torch.")
    assert verify(tmp_path / "backbone") == manifest


def test_weights_lie_anyhow_in_their_file(
    model: Tiny, published: Files, reference: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """Views, transposed storage and shared storage are written out as plain tensors."""
    weights = torch.load(published["autokl"], weights_only=True)
    for key, value in weights.items():
        if value.ndim == 4:
            weights[key] = value.to(memory_format=torch.channels_last)
        elif value.ndim == 1:
            weights[key] = torch.stack([value, value * 2], dim=1)[:, 0]
    torch.save(weights, tmp_path / "kl-f8.pth")
    manifest = convert({**published, "autokl": tmp_path / "kl-f8.pth"}, tmp_path / "official", config=model.config)
    assert manifest.files == reference[1].files


@pytest.fixture(scope="module")
def official() -> Shapes:
    return expected_shapes(OFFICIAL)


@pytest.fixture(scope="module")
def published_keys() -> dict[str, dict[str, tuple[int, ...]]]:
    content = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    return {part: {key: tuple(shape) for key, shape in keys.items()} for part, keys in content.items()}


def full_size(name: str, keys: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Every key of a published flows' file that repeats everything."""
    found: dict[str, tuple[int, ...]] = dict.fromkeys(TABLES["schedule"], (1000,))
    if name == "current":
        starts = {"diffuser.": "flows", "vae.image.": "autokl", "vae.text.": "optimus"}
        starts |= {"ctx.image.model.": "clip", "ctx.text.model.": "clip"}
    else:
        found |= {key: tuple(shape) for key, shape in TABLES["deprecated"].items()}
        starts = {"autokl.": "autokl", "optimus.": "optimus", "clip.model.": "clip"}
    return found | {start + key: shape for start, part in starts.items() for key, shape in keys[part].items()}


@pytest.mark.parametrize("name", ["current", "deprecated"])
def test_every_published_key_finds_its_place(
    name: str,
    published_keys: dict[str, dict[str, tuple[int, ...]]],
    official: Shapes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = full_size(name, published_keys)
    assert len(keys) == sum(part["n_keys"] for part in TABLES["files"][name].values())
    empty = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    monkeypatch.setattr(conversion, "read_weights", lambda _: empty)
    parts, notes = conversion.gather({"flows": Path("vd-four-flow.pth")}, OFFICIAL, official)
    # Nothing is left over but the noise schedule, masks, GPT-2's tied head and CLIP's second copies.
    assert notes == []
    assert {part: found.lacking for part, found in parts.items()} == dict.fromkeys(PARTS, ())
    for part, found in parts.items():
        assert {key: tuple(entry.tensor.shape) for key, entry in found.tensors.items()} == official[part]


def test_names_are_those_of_the_published_tables(
    published_keys: dict[str, dict[str, tuple[int, ...]]], official: Shapes
) -> None:
    known = places(OFFICIAL)
    for part in ("autokl", "optimus", "clip"):
        names = {known[part][part].name(key) for key in official[part]}
        left = {key for key in published_keys[part] if key not in names}
        assert all(".attn.bias" in key or key == "decoder.lm_head.weight" for key in left)
        assert names <= set(published_keys[part])
    empty = {key: torch.empty(shape, device="meta") for key, shape in official["flows"].items()}
    assert {known["deprecated"]["flows"].name(key) for key in empty} == set(deprecated_flows(empty))
    table = {"model.diffusion_model.time_embed": "diffuser.image.time_embed"}
    for kind in ("image", "text"):
        for block in blocks(OFFICIAL.flows):
            table[f"model.diffusion_model.unet_{kind}.{block.deprecated}"] = f"diffuser.{kind}.{block.ours}"
    assert table == TABLES["prefixes"]
