"""Gains, penalties, bands, devices: what a decoder can be asked for."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from stored_targets import SHAPES, VOXELS, M, N, make, same

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents
from unibrain.regression import BrainDecoder
from unibrain.regression import gain_fit as gain_module


def test_gain_of_many_images_is_that_of_a_seeded_sample(data, monkeypatch):
    X, latents = make(n=400)
    all_images = BrainDecoder(alpha=20.0).fit(X[:400], latents.rows(slice(0, 400)))
    monkeypatch.setattr(gain_module, "EXACT_IMAGES", 100)
    monkeypatch.setattr(gain_module, "SAMPLED_IMAGES", 200)
    sampled, again = (BrainDecoder(alpha=20.0).fit(X[:400], latents.rows(slice(0, 400))) for _ in range(2))
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(sampled.gain_[name], again.gain_[name])
        np.testing.assert_allclose(sampled.gain_[name], all_images.gain_[name], rtol=0.1)


@pytest.mark.parametrize("rescale", ["train", "train_per_dimension"])
def test_one_alpha_by_cholesky_has_the_gain_of_the_eigendecomposition(data, rescale):
    X, latents = data
    ids = np.repeat(np.arange(N // 2), 2)
    trials = Latents(ids, *(array[:N] for _, array in latents.items()))
    once = BrainDecoder(alpha=20.0, rescale=rescale).fit(X[:N], trials)
    eigen = BrainDecoder(alphas=(20.0,), rescale=rescale, folds=4).fit(X[:N], trials)
    assert type(once.systems_[0].solver) is not type(eigen.systems_[0].solver)
    for name in LATENT_NAMES:
        np.testing.assert_allclose(once.gain_[name], eigen.gain_[name], rtol=1e-4)


def test_test_set_statistics_are_those_of_the_recipe(data):
    X, latents = data
    train = latents.rows(slice(0, N))
    plain = BrainDecoder(alpha=20.0, rescale="none").fit(X[:N], train).predict(X[N:])
    decoder = BrainDecoder(alpha=20.0, rescale="test").fit(X[:N], train)
    found = decoder.predict(X[N:])
    for name in LATENT_NAMES:
        standard = (plain[name] - plain[name].mean(axis=0)) / plain[name].std(axis=0)
        expected = standard * train[name].std(axis=0) + train[name].mean(axis=0)
        np.testing.assert_allclose(found[name], expected, atol=1e-3)
    with pytest.raises(InputError, match="1 scans are to be decoded with rescale = test"):
        decoder.predict(X[N])


def test_given_penalties_per_target(data):
    X, latents = data
    rng = np.random.default_rng(0)
    alpha = {name: 10.0 ** rng.integers(0, 4, int(np.prod(shape))) for name, shape in SHAPES.items()}
    predicted = BrainDecoder(alpha=alpha, rescale="none").fit(X[:N], latents.rows(slice(0, N))).predict(X[N:])
    for name in LATENT_NAMES:
        model = Ridge(alpha[name]).fit(X[:N].astype(float), latents[name][:N].reshape(N, -1).astype(float))
        expected = model.predict(X[N:].astype(float))
        assert np.abs(predicted[name].reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()


def test_leaving_one_image_out_chooses_too(data):
    X, latents = data
    decoder = BrainDecoder(folds="loo").fit(X[:N], latents.rows(slice(0, N)))
    assert decoder.alpha_choice_["c_text"].scheme == "loo"


def test_bands_have_their_own_penalties_and_survive_a_file(tmp_path):
    rng = np.random.default_rng(0)
    X, latents = make(n=120)
    early = np.arange(VOXELS) < 20
    # Nothing but the early voxels carries the image latent.
    z_image = np.tensordot(X[:, early], rng.standard_normal((20, *SHAPES["z_image"])), 1).astype(np.float32)
    latents = Latents(latents.stimulus_ids, z_image, latents.z_text, latents.c_image, latents.c_text)
    regions = {"V1": early, "late": ~early}
    decoder = BrainDecoder(bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)), regions=regions)
    choice = decoder.band_choice_
    assert choice.bands == ("early", "other")
    shares = dict(zip(choice.latents, choice.shares, strict=True))
    assert shares["z_image"][0] > 10 * abs(shares["z_image"][1])
    # It is the ridge of scans whose voxels are scaled band by band.
    system = next(system for system in decoder.systems_ if "z_image" in system.latents)
    scale = np.sqrt(system.weights)
    model = Ridge(decoder.alpha_["z_image"]).fit(X[:120] * scale, z_image[:120].reshape(120, -1))
    plain = BrainDecoder(rescale="none", bands={"early": ["V1"]}).fit(
        X[:120], latents.rows(slice(0, 120)), regions=regions
    )
    expected = model.predict(X[120:] * scale)
    assert np.abs(plain.predict(X[120:]).z_image.reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()
    decoder.save(tmp_path / "decoder.safetensors")
    loaded = BrainDecoder.load(tmp_path / "decoder.safetensors")
    same(loaded.predict(X[120:]), decoder.predict(X[120:]), 1e-12)
    np.testing.assert_array_equal(loaded.band_choice_.shares, choice.shares)
    with pytest.raises(InputError, match="expected alpha = 'cv' per latent"):
        BrainDecoder(alpha=3.0, bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)), regions=regions)
    with pytest.raises(InputError, match="there are no regions"):
        BrainDecoder(bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)))


def test_pytorch_decodes_the_same(data, stored):
    X = data[0]
    numpy, torch = (
        BrainDecoder(alpha=20.0, device=device).fit(X[:N], stored.at(np.arange(N))) for device in ("cpu", "torch")
    )
    same(torch.predict(X[N:]), numpy.predict(X[N:]))
