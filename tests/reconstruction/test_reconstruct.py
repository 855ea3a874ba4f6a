"""Reconstruction with a stand-in for the backbone: what takes part, batches, seeds, and going on after a stop."""

import numpy as np
import pytest

from unibrain.backbone import SamplingSettings
from unibrain.backbone.protocol import SamplingError
from unibrain.errors import InputError
from unibrain.latents import LATENTS, LatentRow, Latents
from unibrain.reconstruction import load_decoded, reconstruct, save_decoded
from unibrain.reconstruction.reconstruct import scan_seeds


class Flows:
    """What it decodes depends on the latents, the settings and the seed of a scan, as in a real one."""

    name, precision = "stand-in", "fp32"

    def __init__(self, stop_after=None, kinds=("picture", "caption"), fingerprint="0"):
        self.kinds, self.fingerprint, self.stop_after = kinds, fingerprint, stop_after
        self.calls = []  # kind, start or not, contexts, settings, seeds
        self.batches = 0

    def sampling(self, kind):
        return SamplingSettings(image_weight=0.6 if kind == "picture" else 0.9, strength=0.5, steps=10)

    def scans_at_once(self, kind):
        return 4

    def sample(self, kind, start, contexts, settings, seeds, callback=None):
        self.batches += 1
        if self.stop_after is not None and self.batches > self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((kind, start is not None, tuple(contexts), settings, tuple(seeds)))
        inputs = [*([] if start is None else [start]), *contexts.values()]
        total = sum(array.reshape(len(seeds), -1).sum(axis=1) for array in inputs) * settings.image_weight
        noise = np.stack([np.random.default_rng(seed).standard_normal(4) for seed in seeds]) + total[:, None]
        steps = 5 if start is not None else 10
        for step in range(1, steps + 1):
            if settings.guidance_scale > 100:
                raise SamplingError("too large", len(seeds) - 1)
            callback(step, steps, noise.astype(np.float32))
        return self.decode(kind, noise)

    def decode(self, kind, start):
        values = start.reshape(len(start), -1)
        if kind == "caption":
            return [f"{row.sum():.6f}" for row in values]
        if kind == "sketch":
            return values[:, :2].astype(np.float32)
        return np.abs(values[:, :1, None, None] * np.full((1, 4, 5, 3), 50)).astype(np.uint8)


