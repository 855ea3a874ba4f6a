"""Files that are wrong, damaged or dangerous: one sentence each, and nothing left behind."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from on_disk import Tiny, Weights, prefixed
from safetensors.torch import save_file

from unibrain.errors import InputError
from unibrain.weights.convert import convert
from unibrain.weights.manifest import Role
from unibrain.weights.published import read_weights

Files = dict[Role, Path]


@pytest.fixture(scope="module")
def published(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return model.write(tmp_path_factory.mktemp("published"), model.current())


@pytest.fixture(scope="module")
def pipeline(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.write_diffusers(tmp_path_factory.mktemp("pipeline") / "versatile-diffusion")


def refused(files: Files, model: Tiny, target: Path, words: str, **options: Any) -> str:
    """Convert, expect one sentence with these words, and nothing written."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(InputError, match=words) as caught:
        convert(files, target, **{"config": model.config, **options})
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert sorted(target.parent.iterdir()) == before
    return message


class Bomb:
    """Makes a file by the shell when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def torch_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def torch_old(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def oldest_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


@pytest.mark.parametrize("write", [torch_zip, torch_old, plain_pickle, oldest_pickle])
@pytest.mark.parametrize("role", ["flows", "autokl", "optimus", "clip"])
def test_a_file_that_would_execute_code_is_refused(
    write: Callable[[Any, Path], None], role: Role, model: Tiny, published: Files, tmp_path: Path
) -> None:
    mark, file = tmp_path / "was-executed", tmp_path / "evil.pth"
    write({"diffuser.image.time_embed.0.weight": torch.zeros(1), "more": Bomb(mark)}, file)
    message = refused({**published, role: file}, model, tmp_path / "backbone", "would execute code")
    assert str(file) in message
    assert not mark.exists()
    # The bomb is a real one.
    if write is plain_pickle:
        pickle.loads(file.read_bytes())
        assert mark.exists()


def test_the_call_is_named(model: Tiny, published: Files, tmp_path: Path) -> None:
    file = tmp_path / "evil.pth"
    torch.save({"weight": Bomb(tmp_path / "mark")}, file)
    refused({**published, "flows": file}, model, tmp_path / "backbone", r"execute code \((posix|nt)\.system\)")
    torch.save(torch.nn.Linear(2, 2), file)
    refused({**published, "flows": file}, model, tmp_path / "backbone", r"execute code \(torch\.nn\.modules\.linear")


def test_a_bomb_in_a_diffusers_component(model: Tiny, published: Files, pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline, tmp_path / "pipeline"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"weight": Bomb(tmp_path / "mark")}, folder / "vae" / "diffusion_pytorch_model.bin")
    files = {role: path for role, path in published.items() if role not in ("flows", "autokl", "clip")}
    refused({**files, "diffusers": folder}, model, tmp_path / "backbone", "would execute code")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("fraction", [0.0, 0.0001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_truncated_files(fraction: float, form: str, model: Tiny, published: Files, tmp_path: Path) -> None:
    file = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.bin")
    if form == "safetensors":
        save_file({key: value.contiguous() for key, value in model.clip.items()}, file)
    else:
        torch.save(model.clip, file, _use_new_zipfile_serialization=form == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * fraction)])
    message = refused({**published, "clip": file}, model, tmp_path / "backbone", "download")
    assert str(file) in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "is a Git LFS pointer"),
        (b"Read me first.", "no file of weights"),
        (bytes(range(256)) * 20, "no file of weights"),
    ],
)
def test_other_contents(content: bytes, words: str, model: Tiny, published: Files, tmp_path: Path) -> None:
    (tmp_path / "flows.pth").write_bytes(content)
    refused({**published, "flows": tmp_path / "flows.pth"}, model, tmp_path / "backbone", words)


def test_a_zip_of_something_else(model: Tiny, published: Files, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flows.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused({**published, "flows": tmp_path / "flows.pth"}, model, tmp_path / "backbone", "no file of weights")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}, {}])
def test_no_state_dict(content: Any, model: Tiny, published: Files, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "flows.pth")
    refused({**published, "flows": tmp_path / "flows.pth"}, model, tmp_path / "backbone", "named tensors")


def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(InputError, match="TorchScript program"):
        read_weights(tmp_path / "clip.pt")


@pytest.mark.parametrize(
    ("role", "given", "words"),
    [
        ("flows", "autokl", "holds the image autoencoder, expected the flows .*: give it as 'autokl'"),
        ("flows", "optimus", "holds the text autoencoder Optimus.*give it as 'optimus'"),
        ("flows", "clip", "holds CLIP, .*give it as 'clip'"),
        ("autokl", "flows", "holds the four flows.*give it as 'flows'"),
        ("autokl", "clip", "holds CLIP, expected the image autoencoder"),
        ("optimus", "autokl", "holds the image autoencoder, expected the text autoencoder"),
        ("clip", "optimus", "holds the text autoencoder Optimus, expected CLIP"),
    ],
)
def test_swapped_files(role: Role, given: Role, words: str, model: Tiny, published: Files, tmp_path: Path) -> None:
    message = refused({**published, role: published[given]}, model, tmp_path / "backbone", words)
    assert str(published[given]) in message


def other_models(model: Tiny) -> dict[str, tuple[Role, Weights, str]]:
    one = torch.zeros(1)
    clip = model.weights("clip")
    return {
        "sd": (
            "flows",
            {"model.diffusion_model.input_blocks.0.0.weight": one, "first_stage_model.encoder.conv_in.weight": one},
            "a Stable Diffusion checkpoint.*get vd-four-flow",
        ),
        "unet": ("flows", {"conv_in.weight": one, "down_blocks.0.x": one}, "diffusers format.*the folder above"),
        "bert": ("optimus", prefixed("bert.", {"embeddings.word_embeddings.weight": one}), "a BERT alone"),
        "gpt2": ("optimus", {"wte.weight": one, "h.0.attn.bias": one}, "a GPT-2 alone"),
        "openai": ("clip", {"visual.conv1.weight": one, "token_embedding.weight": one}, "OpenAI's own layout"),
        "text": ("clip", {key: value for key, value in clip.items() if key.startswith("text")}, "only the text half"),
        "vision": ("clip", {key: value for key, value in clip.items() if key.startswith("vis")}, "only the vision"),
        "ours": ("flows", model.weights("flows"), "already converted"),
        "resnet": (
            "autokl",
            {"layer1.0.conv1.weight": one, "fc.bias": one},
            r"another model \(2 keys, such as fc.bias",
        ),
    }


@pytest.mark.parametrize("name", ["sd", "unet", "bert", "gpt2", "openai", "text", "vision", "ours", "resnet"])
def test_other_models(name: str, model: Tiny, published: Files, tmp_path: Path) -> None:
    role, weights, words = other_models(model)[name]
    torch.save(weights, tmp_path / "other.pth")
    refused({**published, role: tmp_path / "other.pth"}, model, tmp_path / "backbone", words)


def changed(files: Files, role: Role, folder: Path, edit: Callable[[Weights], object]) -> Files:
    weights = torch.load(files[role], weights_only=True)
    edit(weights)
    path = folder / files[role].name
    torch.save(weights, path)
    return {**files, role: path}


KEYS: dict[Role, str] = {
    "flows": "diffuser.text.data_blocks.3.0.weight",
    "autokl": "decoder.up.1.block.0.conv1.weight",
    "optimus": "decoder.transformer.linear_emb.weight",
    "clip": "vision_model.embeddings.class_embedding",
}


@pytest.mark.parametrize("role", KEYS)
def test_missing_keys(role: Role, model: Tiny, published: Files, tmp_path: Path) -> None:
    def edit(weights: Weights) -> None:
        del weights[KEYS[role]]
        weights["stranger.weight"] = torch.zeros(1)

    files = changed(published, role, tmp_path, edit)
    words = rf"{role} lacks 1 of its \d+ keys, such as \S+ \(and has 1 unexpected ones, such as stranger\.weight\)"
    assert str(files[role]) in refused(files, model, tmp_path / "backbone", words)


@pytest.mark.parametrize("role", KEYS)
def test_wrong_sizes(role: Role, model: Tiny, published: Files, tmp_path: Path) -> None:
    files = changed(published, role, tmp_path, lambda weights: weights.update({KEYS[role]: torch.zeros(3, 5)}))
    words = rf"{KEYS[role]} has shape \(3, 5\), expected \(.*\) by configuration 'tiny'".replace(".", r"\.", 3)
    refused(files, model, tmp_path / "backbone", words.replace(r"\.*", ".*"))


def test_the_tiny_files_are_not_the_official_model(model: Tiny, published: Files, tmp_path: Path) -> None:
    from unibrain.backbone.config import OFFICIAL

    refused(
        published,
        model,
        tmp_path / "backbone",
        "flows lacks 4 of its 1368 keys.*configuration 'official'",
        config=OFFICIAL,
    )


def test_numbers_that_are_no_weights(model: Tiny, published: Files, tmp_path: Path) -> None:
    key = KEYS["flows"]
    files = changed(published, "flows", tmp_path, lambda weights: weights.update({key: weights[key].to(torch.int8)}))
    refused(files, model, tmp_path / "backbone", f"{key} has type int8, expected floating-point")
    files = changed(published, "flows", tmp_path, lambda weights: weights[key].view(-1)[7:8].fill_(float("nan")))
    refused(files, model, tmp_path / "backbone", f"{key} holds NaN or infinity")
    files = changed(published, "flows", tmp_path, lambda weights: weights[key].view(-1)[7:8].fill_(1e6))
    refused(files, model, tmp_path / "backbone", f"{key} holds numbers too large for float16.*bf16", dtype="fp16")
    convert(files, tmp_path / "backbone", dtype="bf16", config=model.config)


def test_missing_files_and_parts(model: Tiny, published: Files, pipeline: Path, tmp_path: Path) -> None:
    target = tmp_path / "backbone"
    for role in ("flows", "clip-vocab"):
        refused({**published, role: tmp_path / "nowhere.pth"}, model, target, "nowhere.pth: no such file")
        refused({**published, role: tmp_path}, model, target, f"a folder, expected the file to use as {role}")
    for role, words in (("autokl", "kl-f8.pth"), ("clip", "openai/clip-vit-large-patch14"), ("flows", "vd-four-flow")):
        files = {other: path for other, path in published.items() if other != role}
        refused(files, model, target, f"no {role} was given.*{words}.*: give it too")
    for role in ("clip-vocab", "clip-merges", "bert-vocab", "gpt2-vocab", "gpt2-merges"):
        files = {other: path for other, path in published.items() if other != role}
        refused(files, model, target, f"no {role} was given, expected .* of (openai|bert|gpt2)")
    refused({}, model, target, "no files were given")
    refused({**published, "vae": published["autokl"]}, model, target, "role 'vae' is not known")  # type: ignore[dict-item]
    refused(published, model, target, "dtype is 'int4', expected one of as-stored, fp32", dtype="int4")


def test_diffusers_folders_that_are_none(model: Tiny, published: Files, pipeline: Path, tmp_path: Path) -> None:
    files = {role: path for role, path in published.items() if role not in ("flows", "autokl", "clip")}
    target = tmp_path / "backbone"
    refused({**files, "diffusers": tmp_path / "nowhere"}, model, target, "no such folder")
    refused({**files, "diffusers": published["flows"]}, model, target, "a file, expected the folder")
    (tmp_path / "sd" / "unet").mkdir(parents=True)
    refused({**files, "diffusers": tmp_path / "sd"}, model, target, "holds a Stable Diffusion pipeline")
    folder = Path(shutil.copytree(pipeline, tmp_path / "pipeline"))
    shutil.rmtree(folder / "image_encoder")
    refused({**files, "diffusers": folder}, model, target, "no clip was given")
    (folder / "image_unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused({**files, "diffusers": folder}, model, target, r"pipeline: flows lacks \d+ of its 1364 keys")
    index = folder / "image_unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    refused({**files, "diffusers": folder}, model, target, "no plain file name")


def test_two_unets_that_do_not_belong_together(model: Tiny, published: Files, pipeline: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(pipeline, tmp_path / "pipeline"))
    file = folder / "text_unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["time_embedding.linear_1.bias"] = weights["time_embedding.linear_1.bias"] + 1
    save_file(weights, file)
    files = {role: path for role, path in published.items() if role not in ("flows", "autokl", "clip")}
    words = r"image_unet and text_unet have different time_embedding\.linear_1\.bias"
    refused({**files, "diffusers": folder}, model, tmp_path / "backbone", words)


@pytest.mark.parametrize(
    ("role", "other", "words"),
    [
        ("clip-vocab", "gpt2-vocab", "holds no <.startoftext.>"),
        ("gpt2-vocab", "clip-vocab", "tokens, marks included, expected|does not fit"),
        ("bert-vocab", "gpt2-merges", r"holds no \[PAD\]"),
        ("gpt2-merges", "bert-vocab", "a line is no pair"),
    ],
)
def test_swapped_vocabularies(
    role: Role, other: Role, words: str, model: Tiny, published: Files, tmp_path: Path
) -> None:
    refused({**published, role: published[other]}, model, tmp_path / "backbone", words)


def test_vocabulary_of_another_size(model: Tiny, published: Files, tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text(published["bert-vocab"].read_text() + "stranger\n")
    refused({**published, "bert-vocab": file}, model, tmp_path / "backbone", r"vocab\.txt: \d+ tokens")
