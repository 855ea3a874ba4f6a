"""A backbone folder: written whole, read back, and refused with a sentence that names the file at fault."""

import dataclasses
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unibrain.backbone import BackboneConfig, SamplingSettings, load_backbone
from unibrain.backbone import folder as folder_part
from unibrain.backbone.config import OFFICIAL, FlowsConfig, ScheduleConfig
from unibrain.backbone.folder import PARTS, VOCABULARY_FILES, folder_fingerprint
from unibrain.backbone.loading import open_weights, write_backbone
from unibrain.errors import InputError
from unibrain.workspace.fingerprints import sha256_of

WEIGHT_FILES = [f"{part}.safetensors" for part in PARTS]
PICTURES = np.zeros((1, 16, 16, 3), dtype=np.uint8)


def use_all(folder: Path) -> None:
    backbone = load_backbone(folder, device="cpu")
    contexts = {"c_image": backbone.encode("c_image", PICTURES), "c_text": backbone.encode("c_text", ["a dog"])}
    for kind, start in (("picture", None), ("caption", backbone.encode("z_text", ["a dog"]))):
        backbone.sample(kind, start, contexts, backbone.sampling(kind), np.arange(1))


def written(content: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(length: int) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def weights(**changes: torch.Tensor | None) -> Callable[[Path], Any]:
    """Put tensors into a weight file; None takes one out."""

    def change(path: Path) -> None:
        content = {**load_file(path), **changes}
        save_file({key: value for key, value in content.items() if value is not None}, path)

    return change


def edited(key: str, value: Any) -> Callable[[Path], Any]:
    """Change one entry of config.json, its place written with dots."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        *parents, last = key.split(".")
        entry = content
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
        path.write_text(json.dumps(content))

    return change


def untie(path: Path) -> None:
    weights(**{"gpt2.lm_head.weight": load_file(path)["gpt2.transformer.wte.weight"] + 1})(path)


def one_more(path: Path) -> None:
    if path.suffix == ".txt":
        path.write_text(path.read_text() + "stranger\n")
    else:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "stranger": len(content)}))


@pytest.mark.parametrize(
    ("file", "damage", "names"),
    [
        *((name, Path.unlink, "no such file") for name in ["flows.safetensors", "clip.safetensors", *VOCABULARY_FILES]),
        *(("flows.safetensors", cut(length), "safetensors") for length in (0, -1)),
        ("autokl.safetensors", written(b"\x80\x02}q\x00."), "safetensors"),
        ("flows.safetensors", weights(**{"image.time_embed.0.weight": torch.zeros(8, 8)}), "image.time_embed.0.weight"),
        ("optimus.safetensors", weights(**{"to_memory.weight": None}), "to_memory.weight"),
        ("optimus.safetensors", weights(**{"gpt2.transformer.wte.weight": None}), "gpt2.transformer.wte.weight"),
        ("optimus.safetensors", untie, "gpt2.lm_head.weight"),
        ("autokl.safetensors", weights(stranger=torch.zeros(1)), "stranger"),
        ("config.json", edited("colour", "red"), "colour"),
        ("config.json", edited("flows.model_channels", "many"), "flows.model_channels"),
        ("config.json", edited("flows.text_width", 8), "text_width"),
        ("config.json", edited("unconditional_image", "white"), "unconditional_image"),
        ("config.json", edited("image.strength", 1.0), "strength is 1.0"),
        ("config.json", edited("optimus.bert.hidden_size", 15), "15"),
        ("config.json", edited("autokl.norm_groups", 5), "no network can be built"),
        ("config.json", edited("optimus.gpt2", {}), "vocab_size"),
        ("config.json", edited("optimus.unrepeated", [4, -1]), "-1"),
        ("config.json", edited("optimus.unrepeated", [100_000]), "100000"),
        *(("config.json", written(text), "config.json") for text in ("", "[]", b"\xff")),
        ("config.json", written("[" * 100_000), "config.json"),
        ("bert-vocab.txt", one_more, "tokens"),
        ("clip-vocab.json", one_more, "tokens"),
        ("bert-vocab.txt", written("a\nb\n"), "[PAD]"),
        ("bert-vocab.txt", written(b"\xff\xfe"), "UTF-8"),
        ("gpt2-vocab.json", written("[1, 2]"), "pieces"),
        ("gpt2-vocab.json", written("{"), "JSON"),
        ("gpt2-vocab.json", written("[" * 100_000), "JSON"),
        ("gpt2-vocab.json", written('{"a": 0, "b": 0}'), "0 to 1"),
        ("clip-vocab.json", written('{"a": 0}'), "<|startoftext|>"),
        ("gpt2-merges.txt", written("#version: 0.2\na b c\n"), "pair"),
        ("clip-merges.txt", written("#version: 0.2\nnot there\n"), "merges"),
    ],
)
def test_a_damaged_folder_is_refused_by_the_file_at_fault(
    folder: Path, file: str, damage: Callable[[Path], Any], names: str
) -> None:
    damage(folder / file)
    with pytest.raises(InputError) as caught:
        use_all(folder)
    message = str(caught.value)
    assert str(folder / file) in message
    assert names in message
    assert "\n" not in message


def test_what_the_system_refuses_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"clip\.safetensors"), open_weights(folder / "clip.safetensors"):
        pass


def test_a_folder_without_configuration_or_of_another_name(folder: Path) -> None:
    (folder / "config.json").unlink()
    for missing in (folder, folder / "none"):
        with pytest.raises(InputError, match=r"config\.json is missing") as caught:
            load_backbone(missing)
        assert str(missing) in str(caught.value)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", [lambda content, path: path.write_bytes(pickle.dumps(content)), torch.save])
def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path, write: Any) -> None:
    mark = tmp_path / "was-run"
    write({"weight": Bomb(mark)}, folder / "clip.safetensors")
    with pytest.raises(InputError, match=r"clip\.safetensors: not a readable safetensors file"):
        load_backbone(folder, device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("make", "wrong", "names"),
    [
        (SamplingSettings, {"strength": 1.0}, "leave the latent out"),
        (SamplingSettings, {"steps": 0}, "steps is 0"),
        (SamplingSettings, {"steps": 1000}, "steps is 1000"),
        (SamplingSettings, {"steps": 3, "strength": 0.3}, "less than one step"),
        (SamplingSettings, {"image_weight": -0.1}, "image_weight is -0.1"),
        (SamplingSettings, {"image_weight": 1.01}, "image_weight is 1.01"),
        (SamplingSettings, {"eta": 1.5}, "eta is 1.5"),
        (SamplingSettings, {"guidance_end": 45}, "guidance_end is 45"),
        (SamplingSettings, {"guidance_scale": float("nan")}, "guidance_scale is nan"),
        (ScheduleConfig, {"prediction": "sample"}, "prediction is 'sample'"),
        (ScheduleConfig, {"timesteps": 0}, "0 timesteps"),
        (ScheduleConfig, {"beta_start": 0.5, "beta_end": 0.1}, "from 0.5 to 0.1"),
        (FlowsConfig, {"res_blocks": (1,)}, "res_blocks 1"),
        (FlowsConfig, {"channel_mult": (2, 2, 4, 4)}, "starts with 2"),
        (FlowsConfig, {"model_channels": 48}, "48"),
        (FlowsConfig, {"model_channels": 32, "heads": 5}, "5 heads"),
        (FlowsConfig, {"heads": 0}, "0 heads"),
    ],
)
def test_values_out_of_range(make: type, wrong: dict[str, Any], names: str) -> None:
    given = {"image_weight": 0.5, **wrong} if make is SamplingSettings else wrong
    with pytest.raises(InputError, match=names):
        make(**given)


def test_configurations_come_back(tmp_path: Path, tiny_config: BackboneConfig) -> None:
    for config in (OFFICIAL, tiny_config):
        file = tmp_path / f"{config.name}.json"
        file.write_text(config.to_json())
        assert BackboneConfig.from_json(file) == config
    file.write_text(json.dumps({"name": "short", "image": {"image_weight": 1}}))
    short = BackboneConfig.from_json(file)
    assert short == dataclasses.replace(OFFICIAL, name="short", image=SamplingSettings(1.0))


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


def test_a_recorded_hash_is_taken_for_a_large_unchanged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = folder_fingerprint(folder)
    hashes = {file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for file in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"files": hashes}))
    monkeypatch.setattr(folder_part, "LARGE", 1)
    with monkeypatch.context() as patch:
        patch.setattr(folder_part, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
        assert folder_fingerprint(folder) == expected
    # Changed afterwards, of the same size: the record no longer counts.
    file = folder / "clip.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    file.write_bytes(content)
    assert folder_fingerprint(folder) != expected
    for damaged in ("[]", "{", "[" * 100_000, '{"files": {"clip.safetensors": {"size": 1}}}'):
        (folder / "manifest.json").write_text(damaged)
        assert folder_fingerprint(folder) != expected


def test_failed_writing_leaves_the_old_folder(folder: Path, tmp_path: Path) -> None:
    before = folder_fingerprint(folder)
    with pytest.raises(FileNotFoundError):
        write_backbone(folder, "{}", {part: {} for part in PARTS}, tmp_path / "no-vocabularies", {})
    assert folder_fingerprint(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
