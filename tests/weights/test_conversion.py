"""Files that are wrong or dangerous, and the folder that is written: whole or not at all, not over something else."""

import errno
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from on_disk import Files, Tiny, Weights
from safetensors.torch import load_file, save_file

from unibrain.errors import InputError
from unibrain.weights import conversion
from unibrain.weights.conversion import convert, verify
from unibrain.weights.manifest import Manifest, read_manifest
from unibrain.weights.reading import read_weights


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


def refused(files: Any, model: Tiny, target: Path, named: str, **options: Any) -> None:
    """Convert, expect one sentence with these words, and nothing written."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(InputError, match=named) as caught:
        convert(files, target, **{"config": model.config, **options})
    assert "\n" not in str(caught.value)
    assert sorted(target.parent.iterdir()) == before


class Bomb:
    """Makes a file by the shell when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


WRITERS: dict[str, Callable[[Any, Path], object]] = {
    "zip": torch.save,
    "old": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
    "oldest pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
    "module": lambda content, path: torch.save({"module": torch.nn.Linear(2, 2), **content}, path),
}


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_that_would_execute_code_is_refused(form: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "was-executed", tmp_path / "evil.pth"
    WRITERS[form]({"diffuser.image.time_embed.0.weight": torch.zeros(1), "more": Bomb(mark)}, file)
    with pytest.raises(InputError, match=rf"{file}: .*{'posix.system' if form == 'zip' else ''}"):
        read_weights(file)
    assert not mark.exists()
    if form == "pickle":  # the bomb is a real one
        pickle.loads(file.read_bytes())
        assert mark.exists()


def bomb(path: Path) -> None:
    """64 megabytes of zeros in 64 kilobytes, under the names that torch.save uses."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(2**20))
        archive.writestr("archive/version", "3")


def overlapping(path: Path) -> None:
    """Stored files that claim more bytes than there are."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: start + 20] + (10**9).to_bytes(4, "little") * 2 + content[start + 28 :])


OTHER_CONTENTS: dict[str, Callable[[Path], object]] = {
    "bomb.pth": bomb,
    "overlapping.pth": overlapping,
    "program.pth": lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path),
    "empty.pth": Path.touch,
    "empty.safetensors": Path.touch,
    "page.pth": lambda path: path.write_text("<!DOCTYPE html><html>Not found</html>"),
    "pointer.safetensors": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n"),
    "bytes.pth": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "bytes.safetensors": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "zip.pth": lambda path: zipfile.ZipFile(path, "w").close(),
    "list.pth": lambda path: torch.save([1, 2], path),
    "numbers.pth": lambda path: torch.save({"a": 1}, path),
}


@pytest.mark.parametrize("name", OTHER_CONTENTS)
def test_other_contents(name: str, tmp_path: Path) -> None:
    OTHER_CONTENTS[name](tmp_path / name)
    with pytest.raises(InputError, match=str(tmp_path / name)) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_truncated_files(form: str, model: Tiny, tmp_path: Path) -> None:
    path = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.bin")
    if form == "safetensors":
        save_file({key: value.contiguous() for key, value in model.clip.items()}, path)
    else:
        torch.save(model.clip, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.999)])
    with pytest.raises(InputError, match=f"{path}: .*Download"):
        read_weights(path)


