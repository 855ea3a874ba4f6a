import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from runs import SETTINGS, command, toy
from scipy import stats

from unibrain.cli.experiments import check_out
from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.evaluation import load_scores
from unibrain.evaluation.statistics import holm, paired_interval
from unibrain.experiments import compare, group, write_findings
from unibrain.experiments.comparison import sign_flip_p
from unibrain.pipeline import BackboneSource, RunFolder, run_all, run_one
from unibrain.reconstruction import load_decoded
from unibrain.workspace.fingerprints import fingerprint


@pytest.fixture(scope="session")
def changed(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same scans, decoded otherwise; not to be changed."""
    root = tmp_path_factory.mktemp("experiments") / "changed"
    shutil.copytree(finished.root, root)
    run = RunFolder(root)
    settings = SETTINGS.changed("fit", {"alpha": 1e6}, where="--")
    run_one("evaluate", run, settings, toy(), with_earlier=True)
    return run


def test_differences_are_paired_and_corrected(finished: RunFolder, changed: RunFolder, tmp_path: Path) -> None:
    found = compare([finished, changed], toy())
    first, other = (load_scores(run.artefact("scores")) for run in (finished, changed))
    assert found.settings == ("finished", "changed")
    raw = {}
    for score in other.scores:
        cell = found.cell("changed", score.name)
        assert cell.value == score.value
        pairs = zip(score.per_image, first[score.name].per_image, strict=True)
        a, b = np.array([pair for pair in pairs if None not in pair]).T
        interval = paired_interval(a, b)
        assert cell.difference == pytest.approx(np.mean(a - b))
        assert (cell.difference_low, cell.difference_high) == pytest.approx((interval.low, interval.high))
        raw[score.name] = sign_flip_p(a - b)
    told = dict(entry.rsplit(" ", 1) for entry in found.about["p of changed, corrected"].split(", "))
    assert {name: float(p) for name, p in told.items()} == pytest.approx(holm(raw), rel=0.01)
    assert any("fit.alpha: cv, 1000000.0" in note for note in found.notes)
    strips = {strip.label: strip for strip in found.strips}
    assert np.array_equal(strips["changed"].pictures, load_decoded(changed.artefact("decoded")).pictures)
    page = write_findings(tmp_path / "compare", found)
    assert "No human was scanned" in page.read_text(encoding="utf-8")


def test_sign_flips_as_scipy_has_them() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, 40)
    expected = stats.permutation_test(
        (differences, np.zeros(40)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999
    )
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=0.015)
    assert sign_flip_p(np.zeros(5)) == 1
    assert sign_flip_p(np.full(40, 0.1)) == pytest.approx(1e-4, rel=0.1)


def test_images_are_paired_whatever_their_order(finished: RunFolder, changed: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(changed.root, tmp_path / "turned")
    turned = RunFolder(tmp_path / "turned")
    path = turned.artefact("scores")
    content = json.loads(path.read_text())
    content["stimulus_ids"].reverse()
    for metric in content["metrics"].values():
        metric["per_image"].reverse()
    path.write_text(json.dumps(content))
    record = json.loads(turned.record("evaluate").read_text())
    record["outputs"]["scores"] = {name: asdict(state) for name, state in fingerprint(path).items()}
    turned.record("evaluate").write_text(json.dumps(record))
    straight, found = compare([finished, changed], toy()), compare([finished, turned], toy())
    assert [replace(cell, setting="") for cell in found.cells] == [replace(cell, setting="") for cell in straight.cells]


def test_a_group_has_a_mean_over_subjects(finished: RunFolder, second: RunFolder) -> None:
    found = group([finished, second], toy())
    values = [load_scores(run.artefact("scores"))["pixcorr"].value for run in (finished, second)]
    cell = found.cell("mean of 2 subjects", "pixcorr")
    low, high = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
    assert (cell.value, cell.low, cell.high, cell.images) == pytest.approx((np.mean(values), low, high, 2))
    assert found.cell("mean of 2 subjects", "z_image_two_way").value is not None
    assert not found.published
    assert all(cell.difference is None for cell in found.cells)


def other_dialect(run: RunFolder) -> RunFolder:
    command(run, "evaluate", dialect="mindeye")
    return run


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("alone", "at least two"),
        ("twice", "named twice"),
        ("dialect", "dialect"),
        ("stale", "not up to date"),
        ("no-run", "no run in this folder"),
        ("same-subject", "counts once"),
    ],
)
def test_refused(finished: RunFolder, run: RunFolder, tmp_path: Path, spoil: str, named: str) -> None:
    if spoil == "dialect":
        other_dialect(run)
    if spoil == "stale":
        run.artefact("scores").unlink()
    runs = {"alone": [finished], "twice": [finished, finished], "no-run": [finished, RunFolder(tmp_path / "none")]}
    work = group if spoil == "same-subject" else compare
    with pytest.raises(InputError, match=named):
        work(runs.get(spoil, [finished, run]), toy())


class TwoBackbones(BackboneSource):
    """The toy that a run's settings name."""

    def fingerprint(self, name: str) -> str:
        return toy(name).load(name).fingerprint


def test_runs_on_other_images_or_backbones_are_refused(finished: RunFolder, tmp_path: Path) -> None:
    settings = SETTINGS.changed("simulate", {"seed": 2}, where="--")
    other, two = RunFolder(tmp_path / "other"), RunFolder(tmp_path / "two")
    run_all(other, settings, toy())
    with pytest.raises(InputError, match="test images differ"):
        compare([finished, other], toy())
    shutil.copytree(other.root, two.root)
    for run, name in ((other, "one"), (two, "two")):
        run_all(run, settings.changed("extract", {"backbone": name}, where="--"), toy(name))
    with pytest.raises(InputError, match="backbone"):
        compare([other, two], TwoBackbones())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--subjects", "1"], "at least two"),
        (["--subjects", "1,01"], "at least two"),
        (["--subjects", "1,9"], "less than or equal to 8"),
        (["--subjects", "1,two"], "two"),
    ],
)
def test_wrong_subjects(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    assert main(["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "all"), *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_a_folder_of_other_things_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "compare").mkdir()
    with pytest.raises(InputError, match="other files"):
        check_out(tmp_path)
    (tmp_path / "compare" / "findings.json").write_text("{}")
    check_out(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        check_out(tmp_path / "compare" / "findings.json")
