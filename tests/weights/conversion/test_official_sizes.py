"""The official configuration, on the meta device, against every published key, shape and count."""

import gzip
import json
from math import prod
from pathlib import Path

import pytest
import torch
from on_disk import TABLES, Weights, deprecated_flows, published_autokl, published_optimus

from unibrain.backbone.config import OFFICIAL
from unibrain.weights.expected import Expected, expect
from unibrain.weights.parts import gather

Shapes = dict[str, tuple[int, ...]]
PUBLISHED = Path(__file__).parents[2] / "backbone" / "data" / "published-keys.json.gz"


@pytest.fixture(scope="module")
def published() -> dict[str, Shapes]:
    content = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    return {part: {key: tuple(shape) for key, shape in keys.items()} for part, keys in content.items()}


@pytest.fixture(scope="module")
def official() -> Expected:
    return expect(OFFICIAL)


def empty(shapes: Shapes) -> Weights:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes(weights: Weights) -> Shapes:
    return {key: tuple(value.shape) for key, value in weights.items()}


def below(prefix: str, keys: Shapes) -> Shapes:
    return {prefix + key: shape for key, shape in keys.items()}


def layout(name: str, published: dict[str, Shapes]) -> Shapes:
    """Every key of a published flows' file that repeats everything."""
    keys: Shapes = dict.fromkeys(TABLES["schedule"], (1000,))
    if name == "current":
        keys |= below("diffuser.", published["flows"]) | below("vae.image.", published["autokl"])
        keys |= below("vae.text.", published["optimus"])
        return keys | below("ctx.image.model.", published["clip"]) | below("ctx.text.model.", published["clip"])
    keys |= {key: tuple(shape) for key, shape in TABLES["deprecated"].items()}
    keys |= below("autokl.", published["autokl"]) | below("optimus.", published["optimus"])
    return keys | below("clip.model.", published["clip"])


@pytest.mark.parametrize("name", ["current", "deprecated"])
def test_every_published_key_finds_its_place(
    name: str, published: dict[str, Shapes], official: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = layout(name, published)
    assert len(keys) == sum(part["n_keys"] for part in TABLES["files"][name].values())
    monkeypatch.setattr("unibrain.weights.candidates.read_weights", lambda _: empty(keys))
    parts, notes = gather({"flows": Path("vd-four-flow.pth")}, OFFICIAL, official)
    assert notes == []
    for part, found in parts.items():
        assert (found.missing, found.unexpected) == ((), ())
        assert {key: tuple(entry.tensor.shape) for key, entry in found.tensors.items()} == official.shapes[part]
    used = {entry.key for found in parts.values() for entry in found.tensors.values()}
    # Left over: the noise schedule, GPT-2's masks, and of CLIP's two copies the half that each is not used for.
    left = {key for key in keys if key not in used and key not in TABLES["schedule"] and ".attn.bias" not in key}
    assert all(key.startswith(("ctx.image.model.", "ctx.text.model.")) for key in left)
    assert len(left) == (590 if name == "current" else 0)
    assert sum(found.ignored for found in parts.values()) == 12 + 12


def test_the_writers_of_these_tests_agree_with_the_published_keys(
    published: dict[str, Shapes], official: Expected
) -> None:
    """The tiny files of the other tests are named by functions that give the published keys at full size."""
    flows, autokl, optimus, clip = (empty(official.shapes[part]) for part in ("flows", "autokl", "optimus", "clip"))
    assert shapes(flows) == published["flows"]
    assert shapes(clip) == published["clip"]
    assert shapes(published_autokl(autokl, 4)) == published["autokl"]
    assert shapes(published_optimus(optimus, 12, 1024)) == published["optimus"]
    old = {key: tuple(shape) for key, shape in TABLES["deprecated"].items()}
    assert shapes(deprecated_flows(flows)) == old


def test_numbers_of_parameters(official: Expected) -> None:
    def count(part: str, prefix: str = "") -> int:
        return sum(prod(shape) for key, shape in official.shapes[part].items() if key.startswith(prefix))

    tied = prod(official.shapes["optimus"]["gpt2.lm_head.weight"])
    counts = {
        "diffuser.image.global": count("flows", "image.time_embed."),
        "diffuser.image.data": count("flows", "image.data_blocks."),
        "diffuser.image.context": count("flows", "image.context_blocks."),
        "diffuser.text.data": count("flows", "text.data_blocks."),
        "diffuser.text.context": count("flows", "text.context_blocks."),
        "vae.image": count("autokl"),
        "vae.text": count("optimus") - tied,
        "ctx.image": count("clip"),
    }
    table = TABLES["files"]["current"]
    assert counts == {part: table[part]["n_params"] for part in counts}
    assert {part: round(number / 1e6, 2) for part, number in counts.items()} == {
        "diffuser.image.global": 2.05,
        "diffuser.image.data": 590.23,
        "diffuser.image.context": 267.24,
        "diffuser.text.data": 1439.56,
        "diffuser.text.context": 267.24,
        "vae.image": 83.65,
        "vae.text": 241.60,
        "ctx.image": 427.62,
    }
    assert round(count("flows") / 1e6, 1) == 2566.3


def test_vocabularies_of_the_official_size(official: Expected) -> None:
    assert (official.bert_pieces, official.gpt2_tokens, official.clip_tokens) == (28996, 50260, 49408)
