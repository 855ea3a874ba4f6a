import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import SETTINGS, cheaply, command, toy
from scipy import stats

from unibrain.cli.experiments import check_out
from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.evaluation import load_scores
from unibrain.evaluation.statistics import holm, paired_interval
from unibrain.experiments import compare, group, write_findings
from unibrain.pipeline import RunFolder, run_one
from unibrain.reconstruction import load_decoded
from unibrain.workspace.fingerprints import fingerprint


@pytest.fixture(scope="session")
def changed(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same scans, decoded otherwise; not to be changed."""
    root = tmp_path_factory.mktemp("experiments") / "changed"
    shutil.copytree(finished.root, root)
    run = RunFolder(root)
    settings = SETTINGS.changed("fit", {"alpha": 1e6}, where="--")
    with cheaply():
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
        known = np.array([pair for pair in pairs if None not in pair])
        if len(known) < 2:
            continue
        a, b = known.T
        interval = paired_interval(a, b)
        assert cell.difference == pytest.approx(np.mean(a - b))
        assert (cell.difference_low, cell.difference_high) == pytest.approx((interval.low, interval.high))
        flips = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples")
        raw[score.name] = flips.pvalue
    told = dict(entry.rsplit(" ", 1) for entry in found.about["p of changed, corrected"].split(", "))
    assert {name: float(p) for name, p in told.items()} == pytest.approx(holm(raw), abs=0.05)
    assert any("fit.alpha: cv, 1000000.0" in note for note in found.notes)
    strips = {strip.label: strip for strip in found.strips}
    assert np.array_equal(strips["changed"].pictures, load_decoded(changed.artefact("decoded")).pictures)
    page = write_findings(tmp_path / "compare", found)
    assert "No human was scanned" in page.read_text(encoding="utf-8")


def rewritten(run: RunFolder, folder: Path, change: Callable[[dict[str, Any], RunFolder], object]) -> RunFolder:
    """A copy whose scores were changed, and which says of them that they are its own."""
    shutil.copytree(run.root, folder)
    copy = RunFolder(folder)
    path = copy.artefact("scores")
    content = json.loads(path.read_text())
    change(content, copy)
    path.write_text(json.dumps(content))
    record = json.loads(copy.record("evaluate").read_text())
    record["outputs"]["scores"] = {name: asdict(state) for name, state in fingerprint(path).items()}
    copy.record("evaluate").write_text(json.dumps(record))
    return copy


def test_images_are_paired_whatever_their_order(finished: RunFolder, changed: RunFolder, tmp_path: Path) -> None:
    def turn(content: dict[str, Any], _: RunFolder) -> None:
        content["stimulus_ids"].reverse()
        for metric in content["metrics"].values():
            metric["per_image"].reverse()

    turned = rewritten(changed, tmp_path / "turned", turn)
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
        with cheaply():
            command(run, "evaluate", dialect="mindeye")
    if spoil == "stale":
        run.artefact("scores").unlink()
    runs = {"alone": [finished], "twice": [finished, finished], "no-run": [finished, RunFolder(tmp_path / "none")]}
    work = group if spoil == "same-subject" else compare
    with pytest.raises(InputError, match=named):
        work(runs.get(spoil, [finished, run]), toy())


def other_images(content: dict[str, Any], run: RunFolder) -> None:
    train = json.loads(run.artefact("split").read_text())["train"]
    content["stimulus_ids"] = train[: content["images"]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_images, "test images differ"),
        (lambda content, _: content["provenance"]["backbone"].update(fingerprint="0" * 64), "backbone"),
        (lambda content, _: content.update(simulated=False), "simulated"),
    ],
    ids=["images", "backbone", "simulated"],
)
def test_scores_that_do_not_mean_the_same_are_refused(
    finished: RunFolder, tmp_path: Path, change: Callable[[dict[str, Any], RunFolder], object], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        compare([finished, rewritten(finished, tmp_path / "other", change)], toy())


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
