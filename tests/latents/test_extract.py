"""Extraction with a stand-in for the backbone whose encoders are known functions."""

import hashlib

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.latents import LATENTS, LatentRow, extract, extract_to, images_together, load_latents
from unibrain.stimuli import Stimuli

CAPTIONS = {
    7: ("a red car", "a car that is red", "red car on a road"),
    3: ("a small dog",),
    9: ("a red car", "vehicle"),
    4: ("a small dog", "a dog", "a small dog"),
    1: ("a tree", "", "a tall tree"),
}
IDS = [9, 7, 1, 4, 3]


def vector(text, width):
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:width], dtype=np.uint8).astype(np.float32) / 255


class Encoders:
    name, fingerprint = "stand-in", "f"

    precision = "fp32"

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def encode(self, latent, items):
        self.calls.append((latent, len(items)))
        if self.stop_after is not None and len(self.calls) > self.stop_after:
            raise KeyboardInterrupt
        if latent == "z_image":
            return items.astype(np.float32).transpose(0, 3, 1, 2)[:, :, ::4, ::4] / 255
        if latent == "c_image":
            return items.reshape(len(items), -1)[:, :12].reshape(-1, 3, 4).astype(np.float32)
        if latent == "z_sketch":
            return items[:, ::4, ::4, 0].astype(np.float32)
        if latent == "z_text":
            return np.stack([vector(text, 6) for text in items])
        return np.stack([vector(text, 8).reshape(2, 4) for text in items])


@pytest.fixture
def stimuli():
    def read(ids):
        return np.stack([np.random.default_rng(int(i)).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in ids])

    return Stimuli(np.array(list(CAPTIONS)), CAPTIONS, read, "five pictures")


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_every_row_is_its_image(stimuli, batch_size):
    backbone = Encoders()
    latents = extract(backbone, stimuli, IDS, batch_size)
    assert latents.stimulus_ids.tolist() == IDS
    for row, image in enumerate(IDS):
        picture = stimuli.pictures([image])
        np.testing.assert_array_equal(latents["z_image"][row], Encoders().encode("z_image", picture)[0])
        np.testing.assert_array_equal(latents["c_image"][row], Encoders().encode("c_image", picture)[0])
        np.testing.assert_array_equal(latents["z_text"][row], vector(CAPTIONS[image][0], 6))
        mean = np.mean([vector(text, 8).reshape(2, 4) for text in CAPTIONS[image] if text], axis=0)
        np.testing.assert_allclose(latents["c_text"][row], mean, rtol=1e-6)
    assert all(array.dtype == np.float32 for array in latents.values())
    assert max(size for latent, size in backbone.calls if latent == "z_image") <= batch_size


def test_a_caption_of_several_images_is_encoded_once_a_batch(stimuli):
    backbone = Encoders()
    extract(backbone, stimuli, IDS)
    assert ("z_text", 3) in backbone.calls
    assert ("c_text", len({text for texts in CAPTIONS.values() for text in texts if text})) in backbone.calls


def test_uses_of_captions_are_chosen_one_by_one(stimuli):
    first = extract(Encoders(), stimuli, [7], caption_context="first")
    drawn = extract(Encoders(), stimuli, [7], caption="first", caption_context="random", caption_seed=1)
    np.testing.assert_array_equal(first["c_text"][0], vector("a red car", 8).reshape(2, 4))
    np.testing.assert_array_equal(drawn["z_text"][0], vector(CAPTIONS[7][0], 6))
    seeds = [extract(Encoders(), stimuli, [7], caption="random", caption_seed=s)["z_text"][0] for s in range(12)]
    assert {tuple(row) for row in seeds} == {tuple(vector(text, 6)) for text in CAPTIONS[7]}


def test_a_drawn_caption_depends_on_seed_and_image_alone(stimuli):
    choice = {"caption": "random", "caption_context": "random", "caption_seed": 4}
    many = extract(Encoders(), stimuli, IDS, **choice)
    for row, image in enumerate(IDS):
        alone = extract(Encoders(), stimuli, [image], **choice)
        np.testing.assert_array_equal(alone["z_text"][0], many["z_text"][row])
        texts = [text for text in CAPTIONS[image] if text]
        place = next(i for i, text in enumerate(texts) if np.array_equal(vector(text, 6), many["z_text"][row]))
        # Where both are drawn, it is the same caption.
        np.testing.assert_array_equal(many["c_text"][row], vector(texts[place], 8).reshape(2, 4))


