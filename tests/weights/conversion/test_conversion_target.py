"""The folder that is written: whole or not at all, not twice, and not over something else."""

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from on_disk import Tiny
from safetensors.torch import load_file, save_file

from unibrain.errors import InputError
from unibrain.weights import manifest as manifest_module
from unibrain.weights import source_files, stream
from unibrain.weights.convert import convert
from unibrain.weights.manifest import Role
from unibrain.weights.verify import verify

Files = dict[Role, Path]


@pytest.fixture(scope="module")
def published(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return model.write(tmp_path_factory.mktemp("published"), model.current())


@pytest.fixture(scope="module")
def converted(model: Tiny, published: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "official"
    convert(published, folder, config=model.config)
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "official"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_second_run_reads_nothing(model: Tiny, published: Files, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def forbidden(path: Path) -> Any:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(source_files, "sha256_of", forbidden)
    monkeypatch.setattr("unibrain.weights.candidates.read_weights", forbidden)
    assert convert(published, folder, config=model.config) == manifest_module.Manifest.read(folder)
    assert contents(folder) == before


def test_touched_sources_are_hashed_once_and_taken_for_the_same(
    model: Tiny, published: Files, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**published, "flows": Path(shutil.copyfile(published["flows"], tmp_path / published["flows"].name))}
    before, hashed = contents(folder), []

    def counted(path: Path) -> str:
        hashed.append(path)
        return manifest_module.sha256_of(path)

    monkeypatch.setattr(source_files, "sha256_of", counted)
    convert(files, folder, config=model.config)
    assert hashed == [files["flows"]]
    assert contents(folder) == before


def test_other_sources_replace_only_when_asked(model: Tiny, published: Files, folder: Path, tmp_path: Path) -> None:
    weights = torch.load(published["autokl"], weights_only=True)
    weights["quant_conv.bias"] += 1
    files = {**published, "autokl": tmp_path / "kl-f8.pth"}
    torch.save(weights, files["autokl"])
    before = contents(folder)
    with pytest.raises(InputError, match=r"already holds a backbone .*: ask for it to be replaced"):
        convert(files, folder, config=model.config)
    with pytest.raises(InputError, match="already holds a backbone"):
        convert(published, folder, dtype="fp16", config=model.config)
    assert contents(folder) == before
    convert(files, folder, config=model.config, replace=True)
    key = "quant_conv.bias"
    assert torch.equal(load_file(folder / "autokl.safetensors")[key], weights[key])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kl-f8.pth", "official"]


def test_a_damaged_backbone_is_made_again(model: Tiny, published: Files, folder: Path) -> None:
    before = contents(folder)
    (folder / "clip.safetensors").unlink()
    (folder / "flows.safetensors").write_bytes(b"short")
    convert(published, folder, config=model.config)
    after = contents(folder)
    assert {name: content for name, content in after.items() if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }


@pytest.mark.parametrize("replace", [False, True])
def test_something_else_is_never_replaced(model: Tiny, published: Files, tmp_path: Path, replace: bool) -> None:
    thesis, file = tmp_path / "thesis", tmp_path / "file"
    thesis.mkdir()
    (thesis / "chapter-1.txt").write_text("precious")
    file.write_text("precious")
    for target in (thesis, file):
        with pytest.raises(InputError, match="expected a free place or a converted backbone"):
            convert(published, target, config=model.config, replace=replace)
    assert (thesis / "chapter-1.txt").read_text() == file.read_text() == "precious"


def test_an_empty_folder_is_a_free_place(model: Tiny, published: Files, tmp_path: Path) -> None:
    (tmp_path / "deep" / "official").mkdir(parents=True)
    convert(published, tmp_path / "deep" / "official", config=model.config)
    assert verify(tmp_path / "deep" / "official") is not None


def test_not_enough_disk(
    model: Tiny, published: Files, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("unibrain.weights.target.shutil.disk_usage", lambda _: usage._replace(free=10_000_000))
    needed = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    with pytest.raises(InputError, match=rf"0\.01 GB are free there, expected {needed:.2f} GB"):
        convert(published, tmp_path / "new" / "official", config=model.config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_conversion_that_breaks_off_leaves_what_was_there(
    model: Tiny, published: Files, folder: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    if not exists:
        shutil.rmtree(folder)
    write = stream._write_tensor

    def full_disk(file: Any, digest: Any, entry: Any, dtype: Any) -> None:
        if "vision_model" in entry.key:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, digest, entry, dtype)

    monkeypatch.setattr(stream, "_write_tensor", full_disk)
    with pytest.raises(InputError, match="no space left on the disk"):
        convert(published, folder, dtype="bf16", config=model.config, replace=True)
    assert [path.name for path in folder.parent.iterdir()] == (["official"] if exists else [])
    if exists:
        assert contents(folder) == before


def test_leftovers_of_killed_conversions_are_removed(model: Tiny, published: Files, tmp_path: Path) -> None:
    names = [".official.123-0123abcd.partial", ".official.124-0123abcd.partial", ".other.125-0123abcd.partial"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "flows.safetensors").write_bytes(b"x")
    long_ago = time.time() - 86400
    for name in (names[0], names[2]):
        for path in (tmp_path / name / "flows.safetensors", tmp_path / name):
            os.utime(path, (long_ago, long_ago))
    convert(published, tmp_path / "official", config=model.config)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "official"])


def test_without_optimus_there_are_no_captions(model: Tiny, published: Files, tmp_path: Path) -> None:
    files = {role: path for role, path in published.items() if role in ("flows", "autokl", "clip", "clip-vocab")}
    files["clip-merges"] = published["clip-merges"]
    manifest = convert(files, tmp_path / "official", config=model.config)
    assert list(manifest.parts) == ["flows", "autokl", "clip"]
    assert sorted(path.name for path in (tmp_path / "official").iterdir()) == [
        "autokl.safetensors",
        "clip-merges.txt",
        "clip-vocab.json",
        "clip.safetensors",
        "config.json",
        "flows.safetensors",
        "manifest.json",
    ]
    assert verify(tmp_path / "official") == manifest


def test_copies_in_the_flows_file(model: Tiny, published: Files, tmp_path: Path) -> None:
    """The public code loads the flows' file last: where its copy differs, the copy is the model."""
    halves = {key: value.half() for key, value in model.current(repeat=True).items()}
    torch.save(halves, tmp_path / "same.pth")
    manifest = convert({**published, "flows": tmp_path / "same.pth"}, tmp_path / "same", config=model.config)
    assert manifest.notes == ()
    # Equal but for rounding: the file with more digits is taken.
    assert manifest.parts["autokl"].dtype == "float32"
    key = "vae.image.encoder.mid.block_1.conv1.weight"
    torch.save({**halves, key: halves[key] + 1}, tmp_path / "other.pth")
    manifest = convert({**published, "flows": tmp_path / "other.pth"}, tmp_path / "other", config=model.config)
    assert len(manifest.notes) == 1
    assert "autokl: other.pth: vae.image.* and kl-f8.pth hold other values (1 of 124 keys" in manifest.notes[0]
    weights = load_file(tmp_path / "other" / "autokl.safetensors")
    assert torch.equal(weights["encoder.mid_block.resnets.0.conv1.weight"], halves[key] + 1)
    partial = {name: value for name, value in halves.items() if name != key}
    torch.save(partial, tmp_path / "partial.pth")
    manifest = convert({**published, "flows": tmp_path / "partial.pth"}, tmp_path / "partial", config=model.config)
    assert manifest.notes == ("autokl: partial.pth: vae.image.* is incomplete, kl-f8.pth was taken",)
    files = {role: path for role, path in published.items() if role not in ("autokl", "optimus", "bert-vocab")}
    manifest = convert({**files, "flows": tmp_path / "same.pth"}, tmp_path / "silent", config=model.config)
    assert "optimus" not in manifest.parts
    assert "no captions" in manifest.notes[0]


def test_each_copy_of_clip_serves_its_own_contexts(model: Tiny, published: Files, tmp_path: Path) -> None:
    weights = model.current(repeat=True)
    files = {role: path for role, path in published.items() if role != "clip"}
    for key in weights:
        if key.startswith("ctx.image.model.text_") or key.startswith("ctx.text.model.vis"):
            weights[key] = torch.zeros_like(weights[key])
    torch.save(weights, tmp_path / "flows.pth")
    convert({**files, "flows": tmp_path / "flows.pth"}, tmp_path / "official", config=model.config)
    found = load_file(tmp_path / "official" / "clip.safetensors")
    assert all(torch.equal(found[key], value) for key, value in model.weights("clip").items())


def test_unexpected_keys_are_listed(model: Tiny, published: Files, tmp_path: Path) -> None:
    files = {**published, "flows": tmp_path / "flows.pth", "clip": tmp_path / "clip.bin"}
    extra = {"diffuser.image.data_blocks.99.0.weight": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    torch.save({**model.current(), **extra}, files["flows"])
    clip = model.clip
    del clip["logit_scale"]
    torch.save({**clip, "text_model.stranger": torch.zeros(1)}, files["clip"])
    manifest = convert(files, tmp_path / "official", config=model.config)
    assert manifest.parts["flows"].unexpected == tuple(sorted(extra))
    assert manifest.parts["clip"].unexpected == ("text_model.stranger",)
    assert manifest.parts["clip"].missing == ("logit_scale",)
    assert [note.split(":")[0] for note in manifest.notes] == ["flows", "clip"]


def test_tied_output_layer_may_be_left_out(model: Tiny, published: Files, tmp_path: Path) -> None:
    weights = model.optimus
    del weights["decoder.lm_head.weight"]
    torch.save(weights, tmp_path / "optimus.pth")
    files = {**published, "optimus": tmp_path / "optimus.pth"}
    manifest = convert(files, tmp_path / "official", config=model.config)
    assert manifest.parts["optimus"].missing == ("gpt2.lm_head.weight",)
    found = load_file(tmp_path / "official" / "optimus.safetensors")
    assert torch.equal(found["gpt2.lm_head.weight"], model.weights("optimus")["gpt2.transformer.wte.weight"])


def test_weights_lie_anyhow_in_their_file(model: Tiny, published: Files, tmp_path: Path) -> None:
    """Views, transposed storage and shared storage are written out as plain tensors."""
    weights = torch.load(published["autokl"], weights_only=True)
    for key, value in weights.items():
        if value.ndim == 4:
            weights[key] = value.to(memory_format=torch.channels_last)
        elif value.ndim == 1:
            weights[key] = torch.stack([value, value * 2], dim=1)[:, 0]
    torch.save(weights, tmp_path / "kl-f8.pth")
    convert({**published, "autokl": tmp_path / "kl-f8.pth"}, tmp_path / "official", config=model.config)
    found = load_file(tmp_path / "official" / "autokl.safetensors")
    assert all(torch.equal(found[key], value) for key, value in model.weights("autokl").items())


def test_streamed_files_are_those_of_the_library(tmp_path: Path) -> None:
    """Against the format's own reader and writer, with several types, chunks and a scalar."""
    torch.manual_seed(0)
    tensors = {
        "b.half": torch.randn(3, 5).half(),
        "a.large": torch.randn(stream._CHUNK + 3).bfloat16(),
        "c.single": torch.randn(7),
        "d.scalar": torch.tensor(2.5),
        "e.double": torch.randn(2, 2).double(),
        "ü.empty": torch.zeros(0, 4),
    }
    entries = {key: stream.Entry(value, Path("source"), key) for key, value in tensors.items()}
    record = stream.write_safetensors(tmp_path / "ours.safetensors", entries, None, "Writing")
    save_file(tensors, tmp_path / "theirs.safetensors")
    ours, theirs = load_file(tmp_path / "ours.safetensors"), load_file(tmp_path / "theirs.safetensors")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        assert torch.equal(ours[key], value)
    assert record.size == (tmp_path / "ours.safetensors").stat().st_size
    assert record.sha256 == manifest_module.sha256_of(tmp_path / "ours.safetensors")


def test_verify_finds_nothing_wrong(converted: Path) -> None:
    manifest = verify(converted)
    assert manifest is not None
    assert set(manifest.parts) == {"flows", "autokl", "optimus", "clip"}


def test_the_packaged_backbone_is_verified_by_its_keys() -> None:
    from unibrain.backbone.storage import backbone_folder

    assert verify(backbone_folder("small")) is None


def test_verify_names_every_changed_file(folder: Path) -> None:
    content = bytearray((folder / "flows.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "flows.safetensors").write_bytes(content)
    (folder / "bert-vocab.txt").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        verify(folder)
    message = str(caught.value)
    assert "flows.safetensors has another content" in message
    assert "bert-vocab.txt is missing" in message
    assert "config.json has 2 bytes instead of" in message
    assert "\n" not in message


def test_verify_without_manifest_looks_at_keys_and_shapes(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert verify(folder) is None
    weights = load_file(folder / "clip.safetensors")
    weights["visual_projection.weight"] = weights["visual_projection.weight"][:, :3].contiguous()
    save_file(weights, folder / "clip.safetensors")
    with pytest.raises(InputError, match=r"visual_projection\.weight has shape \(16, 3\), expected \(16, 16\)"):
        verify(folder)
    (folder / "clip.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        verify(folder)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        verify(folder.parent)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"files": {}}', '{"files": {"../x": {"size": 1, "sha256": ""}}, "sources": []}']
)
def test_damaged_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="not a manifest"):
        verify(folder)
