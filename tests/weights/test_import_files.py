import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from unibrain.errors import InputError
from unibrain.weights import import_files as module
from unibrain.weights.import_files import find_files, import_backbone
from unibrain.weights.manifest import Role

CLIP_KEYS = ("text_model.embeddings.x", "vision_model.embeddings.x")


def safetensors(path: Path, keys: tuple[str, ...]) -> Path:
    header = json.dumps({key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for key in keys}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    return path


def torch_zip(path: Path, keys: tuple[str, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "|".join(keys))
    return path


def write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def vocabularies(folder: Path) -> dict[Role, Path]:
    return {
        "clip-vocab": write(folder / "clip" / "vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": 1}'),
        "clip-merges": write(folder / "clip" / "merges.txt", "#version: 0.2\ni n</w>\n"),
        "bert-vocab": write(folder / "bert" / "vocab.txt", "[CLS]\n"),
        "gpt2-vocab": write(folder / "gpt2" / "vocab.json", '{"<|endoftext|>": 0}'),
        "gpt2-merges": write(folder / "gpt2" / "merges.txt", "#version: 0.2\ni n\n"),
    }


def originals(folder: Path) -> dict[Role, Path]:
    return {
        "flows": torch_zip(folder / "vd" / "vd-four-flow-v1-0-fp16.pth", ("diffuser.image.x",)),
        "autokl": torch_zip(folder / "vd" / "kl-f8.pth", ("encoder.x",)),
        "optimus": torch_zip(folder / "vd" / "optimus-vae.pth", ("encoder.x",)),
        "clip": safetensors(folder / "clip" / "model.safetensors", CLIP_KEYS),
    }


def everything(folder: Path) -> dict[Role, Path]:
    return {**originals(folder), **vocabularies(folder)}


def diffusers_folder(folder: Path) -> Path:
    write(folder / "model_index.json", "{}")
    for part in ("image_unet", "text_unet"):
        write(folder / part / "diffusion_pytorch_model.bin")
    safetensors(folder / "image_encoder" / "model.safetensors", ("vision_model.x",))
    safetensors(folder / "text_encoder" / "model.safetensors", ("text_model.x",))
    write(folder / "tokenizer" / "vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    write(folder / "tokenizer" / "merges.txt", "#version: 0.2\ni n</w>\n")
    return folder


def test_folder_of_downloads(tmp_path: Path) -> None:
    expected = everything(tmp_path)
    found = find_files([tmp_path], {})
    assert found.files == expected
    assert found.notes == ()


def test_weights_of_bert_and_gpt2_beside_their_vocabularies_are_not_clip(tmp_path: Path) -> None:
    expected = everything(tmp_path)
    safetensors(tmp_path / "bert" / "model.safetensors", ("bert.embeddings.x",))
    torch_zip(tmp_path / "gpt2" / "pytorch_model.bin", ("h.0.attn.bias",))
    assert find_files([tmp_path], {}).files == expected


def test_clip_as_a_pickle_and_safetensors_first(tmp_path: Path) -> None:
    expected = everything(tmp_path)
    old = torch_zip(tmp_path / "clip" / "pytorch_model.bin", CLIP_KEYS)
    assert find_files([tmp_path], {}).files == expected
    expected["clip"].unlink()
    assert find_files([tmp_path], {}).files["clip"] == old


def test_cache_of_the_hub(tmp_path: Path) -> None:
    # Snapshots are links to contents that are named by their hash; there may be several snapshots.
    sources = everything(tmp_path / "plain")
    repositories: Mapping[str, tuple[Role, ...]] = {
        "models--shi-labs--versatile-diffusion": ("flows", "autokl", "optimus"),
        "models--openai--clip-vit-large-patch14": ("clip", "clip-vocab", "clip-merges"),
        "models--google-bert--bert-base-cased": ("bert-vocab",),
        "models--openai-community--gpt2": ("gpt2-vocab", "gpt2-merges"),
    }
    cache = tmp_path / "cache"
    for repository, roles in repositories.items():
        for role in roles:
            blob = cache / repository / "blobs" / hashlib.sha256(role.encode()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sources[role], blob)
            for commit in ("a" * 40, "b" * 40):
                link = cache / repository / "snapshots" / commit / sources[role].name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path("../../blobs") / blob.name)
    found = find_files([cache], {})
    assert {role: path.read_bytes() for role, path in found.files.items()} == {
        role: path.read_bytes() for role, path in sources.items()
    }


def test_diffusers_folder_with_optimus(tmp_path: Path) -> None:
    expected = vocabularies(tmp_path / "v")
    folder = diffusers_folder(tmp_path / "vd")
    optimus = torch_zip(tmp_path / "vd" / "pretrained_pth" / "optimus-vae.pth", ("encoder.x",))
    found = find_files([tmp_path], {})
    assert found.files["diffusers"] == folder
    assert found.files["optimus"] == optimus
    assert found.files["bert-vocab"] == expected["bert-vocab"]
    assert "flows" not in found.files
    assert find_files([folder], {}, pictures_only=True).files.keys() == {"diffusers", "clip-vocab", "clip-merges"}


def test_snapshot_with_both_formats_takes_the_originals(tmp_path: Path) -> None:
    expected = everything(tmp_path)
    folder = diffusers_folder(tmp_path / "both")
    found = find_files([tmp_path], {})
    assert found.files.keys() == expected.keys()
    assert found.notes == (f"{folder}: left aside, because the original files are there",)
    given = find_files([tmp_path], {"diffusers": folder})
    assert given.files["diffusers"] == folder


def test_precision_chooses_among_the_flows(tmp_path: Path) -> None:
    everything(tmp_path)
    full = torch_zip(tmp_path / "vd" / "vd-four-flow-v1-0.pth", ("diffuser.x",))
    old = torch_zip(tmp_path / "vd" / "vd-four-flow-v1-0-fp16-deprecated.pth", ("model.x",))
    assert find_files([tmp_path], {}).files["flows"].name == "vd-four-flow-v1-0-fp16.pth"
    assert find_files([tmp_path], {}, precision="fp32").files["flows"] == full
    (tmp_path / "vd" / "vd-four-flow-v1-0-fp16.pth").unlink()
    assert find_files([tmp_path], {}).files["flows"] == old


def test_files_by_option(tmp_path: Path) -> None:
    given: dict[Role, Path] = {
        role: path.rename(path.with_name(f"my-{number}"))
        for number, (role, path) in enumerate(everything(tmp_path).items())
    }
    assert find_files([], given).files == given
    without = {role: path for role, path in given.items() if role != "gpt2-merges"}
    with pytest.raises(InputError, match=r"the files that were given: 1 of 9 files are missing, .*--gpt2-merges"):
        find_files([], without)


def test_everything_that_is_missing_is_named(tmp_path: Path) -> None:
    kept = vocabularies(tmp_path)
    kept["bert-vocab"].unlink()
    with pytest.raises(InputError) as told:
        find_files([tmp_path], {})
    for words in ("5 of 9", "--flows", "--autokl", "--clip;", "--optimus", "--bert-vocab", "--pictures-only"):
        assert words in str(told.value)
    assert "--gpt2-vocab" not in str(told.value)


def test_flows_that_repeat_the_other_parts_need_no_other_file(tmp_path: Path) -> None:
    kept = vocabularies(tmp_path)
    keys = ("diffuser.image.x", "vae.image.x", "vae.text.x", "ctx.image.x", "ctx.text.x")
    flows = torch_zip(tmp_path / "vd-four-flow-v1-0.pth", keys)
    assert find_files([tmp_path], {}).files == {"flows": flows, **kept}
    kept["gpt2-vocab"].unlink()
    with pytest.raises(InputError, match="1 of 6 files are missing, expected also GPT-2's vocabulary"):
        find_files([tmp_path], {}, pictures_only=True)


def test_two_different_files_for_one_role_are_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(tmp_path)
    same = write(tmp_path / "again" / "vocab.txt", "[CLS]\n")
    assert same.read_bytes() == find_files([tmp_path], {}).files["bert-vocab"].read_bytes()
    write(same, "[CLS]\nuncased\n")
    with pytest.raises(InputError, match=r"vocab\.txt: both may be the vocabulary of bert-base-cased .* --bert-vocab"):
        find_files([tmp_path], {})
    assert find_files([tmp_path], {"bert-vocab": same}).files["bert-vocab"] == same
    published = hashlib.sha256(expected["bert-vocab"].read_bytes()).hexdigest()
    monkeypatch.setitem(module.PUBLISHED_SHA256, "bert-vocab", published)
    assert find_files([tmp_path], {}).files["bert-vocab"] == expected["bert-vocab"]


def test_paths_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder, expected the published weights"):
        find_files([tmp_path / "nothing"], {})
    with pytest.raises(InputError, match=r"notes\.txt: not one of the published names.*--flows FILE"):
        find_files([write(tmp_path / "notes.txt")], {})
    with pytest.raises(InputError, match=r"no such file, expected CLIP ViT-L/14 .* check --clip"):
        find_files([], {"clip": tmp_path / "clip.bin"})
    with pytest.raises(InputError, match="not a folder, expected the folder in diffusers' format"):
        find_files([], {"diffusers": write(tmp_path / "file")})
    with pytest.raises(InputError, match="not a file, expected AutoKL"):
        find_files([], {"autokl": tmp_path})


def test_far_too_large_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(tmp_path)
    monkeypatch.setattr(module, "_MOST_FILES", 5)
    with pytest.raises(InputError, match=r"holds more than 5 files.*give a folder closer"):
        find_files([tmp_path], {})


def test_import_passes_on_and_forgets_an_earlier_fetch(tmp_path: Path) -> None:
    found = find_files([tmp_path], everything(tmp_path))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".official.fetched.json").write_text("{}")
    calls = []

    def convert(files: Mapping[Any, Path], target: Path, **options: Any) -> None:
        calls.append((files, target, options))

    assert import_backbone(found, home, "official", "bf16", convert=convert) == home / "official"
    assert calls == [(found.files, home / "official", {"dtype": "bf16", "origins": {}, "replace": False})]
    assert not (home / ".official.fetched.json").exists()
