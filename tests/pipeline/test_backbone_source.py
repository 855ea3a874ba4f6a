"""What the stages ask of the backbone: parts as they are needed, and what of it belongs into their records."""

from typing import Any

import pytest
import torch

from unibrain.backbone.storage import backbone_folder, folder_fingerprint
from unibrain.errors import InputError
from unibrain.pipeline import BackboneSource
from unibrain.pipeline.backbone_source import DECODING, EXTRACTING, SCORING


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    import unibrain.backbone.loading as loading

    seen: list[tuple[str, ...]] = []
    real = loading.load_backbone

    def watch(name: str, **options: Any) -> Any:
        seen.append(tuple(options["parts"]))
        return real(name, **options)

    monkeypatch.setattr("unibrain.backbone.loading.load_backbone", watch)
    return seen


def test_each_stage_loads_what_it_needs_and_nothing_twice(loads: list[tuple[str, ...]]) -> None:
    source = BackboneSource("cpu")
    first = source.load("small", EXTRACTING)
    assert first.parts.names == ("autokl", "optimus", "clip")
    clip = first.clip
    second = source.load("small", DECODING)
    assert second is first
    assert second.clip is clip
    assert second.parts.names == ("flows", "autokl", "optimus", "clip")
    assert len(second.flows.image.data_blocks)
    assert len(second.flows.text.data_blocks)
    assert source.load("small", SCORING) is first
    assert loads == [EXTRACTING, ("flows",)]


def test_scores_need_clip_alone(loads: list[tuple[str, ...]]) -> None:
    backbone = BackboneSource("cpu").load("small", SCORING)
    assert backbone.parts.names == ("clip",)
    assert backbone.embed("caption", ["a dog"]).shape[0] == 1


def test_facts_are_known_without_loading_and_name_the_precision(loads: list[tuple[str, ...]]) -> None:
    fingerprint = folder_fingerprint(backbone_folder("small"))
    # As it was recorded before there was a choice: such runs stay up to date.
    assert BackboneSource("cpu").facts("small") == {"backbone": fingerprint}
    assert BackboneSource("cpu", dtype="fp32").facts("small") == {"backbone": fingerprint}
    source = BackboneSource("cpu", dtype="bf16")
    assert source.facts("small") == {"backbone": fingerprint, "precision": "bf16"}
    assert loads == []
    loaded = source.load("small", SCORING)
    assert loaded.dtype == torch.bfloat16
    assert source.facts("small") == {"backbone": fingerprint, "precision": "bf16"}


def test_a_precision_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="dtype is 'int4'"):
        BackboneSource("cpu", dtype="int4").facts("small")
