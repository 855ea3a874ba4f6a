from dataclasses import replace

import numpy as np
import pytest

from toy_backbone import ToyBackbone
from unibrain.errors import InputError
from unibrain.evaluation import METRICS, evaluate
from unibrain.evaluation.controls import CONTROLS, decode_controls, nearest_training_ids, span_projection
from unibrain.latents import Latents, extract
from unibrain.reconstruction import Decoded, reconstruct
from unibrain.stimuli import Stimuli

N, TRAINING = 6, 20


@pytest.fixture(scope="module")
def world():
    """Twenty training and six test images; predictions are the truth with noise."""
    random = np.random.default_rng(0)
    ids = np.arange(N + TRAINING)
    pictures = random.integers(0, 256, (len(ids), 16, 16, 3)).astype(np.uint8)
    captions = {int(i): (f"a picture {i} of things",) for i in ids}
    stimuli = Stimuli(ids, captions, lambda asked: pictures[asked], "toy stimuli")
    backbone = ToyBackbone()
    latents = extract(backbone, stimuli, ids)
    true, training = latents.select(ids[:N]), latents.select(ids[N:])
    noisy = {name: array + 0.1 * random.normal(size=array.shape).astype(np.float32) for name, array in true.items()}
    return backbone, stimuli, Latents(true.stimulus_ids, noisy), true, training


@pytest.fixture(scope="module")
def controls(world):
    backbone, stimuli, predicted, true, training = world
    return decode_controls(backbone, predicted, true, training, stimuli, seed=3)


def test_every_control_has_an_item_for_every_image(world, controls):
    assert list(controls) == list(CONTROLS)
    for decoded in controls.values():
        np.testing.assert_array_equal(decoded.stimulus_ids, world[3].stimulus_ids)
        assert len(decoded.pictures) == len(decoded.captions) == N


def test_they_are_what_they_say(world, controls):
    backbone, stimuli, predicted, true, training = world
    oracle = reconstruct(backbone, true, seed=3)
    np.testing.assert_array_equal(controls["oracle"].pictures, oracle.pictures)
    assert controls["oracle"].captions == oracle.captions
    alone = reconstruct(backbone, predicted, use={"z_image", "z_text"}, seed=3)
    np.testing.assert_array_equal(controls["z_only"].pictures, alone.pictures)
    from_words = reconstruct(backbone, predicted, kinds={"picture"}, use={"c_text"}, seed=3)
    np.testing.assert_array_equal(controls["other_context"].pictures, from_words.pictures)
    shown = {caption for captions in stimuli.captions(training.stimulus_ids) for caption in captions}
    assert {*controls["random"].captions, *controls["nearest"].captions} <= shown
    means = {name: np.repeat(array.mean(0, keepdims=True), N, axis=0) for name, array in training.items()}
    mean = reconstruct(backbone, Latents(true.stimulus_ids, means), seed=3)
    difference = controls["mean"].pictures.astype(int) - mean.pictures
    assert np.abs(difference).max() <= 1


def test_nearest_finds_a_copy(world):
    training = world[4]
    np.testing.assert_array_equal(
        nearest_training_ids(training.rows(slice(3, 7)), training), training.stimulus_ids[3:7]
    )


@pytest.mark.parametrize(("images", "rank"), [(5, 5), (60, 7)])
def test_span_is_the_least_squares_mixture(images, rank):
    random = np.random.default_rng(1)
    # Sixteenths: rounded numbers would not be of this rank.
    y = (random.integers(-4, 5, (images, rank)) @ random.integers(-4, 5, (rank, 40)) / 16).astype(np.float32)
    new = random.normal(size=(3, 40)).astype(np.float32)
    training, true = Latents(np.arange(images), {"z_text": y}), Latents(np.arange(3), {"z_text": new})
    mean = y.astype(float).mean(0)
    weights = np.linalg.lstsq((y - mean).T, (new - mean).T, rcond=1e-5)[0]
    np.testing.assert_allclose(span_projection(true, training)["z_text"], weights.T @ (y - mean) + mean, atol=1e-4)


def test_more_training_images_than_dimensions_restrict_nothing():
    random = np.random.default_rng(2)
    y, new = random.normal(size=(60, 8)).astype(np.float32), random.normal(size=(3, 8)).astype(np.float32)
    found = span_projection(Latents(np.arange(3), {"z_text": new}), Latents(np.arange(60), {"z_text": y}))
    np.testing.assert_allclose(found["z_text"], new, atol=1e-3)


def test_scores_stand_between_random_and_oracle(world, controls):
    backbone, stimuli, predicted, _, _ = world
    decoded = reconstruct(backbone, predicted, seed=3)
    some = {name: Decoded(c.stimulus_ids[:4], c.pictures[:4], c.captions[:4]) for name, c in controls.items()}
    metrics = {name: METRICS[name] for name in ("pixcorr", "ssim", "rougeL")}
    scores = evaluate(decoded, stimuli, backbone, simulated=False, metrics=metrics, controls=some)
    for score in scores.scores:
        assert list(score.beside) == list(CONTROLS)
        assert {found.images for found in score.beside.values()} == {4}
        assert score.interval[0] <= score.value <= score.interval[1]
        own = np.mean(score.per_image[:4])
        zero, best = score.beside["random"].value, score.beside["oracle"].value
        assert score.beside["oracle"].score == pytest.approx(own)
        assert score.standing == pytest.approx((own - zero) / (best - zero))
    assert replace(scores["ssim"], beside={}).standing is None


def test_pictures_without_captions(world):
    backbone, stimuli, predicted, true, training = world
    names = ("z_image", "c_image")
    some = [Latents(each.stimulus_ids, {name: each[name] for name in names}) for each in (predicted, true, training)]
    found = decode_controls(backbone, *some, stimuli)
    assert "other_context" not in found
    assert all(decoded.captions is None for decoded in found.values())


@pytest.mark.parametrize("wrong", ["mean of all", "Oracle"])
def test_unknown_names(world, wrong):
    backbone, stimuli, predicted, true, training = world
    with pytest.raises(InputError, match=wrong):
        decode_controls(backbone, predicted, true, training, stimuli, names=[wrong])


def test_controls_of_images_that_were_not_decoded(world, controls):
    backbone, stimuli, predicted, _, _ = world
    decoded = reconstruct(backbone, predicted.rows(slice(0, 3)), seed=3)
    with pytest.raises(InputError, match="image id 3"):
        evaluate(decoded, stimuli, backbone, simulated=False, controls={"oracle": controls["oracle"]})
