"""Faults planted in a tree in NSD's layout, and the findings that name them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
import pytest

from unibrain.audit import Audit, audit_nsd, load_audit, save_audit
from unibrain.cli.main import main
from unibrain.demo import SimulationSettings, simulate_nsd
from unibrain.errors import DamagedFileError, InputError
from unibrain.scans.nsd_design import read_design
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import read_mask

SMALL = {"seed": 5, "training_images": 24, "test_images": 6, "sessions": 3, "grid": (8, 9, 7), "picture_size": 64}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> NsdLayout:
    """A small simulated tree; read only."""
    root = tmp_path_factory.mktemp("audited") / "tree"
    simulate_nsd(root, SimulationSettings(**SMALL, beta_formats=("hdf5", "nifti")))
    return NsdLayout(root)


@pytest.fixture
def copy(tree: NsdLayout, tmp_path: Path) -> NsdLayout:
    """The layout of a copy that a test may damage."""
    shutil.copytree(tree.root, tmp_path / "nsd")
    return NsdLayout(tmp_path / "nsd")


def sides(layout: NsdLayout) -> tuple[list[int], list[int]]:
    """Ids of the training and of the test images."""
    design = read_design(layout)
    return tuple(np.unique(design.stimulus_ids[side]).tolist() for side in (~design.is_shared, design.is_shared))


def change_betas(layout: NsdLayout, session: int, change: Callable[[np.ndarray], Any]) -> None:
    """`change` gets float betas as (trials, Z, Y, X), and changes or returns them."""
    with h5py.File(layout.betas(session, "hdf5"), "r+") as file:
        betas = file["betas"][:].astype(np.float32)
        changed = change(betas)
        del file["betas"]
        file["betas"] = betas if changed is None else changed


def scale_in_header(layout: NsdLayout, session: int, slope: float) -> None:
    """Write the NIfTI of a session with a scale in its header."""
    path = layout.betas(session, "nifti")
    image = nibabel.load(path)
    scaled = nibabel.Nifti1Image(np.asarray(image.dataobj.get_unscaled()), image.affine, dtype=np.int16)
    scaled.header.set_slope_inter(slope, 0)
    scaled.to_filename(path)
    assert float(nibabel.load(path).dataobj.slope) == pytest.approx(slope)


def change_pictures(layout: NsdLayout, change: Callable[[np.ndarray], Any]) -> None:
    with h5py.File(layout.stimuli, "r+") as file:
        pictures = file["imgBrick"][:]
        change(pictures)
        file["imgBrick"][:] = pictures


def keep_captions(layout: NsdLayout, stimulus_id: int, number: int) -> None:
    row = pandas.read_csv(layout.stim_info, index_col=0).iloc[stimulus_id]
    path = layout.captions(row["cocoSplit"])
    content = json.loads(path.read_text(encoding="utf-8"))
    these = [entry for entry in content["annotations"] if entry["image_id"] == row["cocoId"]]
    content["annotations"] = [entry for entry in content["annotations"] if entry not in these[number:]]
    path.write_text(json.dumps(content), encoding="utf-8")


def levels(audit: Audit) -> dict[str, str]:
    return {finding.title: finding.level for finding in audit.findings}


def test_a_whole_tree_has_notes_and_no_problem(tree: NsdLayout, tmp_path: Path) -> None:
    audit = audit_nsd(tree.root)
    assert levels(audit) == {
        "sessions": "ok",
        # The simulated tree has what NSD has: a voxel that leaves the slab, and images shown once and twice.
        "voxels in sessions": "note",
        "z-scores of sessions": "ok",
        "single scans": "ok",
        "repeats": "note",
        "overlap by id": "ok",
        "overlap by COCO id": "ok",
        "identical pictures": "ok",
        "near duplicates": "ok",
        "captions": "ok",
        "captions on both sides": levels(audit)["captions on both sides"],
        "regions": "ok",
        "noise ceiling": "ok",
        "overlap in meaning": "note",
    }
    assert (audit.subject, audit.simulated, audit.level, audit.split) == ("subj01", True, "note", "")
    assert "extract" in audit.finding("overlap in meaning").advice
    mask = read_mask(tree, "nsdgeneral")
    betas = [np.asarray(nibabel.load(tree.betas(session, "nifti")).dataobj)[mask] for session in (1, 2, 3)]
    zero = [int((each == 0).all(axis=1).sum()) for each in betas]
    assert sum(zero) > 0
    for found in (audit, audit_nsd(tree.root, file_format="nifti")):
        assert [entry.zero for entry in found.sessions] == zero
        assert {(entry.constant, entry.non_finite, entry.voxels) for entry in found.sessions} == {(0, 0, mask.sum())}
    ncsnr = np.asarray(nibabel.load(tree.ncsnr()).dataobj, dtype=np.float64)[mask]
    expected = np.nanpercentile(100 * ncsnr**2 / (ncsnr**2 + 1 / 3), (25, 50, 75))
    assert audit.finding("noise ceiling").details["quartiles"] == pytest.approx(expected, abs=2e-3)
    save_audit(tmp_path / "audit.json", audit)
    assert load_audit(tmp_path / "audit.json") == audit


def silent_voxels(layout: NsdLayout) -> dict[str, Any]:
    z, y, x = (axis[:3] for axis in np.nonzero(read_mask(layout, "nsdgeneral").T))

    def spoil(betas: np.ndarray) -> None:
        betas[2, z[0], y[0], x[0]] = np.nan
        betas[:, z[1], y[1], x[1]] = np.inf
        betas[:, z[2], y[2], x[2]] = 5

    change_betas(layout, 3, spoil)
    cut = layout.betas(1, "hdf5")
    cut.write_bytes(cut.read_bytes()[:1000])
    return {"what": ("NaN or infinite values in session 3 (2 voxels)", "session 3 (1 voxel)", "betas_session01.hdf5")}


def the_same_picture(layout: NsdLayout) -> dict[str, Any]:
    train, test = sides(layout)
    change_pictures(layout, lambda pictures: pictures.__setitem__(test[0], pictures[train[3]]))
    return {"pairs": [[test[0], train[3]]]}


def the_same_coco_picture(layout: NsdLayout) -> dict[str, Any]:
    train, test = sides(layout)
    table = pandas.read_csv(layout.stim_info, index_col=0)
    table.loc[test[1], ["cocoId", "cocoSplit"]] = table.loc[train[5], ["cocoId", "cocoSplit"]].to_numpy()
    table.to_csv(layout.stim_info)
    return {"pairs": [[test[1], train[5]]]}


def missing_captions(layout: NsdLayout) -> dict[str, Any]:
    train, test = sides(layout)
    for stimulus_id, number in ((train[0], 0), (test[2], 0), (train[1], 3)):
        keep_captions(layout, stimulus_id, number)
    return {"without": sorted([train[0], test[2]]), "few": [train[1]]}


def too_few_pictures(layout: NsdLayout) -> dict[str, Any]:
    train, test = sides(layout)
    with h5py.File(layout.stimuli, "r+") as file:
        pictures = file["imgBrick"][: max(train + test)]
        del file["imgBrick"]
        file["imgBrick"] = pictures
    return {"what": (str(layout.stimuli), str(len(pictures)), str(max(train + test))), "not": ("truncated", "download")}


def no_captions(layout: NsdLayout) -> dict[str, Any]:
    shutil.rmtree(layout.captions("train2017").parent)
    return {"what": ("fetch-captions",)}


@pytest.mark.parametrize(
    "plants",
    [
        {
            "voxels in sessions": silent_voxels,
            "overlap by COCO id": the_same_coco_picture,
            "identical pictures": the_same_picture,
            "captions": missing_captions,
        },
        {"identical pictures": too_few_pictures, "captions": no_captions},
    ],
)
def test_planted_faults_are_found_and_the_rest_is_looked_at(plants: dict[str, Any], copy: NsdLayout) -> None:
    planted = {title: plant(copy) for title, plant in plants.items()}
    audit = audit_nsd(copy.root, betas="voxels in sessions" in plants)
    for title, expected in planted.items():
        finding = audit.finding(title)
        for words in expected.pop("what", ()):
            assert words in finding.what
        for words in expected.pop("not", ()):
            assert words not in finding.what
        assert {key: finding.details[key] for key in expected} == expected
    assert [title for title, level in levels(audit).items() if level == "problem"] == list(plants)


def test_images_of_missing_sessions_do_not_count(copy: NsdLayout) -> None:
    for file_format in ("hdf5", "nifti"):
        copy.betas(2, file_format).unlink()
    copy.betas(3, "hdf5").unlink()  # its NIfTI is there
    audit = audit_nsd(copy.root)
    found = audit.finding("sessions")
    assert (found.level, found.details["design"], found.details["present"]) == ("note", [1, 2, 3], [1, 3])
    assert [entry.session for entry in audit.sessions] == [1, 3]
    design = read_design(copy, (1, 3))
    counts = np.unique(design.stimulus_ids[design.is_shared], return_counts=True)[1]
    assert audit.finding("repeats").details["test"] == {str(n): int((counts == n).sum()) for n in np.unique(counts)}
    assert audit_nsd(copy.root, betas=False).finding("voxels in sessions").what == "not looked at (--no-betas)"


def test_a_scale_in_the_header_of_some_sessions(copy: NsdLayout) -> None:
    before = audit_nsd(copy.root, file_format="nifti").sessions[1].deviation
    # Percent of signal change is brought to NSD's unit; any other scale is named.
    for slope, level, factor in ((1 / 300, "ok", 1), (0.1, "problem", 0.1)):
        scale_in_header(copy, 2, slope)
        after = audit_nsd(copy.root, file_format="nifti")
        finding = after.finding("z-scores of sessions")
        assert (finding.level, "session 2" in finding.what) == (level, level == "problem")
        assert after.sessions[1].deviation == pytest.approx(factor * before, rel=1e-3)


def test_the_command(tree: NsdLayout, copy: NsdLayout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--root", str(tree.root), "--subject", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "overlap by id" in shown
    assert "(simulated)" in shown
    assert "0 problems, " in shown
    [pair] = the_same_picture(copy)["pairs"]
    assert main(["audit", "--root", str(copy.root), "--no-betas", "--json", "--threads", "1"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["level"] == "problem"
    assert content["pictures"][0] == {"test_id": pair[0], "train_id": pair[1], "similarity": 1.0}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["RUN", "--mask", "V1"], ("--mask", "--root")),
        (["RUN"], ("unibrain prepare",)),
        (["--root", "TREE", "--mask", "V17"], ("V17",)),
        (["--root", "TREE", "--subject", "9"], ("9",)),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], names: tuple[str, ...], tree: NsdLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(tmp_path), "TREE": str(tree.root)}
    assert main(["audit", *(places.get(word, word) for word in arguments), "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in names)
    assert "Traceback" not in said


def test_an_audit_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    with pytest.raises(InputError, match=str(path)):
        load_audit(path)
    for content in ("{}", "[1]", "nonsense", '{"findings": [{"level": "bad"}]}', "[" * 100_000):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=str(path)) as caught:
            load_audit(path)
        assert caught.value.path == path
