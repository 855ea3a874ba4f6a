"""Published files: checked once, read without executing anything, and used for features."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_disk import write_vocabularies
from torch import Tensor

from unibrain.backbone.coders import make_clip
from unibrain.backbone.config import ClipConfig
from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.networks.clip import CLIP_SIZES, ClipEmbedder
from unibrain.evaluation.networks.features import Loaded, build_network, extract, load_network
from unibrain.evaluation.networks.weights import NETWORKS

GRAPHS = ("alexnet", "inception", "efficientnet-b1-v1", "efficientnet-b1-v2", "swav")
Publish = Callable[..., Path]


def small(*shape: int) -> Tensor:
    """A tensor of any shape that takes a few bytes of a file."""
    return torch.tensor(0.01).expand(shape)


def content_of(name: str) -> dict[str, Tensor]:
    """What the published file holds, as far as names and shapes go."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in build_network(name).state_dict().items()}
    found = {key: small(*shape) for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    if name == "inception":
        found |= {"AuxLogits.conv0.conv.weight": small(128, 768, 1, 1), "AuxLogits.fc.bias": small(1000)}
    if name == "swav":
        found |= {"projection_head.0.weight": small(2048, 2048), "prototypes.weight": small(3000, 128)}
        found = {f"module.{key}": value for key, value in found.items()}
    return found


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put a file into a folder, and let the table say that it is the published one, but for what is `said`."""

    def put(name: str, content: Any, *, legacy: bool = False, part: int = 0, option: int = 0, **said: Any) -> Path:
        row = NETWORKS[name]
        file = row.parts[part][option]
        path = tmp_path / file.name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(content, path)
        else:
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        options = list(row.parts[part])
        options[option] = replace(file, **{**found, **said})
        parts = list(row.parts)
        parts[part] = tuple(options)
        monkeypatch.setitem(NETWORKS, name, replace(row, parts=tuple(parts)))
        return path

    return put


@pytest.mark.parametrize(("name", "legacy"), [*((name, False) for name in GRAPHS), ("inception", True), ("swav", True)])
def test_published_files_are_read_by_their_own_names(publish: Publish, name: str, legacy: bool) -> None:
    path = publish(name, content_of(name), legacy=legacy)
    loaded = load_network(name, path.parent)
    assert loaded.name == name
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.module.training
    kinds = {(value.device.type, value.requires_grad) for value in loaded.module.state_dict(keep_vars=True).values()}
    assert kinds == {("cpu", False)}


def test_efficientnet_is_known_by_both_names(publish: Publish) -> None:
    content = content_of("efficientnet-b1-v1")
    path = publish("efficientnet-b1-v1", content, option=1)
    assert path.name == "efficientnet_b1_rwightman-533bc792.pth"
    sha256 = load_network("efficientnet-b1-v1", path.parent).sha256
    publish("efficientnet-b1-v1", content, option=1, sha256=sha256[:8])
    assert load_network("efficientnet-b1-v1", path.parent).sha256 == sha256


def test_a_file_is_hashed_once(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    from unibrain.workspace import fingerprints

    hashed = []
    real = fingerprints.sha256_of
    monkeypatch.setattr(fingerprints, "sha256_of", lambda path: hashed.append(path) or real(path))  # type: ignore[func-returns-value]
    path = publish("swav", content_of("swav"))
    for _ in range(3):
        load_network("swav", path.parent)
    assert hashed == [path]
    note = path.with_name(path.name + ".checked.json")
    for damage in ("{}", '{"size": 1}', "[", "null"):
        note.write_text(damage)
        load_network("swav", path.parent)
    assert len(hashed) == 5
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}: its SHA-256 begins with"):
        load_network("swav", path.parent)


class Code:
    """Leaves a file where it is executed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def _old_format(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _without(key: str) -> dict[str, Tensor]:
    content = content_of("alexnet")
    del content[key]
    return content


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], list[str]]] = {
    "cut off": (lambda _: content_of("alexnet"), {"size": 244_408_911}, ["bytes instead of 244,408,911", "cut off"]),
    "another hash": (
        lambda _: content_of("alexnet"),
        {"sha256": "7be5be79" * 8},
        ["7be5be797be5be79", "fetch metrics"],
    ),
    "code": (lambda place: {"features.0.weight": Code(place / "executed")}, {}, ["would execute code", "mkdir"]),
    "code, old format": (lambda place: _old_format(Code(place / "executed")), {}, ["would execute code", "mkdir"]),
    "code, a bare pickle": (lambda place: pickle.dumps(Code(place / "executed")), {}, ["no file of plain weights"]),
    "rubbish": (lambda _: b"rubbish", {}, ["damaged"]),
    "empty": (lambda _: b"", {}, ["damaged"]),
    "a web page": (lambda _: b"<html>", {}, ["a web page"]),
    "no weights": (lambda _: {"epoch": 3}, {}, ["no named tensors"]),
    "a key is missing": (lambda _: _without("features.3.bias"), {}, ["features.3.bias is missing", "1 weights"]),
    "a key too many": (lambda _: {**content_of("alexnet"), "head.weight": small(2)}, {}, ["head.weight is unknown"]),
    "another shape": (
        lambda _: {**content_of("alexnet"), "features.0.weight": small(64, 1, 11, 11)},
        {},
        ["features.0.weight", "(64, 1, 11, 11) instead of (64, 3, 11, 11)"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_one_sentence(publish: Publish, tmp_path: Path, case: str) -> None:
    make, said, named = WRONG[case]
    path = publish("alexnet", make(tmp_path), **said)
    with pytest.raises(InputError) as refused:
        load_network("alexnet", tmp_path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert [word for word in named if word not in str(refused.value)] == []
    assert not (tmp_path / "executed").exists()


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    for name, command in (("alexnet", "fetch metrics"), ("swav", "fetch metrics --with-swav")):
        with pytest.raises(UnavailableError, match=rf"{NETWORKS[name].parts[0][0].name} is missing.*{command}$"):
            load_network(name, tmp_path)
    with pytest.raises(InputError, match=r"no network 'vgg'\. Choose among alexnet"):
        load_network("vgg", tmp_path)


# Features.


def _loaded(name: str, module: torch.nn.Module) -> Loaded:
    return Loaded(name, module.eval(), "0" * 64)


class Mean(torch.nn.Module):
    """Sees what a network is given."""

    def __init__(self) -> None:
        super().__init__()
        self.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        self.seen: list[int] = []

    def forward(self, pictures: Tensor) -> Tensor:
        self.seen.append(len(pictures))
        pooled: Tensor = self.avgpool(pictures)
        return pooled


def test_pictures_are_normalised_and_seen_in_small_batches() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.random((41, 3, 8, 8), np.float32)
    means, stds = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network, before = Mean(), []

    def batches() -> Iterator[Tensor]:
        for start in (0, 40):
            before.append(len(network.seen))
            yield torch.from_numpy(pictures[start : start + 40])

    whole = extract(_loaded("swav", network), batches(), ["avgpool"])["avgpool"]
    assert (before, network.seen) == ([0, 3], [16, 16, 8, 1])
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, (pictures.mean((2, 3)) - means) / stds, atol=1e-5)


@pytest.mark.parametrize(
    ("batches", "layer", "named"),
    [
        ([], "avgpool", "no pictures"),
        ([torch.zeros(2, 8, 8, 3)], "avgpool", "(2, 8, 8, 3)"),
        ([torch.zeros(3, 8, 8)], "avgpool", "(3, 8, 8)"),
        ([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], "avgpool", "torch.uint8"),
        ([torch.full((2, 3, 8, 8), 255.0)], "avgpool", "255"),
        ([torch.full((2, 3, 8, 8), torch.nan)], "avgpool", "nan"),
        ([torch.zeros(2, 3, 8, 8)], "features.4", "no layer 'features.4'"),
    ],
)
def test_wrong_pictures_are_one_sentence(batches: list[Tensor], layer: str, named: str) -> None:
    with pytest.raises(InputError) as refused:
        extract(_loaded("swav", Mean()), batches, [layer])
    assert named in str(refused.value)


# CLIP.


@pytest.fixture
def clip(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny CLIP in the place of ViT-B/32, and its files."""
    vocabularies = tmp_path / "vocabularies"
    vocabularies.mkdir()
    _, _, size = write_vocabularies(vocabularies)
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = ClipConfig(
        text={"vocab_size": size, **sizes},
        vision={"image_size": 16, "patch_size": 8, **sizes},
        projection_width=12,
        eos_token_id=size - 1,
    )
    monkeypatch.setitem(CLIP_SIZES, "clip-vit-b-32", config)
    torch.manual_seed(3)
    model = make_clip(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    content = {key: value.half() for key, value in model.state_dict().items()}
    model.load_state_dict(content)
    # As in older files.
    content["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    publish("clip-vit-b-32", content)
    for part, name in ((1, "clip-vocab.json"), (2, "clip-merges.txt")):
        publish("clip-vit-b-32", (vocabularies / name).read_bytes(), part=part)
    return model


def test_clip_gives_what_transformers_gives(clip: Any, tmp_path: Path) -> None:
    pictures = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(2))
    found = extract(
        load_network("clip-vit-b-32", tmp_path), [pictures], ["image_embeds", "hidden_states.1", "hidden_states.2"]
    )
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    normal = (pictures - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        expected = clip.vision_model(pixel_values=normal, output_hidden_states=True)
        embeds = clip.visual_projection(expected.pooler_output)
    np.testing.assert_allclose(found["image_embeds"], embeds, atol=1e-5)
    for number in (1, 2):
        np.testing.assert_allclose(
            found[f"hidden_states.{number}"], expected.hidden_states[number].flatten(1), atol=1e-5
        )


def test_captions_and_pictures_meet_in_one_space(clip: Any, tmp_path: Path) -> None:
    embedder = ClipEmbedder("clip-vit-b-32", tmp_path)
    captions = ["ab", "a dog on a beach", "c" * 200, ""] * 10
    found = embedder.embed_text(captions)
    bos, eos = CLIP_SIZES["clip-vit-b-32"].eos_token_id - 1, CLIP_SIZES["clip-vit-b-32"].eos_token_id
    ids = torch.tensor([[bos, 0, 27, eos]])  # letters come first, then letters that end a word
    with torch.inference_mode():
        expected = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
    np.testing.assert_allclose(found[:1], expected, atol=1e-5)
    assert found.shape == (40, 12)
    np.testing.assert_allclose(found[36:], found[:4], atol=1e-6)
    pictures = np.random.default_rng(4).integers(0, 256, (2, 16, 16, 3), np.uint8)
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    plain = extract(load_network("clip-vit-b-32", tmp_path), [tensors], ["image_embeds"])["image_embeds"]
    np.testing.assert_allclose(embedder.embed_images(pictures), plain, atol=1e-5)
    (tmp_path / "clip-merges.txt").unlink()
    with pytest.raises(UnavailableError, match=r"clip-merges\.txt is missing"):
        ClipEmbedder("clip-vit-b-32", tmp_path).embed_text(["a"])
