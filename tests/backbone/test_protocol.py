"""The Protocol, the registry, and a second implementation that proves both."""

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest

from toy_backbone import ToyBackbone
from unibrain.backbone import BACKBONES, Backbone, SamplingError, VersatileDiffusion, load_backbone
from unibrain.errors import InputError

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
WORDS = ["a red car", "a dog on the beach", "a cat"]
SEEDS = np.arange(3, dtype=np.int64)


@pytest.fixture(params=["toy", "tiny"])
def backbone(request: Any, tiny: VersatileDiffusion) -> Backbone:
    return ToyBackbone() if request.param == "toy" else tiny


@pytest.mark.parametrize("other", [ToyBackbone(), VersatileDiffusion])
def test_ten_members_that_every_backbone_has(other: object) -> None:
    members = {name for name in vars(Backbone) if not name.startswith("_")}
    assert len(members) == 10
    assert members <= {*dir(other), *vars(other)} | {"fingerprint"}
    home = other if isinstance(other, type) else type(other)
    for method in ("sampling", "scans_at_once", "encode", "embed", "sample", "decode"):
        wanted, found = (list(inspect.signature(getattr(one, method)).parameters) for one in (Backbone, home))
        assert found == wanted, method


def note(seen: list[Any], *state: Any) -> None:
    seen.append(state)


def test_every_backbone_encodes_embeds_samples_and_decodes(backbone: Backbone) -> None:
    assert backbone.kinds == ("picture", "caption")
    assert len(backbone.fingerprint) == 64
    assert backbone.precision == "fp32"
    starts = {"picture": backbone.encode("z_image", PICTURES), "caption": backbone.encode("z_text", WORDS)}
    contexts = {"c_image": backbone.encode("c_image", PICTURES), "c_text": backbone.encode("c_text", WORDS)}
    for kind, items in (("picture", PICTURES), ("caption", WORDS)):
        embedded = backbone.embed(kind, items)
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
        assert backbone.scans_at_once(kind) >= 3
        settings = backbone.sampling(kind)
        for start in (starts[kind], None):
            seen: list[Any] = []
            found = backbone.sample(kind, start, contexts, settings, SEEDS, partial(note, seen))
            steps = settings.steps if start is None else int(settings.strength * settings.steps)
            assert [(step, of) for step, of, _ in seen] == [(i + 1, steps) for i in range(steps)]
            assert all(x0.shape == starts[kind].shape and x0.dtype == np.float32 for *_, x0 in seen)
            again = backbone.sample(kind, start, contexts, settings, SEEDS)
            assert len(found) == 3
            assert np.array_equal(found, again)
        decoded = backbone.decode(kind, starts[kind])
        assert np.shape(decoded)[:1] == (3,)
        assert np.asarray(decoded).dtype == np.uint8 if kind == "picture" else isinstance(decoded[0], str)


def test_what_cannot_be_is_refused(backbone: Backbone) -> None:
    z, settings = backbone.encode("z_image", PICTURES), backbone.sampling("picture")
    for call in (
        lambda: backbone.encode("z_sound", PICTURES),
        lambda: backbone.sampling("sound"),
        lambda: backbone.embed("sound", WORDS),
        lambda: backbone.sample("picture", z[:, :, :2], {}, settings, SEEDS),
        lambda: backbone.sample("picture", z, {"c_sound": z}, settings, SEEDS),
    ):
        with pytest.raises(InputError):
            call()
    z[1] = np.inf
    with pytest.raises(SamplingError) as caught:
        backbone.sample("picture", z, {}, settings, SEEDS)
    assert caught.value.row == 1


def test_a_further_kind_is_a_kind_and_a_latent() -> None:
    toy = ToyBackbone(extra="depth")
    depth = toy.encode("z_depth", PICTURES)
    assert toy.kinds == ("picture", "caption", "depth")
    assert toy.decode("depth", depth).shape == (3, 8, 8)


def test_the_registry_hands_options_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    toy = ToyBackbone()
    monkeypatch.setitem(BACKBONES, "toy", lambda **options: given.update(options) or toy)
    assert load_backbone("toy", device="cpu", dtype="bf16") is toy
    assert given == {"device": "cpu", "dtype": "bf16", "batch_size": None, "offload": False, "compile": False}
    assert load_backbone("small", device="cpu").name == "small"
    with pytest.raises(InputError, match=r"no-such-backbone: .*'small', 'official', 'toy'"):
        load_backbone("no-such-backbone", device="cpu")