def test_without_captions_there_are_no_text_latents(stimuli):
    silent = Stimuli(stimuli.stimulus_ids, {}, stimuli.read_pictures, "five pictures", has_captions=False)
    assert set(extract(Encoders(), silent, [9, 7])) == {"z_image", "c_image"}


def test_a_further_row_of_the_table_is_extracted(stimuli, monkeypatch):
    monkeypatch.setitem(LATENTS, "z_sketch", LatentRow("z_sketch", "sketch", 2, "picture", starts="sketch"))
    assert extract(Encoders(), stimuli, [9, 7])["z_sketch"].shape == (2, 2, 2)


@pytest.mark.parametrize("storage", ["npy", "zarr"])
@pytest.mark.parametrize("calls", [3, 5, 9])
def test_a_stopped_extraction_continues_at_the_batch_with_the_same_bytes(
    tmp_path, stimuli, monkeypatch, storage, calls
):
    monkeypatch.setattr("unibrain.latents.writer.INTERVAL", 0.0)
    whole = Encoders()
    extract_to(tmp_path / "whole", whole, stimuli, IDS, 2, storage=storage)
    with pytest.raises(KeyboardInterrupt):
        extract_to(tmp_path / "stopped", Encoders(calls), stimuli, IDS, 2, storage=storage)
    again = Encoders()
    extract_to(tmp_path / "stopped", again, stimuli, IDS, 2, storage=storage)
    assert again.calls == whole.calls[4 * (calls // 4) :]  # the very same batches
    for name, array in load_latents(tmp_path / "whole").items():
        np.testing.assert_array_equal(load_latents(tmp_path / "stopped")[name], array)


def test_common_images_are_encoded_together_whoever_sees_them_and_once(tmp_path, stimuli):
    first, second = Encoders(), Encoders()
    seen = {"first": [IDS[0], IDS[1], IDS[3]], "second": [IDS[1], IDS[2], IDS[4]]}
    for name, backbone in (("first", first), ("second", second)):
        extract_to(tmp_path / name, backbone, stimuli, seen[name], 2, common=IDS[:3], kept_common=tmp_path / "kept")
        found = load_latents(tmp_path / name)
        assert sorted(found.stimulus_ids) == sorted(seen[name])
        alone = extract(Encoders(), stimuli, found.stimulus_ids)
        for latent, array in found.items():
            np.testing.assert_array_equal(array, alone[latent])
    # Of three common images, in batches of two and one, both see at least half of each batch that they have; then what
    # is a subject's own.
    batches = images_together(seen["first"], 2, IDS[:3])
    others = images_together(seen["second"], 2, IDS[:3])
    shared = {tuple(batch) for batch in batches.common} & {tuple(batch) for batch in others.common}
    assert shared
    sizes = [size for latent, size in second.calls if latent == "z_image"]
    assert len(sizes) == len(others.common) + len(others.own) - len(shared)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"stimulus_ids": []}, "at least one"),
        ({"stimulus_ids": [7, 8]}, "8"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"caption": "longest"}, "'longest'.*first, random"),
        ({"caption": "mean"}, "caption is 'mean'"),
        ({"caption_context": "sum"}, "caption_context is 'sum'"),
        ({"caption_seed": -1}, "caption_seed is -1"),
    ],
)
def test_wrong_arguments(stimuli, arguments, named):
    with pytest.raises(InputError, match=named):
        extract(Encoders(), stimuli, **{"stimulus_ids": [7], **arguments})


def test_what_is_not_finite_names_latent_and_image(stimuli):
    backbone = Encoders()
    backbone.encode = lambda latent, items: np.full((len(items), 3, 4), np.nan, np.float32)
    with pytest.raises(InputError, match="five pictures: latent z_image of image id 9"):
        extract(backbone, stimuli, [9, 7])
