"""`BrainDecoder`: scikit-learn conventions, exactness, rescaling, files, bad input."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents
from unibrain.regression import DEFAULT_ALPHAS, BrainDecoder
from unibrain.regression.rescale import MAX_GAIN
from unibrain.regression.splits import split_folds

SHAPES = {"z_image": (2, 4, 3), "z_text": (6,), "c_image": (3, 5), "c_text": (4, 5)}
ALPHA = {"z_image": 3.0, "z_text": 40.0, "c_image": 500.0, "c_text": 40.0}


def make(n=40, voxels=60, m=9, noise=1.0, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + m, voxels)).astype(dtype)
    arrays = []
    for shape in SHAPES.values():
        weights = rng.standard_normal((voxels, *shape)) / np.sqrt(voxels)
        arrays.append((np.tensordot(X, weights, 1) + noise * rng.standard_normal((n + m, *shape)) + 2).astype(dtype))
    latents = Latents(np.arange(100, 100 + n + m), *arrays)
    return X[:n], latents.rows(slice(0, n)), X[n:], latents.rows(slice(n, n + m))


def flat(latents, name):
    return latents[name].reshape(len(latents), -1)


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
def test_equals_four_ridges(dtype, tolerance):
    X, latents, X_new, _ = make(dtype=dtype)
    predicted = BrainDecoder(alpha=ALPHA, rescale="none").fit(X, latents).predict(X_new)
    for name in LATENT_NAMES:
        expected = (
            Ridge(ALPHA[name]).fit(X.astype(float), flat(latents, name).astype(float)).predict(X_new.astype(float))
        )
        assert predicted[name].shape == (len(X_new), *SHAPES[name])
        assert predicted[name].dtype == dtype
        assert np.abs(flat(predicted, name) - expected).max() < tolerance * np.abs(expected).max()


def test_cross_validation_chooses_what_refitting_chooses(data):
    X, latents, _, _ = data
    grid = (0.1, 3.0, 100.0, 3000.0)
    decoder = BrainDecoder(alphas=grid, folds=4, seed=5).fit(X, latents)
    held_out = split_folds(latents.stimulus_ids, 4, 5)
    for name in LATENT_NAMES:
        errors = []
        for alpha in grid:
            error = 0.0
            for rows in held_out:
                train = np.setdiff1d(np.arange(len(X)), rows)
                model = Ridge(alpha).fit(X[train], flat(latents, name)[train])
                error += np.sum((model.predict(X[rows]) - flat(latents, name)[rows]) ** 2)
            errors.append(error)
        assert decoder.alpha_[name] == grid[int(np.argmin(errors))]
        np.testing.assert_array_equal(decoder.alpha_choice_[name].alphas, grid)


def test_finds_more_penalty_for_more_noise():
    quiet, loud = (BrainDecoder().fit(*make(noise=noise)[:2]).alpha_ for noise in (0.1, 5.0))
    assert all(quiet[name] < loud[name] for name in LATENT_NAMES)


def test_scikit_learn_conventions(data):
    X, latents, X_new, _ = data
    decoder = BrainDecoder(alpha=7.0, folds=3)
    assert decoder.get_params() == {
        "alpha": 7.0,
        "alphas": DEFAULT_ALPHAS,
        "folds": 3,
        "rescale": "train",
        "sampled_targets": 512,
        "seed": 0,
        "verbose": False,
        "alpha_per": "latent",
        "projection": "sample",
        "bands": None,
        "memory": 2.0,
        "device": "cpu",
    }
    with pytest.raises(NotFittedError):
        decoder.predict(X_new)
    assert decoder.fit(X, latents) is decoder
    copy = clone(decoder).set_params(alpha=9.0)
    assert not hasattr(copy, "alpha_")
    assert copy.fit(X, latents).alpha_ == dict.fromkeys(LATENT_NAMES, 9.0)
    assert clone(BrainDecoder(alpha=ALPHA)).alpha == ALPHA
    assert decoder.n_features_in_ == X.shape[1]
    assert "folds=3" in repr(decoder)


def test_fit_leaves_its_input_alone(data):
    X, latents, X_new, _ = data
    before = X.copy(), {name: array.copy() for name, array in latents.items()}
    BrainDecoder().fit(X, latents).predict(X_new)
    np.testing.assert_array_equal(X, before[0])
    for name, array in latents.items():
        np.testing.assert_array_equal(array, before[1][name])


@pytest.mark.parametrize("rescale", ["train", "train_per_dimension", "none"])
def test_one_scan_is_decoded_as_in_company(data, rescale):
    X, latents, X_new, _ = data
    decoder = BrainDecoder(alpha=20.0, rescale=rescale).fit(X, latents)
    together = decoder.predict(X_new, np.arange(500, 509))
    alone = decoder.predict(X_new[4])
    assert together.stimulus_ids.tolist() == list(range(500, 509))
    assert len(alone) == 1
    for name in LATENT_NAMES:
        np.testing.assert_allclose(alone[name][0], together[name][4], rtol=1e-10)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(4, 20), voxels=st.integers(1, 30), m=st.integers(1, 5), folds=st.integers(2, 4))
def test_shapes(n, voxels, m, folds):
    X, latents, X_new, true = make(n, voxels, m)
    predicted = BrainDecoder(folds=folds).fit(X, latents).predict(X_new, true.stimulus_ids)
    assert [array.shape for _, array in predicted.items()] == [array.shape for _, array in true.items()]
    assert all(np.isfinite(array).all() for _, array in predicted.items())


def test_two_images_are_enough():
    X, latents, X_new, _ = make(n=2)
    assert len(BrainDecoder(alpha=1.0, folds=2).fit(X, latents).predict(X_new)) == len(X_new)
    assert len(BrainDecoder(alpha=1.0, rescale="none").fit(X, latents).predict(X_new)) == len(X_new)


# Rescaling


def test_gains_come_from_images_left_out(data):
    X, latents, _, _ = data
    token = BrainDecoder(alpha=20.0, rescale="train").fit(X, latents).gain_
    dimension = BrainDecoder(alpha=20.0, rescale="train_per_dimension").fit(X, latents).gain_
    for name, shape in SHAPES.items():
        targets = flat(latents, name)
        true, deviations = targets.var(axis=0), []
        for row in range(len(X)):
            others = np.delete(np.arange(len(X)), row)
            model = Ridge(20.0).fit(X[others], targets[others])
            deviations.append(model.predict(X[[row]])[0] - targets[others].mean(axis=0))
        predicted = np.mean(np.square(deviations), axis=0)
        np.testing.assert_allclose(dimension[name], np.minimum(np.sqrt(true / predicted), MAX_GAIN), rtol=1e-5)
        groups = shape[0] if len(shape) > 1 else 1
        ratio = true.reshape(groups, -1).sum(axis=1) / predicted.reshape(groups, -1).sum(axis=1)
        expected = np.repeat(np.minimum(np.sqrt(ratio), MAX_GAIN), len(true) // groups)
        np.testing.assert_allclose(token[name], expected, rtol=1e-5)


@pytest.mark.parametrize("rescale", ["train", "train_per_dimension"])
def test_rescaled_test_predictions_have_the_spread_of_the_targets(rescale):
    X, latents, X_new, true = make(n=300, m=300, voxels=40)
    decoder = BrainDecoder(alpha=500.0, rescale=rescale).fit(X, latents)
    shrunk = clone(decoder).set_params(rescale="none").fit(X, latents).predict(X_new)
    predicted = decoder.predict(X_new)
    for name in LATENT_NAMES:
        natural = flat(true, name).std(axis=0).mean()
        assert flat(shrunk, name).std(axis=0).mean() < 0.6 * natural
        assert flat(predicted, name).std(axis=0).mean() == pytest.approx(natural, rel=0.1)


def test_rescaling_keeps_correlations_and_is_capped():
    X, latents, X_new, _ = make(noise=100.0)
    plain = BrainDecoder(alpha=1e5, rescale="none").fit(X, latents)
    scaled = BrainDecoder(alpha=1e5, rescale="train_per_dimension").fit(X, latents)
    for name in LATENT_NAMES:
        assert (scaled.gain_[name] == MAX_GAIN).all()
        mean = flat(latents, name).mean(axis=0)
        a, b = flat(plain.predict(X_new), name) - mean, flat(scaled.predict(X_new), name) - mean
        np.testing.assert_allclose(b, MAX_GAIN * a, rtol=1e-6)


def test_constant_dimension_is_predicted_as_it_is(data):
    X, latents, X_new, _ = data
    c_text = latents.c_text.copy()
    c_text[:, 0] = 0.1
    latents = Latents(latents.stimulus_ids, latents.z_image, latents.z_text, latents.c_image, c_text)
    for rescale in ("train", "train_per_dimension"):
        decoder = BrainDecoder(alpha=1.0, rescale=rescale).fit(X, latents)
        np.testing.assert_allclose(decoder.predict(X_new).c_text[:, 0], 0.1, rtol=1e-12)


# Files


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saved_decoder_predicts_the_very_same(tmp_path, dtype):
    X, latents, X_new, _ = make(dtype=dtype)
    decoder = BrainDecoder(alphas=(1.0, 10.0, 1e4), folds=3, seed=2).fit(np.asfortranarray(X), latents)
    decoder.save(tmp_path / "decoder.safetensors")
    loaded = BrainDecoder.load(tmp_path / "decoder.safetensors")
    assert loaded.get_params() == decoder.get_params()
    assert loaded.alpha_ == decoder.alpha_
    for name, choice in decoder.alpha_choice_.items():
        assert loaded.alpha_choice_[name].settings() == choice.settings()
        for part, array in choice.arrays().items():
            np.testing.assert_array_equal(loaded.alpha_choice_[name].arrays()[part], array)
    assert loaded.n_features_in_ == X.shape[1]
    np.testing.assert_array_equal(loaded.latents_.stimulus_ids, latents.stimulus_ids)
    expected, found = decoder.predict(X_new), loaded.predict(X_new)
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
    assert [path.name for path in tmp_path.iterdir()] == ["decoder.safetensors"]


def test_saves_given_alphas_in_any_form(tmp_path, data):
    X, latents, _, _ = data
    for alpha in (ALPHA, 3, np.float32(2.5)):
        decoder = BrainDecoder(alpha=alpha, alphas=np.array([1.0, 2.0])).fit(X, latents)
        decoder.save(tmp_path / "decoder.safetensors")
        assert BrainDecoder.load(tmp_path / "decoder.safetensors").alpha_ == decoder.alpha_


def test_refuses_to_save_before_fit(tmp_path):
    with pytest.raises(NotFittedError):
        BrainDecoder().save(tmp_path / "decoder.safetensors")


@pytest.fixture
def saved(tmp_path, data):
    path = tmp_path / "decoder.safetensors"
    BrainDecoder(alpha=3.0).fit(*data[:2]).save(path)
    return path


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_refuses_truncated_file(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        BrainDecoder.load(saved)


def test_refuses_changed_file(saved):
    content = bytearray(saved.read_bytes())
    content[-5] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="corrupted"):
        BrainDecoder.load(saved)


def rewrite_header(path, change):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.update(version="99"), "format version 99, expected 2"),
        (lambda metadata: metadata.update(format="weights"), "another kind"),
        (lambda metadata: metadata.update(settings=metadata["settings"].replace("3.0", "4.0")), "corrupted"),
        (lambda metadata: metadata.pop("sha256"), "corrupted"),
    ],
)
def test_refuses_another_header(saved, change, message):
    rewrite_header(saved, change)
    with pytest.raises(InputError, match=message):
        BrainDecoder.load(saved)


def test_refuses_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        BrainDecoder.load(tmp_path / "nothing.safetensors")


# Bad input


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha holds 0"),
        ({"alpha": -2}, "alpha holds -2"),
        ({"alpha": float("nan")}, "alpha holds nan"),
        ({"alpha": "best"}, "alpha is 'best'"),
        ({"alpha": {"z_image": 1.0}}, "these latents: z_image; expected"),
        ({"alpha": {**ALPHA, "c_text": 0.0}}, "alpha holds 0"),
        ({"alphas": ()}, "alphas is empty"),
        ({"alphas": (1.0, -1.0)}, "alphas holds -1"),
        ({"rescale": "best"}, "rescale is 'best'"),
        ({"alpha_per": "voxel"}, "alpha_per is 'voxel'"),
        ({"memory": 0.0}, "memory is 0 GB"),
        ({"memory": 1e-6, "alpha": 1.0}, "memory is 1e-06 GB, expected at least"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"alpha": {**ALPHA, "c_text": [1.0, 2.0]}}, r"alpha of c_text has shape \(2,\), expected one number or 20"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": 41}, "41 folds for 40 training images"),
    ],
)
def test_refuses_parameters(data, parameters, message):
    with pytest.raises(InputError, match=message):
        BrainDecoder(**parameters).fit(*data[:2])


def test_refuses_scans_and_latents_that_do_not_belong_together(data):
    X, latents, X_new, _ = data
    ids = latents.stimulus_ids
    with pytest.raises(InputError, match="39 training scans and 40 rows"):
        BrainDecoder().fit(X[1:], latents)
    with pytest.raises(InputError, match="row 1 is image id 102 in the scans and 101 in the latents"):
        BrainDecoder().fit(X, latents, stimulus_ids=[ids[0], ids[2], ids[1], *ids[3:]])
    with pytest.raises(InputError, match="39 stimulus ids for 40 scans"):
        BrainDecoder().fit(X, latents, stimulus_ids=ids[1:])
    with pytest.raises(InputError, match="1 training images, expected at least two"):
        BrainDecoder().fit(X[:1], latents.rows(slice(0, 1)))
    with pytest.raises(InputError, match="at least one voxel"):
        BrainDecoder().fit(X[:, :0], latents)
    with pytest.raises(InputError, match=r"shape \(40,\)"):
        BrainDecoder().fit(X[:, 0], latents)
    decoder = BrainDecoder(alpha=1.0).fit(X, latents, stimulus_ids=ids)
    with pytest.raises(InputError, match="59 voxels, expected 60"):
        decoder.predict(X_new[:, 1:])
    with pytest.raises(InputError, match="2 stimulus ids for 9 scans"):
        decoder.predict(X_new, [1, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_values_that_are_not_finite(data, value):
    X, latents, _, _ = data
    bad = X.copy()
    bad[3, 17] = value
    with pytest.raises(InputError, match="row 3, voxel 17"):
        BrainDecoder().fit(bad, latents)
    with pytest.raises(InputError, match="row 0, voxel 17"):
        BrainDecoder(alpha=1.0).fit(X, latents).predict(bad[3])
    c_image = latents.c_image.copy()
    c_image[5, 1, 1] = value
    with pytest.raises(InputError, match="latent c_image of image id 105"):
        BrainDecoder().fit(X, Latents(latents.stimulus_ids, latents.z_image, latents.z_text, c_image, latents.c_text))