def test_what_the_system_refuses_is_no_damage(
    published: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.pth")
    for error in (PermissionError(errno.EACCES, "Permission denied"), ModuleNotFoundError("torch")):

        def refuse(*arguments: Any, error: Exception = error, **options: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", refuse)
        with pytest.raises(type(error)):
            read_weights(published["clip"])


KEYS = {
    "flows": "diffuser.text.data_blocks.3.0.weight",
    "autokl": "decoder.up.1.block.0.conv1.weight",
    "optimus": "decoder.transformer.linear_emb.weight",
    "clip": "vision_model.embeddings.class_embedding",
}


def changed(files: Files, role: Any, folder: Path, edit: Callable[[Weights], object]) -> Files:
    weights = torch.load(files[role], weights_only=True)
    edit(weights)
    torch.save(weights, folder / files[role].name)
    return {**files, role: folder / files[role].name}


@pytest.mark.parametrize("role", KEYS)
def test_a_missing_key_is_named_as_in_the_file(role: str, model: Tiny, published: Files, tmp_path: Path) -> None:
    files = changed(published, role, tmp_path, lambda weights: weights.pop(KEYS[role]))
    named = f"{tmp_path}.*: it lacks 1 of the keys of {role}, such as {KEYS[role]}."
    refused(files, model, tmp_path / "backbone", named)


@pytest.mark.parametrize(
    ("edit", "named", "options"),
    [
        (lambda weights, key: weights.update({key: torch.zeros(3, 5)}), r"\(3, 5\)", {}),
        (lambda weights, key: weights.update({key: weights[key].to(torch.int8)}), "int8", {}),
        (lambda weights, key: weights[key].view(-1)[7:8].fill_(float("nan")), "NaN", {}),
        (lambda weights, key: weights[key].view(-1)[7:8].fill_(1e6), "float16", {"dtype": "fp16"}),
    ],
)
def test_wrong_shapes_and_numbers(
    edit: Any, named: str, options: Any, model: Tiny, published: Files, tmp_path: Path
) -> None:
    files = changed(published, "autokl", tmp_path, lambda weights: edit(weights, KEYS["autokl"]))
    refused(files, model, tmp_path / "backbone", f"{files['autokl']}: {KEYS['autokl']} .*{named}", **options)


@pytest.mark.parametrize(
    ("role", "other"),
    [("flows", "clip"), ("autokl", "flows"), ("optimus", "autokl"), ("clip", "optimus"), ("clip-vocab", "gpt2-vocab")],
)
@pytest.mark.parametrize("swapped", [True, False])
def test_swapped_and_missing_files(
    role: Any, other: Any, swapped: bool, model: Tiny, published: Files, tmp_path: Path
) -> None:
    files = {**published, role: published[other]} if swapped else {r: p for r, p in published.items() if r != role}
    if role == "optimus" and not swapped:
        assert "optimus" not in convert(files, tmp_path / "backbone", config=model.config).parts
        assert verify(tmp_path / "backbone") is not None
        return
    names = {
        "flows": "vd-four-flow",
        "autokl": "kl-f8.pth",
        "clip": "openai/clip",
        "clip-vocab": "vocab.json of openai",
    }
    refused(files, model, tmp_path / "backbone", str(published[other]) if swapped else f"Missing: .*{names[role]}")


def test_diffusers_folders_that_are_none(model: Tiny, published: Files, tmp_path: Path) -> None:
    files = {role: path for role, path in published.items() if role not in ("flows", "autokl", "clip")}
    folder = model.write_diffusers(tmp_path / "pipeline")
    shutil.rmtree(folder / "image_encoder")
    refused({**files, "diffusers": folder}, model, tmp_path / "backbone", f"{folder}: .*image_encoder.vision_model")
    (folder / "image_unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused({**files, "diffusers": folder}, model, tmp_path / "backbone", f"{folder}: .*image_unet")


def test_copies_in_the_flows_file(model: Tiny, published: Files, tmp_path: Path) -> None:
    """The public code loads the flows' file last: where its copy differs, the copy is the model."""
    key = "vae.image.encoder.mid.block_1.conv1.weight"
    halves = {name: value.half() for name, value in model.current(repeat=True).items()}
    variants = {
        "same": (halves, None, "float32"),  # equal but for rounding: the file with more digits is taken
        "other": ({**halves, key: halves[key] + 1}, "differ in 1 of 124 keys", "float16"),
        "partial": ({name: value for name, value in halves.items() if name != key}, "is incomplete", "float32"),
    }
    for name, (weights, note, dtype) in variants.items():
        torch.save(weights, tmp_path / f"{name}.pth")
        manifest = convert({**published, "flows": tmp_path / f"{name}.pth"}, tmp_path / name, config=model.config)
        assert manifest.parts["autokl"].dtype == dtype
        assert len(manifest.notes) == (note is not None)
        assert note is None or note in manifest.notes[0]
    stored = load_file(tmp_path / "other" / "autokl.safetensors")
    assert torch.equal(stored["encoder.mid_block.resnets.0.conv1.weight"], halves[key] + 1)
    files = {role: path for role, path in published.items() if role not in ("autokl", "optimus", "bert-vocab")}
    manifest = convert({**files, "flows": tmp_path / "same.pth"}, tmp_path / "silent", config=model.config)
    assert "optimus" not in manifest.parts
    assert "no captions" in manifest.notes[0]


def test_unexpected_keys_are_noted(model: Tiny, published: Files, tmp_path: Path) -> None:
    extra = {"diffuser.image.data_blocks.99.0.weight": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    torch.save({**model.current(), **extra}, tmp_path / "flows.pth")
    manifest = convert({**published, "flows": tmp_path / "flows.pth"}, tmp_path / "official", config=model.config)
    assert manifest.notes == ("flows.pth: 2 keys were left out, such as diffuser.image.data_blocks.99.0.weight",)


def test_each_copy_of_clip_serves_its_own_contexts(model: Tiny, published: Files, tmp_path: Path) -> None:
    weights = model.current(repeat=True)
    for key in weights:
        if key.startswith("ctx.image.model.text_") or key.startswith("ctx.text.model.vis"):
            weights[key] = torch.zeros_like(weights[key])
    torch.save(weights, tmp_path / "flows.pth")
    files = {role: path for role, path in published.items() if role != "clip"}
    convert({**files, "flows": tmp_path / "flows.pth"}, tmp_path / "official", config=model.config)
    found = load_file(tmp_path / "official" / "clip.safetensors")
    assert all(torch.equal(found[key], value) for key, value in model.weights("clip").items())


def test_the_same_sources_write_nothing_and_others_only_if_asked(
    model: Tiny, published: Files, folder: Path, tmp_path: Path
) -> None:
    before = contents(folder)
    files = {**published, "flows": Path(shutil.copy(published["flows"], tmp_path / published["flows"].name))}
    assert convert(files, folder, config=model.config) == read_manifest(folder)
    assert contents(folder) == before
    files = changed(published, "autokl", tmp_path, lambda weights: weights["quant_conv.bias"].add_(1))
    refused(files, model, folder, f"{folder}: .*--replace")
    refused(published, model, folder, f"{folder}: .*--replace", dtype="fp16")
    convert(files, folder, config=model.config, replace=True)
    stored = load_file(folder / "autokl.safetensors")["quant_conv.bias"]
    assert torch.equal(stored, model.autokl["quant_conv.bias"] + 1)
    (folder / "clip.safetensors").unlink()
    assert (convert(files, folder, config=model.config), verify(folder)) == (read_manifest(folder),) * 2


def test_something_else_is_never_replaced(model: Tiny, published: Files, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for target in (tmp_path / "thesis", tmp_path / "file"):
        refused(published, model, target, f"{target}: something else is there", replace=True)


def test_not_enough_disk(model: Tiny, published: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.workspace.files.free_bytes", lambda _: 10_000_000)
    refused(published, model, tmp_path / "official", r"needed, but 10\.0 MB free")


def test_a_conversion_that_breaks_off_leaves_what_was_there(
    model: Tiny, published: Files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, settled = contents(folder), conversion._settled

    def full_disk(entry: Any, rounded: Any) -> Any:
        if "vision_model" in entry.key:
            raise OSError(errno.ENOSPC, "No space left on device")
        return settled(entry, rounded)

    monkeypatch.setattr(conversion, "_settled", full_disk)
    refused(published, model, folder, "no space left on the disk", dtype="bf16", replace=True)
    assert contents(folder) == before


def test_verify_names_every_changed_file(folder: Path) -> None:
    content = bytearray((folder / "flows.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "flows.safetensors").write_bytes(content)
    (folder / "bert-vocab.txt").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"bert-vocab\.txt, config\.json, flows\.safetensors"):
        verify(folder)


def test_verify_without_manifest_looks_at_keys_and_shapes(folder: Path, model: Tiny) -> None:
    from unibrain.backbone.folder import backbone_folder

    assert verify(backbone_folder("small")) is None
    (folder / "manifest.json").unlink()
    assert verify(folder) is None
    weights = load_file(folder / "clip.safetensors")
    weights["visual_projection.weight"] = weights["visual_projection.weight"][:, :3].contiguous()
    save_file(weights, folder / "clip.safetensors")
    with pytest.raises(InputError, match=r"clip\.safetensors: visual_projection\.weight .*\(16, 3\).*\(16, 16\)"):
        verify(folder)
    with pytest.raises(InputError, match=f"{folder.parent}/config.json: "):
        verify(folder.parent)


@pytest.mark.parametrize("content", ["", '{"files": {}}', "[" * 10_000, "../x"])
def test_damaged_manifest(folder: Path, content: str) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("bert-vocab.txt", "../x") if content == "../x" else content)
    with pytest.raises(InputError, match=f"{path}: not a manifest"):
        verify(folder)


def test_a_manifest_of_an_earlier_version_is_read(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"notes"', '"config": "0123", "notes"'))
    assert isinstance(verify(folder), Manifest)
