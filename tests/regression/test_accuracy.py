"""Accuracy per latent and region, and weights, against scipy and scikit-learn, with the decoder's own penalties."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from stored_targets import SHAPES, VOXELS, M, N, changed, flat, make, same, store

from unibrain.errors import InputError
from unibrain.latents import Latents, open_latents
from unibrain.regression import BrainDecoder, accuracy, export_weights, latent_accuracy, region_accuracy

EARLY = np.arange(VOXELS) < 24
REGIONS = {"V1": EARLY, "late": ~EARLY, "empty": np.zeros(VOXELS, dtype=bool)}


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal((n, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    return Latents(np.arange(n), arrays)


def correlation(predicted, true):
    return np.mean([pearsonr(p.astype(float), t.astype(float))[0] for p, t in zip(predicted.T, true.T, strict=True)])


def test_equals_scipy():
    true, noise = draw(20), draw(20, 1)
    predicted = changed(true, **{name: true[name] * 1e-4 + 2e-4 * noise[name] + 3 for name in SHAPES})
    found = latent_accuracy(predicted, true)
    for name in SHAPES:
        assert found[name] == pytest.approx(correlation(flat(predicted, name), flat(true, name)), rel=1e-6)
    assert latent_accuracy(true, true) == pytest.approx(dict.fromkeys(SHAPES, 1.0))
    opposite = changed(true, **{name: -3 * array + 1 for name, array in true.items()})
    assert latent_accuracy(opposite, true) == pytest.approx(dict.fromkeys(SHAPES, -1.0), rel=1e-6)


def test_constant_dimensions():
    true, predicted = draw(20), draw(20, 1)
    true["z_text"][:, 0] = 0.1
    predicted["z_text"][:, 1] = 0.7
    true["c_text"][:] = 5
    found = latent_accuracy(predicted, true)
    expected = sum(pearsonr(predicted["z_text"][:, j], true["z_text"][:, j])[0] for j in (2, 3, 4, 5)) / 5
    assert found["z_text"] == pytest.approx(expected, rel=1e-5)
    assert found["c_text"] == 0.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda true: true.rows(slice(None, None, -1)), "order"),
        (lambda true: true.rows(slice(0, 5)), "order"),
        (lambda true: changed(true, z_text=true["z_text"][:, 1:]), "z_text"),
        (lambda true: changed(true, other=true["z_text"]), "other"),
    ],
)
def test_refuses_other_latents(change, named):
    true = draw(10)
    with pytest.raises(InputError, match=named):
        latent_accuracy(change(true), true)
    with pytest.raises(InputError, match="1"):
        latent_accuracy(true.rows(slice(0, 1)), true.rows(slice(0, 1)))


@pytest.mark.parametrize(
    "parameters",
    [{"alpha_per": "token"}, {"alpha_per": "target", "rescale": "train_per_dimension"}, {"alpha": 30.0}, "bands"],
)
def test_is_the_decoder_s_own_and_all_voxels_are_a_region(tmp_path, parameters):
    X, latents = make(m=30)
    parameters = {"bands": {"early": ["V1"]}, "alphas": (3.0, 300.0)} if parameters == "bands" else parameters
    decoder = BrainDecoder(**parameters).fit(X[:N], latents.rows(slice(0, N)), regions=REGIONS)
    truth = latents.rows(slice(N, None))
    stored = store(tmp_path / "latents", latents)
    decoder.predict_to(tmp_path / "predicted", X[N:], truth.stimulus_ids)
    found = latent_accuracy(open_latents(tmp_path / "predicted"), stored.select(truth.stimulus_ids))
    predicted = decoder.predict(X[N:])
    for name in SHAPES:
        assert found[name] == pytest.approx(correlation(flat(predicted, name), flat(truth, name)), abs=1e-6)
    everything = region_accuracy(decoder, {"all": np.ones(VOXELS, dtype=bool)}, X[N:], truth)
    assert [entry[:2] for entry in everything] == [(name, "all") for name in SHAPES]
    assert {name: r for name, _, r in everything} == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("bands", [None, {"early": ["V1"]}])
def test_regions_keep_every_penalty_of_the_decoder(bands):
    rng = np.random.default_rng(0)
    X, latents = make(m=30)
    alpha = {name: 10.0 ** rng.integers(0, 3, int(np.prod(shape))) for name, shape in SHAPES.items()}
    decoder = BrainDecoder("cv" if bands else alpha, alphas=(3.0, 300.0), bands=bands)
    decoder.fit(X[:N], latents.rows(slice(0, N)), regions=REGIONS)
    truth = latents.rows(slice(N, None))
    found = region_accuracy(decoder, REGIONS, X[N:], truth)
    assert [entry[:2] for entry in found] == [(name, region) for region in ("V1", "late") for name in SHAPES]
    for name, region, r in found:
        mask = REGIONS[region]
        system = next(system for system in decoder.systems_ if name in system.names)
        weights = np.ones(VOXELS) if system.weights is None else system.weights
        scale = np.sqrt(weights[mask])
        penalties = np.broadcast_to(decoder.alphas_[name] * mask.mean(), flat(latents, name).shape[1])
        scaled = X[:, mask].astype(float) * scale
        model = Ridge(penalties).fit(scaled[:N], flat(latents, name)[:N].astype(float))
        # Without the mean, in which what a band of little weight predicts would drown.
        predicted = (scaled[N:] - scaled[:N].mean(axis=0)) @ model.coef_.T
        assert r == pytest.approx(correlation(predicted, flat(truth, name)), abs=1e-5)
    if bands:
        for system in decoder.systems_:
            system.weights[EARLY] = 0.0
        found = region_accuracy(decoder, REGIONS, X[N:], truth)
        assert [r == 0 for _, _, r in found] == [region == "V1" for _, region, _ in found]


def test_of_a_wide_latent_a_seeded_sample_is_looked_at(tmp_path, data, monkeypatch):
    X, latents = data
    # Dimensions that are all alike: any sample of them has the mean of all.
    latents = changed(latents, c_image=np.repeat(latents["z_text"][:, :1], 15, axis=1).reshape(-1, 3, 5))
    decoder, truth = BrainDecoder(alpha=3.0).fit(X[:N], latents.rows(slice(0, N))), latents.rows(slice(N, None))
    whole = {entry[:2]: entry[2] for entry in region_accuracy(decoder, REGIONS, X[N:], truth)}
    monkeypatch.setattr(accuracy, "SAMPLED_TARGETS", 6)
    few = {entry[:2]: entry[2] for entry in region_accuracy(decoder, REGIONS, X[N:], truth)}
    for region in ("V1", "late"):
        assert few["c_image", region] == pytest.approx(whole["c_image", region], abs=1e-5)
        assert few["z_text", region] == whole["z_text", region]
        assert few["z_image", region] != pytest.approx(whole["z_image", region], abs=1e-5)
    stored = store(tmp_path / "latents", latents)
    again = BrainDecoder(alpha=3.0).fit(X[:N], stored.at(np.arange(N)))
    same(again.predict(X[N:]), decoder.predict(X[N:]))
    found = region_accuracy(again, REGIONS, X[N:], stored.at(np.arange(N, N + M)))
    assert [entry[2] for entry in found] == pytest.approx(list(few.values()), abs=1e-5)
    with pytest.raises(InputError, match=r"8.* 9"):
        region_accuracy(again, REGIONS, X[N:-1], truth)


# Weights


@pytest.mark.parametrize("parameters", [{"alpha": 20.0}, {"alpha_per": "target"}])
def test_exported_weights_are_those_of_ridge(tmp_path, data, stored, parameters):
    X, latents = data
    decoder = BrainDecoder(memory=2e-4, **parameters).fit(X[:N], stored.at(np.arange(N)))
    for name in SHAPES:
        Y = flat(latents, name)[:N].astype(float)
        alpha = np.broadcast_to(decoder.alphas_[name], Y.shape[1])
        expected = Ridge(alpha).fit(X[:N].astype(float), Y).coef_.T
        found = export_weights(decoder, name)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        part = export_weights(decoder, name, [4, 1], np.arange(VOXELS) < 7, tmp_path / "weights.npy")
        np.testing.assert_allclose(part, found[:7, [4, 1]], atol=1e-6)
        assert np.load(tmp_path / "weights.npy", allow_pickle=False).shape == (7, 2)
        np.testing.assert_allclose(export_weights(decoder, name, slice(2, 5), [3, 58]), found[[3, 58], 2:5], atol=1e-6)
    for choice, named in (
        (("z",), "'z'"),
        (("z_text", [6]), "targets.* 6"),
        (("z_text", slice(6, 9)), "targets.*slice"),
        (("z_text", None, np.ones(59, dtype=bool)), "voxels.* 59"),
        (("z_text", None, np.array(True)), "voxels.*True"),
    ):
        with pytest.raises(InputError, match=named):
            export_weights(decoder, *choice)
