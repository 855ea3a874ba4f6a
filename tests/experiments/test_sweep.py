import json
from dataclasses import replace

import numpy as np
import pytest
from runs import toy

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.evaluation.statistics import paired_interval
from unibrain.experiments import Bench, open_bench, sweep, write_findings
from unibrain.experiments.sweep import AS_RUN, gains, recommend, sweep_settings
from unibrain.pipeline import RunFolder
from unibrain.reconstruction import reconstruct

pytestmark = pytest.mark.usefixtures("few_metrics")


def test_settings_are_lines_or_a_grid() -> None:
    options = {"image_weight": (0.2, 0.9, 0.2), "steps": (5, 10)}
    assert list(sweep_settings(options)) == [AS_RUN, "image_weight 0.2", "image_weight 0.9", "steps 5", "steps 10"]
    grid = sweep_settings(options, grid=True)
    assert len(grid) == 5
    assert grid["image_weight 0.9, steps 5"] == {"image_weight": 0.9, "steps": 5}
    with pytest.raises(InputError, match="1600"):
        sweep_settings({"image_weight": np.linspace(0, 1, 40), "strength": np.linspace(0.1, 0.9, 40)}, grid=True)


def test_settings_are_decoded_as_they_are_called_on_validation_images(bench: Bench) -> None:
    found = sweep(bench, {"image_weight": (0.1, 1.0), "alpha": (10,)}, images=5)
    predicted = bench.validation(5)
    strips = {strip.label: strip for strip in found.strips}
    network = bench.network
    expected = reconstruct(network, predicted, kinds=bench.kinds, **bench.sampling | {"image_weight": 0.1})
    assert np.array_equal(strips["image_weight 0.1"].pictures, expected.pictures)
    assert list(strips["image_weight 0.1"].captions) == list(expected.captions)
    # Without C_T is image_weight 1.
    without = reconstruct(network, predicted, use={"z_image", "z_text", "c_image"}, **bench.sampling)
    assert np.array_equal(strips["image_weight 1"].pictures, without.pictures)
    # A factor on the penalties is a refit with them.
    train = bench.train
    out = np.isin(train.stimulus_ids, predicted.stimulus_ids)
    ids = train.stimulus_ids[~out]
    decoder = bench.refit(train.betas[~out], bench.stored.select(ids), ids, factor=10)
    assert decoder.alpha_ == pytest.approx({name: 10 * value for name, value in bench.decoder.alpha_.items()})
    refitted = decoder.predict(train.betas[out], train.stimulus_ids[out])
    expected = bench.decode(refitted)
    assert np.abs(strips["alpha 10"].pictures.astype(int) - expected.pictures.astype(int)).max() <= 1
    assert not set(predicted.stimulus_ids.tolist()) & set(bench.subject.test.stimulus_ids.tolist())
    assert found.about["test images"] == "none takes part"


def test_gain_is_a_paired_mean_over_metrics(bench: Bench) -> None:
    predicted = bench.validation(5)
    scores = {AS_RUN: bench.score(bench.decode(predicted)), "other": bench.score(bench.decode(predicted, seed=7))}
    gained = gains(scores, "picture")
    parts = []
    for score in scores[AS_RUN].scores:
        if score.kind == "picture" and score.per_image:
            a, b = (np.array(one[score.name].per_image, float) for one in scores.values())
            deviation = np.nanstd([a, b])
            parts += [(b - a) / deviation] if deviation > 0 else []
    assert gained["other"] == pytest.approx(np.nanmean(parts, axis=0))
    assert not gained[AS_RUN].any()


