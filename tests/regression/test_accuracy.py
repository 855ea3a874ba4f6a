"""Accuracy per latent and region against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents, open_latents, save_latents
from unibrain.regression import latent_accuracy, region_accuracy
from unibrain.scans.subject import Subject

SHAPES = ((2, 3, 3), (4,), (3, 5), (2, 5))


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    return Latents(np.arange(n), *(rng.standard_normal((n, *shape)).astype(np.float32) for shape in SHAPES))


def test_equals_scipy():
    true, noise = draw(20), draw(20, 1)
    predicted = Latents(true.stimulus_ids, *(true[name] * 1e-4 + 2e-4 * noise[name] + 3 for name in LATENT_NAMES))
    found = latent_accuracy(predicted, true)
    for name in LATENT_NAMES:
        pairs = zip(predicted[name].reshape(20, -1).T, true[name].reshape(20, -1).T, strict=True)
        assert found[name] == pytest.approx(np.mean([pearsonr(p.astype(float), t)[0] for p, t in pairs]), rel=1e-6)


def test_constant_dimensions():
    true, predicted = draw(20), draw(20, 1)
    true.z_text[:, 0] = 0.1
    predicted.z_text[:, 1] = 0.7
    true.c_text[:] = 5
    found = latent_accuracy(predicted, true)
    expected = [pearsonr(predicted.z_text[:, j], true.z_text[:, j])[0] for j in (2, 3)]
    assert found["z_text"] == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert found["c_text"] == 0.0


def test_perfect_and_opposite():
    true = draw(15)
    opposite = Latents(true.stimulus_ids, *(-3 * array + 1 for _, array in true.items()))
    assert latent_accuracy(true, true) == pytest.approx(dict.fromkeys(LATENT_NAMES, 1.0))
    assert latent_accuracy(opposite, true) == pytest.approx(dict.fromkeys(LATENT_NAMES, -1.0), rel=1e-6)


def test_refuses_latents_of_other_images():
    true = draw(10)
    with pytest.raises(InputError, match="not of the same images"):
        latent_accuracy(true.rows(slice(None, None, -1)), true)
    with pytest.raises(InputError, match="1 test images, expected at least two"):
        latent_accuracy(true.rows(slice(0, 1)), true.rows(slice(0, 1)))
    other = Latents(true.stimulus_ids, true.z_image, true.z_text[:, 1:], true.c_image, true.c_text)
    with pytest.raises(InputError, match="latent z_text is predicted in shape"):
        latent_accuracy(other, true)


def scanned(latents, n, voxels=30):
    """A subject of whose voxels only the early ones carry the image latent."""
    early = np.arange(voxels) < 12
    betas = np.random.default_rng(0).standard_normal((n, voxels)).astype(np.float32)
    betas[:, early] += latents.z_image[:n].reshape(n, -1)[:, :12]
    return Subject(
        name="simulated",
        betas=betas,
        stimulus_ids=np.arange(n),
        is_test=np.arange(n) % 4 == 0,
        repeats=np.full(n, 3),
        voxel_indices=np.arange(voxels),
        grid_shape=(5, 3, 2),
        regions={"early": early, "late": ~early, "empty": np.zeros(voxels, dtype=bool)},
        noise_ceiling=np.full(voxels, np.nan, dtype=np.float32),
        simulated=True,
    )


def test_regions_equal_ridge_on_their_voxels():
    n, voxels = 60, 30
    latents = draw(n + 5)
    subject = scanned(latents, n)
    betas, early = subject.betas, subject.regions["early"]
    alphas = {"z_image": 3.0, "z_text": 30.0, "c_image": 3.0, "c_text": 300.0}
    found = region_accuracy(subject, latents, alphas)
    assert [(name, region) for name, region, _ in found] == [
        (n, r) for r in ("all", "early", "late") for n in LATENT_NAMES
    ]
    table = {(name, region): r for name, region, r in found}
    assert table["z_image", "early"] > table["z_image", "all"] > table["z_image", "late"]
    for region, mask in (("all", np.ones(voxels, dtype=bool)), ("late", ~early)):
        for name in LATENT_NAMES:
            Y = latents.select(subject.stimulus_ids)[name].reshape(n, -1)
            train, test = ~subject.is_test, subject.is_test
            model = Ridge(alphas[name] * mask.mean()).fit(betas[train][:, mask], Y[train])
            predicted = model.predict(betas[test][:, mask])
            expected = np.mean([pearsonr(p, t)[0] for p, t in zip(predicted.T, Y[test].T, strict=True)])
            assert table[name, region] == pytest.approx(expected, abs=1e-5)


def test_of_a_wide_latent_a_seeded_sample_is_looked_at(tmp_path):
    n = 40
    latents = draw(n)
    # Dimensions that are all alike: any sample of them has the mean of all.
    alike = np.repeat(latents.z_text[:, :1], 15, axis=1).reshape(n, 3, 5)
    latents = Latents(latents.stimulus_ids, latents.z_image, latents.z_text, alike, latents.c_text)
    subject, alphas = scanned(latents, n), dict.fromkeys(LATENT_NAMES, 3.0)
    whole, few, other = (
        {entry[:2]: entry[2] for entry in region_accuracy(subject, latents, alphas, **options)}
        for options in ({}, {"sampled_targets": 6}, {"sampled_targets": 6, "seed": 1})
    )
    for region in ("all", "early", "late"):
        assert few["c_image", region] == pytest.approx(whole["c_image", region], abs=1e-5)
        assert few["z_text", region] == whole["z_text", region]
        assert few["z_image", region] != pytest.approx(whole["z_image", region], abs=1e-5)
        assert few["z_image", region] != other["z_image", region]
    save_latents(tmp_path / "latents", latents, "small", "f")
    stored = region_accuracy(subject, open_latents(tmp_path / "latents"), alphas, sampled_targets=6)
    assert [entry[2] for entry in stored] == pytest.approx(list(few.values()), abs=1e-6)


def test_refuses_missing_latents():
    latents = draw(3)
    subject = Subject(
        name="simulated",
        betas=np.ones((4, 2), dtype=np.float32),
        stimulus_ids=np.arange(4),
        is_test=np.array([True, True, False, False]),
        repeats=np.ones(4, dtype=np.int64),
        voxel_indices=np.arange(2),
        grid_shape=(2, 1, 1),
        regions={},
        noise_ceiling=np.ones(2, dtype=np.float32),
        simulated=True,
    )
    with pytest.raises(InputError, match="no latents for image id 3"):
        region_accuracy(subject, latents, dict.fromkeys(LATENT_NAMES, 1.0))
