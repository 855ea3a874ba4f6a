"""Reconstruction with a stand-in for the backbone: batches, seeds, and going on after an interruption."""

import dataclasses
import sys

import numpy as np
import pytest

from unibrain.backbone.config import SamplingSettings
from unibrain.errors import InputError
from unibrain.latents import Latents
from unibrain.reconstruction import reconstruct
from unibrain.reconstruction.cache import store_picture
from unibrain.reconstruction.reconstruct import scan_seeds


class Backbone:
    """What it draws depends on the latents, the settings and the seed of a scan, as in the real one."""

    name = "stand-in"
    fingerprint = "0" * 64
    precision = "fp32"
    image_settings = SamplingSettings(image_weight=0.6)
    text_settings = SamplingSettings(image_weight=0.9)

    def scans_at_once(self, kind):
        return 32

    def __init__(self, fail_after=None):
        self.pictures, self.captions, self.batches = [], [], []
        self.fail_after = fail_after

    def sample_pictures(self, z_image, c_image, c_text, settings, seeds):
        if self.fail_after is not None and len(self.pictures) >= self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(len(seeds))
        self.pictures += list(seeds)
        noise = np.stack([np.random.default_rng(seed).integers(0, 100, (4, 5, 3)) for seed in seeds])
        total = (
            z_image.sum(axis=(1, 2, 3)) + c_image.sum(axis=(1, 2)) + c_text.sum(axis=(1, 2))
        ) * settings.image_weight
        return (noise + np.abs(total * 10).astype(int)[:, None, None, None]).astype(np.uint8)

    def sample_captions(self, z_text, c_image, c_text, settings, seeds):
        self.captions += list(seeds)
        return [f"{z.sum():.4f} {settings.image_weight} “{seed}”" for z, seed in zip(z_text, seeds, strict=True)]


def draw(n=7):
    rng = np.random.default_rng(0)
    shapes = (2, 3, 3), (5,), (2, 4), (3, 4)
    ids = np.array([5, 70_000, 12, 0, 9, 31, 2, 8, 7][:n])
    return Latents(ids, *(rng.standard_normal((n, *shape)).astype(np.float32) for shape in shapes))


def assert_equal(a, b):
    np.testing.assert_array_equal(a.stimulus_ids, b.stimulus_ids)
    np.testing.assert_array_equal(a.pictures, b.pictures)
    assert a.captions == b.captions


def test_a_scan_is_decoded_the_same_in_any_company():
    latents = draw()
    whole = reconstruct(Backbone(), latents, seed=3)
    assert_equal(reconstruct(Backbone(), latents, seed=3, batch_size=2), whole)
    order = np.array([6, 2, 0])
    part = reconstruct(Backbone(), latents.rows(order), seed=3)
    np.testing.assert_array_equal(part.pictures, whole.pictures[order])
    assert part.captions == tuple(whole.captions[i] for i in order)
    other = reconstruct(Backbone(), latents, seed=4)
    assert (other.pictures != whole.pictures).any()


def test_batches_and_shapes():
    backbone = Backbone()
    decoded = reconstruct(backbone, draw(), batch_size=3)
    assert backbone.batches == [3, 3, 1]
    assert decoded.pictures.shape == (7, 4, 5, 3)
    assert len(decoded.captions) == 7


def test_settings_default_to_the_backbone_and_reach_their_flow():
    default = reconstruct(Backbone(), draw())
    image, text = SamplingSettings(image_weight=0.1), SamplingSettings(image_weight=0.2)
    given = reconstruct(Backbone(), draw(), image_settings=image, text_settings=text)
    assert " 0.9 " in default.captions[0]
    assert " 0.2 " in given.captions[0]
    assert (default.pictures != given.pictures).any()
    assert_equal(reconstruct(Backbone(), draw(), Backbone.image_settings, Backbone.text_settings), default)


