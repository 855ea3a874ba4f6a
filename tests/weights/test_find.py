"""Finding the published files on disk, and the commands that import, list and verify."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from on_disk import Files, Tiny
from safetensors.torch import save_file

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.weights.published import find_files


def safetensors(path: Path, *keys: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.zeros(1) for key in keys}, path)
    return path


def pickled(path: Path, *keys: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: torch.zeros(1) for key in keys}, path)
    return path


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


CLIP_KEYS = ("text_model.x", "vision_model.x")
CLIP_VOCABULARY = json.dumps({"a</w>": 0, "<|endoftext|>": 1})


def vocabularies(folder: Path) -> Files:
    return {
        "clip-vocab": write(folder / "clip" / "vocab.json", CLIP_VOCABULARY),
        "clip-merges": write(folder / "clip" / "merges.txt", "#version: 0.2\ni n</w>\n"),
        "bert-vocab": write(folder / "bert" / "vocab.txt", "[CLS]\n"),
        "gpt2-vocab": write(folder / "gpt2" / "vocab.json", '{"<|endoftext|>": 0}'),
        "gpt2-merges": write(folder / "gpt2" / "merges.txt", "#version: 0.2\ni n\n"),
    }


@pytest.fixture
def downloads(tmp_path: Path) -> Files:
    return {
        "flows": pickled(tmp_path / "vd" / "vd-four-flow-v1-0-fp16.pth", "diffuser.image.x"),
        "autokl": pickled(tmp_path / "vd" / "kl-f8.pth", "encoder.x"),
        "optimus": pickled(tmp_path / "vd" / "optimus-vae.pth", "encoder.x"),
        "clip": safetensors(tmp_path / "clip" / "model.safetensors", *CLIP_KEYS),
        **vocabularies(tmp_path),
    }


def diffusers_folder(folder: Path) -> Path:
    for part in ("image_unet", "text_unet"):
        pickled(folder / part / "diffusion_pytorch_model.bin", "x")
    safetensors(folder / "image_encoder" / "model.safetensors", "vision_model.x")
    safetensors(folder / "text_encoder" / "model.safetensors", "text_model.x")
    write(folder / "tokenizer" / "vocab.json", CLIP_VOCABULARY)
    write(folder / "tokenizer" / "merges.txt", "#version: 0.2\ni n</w>\n")
    return folder


def test_a_folder_of_downloads_with_other_models_in_it(downloads: Files, tmp_path: Path) -> None:
    safetensors(tmp_path / "bert" / "model.safetensors", "bert.embeddings.x")
    pickled(tmp_path / "gpt2" / "pytorch_model.bin", "h.0.attn.bias")
    write(tmp_path / "other" / "pytorch_model.bin", "no weights")
    old = pickled(tmp_path / "clip" / "pytorch_model.bin", *CLIP_KEYS)
    assert find_files([tmp_path], {}) == downloads
    downloads["clip"].unlink()
    assert find_files([tmp_path], {})["clip"] == old


def test_the_hubs_cache(downloads: Files, tmp_path: Path) -> None:
    """Snapshots are links to contents that are named by a hash; there may be several snapshots."""
    for role, path in downloads.items():
        repository = tmp_path / "cache" / f"models--{path.parent.name}"
        content = repository / "blobs" / hashlib.sha256(role.encode()).hexdigest()
        content.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, content)
        for commit in ("a" * 40, "b" * 40):
            link = repository / "snapshots" / commit / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("../../blobs") / content.name)
    found = find_files([tmp_path / "cache"], {})
    assert {role: path.read_bytes() for role, path in found.items()} == {
        role: path.read_bytes() for role, path in downloads.items()
    }


def test_diffusers_folders(downloads: Files, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "both" / "pipeline")
    assert find_files([tmp_path], {}) == downloads  # the original files are preferred
    assert find_files([tmp_path], {"diffusers": folder})["diffusers"] == folder
    alone = {"diffusers", "clip-vocab", "clip-merges"}
    assert find_files([folder], {}, pictures_only=True).keys() == alone
    assert find_files([], {"diffusers": folder}, pictures_only=True).keys() == alone
    found = find_files([folder, downloads["optimus"], tmp_path / "bert", tmp_path / "gpt2"], {})
    assert found.keys() == alone | {"optimus", "bert-vocab", "gpt2-vocab", "gpt2-merges"}


def test_precision_chooses_among_the_flows(downloads: Files, tmp_path: Path) -> None:
    full = pickled(tmp_path / "vd" / "vd-four-flow-v1-0.pth", "diffuser.x")
    old = pickled(tmp_path / "vd" / "vd-four-flow-v1-0-fp16-deprecated.pth", "model.x")
    assert find_files([tmp_path], {})["flows"] == downloads["flows"]
    assert find_files([tmp_path], {}, precision="fp32")["flows"] == full
    downloads["flows"].unlink()
    assert find_files([tmp_path], {})["flows"] == old


def test_files_by_option(downloads: Files) -> None:
    given = {role: path.rename(path.with_name(f"my-{role}")) for role, path in downloads.items()}
    assert find_files([], given) == given


def test_everything_that_is_missing_is_named(tmp_path: Path) -> None:
    vocabularies(tmp_path)["bert-vocab"].unlink()
    with pytest.raises(InputError) as told:
        find_files([tmp_path], {})
    for words in ("--flows", "--autokl", "--clip;", "--optimus", "--bert-vocab", "--pictures-only"):
        assert words in str(told.value)
    assert "--gpt2-vocab" not in str(told.value)


def test_flows_that_repeat_the_other_parts_need_no_other_file(tmp_path: Path) -> None:
    kept = vocabularies(tmp_path)
    keys = ("diffuser.image.x", "vae.image.x", "vae.text.x", "ctx.image.x", "ctx.text.x")
    flows = pickled(tmp_path / "vd-four-flow-v1-0.pth", *keys)
    assert find_files([tmp_path], {}) == {"flows": flows, **kept}
    kept["gpt2-vocab"].unlink()
    with pytest.raises(InputError, match="missing GPT-2's vocabulary"):
        find_files([tmp_path], {}, pictures_only=True)


def test_two_different_files_for_one_role_are_not_guessed(downloads: Files, tmp_path: Path) -> None:
    same = write(tmp_path / "again" / "vocab.txt", "[CLS]\n")
    assert find_files([tmp_path], {})["bert-vocab"].read_text() == "[CLS]\n"
    write(same, "[CLS]\nuncased\n")
    with pytest.raises(InputError, match=r"again/vocab\.txt.*--bert-vocab"):
        find_files([tmp_path], {})
    assert find_files([tmp_path], {"bert-vocab": same})["bert-vocab"] == same


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["import"], "PATH"),
        (["import", "x", "--name", "../x"], "--name"),
        (["import", "/no/such/place"], "/no/such/place"),
        (["import", "{tmp}/notes.txt"], "notes.txt"),
        (["import", "--diffusers", "{tmp}/notes.txt"], "notes.txt: .*--diffusers"),
        (["import", "--autokl", "{tmp}"], "{tmp}: .*--autokl"),
        (["verify", "{tmp}"], "{tmp}/config.json"),
        (["verify"], "unibrain weights fetch official"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str], named: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path))
    write(tmp_path / "notes.txt", "x")
    assert main(["weights", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)]) == 2
    shown = capsys.readouterr().err
    assert re.search(named.replace("{tmp}", str(tmp_path)), shown)
    assert len(shown.splitlines()) == 1


def test_import_list_and_verify(
    model: Tiny, tiny_config: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path / "unibrain"))
    model.write(tmp_path / "downloads")
    command = ["weights", "import", str(tmp_path / "downloads"), str(model.vocabularies)]
    assert main([*command, "--dtype", "bf16", "--name", "lab"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "downloads" / "pytorch_model.bin") in shown
    assert "unibrain weights verify lab" in shown
    assert main([*command, "--name", "pictures", "--pictures-only"]) == 0
    capsys.readouterr()

    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert "bfloat16; pictures and captions; from files; converted 2" in listed
    assert "float32; pictures only; from files" in listed
    assert listed.startswith("small")
    assert "official is not in" in listed
    assert main(["weights", "verify", "lab"]) == 0
    assert "all 10 files are as they were written" in capsys.readouterr().out
