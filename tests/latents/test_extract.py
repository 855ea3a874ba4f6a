"""Extraction with a small stand-in for the backbone whose encoders are known functions."""

import hashlib

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.latents import extract
from unibrain.stimuli.stimuli import Stimuli

CAPTIONS = {
    7: ("a red car", "a car that is red", "red car on a road"),
    3: ("a small dog",),
    9: ("a red car", "vehicle"),
    4: ("a small dog", "a dog", "a small dog"),
    1: ("a tree", "", "a tall tree"),
}


def vector(text, width):
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:width], dtype=np.uint8).astype(np.float32) / 255


class Backbone:
    name = "stand-in"

    def __init__(self):
        self.encoded, self.contexts, self.batches = [], [], []

    def encode_pictures(self, pictures):
        self.batches.append(len(pictures))
        return pictures.astype(np.float32).transpose(0, 3, 1, 2)[:, :, ::4, ::4] / 255

    def picture_contexts(self, pictures):
        return pictures.reshape(len(pictures), -1)[:, :12].reshape(-1, 3, 4).astype(np.float32)

    def encode_captions(self, captions):
        self.encoded += captions
        return np.stack([vector(text, 6) for text in captions])

    def caption_contexts(self, captions):
        self.contexts += captions
        return np.stack([vector(text, 8).reshape(2, 4) for text in captions])


@pytest.fixture
def stimuli():
    def read(ids):
        return np.stack([np.random.default_rng(int(i)).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in ids])

    return Stimuli(np.array(list(CAPTIONS)), CAPTIONS, read, "five pictures")


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_every_row_is_its_image(stimuli, batch_size):
    ids = [9, 7, 1, 4, 3]
    latents = extract(Backbone(), stimuli, ids, batch_size)
    assert latents.stimulus_ids.tolist() == ids
    for row, identity in enumerate(ids):
        picture = stimuli.pictures([identity])
        np.testing.assert_array_equal(latents.z_image[row], Backbone().encode_pictures(picture)[0])
        np.testing.assert_array_equal(latents.c_image[row], Backbone().picture_contexts(picture)[0])
        np.testing.assert_array_equal(latents.z_text[row], vector(CAPTIONS[identity][0], 6))
        mean = np.mean([vector(text, 8).reshape(2, 4) for text in CAPTIONS[identity] if text], axis=0)
        np.testing.assert_allclose(latents.c_text[row], mean, rtol=1e-6)
    assert all(array.dtype == np.float32 for _, array in latents.items())


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_each_caption_is_encoded_once(stimuli, batch_size):
    backbone = Backbone()
    extract(backbone, stimuli, [7, 3, 9, 4, 1], batch_size)
    assert sorted(backbone.encoded) == ["a red car", "a small dog", "a tree"]
    assert sorted(backbone.contexts) == sorted({text for texts in CAPTIONS.values() for text in texts if text})
    assert max(backbone.batches) <= batch_size


def test_context_of_the_first_caption_by_choice(stimuli):
    backbone = Backbone()
    latents = extract(backbone, stimuli, [7, 9], caption_context="first")
    np.testing.assert_array_equal(latents.c_text[0], vector("a red car", 8).reshape(2, 4))
    assert backbone.contexts == ["a red car"]


def test_shows_progress(stimuli, capsys):
    extract(Backbone(), stimuli, [7, 9])
    assert "extract latents" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stimulus_ids": []}, "at least one"),
        ({"stimulus_ids": [7, 8]}, "image id 8 is not there"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"caption": "longest"}, "caption is 'longest'"),
        ({"caption_context": "sum"}, "caption_context is 'sum'"),
    ],
)
def test_refuses(stimuli, arguments, message):
    with pytest.raises(InputError, match=message):
        extract(Backbone(), stimuli, **{"stimulus_ids": [7], **arguments})


def test_refuses_what_is_not_finite(stimuli):
    backbone = Backbone()
    backbone.picture_contexts = lambda pictures: np.full((len(pictures), 3, 4), np.nan)
    with pytest.raises(InputError, match="five pictures: latent c_image of image id 9"):
        extract(backbone, stimuli, [9, 7])


def test_a_drawn_caption_depends_on_seed_and_image_alone(stimuli):
    ids = [9, 7, 1, 4, 3]
    many = extract(Backbone(), stimuli, ids, caption="random", caption_context="random", caption_seed=4)
    for row, identity in enumerate(ids):
        alone = extract(Backbone(), stimuli, [identity], caption="random", caption_context="random", caption_seed=4)
        np.testing.assert_array_equal(alone.z_text[0], many.z_text[row])
        texts = [text for text in CAPTIONS[identity] if text]
        place = next(i for i, text in enumerate(texts) if np.array_equal(vector(text, 6), many.z_text[row]))
        # Where both are drawn, it is the same caption.
        np.testing.assert_array_equal(many.c_text[row], vector(texts[place], 8).reshape(2, 4))
    seeds = [extract(Backbone(), stimuli, [7], caption="random", caption_seed=seed).z_text[0] for seed in range(12)]
    assert {tuple(row) for row in seeds} == {tuple(vector(text, 6)) for text in CAPTIONS[7]}


def test_uses_of_captions_are_chosen_one_by_one(stimuli):
    mean = extract(Backbone(), stimuli, [7])
    first = extract(Backbone(), stimuli, [7], caption_context="first")
    drawn = extract(Backbone(), stimuli, [7], caption="first", caption_context="random", caption_seed=1)
    np.testing.assert_allclose(mean.c_text[0], np.mean([vector(t, 8).reshape(2, 4) for t in CAPTIONS[7]], axis=0))
    np.testing.assert_array_equal(first.c_text[0], vector(CAPTIONS[7][0], 8).reshape(2, 4))
    np.testing.assert_array_equal(drawn.z_text[0], vector(CAPTIONS[7][0], 6))
    with pytest.raises(InputError, match="caption is 'mean', expected 'first' or 'random'"):
        extract(Backbone(), stimuli, [7], caption="mean")
    with pytest.raises(InputError, match="caption_context is 'all', expected 'mean', 'first' or 'random'"):
        extract(Backbone(), stimuli, [7], caption_context="all")
    with pytest.raises(InputError, match="caption_seed is -1"):
        extract(Backbone(), stimuli, [7], caption_seed=-1)


def test_without_captions_text_latents_are_placeholders(stimuli):
    silent = Stimuli(stimuli.stimulus_ids, {}, stimuli.read_pictures, "five pictures", has_captions=False)
    backbone = Backbone()
    latents = extract(backbone, silent, [9, 7], 1)
    assert latents.z_text.shape == (2, 1)
    assert latents.c_text.shape == (2, 1, 4)
    assert not latents.z_text.any()
    assert not backbone.encoded
    np.testing.assert_array_equal(latents.c_image, extract(Backbone(), stimuli, [9, 7]).c_image)