def test_seeds():
    ids = np.arange(1000)
    pictures, captions = scan_seeds(0, ids, "picture"), scan_seeds(0, ids, "caption")
    assert pictures.dtype == np.int64
    assert pictures.min() >= 0
    assert len(np.unique(np.concatenate([pictures, captions, scan_seeds(1, ids, "picture")]))) == 3000
    np.testing.assert_array_equal(scan_seeds(0, ids[::-1], "picture"), pictures[::-1])
    expected = np.random.SeedSequence((0, 1, 17)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    assert captions[17] == expected


def test_killed_run_goes_on_at_the_item(tmp_path):
    latents = draw()
    whole = reconstruct(Backbone(), latents, batch_size=2)
    killed = Backbone(fail_after=4)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(killed, latents, batch_size=2, cache=tmp_path)
    second = Backbone()
    assert_equal(reconstruct(second, latents, batch_size=2, cache=tmp_path), whole)
    assert len(killed.pictures) == 4
    assert len(second.pictures) == 3
    assert not set(killed.pictures) & set(second.pictures)
    third = Backbone()
    assert_equal(reconstruct(third, latents, cache=tmp_path), whole)
    assert third.pictures == third.captions == []


def test_items_of_a_batch_are_kept_one_by_one(tmp_path, monkeypatch):
    """Killed between two items of one batch: the first is not decoded again."""
    calls = []

    def store_once(folder, key, picture):
        if calls:
            raise KeyboardInterrupt
        calls.append(key)
        store_picture(folder, key, picture)

    # The function hides the module of its name.
    module = sys.modules[reconstruct.__module__]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "store_picture", store_once)
        reconstruct(Backbone(), draw(), cache=tmp_path)
    backbone = Backbone()
    reconstruct(backbone, draw(), cache=tmp_path)
    assert len(backbone.pictures) == 6


@pytest.mark.parametrize("suffix", [".png", ".json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damaged_item_is_decoded_again(tmp_path, suffix, damage):
    whole = reconstruct(Backbone(), draw(), cache=tmp_path)
    path = sorted(tmp_path.glob(f"*{suffix}"))[2]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2 if suffix == ".png" else 3] ^= 0x55
    path.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    backbone = Backbone()
    assert_equal(reconstruct(backbone, draw(), cache=tmp_path), whole)
    assert (len(backbone.pictures), len(backbone.captions)) == ((1, 0) if suffix == ".png" else (0, 1))


def changed_backbone():
    backbone = Backbone()
    backbone.fingerprint = "1" * 64
    return {"backbone": backbone}


def changed_latents(name, row=2):
    latents = draw()
    latents[name][row] += 0.5
    return {"latents": latents}


@pytest.mark.parametrize(
    ("change", "decoded_again"),
    [
        ({"seed": 1}, (7, 7)),
        ({"batch_size": 1}, (0, 0)),
        ({"image_settings": dataclasses.replace(Backbone.image_settings, guidance_scale=2.0)}, (7, 0)),
        ({"text_settings": dataclasses.replace(Backbone.text_settings, steps=20)}, (0, 7)),
        (changed_backbone(), (7, 7)),
        (changed_latents("z_image"), (1, 0)),
        (changed_latents("z_text"), (0, 1)),
        (changed_latents("c_image"), (1, 1)),
        (changed_latents("c_text"), (1, 1)),
    ],
)
def test_cache_is_keyed_by_what_the_result_depends_on(tmp_path, change, decoded_again):
    reconstruct(Backbone(), draw(), cache=tmp_path)
    arguments = {"backbone": Backbone(), "latents": draw(), **change}
    arguments["backbone"].pictures, arguments["backbone"].captions = [], []
    cached = reconstruct(**arguments, cache=tmp_path)
    assert (len(arguments["backbone"].pictures), len(arguments["backbone"].captions)) == decoded_again
    assert_equal(cached, reconstruct(**arguments))


def test_shows_progress(capsys):
    reconstruct(Backbone(), draw())
    error = capsys.readouterr().err
    assert "decode pictures" in error
    assert "decode captions" in error


def test_refuses():
    latents = draw()
    with pytest.raises(InputError, match="batch_size is 0"):
        reconstruct(Backbone(), latents, batch_size=0)
    with pytest.raises(InputError, match="0 scans to decode"):
        reconstruct(Backbone(), latents.rows(slice(0, 0)))
    with pytest.raises(InputError, match="seed is -1"):
        reconstruct(Backbone(), latents, seed=-1)
    negative = Latents(-latents.stimulus_ids, *(array for _, array in latents.items()))
    with pytest.raises(InputError, match="image id -70000 is negative"):
        reconstruct(Backbone(), negative)
    latents.c_text[1, 0, 0] = np.inf
    with pytest.raises(InputError, match="latent c_text of image id 70000"):
        reconstruct(Backbone(), latents)
