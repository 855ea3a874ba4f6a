import numpy as np
import pytest
from runs import toy

from unibrain.cli.main import main
from unibrain.cli.run import split as command
from unibrain.errors import InputError
from unibrain.evaluation.splits import read_folds
from unibrain.pipeline import RunFolder
from unibrain.pipeline.split import split_run
from unibrain.scans import load_subject


def test_a_finished_run_is_split_and_refitted(run: RunFolder) -> None:
    made = split_run(run, 3, seed=2, refit=True, backbone=toy())
    subject = load_subject(run.artefact("subject"))
    found, naive = read_folds(run.root / "clusters-3.json")
    assert made.path == run.root / "clusters-3.json"
    np.testing.assert_array_equal(found.stimulus_ids, np.unique(subject.stimulus_ids))
    np.testing.assert_array_equal(found.folds, made.clusters.folds)
    assert naive.sizes == found.sizes
    assert [len(captions) for captions in made.examples] == [min(3, size) for size in found.sizes]
    refits = [(refit.split, refit.latent) for refit in made.refits]
    assert refits == [
        (name, latent) for name in ("naive", "clusters") for latent in ("z_image", "z_text", "c_image", "c_text")
    ]
    assert all(refit.images == 30 for refit in made.refits)
    again = split_run(run, 3, seed=2, backbone=toy())
    np.testing.assert_array_equal(again.clusters.folds, found.folds)
    assert again.refits == ()


@pytest.mark.parametrize("refit", [False, True])
def test_the_command_shows_clusters_and_what_comes_next(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refit: bool
) -> None:
    monkeypatch.setattr("unibrain.pipeline.BackboneSource", lambda *_, **__: toy())
    assert command.name == "split"
    assert main(["split", str(run.root), "--clusters", "2", "--seed", "1", *["--refit"] * refit, "--quiet"]) == 0
    shown = capsys.readouterr().out
    sizes = read_folds(run.root / "clusters-2.json")[0].sizes
    assert all(f"{size} images" in shown for size in sizes)
    assert ("accuracy, clusters" in shown) is refit
    assert (f"Next: unibrain split {run.root} --clusters 2 --seed 1 --refit" in shown) is not refit


def test_only_a_file_of_folds_is_replaced(run: RunFolder) -> None:
    before = run.artefact("split").read_bytes()
    with pytest.raises(InputError, match=r"split\.json"):
        split_run(run, 2, run.artefact("split"), backbone=toy())
    assert run.artefact("split").read_bytes() == before


def test_what_is_not_up_to_date_is_refused(run: RunFolder) -> None:
    run.artefact("decoder").rename(run.root / "decoder-away")
    with pytest.raises(InputError, match="fit is not up to date"):
        split_run(run, 2, refit=True, backbone=toy())
    split_run(run, 2, backbone=toy())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["split", "nowhere", "--clusters", "3"], ["nowhere", "no run in this folder"]),
        (["split", "RUN"], ["--clusters"]),
        (["split", "RUN", "--clusters", "1"], ["--clusters", "1"]),
        (["split", "RUN", "--clusters", "900"], ["900 clusters", "36 images"]),
    ],
)
def test_a_mistake_is_one_sentence(
    finished: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: list[str],
) -> None:
    monkeypatch.setattr("unibrain.pipeline.BackboneSource", lambda *_, **__: toy())
    before = sorted(finished.root.iterdir())
    assert main([str(finished.root) if word == "RUN" else word for word in arguments]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert [word for word in named if word not in sentence] == []
    assert sorted(finished.root.iterdir()) == before
