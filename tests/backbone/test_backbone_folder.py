"""A backbone folder: written whole, read back, and refused with a sentence when something in it is wrong."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unibrain.backbone import BackboneConfig, load_backbone
from unibrain.backbone.config import OFFICIAL
from unibrain.backbone.loading import choose_device
from unibrain.backbone.storage import PARTS, VOCABULARY_FILES, folder_fingerprint, read_part, write_backbone
from unibrain.errors import InputError

WEIGHT_FILES = [f"{part}.safetensors" for part in PARTS]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def refused(folder: Path, file: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_backbone(folder, device="cpu")
    message = str(caught.value)
    assert str(folder / file) in message
    assert "\n" not in message


@pytest.mark.parametrize("file", [*WEIGHT_FILES, *VOCABULARY_FILES])
def test_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(folder, file, "no such file")


def test_missing_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing") as caught:
        load_backbone(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_truncated_weights(folder: Path, length: int) -> None:
    file = folder / "flows.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(folder, "flows.safetensors", "not a readable safetensors file")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path, write: str) -> None:
    file, mark = folder / "clip.safetensors", tmp_path / "was-run"
    content = {"weight": Bomb(mark)}
    if write == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    refused(folder, "clip.safetensors", "not a readable safetensors file")
    assert not mark.exists()


def change(file: Path, edit: Any) -> None:
    weights = load_file(file)
    edit(weights)
    save_file(weights, file)


def test_weights_of_another_size(folder: Path) -> None:
    key = "image.time_embed.0.weight"
    change(folder / "flows.safetensors", lambda weights: weights.update({key: torch.zeros(8, 8)}))
    refused(folder, "flows.safetensors", r"image\.time_embed\.0\.weight has shape \(8, 8\), expected \(128, 32\)")


def test_missing_key(folder: Path) -> None:
    change(folder / "optimus.safetensors", lambda weights: weights.pop("to_memory.weight"))
    refused(folder, "optimus.safetensors", r"lacks to_memory\.weight \(1 keys are missing, 0 unknown\)")


def test_unknown_key(folder: Path) -> None:
    change(folder / "autokl.safetensors", lambda weights: weights.update(stranger=torch.zeros(1)))
    refused(folder, "autokl.safetensors", r"holds stranger \(0 keys are missing, 1 unknown\)")


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    content = json.loads(file.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        entry = content
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "unknown field colour"),
        ({"flows__depth": 3}, "unknown field depth"),
        ({"flows": [1, 2]}, "expected the fields of FlowsConfig"),
        ({"flows__model_channels": 48}, "expected a multiple of 32"),
        ({"flows__model_channels": "many"}, "not a backbone configuration"),
        ({"flows__text_width": 8}, "text_width is 8, expected 16"),
        ({"schedule__prediction": "sample"}, "expected 'epsilon' or 'v_prediction'"),
        ({"unconditional_image": "white"}, "unconditional_image is 'white'"),
        ({"image__strength": 1.0}, "strength is 1.0"),
        ({"optimus__bert__hidden_size": 15}, "no network can be built"),
        ({"autokl__norm_groups": 5}, "no network can be built"),
    ],
)
def test_wrong_configuration(folder: Path, changes: dict[str, Any], words: str) -> None:
    edited(folder, **changes)
    refused(folder, "config.json", words)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "\xff"])
def test_configuration_that_is_none(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="latin-1")
    refused(folder, "config.json", "not a backbone configuration")


def test_configuration_of_other_weights(folder: Path) -> None:
    edited(folder, flows__res_blocks=[2])
    refused(folder, "flows.safetensors", "expected the .* keys of this configuration")


@pytest.mark.parametrize("file", ["bert-vocab.txt", "gpt2-vocab.json", "clip-vocab.json"])
def test_vocabulary_of_another_size(folder: Path, file: str) -> None:
    path = folder / file
    if file.endswith("txt"):
        path.write_text(path.read_text() + "stranger\n")
    else:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "stranger": len(content)}))
    refused(folder, file, "expected the .* of config.json")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("bert-vocab.txt", "a\nb\n", r"holds no \[PAD\]"),
        ("gpt2-vocab.json", "[1, 2]", "no map of pieces to numbers"),
        ("gpt2-vocab.json", "{", "no valid JSON"),
        ("clip-vocab.json", '{"a": 0}', "holds no <|startoftext|>"),
        ("gpt2-merges.txt", "#version: 0.2\na b c\n", "a line is no pair"),
        ("clip-merges.txt", "#version: 0.2\nnot there\n", "does not fit its vocabulary"),
        ("bert-vocab.txt", b"\xff\xfe", "no UTF-8 text"),
    ],
)
def test_damaged_vocabulary(folder: Path, file: str, content: str | bytes, words: str) -> None:
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder, file, words.replace("|", r"\|"))


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", ""])
def test_no_such_device(tiny_folder: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device {device} cannot be used"):
        load_backbone(tiny_folder, device=device)


def test_auto_takes_a_device_that_is_there() -> None:
    assert torch.zeros(1, device=choose_device("auto")).device.type == choose_device("auto").type


def test_read_part_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"autokl\.safetensors: no such file, expected the backbone's autokl weights"):
        read_part(tmp_path, "autokl")


def test_fingerprint_follows_every_file(folder: Path, tiny_folder: Path) -> None:
    before = folder_fingerprint(folder)
    assert before == folder_fingerprint(tiny_folder)
    (folder / "README.md").write_text("changed")
    assert folder_fingerprint(folder) == before
    seen = {before}
    for name in ("config.json", *WEIGHT_FILES, *VOCABULARY_FILES):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(folder_fingerprint(folder))
    assert len(seen) == 1 + 1 + len(WEIGHT_FILES) + len(VOCABULARY_FILES)


def test_weights_are_stored_in_half_precision(tiny_folder: Path) -> None:
    for part in PARTS:
        for key, value in load_file(tiny_folder / f"{part}.safetensors").items():
            assert value.dtype == torch.float16 or not value.is_floating_point(), key


def test_failed_writing_leaves_the_old_folder(folder: Path, tmp_path: Path) -> None:
    before = folder_fingerprint(folder)
    with pytest.raises(FileNotFoundError):
        write_backbone(folder, "{}", {part: {} for part in PARTS}, tmp_path / "no-vocabularies", {})
    assert folder_fingerprint(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_configurations_come_back(tmp_path: Path, tiny_config: BackboneConfig) -> None:
    for config in (OFFICIAL, tiny_config):
        file = tmp_path / f"{config.name}.json"
        file.write_text(config.to_json())
        assert BackboneConfig.from_json(file) == config