def draw(n=7):
    rng = np.random.default_rng(0)
    shapes = {"z_image": (2, 3, 3), "z_text": (5,), "c_image": (2, 4), "c_text": (3, 4)}
    arrays = {name: rng.standard_normal((n, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return Latents(np.array([5, 70_000, 12, 0, 9, 31, 2, 8, 7][:n]), arrays)


def assert_equal(one, other):
    np.testing.assert_array_equal(one.stimulus_ids, other.stimulus_ids)
    np.testing.assert_array_equal(one.pictures, other.pictures)
    assert one.captions == other.captions


def test_a_scan_is_decoded_the_same_in_any_company():
    latents, order = draw(), np.array([6, 2, 0])
    whole = reconstruct(Flows(), latents, seed=3)
    assert (whole.pictures.shape, len(whole.captions)) == ((7, 4, 5, 3), 7)
    assert_equal(reconstruct(Flows(), latents, seed=3, batch_size=2), whole)
    part = reconstruct(Flows(), latents.rows(order), seed=3)
    np.testing.assert_array_equal(part.pictures, whole.pictures[order])
    assert part.captions == tuple(whole.captions[i] for i in order)
    assert (reconstruct(Flows(), latents, seed=4).pictures != whole.pictures).any()


def test_seeds():
    ids = np.arange(1000)
    pictures, captions = scan_seeds(0, ids, "picture"), scan_seeds(0, ids, "caption")
    assert (pictures.dtype, pictures.min() >= 0) == (np.int64, True)
    others = scan_seeds(1, ids, "picture"), scan_seeds(0, ids, "sketch")
    assert len(np.unique(np.concatenate([pictures, captions, *others]))) == 4000
    np.testing.assert_array_equal(scan_seeds(0, ids[::-1], "picture"), pictures[::-1])
    expected = np.random.SeedSequence((0, 1, 17)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    assert captions[17] == expected


@pytest.mark.parametrize(
    ("use", "kinds", "calls"),
    [
        (None, None, [("picture", True, ("c_image", "c_text")), ("caption", True, ("c_image", "c_text"))]),
        ({"z_image", "c_image"}, None, [("picture", True, ("c_image",))]),
        ({"c_image", "c_text"}, {"picture"}, [("picture", False, ("c_image", "c_text"))]),
        ({"c_text"}, {"caption"}, [("caption", False, ("c_text",))]),
        ({"z_image", "z_text"}, None, []),
    ],
)
def test_which_latents_take_part(use, kinds, calls):
    backbone = Flows()
    decoded = reconstruct(backbone, draw(3), use=use, kinds=kinds)
    assert [call[:3] for call in backbone.calls] == calls
    if not calls:  # starts without any context: no diffusion
        assert decoded.captions == tuple(backbone.decode("caption", draw(3)["z_text"]))
        np.testing.assert_array_equal(decoded.pictures, backbone.decode("picture", draw(3)["z_image"]))


def test_settings_are_given_for_all_kinds_or_by_kind():
    backbone = Flows()
    reconstruct(backbone, draw(2), image_weight=0.2, steps={"caption": 20}, guidance_scale={"picture": 1.5})
    picture, caption = (call[3] for call in backbone.calls)
    assert picture == SamplingSettings(image_weight=0.2, strength=0.5, steps=10, guidance_scale=1.5)
    assert caption == SamplingSettings(image_weight=0.2, strength=0.5, steps=20)


def test_latents_without_captions_decode_pictures_alone():
    latents = draw()
    silent = Latents(latents.stimulus_ids, {name: latents[name] for name in ("z_image", "c_image")})
    decoded = reconstruct(Flows(), silent)
    assert decoded.captions is None
    assert_equal(decoded, reconstruct(Flows(), latents, use={"z_image", "c_image"}))


def test_a_fifth_latent_with_a_flow_of_its_own_is_decoded(monkeypatch, tmp_path):
    row = LatentRow("z_sketch", "sketch", 1, "picture", starts="sketch")
    monkeypatch.setitem(LATENTS, row.name, row)
    latents = draw()
    five = Latents(latents.stimulus_ids, {**latents, "z_sketch": np.ones((7, 6), np.float32)})
    backbone = Flows(kinds=("picture", "caption", "sketch"))
    decoded = reconstruct(backbone, five, cache=tmp_path / "cache")
    assert decoded.others["sketch"].shape == (7, 2)
    assert {call[0] for call in backbone.calls} == {"picture", "caption", "sketch"}
    assert_equal(decoded, reconstruct(Flows(), latents))
    save_decoded(tmp_path / "decoded", decoded)
    np.testing.assert_array_equal(load_decoded(tmp_path / "decoded").others["sketch"], decoded.others["sketch"])
    again = Flows(kinds=backbone.kinds)
    np.testing.assert_array_equal(
        reconstruct(again, five, cache=tmp_path / "cache").others["sketch"], decoded.others["sketch"]
    )
    assert not again.calls


def test_every_step_is_seen(capsys):
    seen = []
    reconstruct(Flows(), draw(), callback=lambda *step: seen.append(step))
    assert [(kind, rows.tolist(), step, steps) for kind, rows, step, steps, _ in seen[:10]] == [
        ("picture", rows, step, 5) for rows in ([0, 1, 2, 3], [4, 5, 6]) for step in range(1, 6)
    ]
    assert seen[0][4].shape == (4, 4)
    assert seen[-1][0] == "caption"


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
def test_a_stopped_run_goes_on_with_the_same_batches(tmp_path, stop_after):
    whole = Flows()
    expected = reconstruct(whole, draw(), batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(Flows(stop_after), draw(), batch_size=2, cache=tmp_path)
    second = Flows()
    assert_equal(reconstruct(second, draw(), batch_size=2, cache=tmp_path), expected)
    assert second.calls == whole.calls[stop_after:]
    third = Flows()
    assert_equal(reconstruct(third, draw(), batch_size=2, cache=tmp_path), expected)
    assert not third.calls


@pytest.mark.parametrize("suffix", [".png", ".json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "nested"])
def test_a_damaged_item_is_decoded_again_with_its_batch(tmp_path, suffix, damage):
    whole = reconstruct(Flows(), draw(), batch_size=2, cache=tmp_path)
    path = sorted(tmp_path.glob(f"*{suffix}"))[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if suffix == ".png" else content.index(b".") + 1] ^= 0x01
    path.write_bytes(
        {"truncate": content[: len(content) // 2], "flip": content, "empty": b"", "nested": b"[" * 100_000}[damage]
    )
    backbone = Flows()
    assert_equal(reconstruct(backbone, draw(), batch_size=2, cache=tmp_path), whole)
    assert [call[0] for call in backbone.calls] == ["picture" if suffix == ".png" else "caption"]


def changed(name, row=2):
    latents = draw()
    latents[name][row] += 0.5
    return {"latents": latents}


@pytest.mark.parametrize(
    ("change", "decoded_again"),
    [
        ({"seed": 1}, "ppcc"),
        ({"batch_size": 1}, ""),
        ({"guidance_scale": {"picture": 2.0}}, "pp"),
        ({"steps": {"caption": 20}}, "cc"),
        ({"use": {"z_image", "z_text", "c_image"}}, "ppcc"),
        ({"backbone": Flows(fingerprint="1")}, "ppcc"),
        (changed("z_image"), "p"),
        (changed("z_text"), "c"),
        (changed("c_image"), "pc"),
        (changed("c_text"), "pc"),
    ],
)
def test_what_is_kept_is_keyed_by_what_it_depends_on(tmp_path, change, decoded_again):
    reconstruct(Flows(), draw(), cache=tmp_path)
    arguments = {"backbone": Flows(), "latents": draw(), **change}
    kept = reconstruct(**arguments, cache=tmp_path)
    assert "".join(call[0][0] for call in arguments["backbone"].calls) == decoded_again
    assert_equal(kept, reconstruct(**arguments))


def broken(name, value):
    latents = draw()
    latents[name][1].flat[0] = value
    return latents


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"latents": draw().rows(slice(0, 0))}, "no scan"),
        ({"latents": Latents(-draw().stimulus_ids, draw().arrays)}, "image id -70000"),
        ({"latents": broken("c_text", np.inf)}, "latent c_text of image id 70000"),
        ({"latents": broken("z_image", np.nan)}, "latent z_image of image id 70000"),
        ({"guidance_scale": 1e30}, "picture of image id 0 cannot"),
        ({"image_weight": 1.5}, "image_weight.* 1.5"),
        ({"use": {"z_depth"}}, "z_depth.*z_image, z_text, c_image, c_text"),
        ({"use": {"z_image"}, "kinds": {"caption"}}, "nothing to decode a caption from"),
        ({"kinds": {"movie"}}, "movie.*picture, caption"),
        ({"kinds": ()}, "picture, caption"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(InputError, match=named):
        reconstruct(**{"backbone": Flows(), "latents": draw(), **arguments})


def test_a_wrong_number_in_a_latent_that_takes_no_part_does_not_matter():
    assert reconstruct(Flows(), broken("z_text", np.nan), use={"z_image", "c_image"}).captions is None