def test_run_is_kept_unless_another_is_clearly_better() -> None:
    noise = np.random.default_rng(0).standard_normal(20)
    same, better, unsure = np.zeros(20), 1 + 0.1 * noise, noise - noise.mean() + 0.05
    chosen, largest, interval = recommend({AS_RUN: same, "unsure": unsure})
    assert (chosen, largest) == (AS_RUN, "unsure")
    assert interval.low < 0 < interval.high
    assert recommend({AS_RUN: same, "unsure": unsure, "better": better})[0] == "better"
    assert recommend({AS_RUN: same, "worse": -better})[0] == AS_RUN
    assert recommend({AS_RUN: same, "the same": same})[0] == AS_RUN
    # Of one other setting it is the plain paired interval.
    plain = paired_interval(unsure, same)
    assert (interval.low, interval.high) == pytest.approx((plain.low, plain.high))


@pytest.mark.usefixtures("drawn")
def test_recommendation_is_told_per_kind_with_its_line(bench: Bench) -> None:
    found = sweep(bench, {"image_weight": (0, 1), "steps": (5,)}, images=5)
    for kind in ("Pictures", "Captions"):
        assert f"{kind}: " in found.answer
        assert f"image_weight_{kind.lower()} = " in found.answer
    assert "steps = " in found.answer
    assert len(found.figures) == 5
    assert "No test image takes part" in write_findings(bench.run.experiments / "sweep", found).read_text("utf-8")


def test_nothing_is_decoded_twice(run: RunFolder) -> None:
    second = toy()
    with open_bench(run, 6, source=toy()) as bench:
        once = sweep(bench, {"image_weight": (0.6,)}, images=4)
    with open_bench(run, 6, source=second) as bench:
        again = sweep(bench, {"image_weight": (0.6,)}, images=4)
    assert not any(call.startswith("sample") for call in second.load("toy").calls)
    assert once.cells == again.cells
    # The run's own picture weight is 0.6.
    assert once.cell("image_weight 0.6", "ssim").difference == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_weight": (0.5, 1.5)}, "image_weight is 1.5"),
        ({"image_weight": (float("nan"),)}, "image_weight is nan"),
        ({"strength": (0.0,)}, "strength is 0"),
        ({"strength": (0.05,)}, "strength 0.05 of 10 steps"),
        ({"guidance_scale": (-1.0,)}, "guidance_scale is -1"),
        ({"steps": (0,)}, "steps is 0"),
        ({"alpha": (0.0,)}, "alpha has the factor 0"),
        ({"alpha": (float("inf"),)}, "alpha has the factor inf"),
    ],
)
def test_wrong_values_are_named_before_work(bench: Bench, options: dict[str, tuple[float, ...]], named: str) -> None:
    with pytest.raises(InputError, match=named):
        sweep(bench, options, images=4)
    assert not any(call.startswith("sample") for call in bench.network.calls)


def test_what_is_foreseen_is_the_time_of_one_worker(bench: Bench) -> None:
    path = bench.run.record("reconstruct")
    record = json.loads(path.read_text())
    record["provenance"]["seconds"] = 61.0
    record["notes"]["shards"] = {"count": 8, "seconds": 6 * 60.0, "elapsed": 61.0, "workers": 8}
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"decodes 120 images, about 120 min.* --budget 120"):
        bench.announce(120, "sweep")


def test_budget_counts_settings_images_and_steps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    announced = []
    monkeypatch.setattr(Bench, "announce", lambda self, decodes, what: announced.append(decodes))
    sweep(bench, {"image_weight": (0.1, 0.2), "guidance_scale": (2.0, 3.0, 4.0)}, grid=True, images=4)
    sweep(bench, {"steps": (20,)}, images=4)
    # 7 of 10 steps are taken, and 15 of 20.
    assert announced == [7 * 4, int(np.ceil((1 + 15 / 7) * 4))]
    monkeypatch.undo()
    with pytest.raises(InputError, match="--budget"):
        sweep(replace(bench, budget=0.0), images=4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--image-weight", "0.2,x"], "'x' is no number"),
        (["--steps", "5,2.5"], "'2.5' is no whole number"),
        (["--images", "16"], "16"),
    ],
)
def test_command_refuses(
    run: RunFolder,
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unibrain.pipeline.BackboneSource", lambda *_, **__: toy())
    assert main(["sweep", str(run.root), *arguments]) == 2
    assert named in capsys.readouterr().err
