"""What the stages ask of the backbone: one for all of them, and what of it belongs into their records."""

import pytest

from toy_backbone import ToyBackbone
from unibrain.backbone.folder import backbone_folder, folder_fingerprint
from unibrain.errors import InputError
from unibrain.pipeline import BackboneSource


def test_all_stages_share_one_backbone_whose_networks_wait_until_they_are_used() -> None:
    source = BackboneSource("cpu")
    backbone = source.load("small")
    assert source.load("small") is backbone
    assert backbone.parts.loaded == ()


@pytest.mark.parametrize(("dtype", "precision"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_what_decides_results_is_known_before_anything_is_computed(dtype: str, precision: str) -> None:
    source = BackboneSource("cpu", dtype=dtype)
    assert source.fingerprint("small") == folder_fingerprint(backbone_folder("small"))
    assert source.precision("small") == precision
    assert source.load("small").parts.loaded == ()


def test_a_backbone_that_is_handed_in_is_used_whatever_the_settings_name() -> None:
    toy = ToyBackbone()
    source = BackboneSource(loaded=toy)
    assert source.load("official") is toy
    assert source.fingerprint("official") == toy.fingerprint


def test_a_precision_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="int4"):
        BackboneSource("cpu", dtype="int4").precision("small")
