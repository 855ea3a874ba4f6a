import csv
import io

import numpy as np
import pytest
from runs import toy

from unibrain.errors import InputError
from unibrain.evaluation.identification import correlations, latent_identification
from unibrain.experiments import Bench, align, open_bench
from unibrain.experiments.alignment import FITTED, LEFT_OUT, UNSEEN, left_out
from unibrain.experiments.latent_scores import correlate
from unibrain.latents import Latents
from unibrain.pipeline import RunFolder
from unibrain.regression import BrainDecoder, latent_accuracy, region_accuracy
from unibrain.regression.leave_out import split_images


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 3, 5)).astype(np.float32)
    predicted = (true + 2 * rng.normal(size=true.shape)).astype(np.float32)
    true[:, 1, 2], true[:, 2], predicted[:, 0, 0] = 0.1, 7, 0.3  # constant: left out, a token left out, counted as 0
    found = correlate(predicted, true)
    r = np.array([[np.corrcoef(predicted[:, g, d], true[:, g, d])[0, 1] for d in range(5)] for g in range(2)])
    r[0, 0] = 0
    assert found.groups[:2] == pytest.approx([r[0].mean(), np.nanmean(r[1])], abs=1e-6)
    assert np.isnan(found.groups[2])
    assert found.values.mean() == pytest.approx(latent_accuracy({"a": predicted}, {"a": true})["a"])
    varying = np.ptp(true.reshape(40, -1), axis=0) > 0
    p, t = (side.reshape(40, -1)[:, varying].astype(np.float64) for side in (predicted, true))
    whole = np.corrcoef((p - p.mean(axis=0)).ravel(), (t - t.mean(axis=0)).ravel())[0, 1]
    assert found.explained.mean() == pytest.approx(whole**2)
    assert correlate(-predicted, true).explained.tolist() == [0.0] * 40
    # What each image adds says what leaving it out would do.
    without = [
        latent_accuracy(*({"a": np.delete(side, row, axis=0)} for side in (predicted, true)))["a"] for row in range(40)
    ]
    moved = 39 * (found.values.mean() - np.array(without))
    assert np.corrcoef(moved, found.values)[0, 1] > 0.98
    assert np.std(moved) == pytest.approx(np.std(found.values), rel=0.15)


@pytest.mark.parametrize("options", [{"alpha": 3.0}, {"alpha_per": "target"}, {"bands": {"a": ("left",)}}], ids=str)
def test_left_out_is_fitted_without_the_fold(options: dict) -> None:
    rng = np.random.default_rng(0)
    betas, mixing = rng.normal(size=(24, 30)), rng.normal(size=(30, 12))
    latents = (betas @ mixing + 3 * rng.normal(size=(24, 12))).reshape(24, 3, 4).astype(np.float32)
    groups = np.array([*range(20), 0, 1, 2, 2])  # of some images there are several trials
    order = np.arange(24)
    decoder = BrainDecoder(seed=4, **options).fit(
        betas, Latents(groups, {"a": latents}), groups, {"left": np.arange(30) < 12}
    )
    ids = np.array([0, 2, 5, 19])
    found = left_out(decoder, ids, 5)["a"]
    gain, mean = decoder.gain_["a"].reshape(3, 4), latents.mean(axis=0)
    weights = decoder.systems_[0].weights
    scaled = betas if weights is None else betas * np.sqrt(weights)
    for rows in split_images(groups, 5, 4):
        kept = np.setdiff1d(order, rows)
        ridge = BrainDecoder(decoder.alphas_["a"], rescale="none").fit(scaled[kept], latents[kept])
        for place, identity in enumerate(ids):
            own = np.flatnonzero(groups == identity)
            if own[0] in rows:
                deviation = ridge.predict(scaled[own].mean(axis=0))[0] - latents[kept].mean(axis=0)
                assert np.allclose(found[place], mean + gain * deviation, atol=1e-3)


@pytest.mark.usefixtures("drawn")
def test_what_is_told(bench: Bench) -> None:
    found, true, predicted = align(bench), bench.true, bench.predicted
    for latent, value in latent_accuracy(predicted, true).items():
        assert found.cell(UNSEEN, f"{latent}_r").value == pytest.approx(value)
        assert found.cell(FITTED, f"{latent}_r").value > found.cell(LEFT_OUT, f"{latent}_r").value
    for latent, region, value in region_accuracy(
        bench.decoder, {"V1": bench.subject.regions["V1"]}, bench.test.betas, true
    ):
        assert found.cell(region, f"{latent}_region").value == pytest.approx(value)
    ceiling = bench.subject.noise_ceiling[bench.subject.regions["V1"]].mean() / 100
    assert found.cell("V1", "noise_ceiling").value == pytest.approx(ceiling)
    pool = bench.stored.select(np.unique(bench.train.stimulus_ids))
    scores = latent_identification(predicted, true, pool)
    for one in scores:
        if one.among == "training":
            row = f"top 10 of {one.pool} training images (chance {10 / one.pool:.2g})"
            assert found.cell(row, f"{one.latent}_top").value == pytest.approx(one.top(10).mean())
    # The pictures begin with the image that is told worst, and show what it was taken for.
    worst = np.argsort(np.mean([one.two_way for one in scores if one.among == "test"], axis=0), kind="stable")
    strips = {strip.label: strip for strip in found.strips}
    assert np.array_equal(strips["seen"].pictures, bench.stimuli.pictures(bench.ids[worst]))
    taken_for = bench.ids[correlations(true["z_image"], predicted["z_image"])[:, worst].argmax(axis=0)]
    assert np.array_equal(strips["taken for, by z_image"].pictures, bench.stimuli.pictures(taken_for))
    rows = list(csv.DictReader(io.StringIO(found.files["tokens.csv"].decode())))
    tokens = [float(row[UNSEEN]) for row in rows if row["latent"] == "c_image" and row[UNSEEN]]
    assert tokens == pytest.approx(
        [g for g in correlate(predicted["c_image"], true["c_image"]).groups if g == g], abs=1e-4
    )
    assert len(found.figures) == 3


def test_too_few_images(run: RunFolder) -> None:
    with open_bench(run, 2, source=toy()) as bench, pytest.raises(InputError, match="over 2 images"):
        align(bench)
