"""A scan of a finished run, decoded in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
from runs import command, edit, toy

import unibrain
from unibrain.pipeline import RunFolder
from unibrain.reconstruction import Decoded


def same(found: Decoded, expected: Decoded, rows: list[int]) -> None:
    assert expected.pictures is not None
    assert expected.captions is not None
    np.testing.assert_array_equal(found.stimulus_ids, expected.stimulus_ids[rows])
    np.testing.assert_array_equal(found.pictures, expected.pictures[rows])
    assert found.captions == tuple(expected.captions[row] for row in rows)


def test_a_scan_is_decoded_as_the_run_decoded_it(finished: RunFolder) -> None:
    test = unibrain.load_subject(finished.root).test
    run = unibrain.load_decoded(finished.artefact("decoded"))
    same(unibrain.decode(finished, test.rows(np.array([3, 1])), backbone=toy()), run, [3, 1])
    ids = test.stimulus_ids[[2]]
    same(unibrain.decode(str(finished.root), test.betas[2], ids, backbone=toy()), run, [2])
    same(unibrain.decode(finished, test.betas[[2]].tolist(), ids.tolist(), backbone=toy()), run, [2])


def test_options_are_those_of_reconstruct_and_the_rest_is_the_runs(run: RunFolder) -> None:
    command(run, "reconstruct", image_weight_pictures=0.1, seed=4)
    edit(run, "folds = 5", "folds = 3")
    with pytest.raises(unibrain.InputError, match="fit is not up to date"):
        unibrain.decode(run, np.zeros(3), backbone=toy())
    edit(run, "folds = 3", "folds = 5")
    test = unibrain.load_subject(run.root).test
    same(unibrain.decode(run, test, backbone=toy()), unibrain.load_decoded(run.artefact("decoded")), list(range(6)))
    predicted = unibrain.load_latents(run.artefact("predicted"))
    network = toy().load("small")
    weights = {"picture": 0.1, "caption": None}
    expected = unibrain.reconstruct(network, predicted, image_weight=weights, seed=5, kinds={"picture"})  # type: ignore[arg-type]
    found = unibrain.decode(run, test, backbone=toy(), seed=5, kinds={"picture"})
    np.testing.assert_array_equal(found.pictures, expected.pictures)
    assert found.captions is None


@pytest.mark.parametrize(
    ("folder", "scans", "ids", "named"),
    [
        ("nowhere", "betas", None, "nowhere: there is no run in this folder"),
        ("run", "short", None, "features"),
        ("run", "nan", None, "row 1, voxel 2 is NaN"),
        ("run", "betas", [1, 2, 3], "3 stimulus ids for 2 scans"),
        ("run", "subject", [1, 2], "has stimulus ids of its own"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    finished: RunFolder, tmp_path: Path, folder: str, scans: str, ids: list[int] | None, named: str
) -> None:
    test = unibrain.load_subject(finished.root).test.rows(np.array([0, 1]))
    broken = test.betas.copy()
    broken[1, 2] = np.nan
    given = {"betas": test.betas, "short": test.betas[:, 1:], "nan": broken, "subject": test}[scans]
    run = finished if folder == "run" else tmp_path / folder
    with pytest.raises(unibrain.InputError, match=re.escape(named)):
        unibrain.decode(run, given, ids, backbone=toy())  # type: ignore[arg-type]
    assert not (tmp_path / "nowhere").exists()
