from dataclasses import replace

import numpy as np
import pytest
from runs import toy

from unibrain.errors import InputError
from unibrain.evaluation.statistics import over_samples
from unibrain.experiments import Bench, open_bench, repeats, write_findings
from unibrain.experiments.repeats import agreement, best_of, together, windows
from unibrain.experiments.trials import Trials, equally_repeated, read_trials
from unibrain.pipeline import CustomSection, RunFolder
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.stimuli import Stimuli

pytestmark = pytest.mark.usefixtures("few_metrics")


@pytest.mark.parametrize("protocol", [None, "single-trial", "session-zscore", "no-zscore"])
def test_mean_of_all_repeats_is_the_row_of_the_run(bench: Bench, protocol: str | None) -> None:
    chosen = {"zscore": "none"} if protocol == "no-zscore" else {"protocol": protocol}
    subject = read_nsd(bench.run.artefact("nsd"), 1, PrepareSettings(**chosen))
    bench = replace(bench, subject=subject)
    most, ids = equally_repeated(bench)
    trials = read_trials(bench, ids)
    assert most == 3
    assert trials.betas.shape == (len(ids), 3, subject.betas.shape[1])
    assert np.allclose(trials.average(range(3)), replace(bench, ids=ids).test.betas, atol=1e-4)
    assert not np.allclose(trials.betas[:, 0], trials.betas[:, 1], atol=0.1)
    assert not (bench.cache / "sessions").exists()


def test_unmeasured_trials_do_not_enter_a_mean() -> None:
    betas = np.array([[[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]]], np.float32)
    trials = Trials(betas, np.array([[[True, False], [True, False], [False, False]]]))
    assert trials.average([0, 1, 2]).tolist() == [[2.0, 0.0]]
    assert trials.average([2]).tolist() == [[0.0, 0.0]]


def test_each_repeat_takes_part_equally_often() -> None:
    assert windows(2, 3) == [(0, 1), (1, 2), (0, 2)]
    for number in (1, 2, 3):
        assert np.bincount(np.ravel(windows(number, 4))).tolist() == [number] * 4


