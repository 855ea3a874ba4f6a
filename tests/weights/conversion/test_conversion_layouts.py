"""One model in every published layout becomes one and the same backbone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_disk import TABLES, Tiny
from safetensors.torch import load_file, save_file

from unibrain.backbone import load_backbone
from unibrain.backbone.storage import PARTS
from unibrain.weights.convert import convert
from unibrain.weights.manifest import Manifest, Role

Files = dict[Role, Path]


def without(files: Files, *roles: Role) -> Files:
    return {role: path for role, path in files.items() if role not in roles}


def current(model: Tiny, folder: Path) -> Files:
    return model.write(folder, model.current())


def repeating(model: Tiny, folder: Path) -> Files:
    return model.write(folder, model.current(repeat=True))


def repeating_alone(model: Tiny, folder: Path) -> Files:
    return without(repeating(model, folder), "autokl", "optimus", "clip")


def wrapped(model: Tiny, folder: Path) -> Files:
    files = current(model, folder)
    torch.save({"state_dict": model.current(), "step": 7}, files["flows"])
    parameters = {key: torch.nn.Parameter(value) for key, value in model.autokl.items()}
    torch.save({"epoch": 3, "state_dict": {"global_step": 9, **parameters}}, files["autokl"])
    return files


def old_format(model: Tiny, folder: Path) -> Files:
    return model.write(folder, model.current(), _use_new_zipfile_serialization=False)


def deprecated(model: Tiny, folder: Path) -> Files:
    return model.write(folder, model.deprecated())


def deprecated_alone(model: Tiny, folder: Path) -> Files:
    return without(model.write(folder, model.deprecated(repeat=True)), "autokl", "optimus", "clip")


def as_safetensors(model: Tiny, folder: Path) -> Files:
    files = current(model, folder)
    for role, weights in (("flows", model.current()), ("autokl", model.weights("autokl")), ("clip", model.clip)):
        files[role] = folder / f"{role}.safetensors"
        save_file({key: value.contiguous() for key, value in weights.items()}, files[role])
    return files


def diffusers(model: Tiny, folder: Path) -> Files:
    files = without(current(model, folder), "flows", "autokl", "clip", "clip-vocab", "clip-merges")
    return {**files, "diffusers": model.write_diffusers(folder / "versatile-diffusion")}


def diffusers_pickled(model: Tiny, folder: Path) -> Files:
    """As published in 2022: pickles, and the attention of the autoencoder under its old names."""
    files = diffusers(model, folder)
    pipeline = files["diffusers"]
    for component in ("image_unet", "text_unet", "vae"):
        (safe,) = (pipeline / component).glob("*.safetensors")
        weights = load_file(safe)
        if component == "vae":
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
            assert any("proj_attn" in key for key in weights)
        torch.save(weights, safe.with_suffix(".bin"))
        safe.unlink()
    for component, ids in (("text_encoder", "text_model"), ("image_encoder", "vision_model")):
        safe = pipeline / component / "model.safetensors"
        weights = {**load_file(safe), f"{ids}.embeddings.position_ids": torch.arange(5)[None]}
        torch.save(weights, safe.with_name("pytorch_model.bin"))
        safe.unlink()
    return files


def diffusers_sharded(model: Tiny, folder: Path) -> Files:
    files = without(current(model, folder), "flows", "autokl", "clip", "clip-vocab", "clip-merges")
    pipeline = model.write_diffusers(folder / "versatile-diffusion", shard="2MB")
    assert len(list((pipeline / "text_unet").glob("*.safetensors"))) > 1
    return {**files, "diffusers": pipeline}


LAYOUTS: dict[str, Callable[[Tiny, Path], Files]] = {
    layout.__name__: layout
    for layout in (
        current,
        repeating,
        repeating_alone,
        wrapped,
        old_format,
        deprecated,
        deprecated_alone,
        as_safetensors,
        diffusers,
        diffusers_pickled,
        diffusers_sharded,
    )
}


def outputs(folder: Path, captions: tuple[str, ...], *names: str) -> dict[str, Any]:
    backbone = load_backbone(folder, device="cpu")
    pictures = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    z_image, z_text = backbone.encode("z_image", pictures), backbone.encode("z_text", captions[:2])
    contexts = {"c_image": backbone.encode("c_image", pictures), "c_text": backbone.encode("c_text", captions[:2])}
    seeds = np.arange(2)
    makers: dict[str, Callable[[], Any]] = {
        "z_image": lambda: z_image,
        "z_text": lambda: z_text,
        "c_image": lambda: contexts["c_image"],
        "c_text": lambda: contexts["c_text"],
        "decoded": lambda: backbone.decode("picture", z_image),
        "written": lambda: backbone.decode("caption", z_text),
        "pictures": lambda: backbone.sample("picture", z_image, contexts, backbone.sampling("picture"), seeds),
        "captions": lambda: backbone.sample("caption", z_text, contexts, backbone.sampling("caption"), seeds),
    }
    return {name: maker() for name, maker in makers.items() if not names or name in names}


@pytest.fixture(scope="module")
def reference(
    model: Tiny, captions: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Manifest, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    manifest = convert(current(model, folder / "published"), folder / "backbone", config=model.config)
    return manifest, outputs(folder / "backbone", captions)


def test_the_reference_is_the_model(model: Tiny, tmp_path: Path) -> None:
    convert(current(model, tmp_path / "published"), tmp_path / "backbone", config=model.config)
    for part in PARTS:
        weights, expected = load_file(tmp_path / "backbone" / f"{part}.safetensors"), model.weights(part)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_outputs(
    layout: str, model: Tiny, reference: tuple[Manifest, dict[str, Any]], captions: tuple[str, ...], tmp_path: Path
) -> None:
    manifest = convert(LAYOUTS[layout](model, tmp_path / "published"), tmp_path / "backbone", config=model.config)
    assert set(manifest.parts) == set(PARTS)
    assert manifest.notes == ()
    hashes = {name: record.sha256 for name, record in manifest.files.items()}
    assert hashes == {name: record.sha256 for name, record in reference[0].files.items()}
    # Equal bytes make equal outputs; one layout of each kind is run to see it.
    if layout in ("repeating_alone", "deprecated_alone", "diffusers_pickled"):
        found = outputs(tmp_path / "backbone", captions)
        for name, expected in reference[1].items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_the_outputs_depend_on_every_part(
    model: Tiny, reference: tuple[Manifest, dict[str, Any]], captions: tuple[str, ...], tmp_path: Path
) -> None:
    files = current(model, tmp_path / "published")
    for role, changed in (("flows", "pictures"), ("autokl", "z_image"), ("optimus", "z_text"), ("clip", "c_text")):
        weights = torch.load(files[role], weights_only=True)
        torch.save(
            {
                key: value.flip(0) if value.is_floating_point() and value.ndim else value
                for key, value in weights.items()
            },
            tmp_path / f"{role}.pth",
        )
        convert({**files, role: tmp_path / f"{role}.pth"}, tmp_path / role, config=model.config)
        assert not np.array_equal(outputs(tmp_path / role, captions, changed)[changed], reference[1][changed]), role


def test_half_precision_files(model: Tiny, tmp_path: Path) -> None:
    halves = {key: value.half() for key, value in model.current().items()}
    files = model.write(tmp_path / "published", halves)
    manifest = convert(files, tmp_path / "backbone", config=model.config)
    assert {part: record.dtype for part, record in manifest.parts.items()} == {
        "flows": "float16",
        "autokl": "float32",
        "optimus": "float32",
        "clip": "float32",
    }
    weights = load_file(tmp_path / "backbone" / "flows.safetensors")
    assert all(torch.equal(weights[key], value.half()) for key, value in model.weights("flows").items())


@pytest.mark.parametrize(
    ("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precisions(model: Tiny, tmp_path: Path, dtype: Any, expected: torch.dtype) -> None:
    files = model.write(tmp_path / "published", model.current())
    manifest = convert(files, tmp_path / "backbone", dtype=dtype, config=model.config)
    for part in PARTS:
        weights = load_file(tmp_path / "backbone" / f"{part}.safetensors")
        assert all(torch.equal(weights[key], value.to(expected)) for key, value in model.weights(part).items())
        assert manifest.parts[part].dtype == str(expected).removeprefix("torch.")
    assert load_backbone(tmp_path / "backbone", device="cpu").name == "tiny"


def test_old_names_are_those_of_the_published_table() -> None:
    from unibrain.backbone.config import OFFICIAL
    from unibrain.weights.positions import block_positions

    table = {}
    for kind in ("image", "text"):
        for position in block_positions(OFFICIAL.flows):
            table[f"model.diffusion_model.unet_{kind}.{position.deprecated}"] = f"diffuser.{kind}.{position.ours}"
    table["model.diffusion_model.time_embed"] = "diffuser.image.time_embed"
    assert table == TABLES["prefixes"]


def test_manifest_tells_where_everything_came_from(
    model: Tiny, reference: tuple[Manifest, dict[str, Any]], tmp_path: Path
) -> None:
    import hashlib

    import unibrain
    from unibrain.weights.manifest import Origin

    files = deprecated(model, tmp_path / "published")
    origin = Origin("somebody/versatile-diffusion", "0123abc")
    written = convert(files, tmp_path / "backbone", origins={"flows": origin}, config=model.config)
    manifest = Manifest.read(tmp_path / "backbone")
    assert manifest == written
    assert manifest.unibrain == unibrain.__version__
    assert {source.role: source.origin for source in manifest.sources} == {
        role: origin if role == "flows" else None for role in files
    }
    for source in manifest.sources:
        content = files[source.role].read_bytes()  # type: ignore[index]
        assert (source.name, source.size) == (files[source.role].name, len(content))  # type: ignore[index]
        assert source.sha256 == hashlib.sha256(content).hexdigest()
    folder = {path.name: path.read_bytes() for path in (tmp_path / "backbone").iterdir()}
    assert folder.keys() - manifest.files.keys() == {"manifest.json"}
    for name, record in manifest.files.items():
        assert (record.size, record.sha256) == (len(folder[name]), hashlib.sha256(folder[name]).hexdigest())
    assert {part: record.keys for part, record in manifest.parts.items()} == {
        part: len(model.weights(part)) for part in PARTS
    }
    assert manifest.parts["flows"].parameters == sum(value.numel() for value in model.weights("flows").values())
    # 12 buffers of the schedule, one mask per layer of GPT-2, two position ids of CLIP
    assert {part: record.ignored for part, record in manifest.parts.items()} == {
        "flows": 12,
        "autokl": 0,
        "optimus": 2,
        "clip": 2,
    }
    assert json.loads(folder["manifest.json"])["sources"][0]["origin"]["revision"] == "0123abc"