@pytest.mark.usefixtures("drawn")
def test_rows_are_what_they_are_called(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = repeats(bench, samples=2)
    strips = {strip.label: strip for strip in found.strips}
    ids = equally_repeated(bench)[1]
    alone = bench.decode(bench.decoder.predict(read_trials(bench, ids).betas[:, 1], ids))
    assert np.array_equal(strips["repeat 2 alone"].pictures, alone.pictures)
    other = bench.decode(bench.predicted.select(ids), seed=bench.settings.reconstruct.seed + 1)
    assert np.array_equal(strips["sample 2"].pictures, other.pictures)
    singles = [found.cell(f"repeat {number} alone", "ssim").value for number in (1, 2, 3)]
    assert found.cell("1 repeat", "ssim").value == pytest.approx(np.mean(singles))
    each = [bench.score(bench.decode(bench.predicted.select(ids), seed=seed)) for seed in range(2)]
    table = np.array([one["ssim"].per_image for one in each]).T
    assert found.cell("mean of 2 samples", "ssim").value == pytest.approx(table.mean())
    assert found.cell("best by the truth (ceiling) of 2 samples", "ssim").value == pytest.approx(table.max(1).mean())
    within, between = over_samples(table)
    deviation = found.cell("deviation between samples of a scan", "ssim").value
    assert deviation**2 == pytest.approx(table.var(axis=1, ddof=1).mean()) == pytest.approx(within)
    assert found.cell("deviation between scans", "ssim").value ** 2 == pytest.approx(between)
    best, ceiling = (f"best by {what} of 2 samples" for what in ("agreement", "the truth (ceiling)"))
    assert found.cell(best, "ssim").value <= found.cell(ceiling, "ssim").value
    page = write_findings(bench.run.experiments / "repeats", found).read_text("utf-8")
    assert "The truth takes no part" in page
    assert len(found.figures) == 2
    # Nothing is read or decoded twice.
    monkeypatch.setattr("unibrain.scans.nsd_betas.gather_sessions", lambda *_: pytest.fail("read again"))
    bench.network.calls.clear()
    assert repeats(bench, samples=2).cells == found.cells
    assert not any(call.startswith("sample") for call in bench.network.calls)


def test_best_of_one_is_the_plain_decode(bench: Bench) -> None:
    own = bench.decoded()
    best = best_of([own], [agreement(bench.network, own, bench.predicted)])
    assert np.array_equal(best.pictures, own.pictures)
    assert best.captions == own.captions
    merged = together([bench.score(own)], lambda table, _: table.max(axis=1))
    assert [one.value for one in merged.scores] == pytest.approx([one.value for one in bench.score(own).scores])


def test_best_agrees_with_what_was_predicted(bench: Bench) -> None:
    predicted = bench.predicted
    samples = [bench.decode(predicted, seed=seed) for seed in range(4)]
    agreed = [agreement(bench.network, one, predicted) for one in samples]
    first = [
        np.corrcoef(bench.network.encode("c_text", [one.captions[2]])[0].ravel(), predicted["c_text"][2].ravel())[0, 1]
        for one in samples
    ]
    assert [one["caption"][2] for one in agreed] == pytest.approx(first)
    best = best_of(samples, agreed)
    assert best.captions[2] == samples[int(np.argmax(first))].captions[2]
    rows = np.argmax([one["picture"] for one in agreed], axis=0)
    assert all(np.array_equal(best.pictures[i], samples[one].pictures[i]) for i, one in enumerate(rows))


def test_choice_never_looks_at_the_truth(bench: Bench) -> None:
    bench = _scanned_once(bench)
    turned = replace(bench, stimuli=_turned(bench.stimuli))
    label = "best by agreement of 2 samples"
    one, other = (next(s for s in repeats(some, 2).strips if s.label == label) for some in (bench, turned))
    assert np.array_equal(one.pictures, other.pictures)
    assert one.captions == other.captions
    assert not np.array_equal(bench.stimuli.pictures(bench.ids), turned.stimuli.pictures(bench.ids))


def _scanned_once(bench: Bench) -> Bench:
    return replace(bench, subject=replace(bench.subject, repeats=np.ones_like(bench.subject.repeats)))


def _turned(stimuli: Stimuli) -> Stimuli:
    """Every image gets the picture and captions of another one."""
    other = dict(zip(stimuli.stimulus_ids.tolist(), np.roll(stimuli.stimulus_ids, 1).tolist(), strict=True))
    return replace(
        stimuli,
        read_pictures=lambda ids: stimuli.read_pictures(np.array([other[int(one)] for one in ids])),
        captions_by_id={one: stimuli.captions_by_id[another] for one, another in other.items()},
    )


@pytest.mark.parametrize(
    ("samples", "budget", "named"), [(0, 60.0, "--samples is 0"), (4, 0.0, "--budget")], ids=["samples", "budget"]
)
def test_refused_before_work(run: RunFolder, samples: int, budget: float, named: str) -> None:
    source = toy()
    with pytest.raises(InputError, match=named), open_bench(run, 6, source=source, budget=budget) as bench:
        repeats(bench, samples)
    assert not any(call.startswith("sample") for call in source.load("toy").calls)


def test_data_without_repeats_say_what_lacks(bench: Bench) -> None:
    once = _scanned_once(bench)
    with pytest.raises(InputError, match="scanned equally often and more than once"):
        repeats(once, samples=1)
    found = repeats(once, samples=2)
    assert any("more than once" in note for note in found.notes)
    assert "1 repeat" not in found.settings
    custom = replace(bench, settings=bench.settings.model_copy(update={"custom": CustomSection()}))
    with pytest.raises(InputError, match="data of your own"):
        read_trials(custom, bench.ids)
