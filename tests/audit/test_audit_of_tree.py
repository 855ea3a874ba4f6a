"""Faults planted in a tree in NSD's layout, and the findings that name them."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas
import pytest
from PIL import Image

from unibrain.audit import Audit, load_audit
from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.pipeline import audit_tree
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_design import read_design
from unibrain.scans.nsd_regions import read_mask


def sides(layout: NsdLayout) -> tuple[list[int], list[int]]:
    """Ids of the training and of the test images."""
    design = read_design(layout)
    ids = np.unique(design.stimulus_ids[~design.is_shared]), np.unique(design.stimulus_ids[design.is_shared])
    return ids[0].tolist(), ids[1].tolist()


def change_betas(layout: NsdLayout, session: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """`change` gets the betas as (trials, Z, Y, X)."""
    path = layout.betas(session, "hdf5")
    with h5py.File(path, "r") as file:
        betas = change(file["betas"][:])
    with h5py.File(path, "w") as file:
        file["betas"] = betas


def change_pictures(layout: NsdLayout, change: Callable[[np.ndarray], None]) -> None:
    with h5py.File(layout.stimuli, "r+") as file:
        pictures = file["imgBrick"][:]
        change(pictures)
        file["imgBrick"][:] = pictures


def change_captions(layout: NsdLayout, stimulus_id: int, number: int) -> None:
    """Keep `number` captions of an image."""
    row = pandas.read_csv(layout.stim_info, index_col=0).iloc[stimulus_id]
    path = layout.captions(row["cocoSplit"])
    content = json.loads(path.read_text(encoding="utf-8"))
    own = [entry for entry in content["annotations"] if entry["image_id"] == row["cocoId"]]
    content["annotations"] = [entry for entry in content["annotations"] if entry not in own[number:]]
    path.write_text(json.dumps(content), encoding="utf-8")


def levels(audit: Audit) -> dict[str, str]:
    return {finding.name: finding.level for finding in audit.findings}


def test_a_whole_tree_has_notes_and_no_problem(tree: NsdLayout) -> None:
    audit = audit_tree(tree.root)
    assert levels(audit) == {
        "sessions": "ok",
        # The simulated tree has what NSD has: a voxel that leaves the slab, and images shown once and twice.
        "voxels in sessions": "note",
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
    counts = {n: audit.finding("repeats").numbers["training"][n] for n in ("1", "2")}
    assert counts["1"] == 1
    assert counts["2"] >= 1
    assert "unibrain" not in audit.finding("overlap in meaning").found
    assert "extract" in audit.finding("overlap in meaning").remedy


@pytest.mark.parametrize("file_format", ["hdf5", "nifti"])
def test_the_zeroed_voxel_is_the_one_in_the_file(tree: NsdLayout, file_format: str) -> None:
    mask = read_mask(tree, "nsdgeneral")
    expected = {}
    for session in (1, 2, 3):
        betas = np.asarray(nibabel.load(tree.betas(session, "nifti")).dataobj)[mask]
        expected[session] = int((betas == 0).all(axis=1).sum())
    assert sum(expected.values()) > 0
    audit = audit_tree(tree.root, file_format=file_format)
    assert {entry.session: entry.zero for entry in audit.sessions} == expected
    assert {(entry.constant, entry.non_finite, entry.voxels) for entry in audit.sessions} == {(0, 0, mask.sum())}


def test_nan_constant_and_damaged_betas_are_told_apart(own_tree: NsdLayout) -> None:
    z, y, x = (axis[:4] for axis in np.nonzero(read_mask(own_tree, "nsdgeneral").T))

    def spoil(betas: np.ndarray) -> np.ndarray:
        floats = betas.astype(np.float32)
        floats[2, z[0], y[0], x[0]] = np.nan
        floats[:, z[1], y[1], x[1]] = np.inf
        floats[:, z[2], y[2], x[2]] = 5
        floats[:, z[3], y[3], x[3]] = 0
        return floats

    change_betas(own_tree, 3, spoil)
    cut = own_tree.betas(1, "hdf5")
    cut.write_bytes(cut.read_bytes()[:1000])
    audit = audit_tree(own_tree.root, file_format="hdf5")
    last = {entry.session: entry for entry in audit.sessions}[3]
    assert (last.non_finite, last.constant, last.zero >= 1) == (2, 1, True)
    assert sorted(entry.session for entry in audit.sessions) == [2, 3]
    finding = audit.finding("voxels in sessions")
    assert finding.level == "problem"
    assert "NaN or infinite values in session 3 (2 voxels)" in finding.found
    assert "betas_session01.hdf5" in finding.found


def test_missing_sessions_are_named_and_their_images_do_not_count(own_tree: NsdLayout) -> None:
    for file_format in ("hdf5", "nifti"):
        own_tree.betas(2, file_format).unlink()
    own_tree.betas(3, "hdf5").unlink()  # its NIfTI is there
    audit = audit_tree(own_tree.root)
    assert audit.finding("sessions").numbers == {"design": [1, 2, 3], "run": [1, 2, 3], "present": [1, 3], "used": None}
    assert audit.finding("sessions").level == "note"
    assert [entry.session for entry in audit.sessions] == [1, 3]
    design = read_design(own_tree, (1, 3))
    counts = np.unique(design.stimulus_ids[design.is_shared], return_counts=True)[1]
    assert audit.finding("repeats").numbers["test"] == {str(n): int((counts == n).sum()) for n in np.unique(counts)}


def test_pictures_that_leak_across_the_split_are_found(own_tree: NsdLayout) -> None:
    train, test = sides(own_tree)

    def plant(pictures: np.ndarray) -> None:
        pictures[test[0]] = pictures[train[3]]
        bright = np.clip(pictures[train[8]] * 1.1 + 10, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(bright).save(buffer, "JPEG", quality=75)
        pictures[test[4]] = np.asarray(Image.open(buffer))

    change_pictures(own_tree, plant)
    audit = audit_tree(own_tree.root, betas=False)
    assert audit.finding("identical pictures").numbers["pairs"] == [[test[0], train[3]]]
    assert [pair[:2] for pair in audit.finding("near duplicates").numbers["pairs"]] == [[test[4], train[8]]]
    assert audit.level == "problem"
    assert audit.finding("voxels in sessions").found == "not looked at (--no-betas)"
    strict = audit_tree(own_tree.root, betas=False, near_duplicate=1.0)
    assert strict.finding("near duplicates").level == "ok"


def test_another_id_of_one_coco_picture_is_found(own_tree: NsdLayout) -> None:
    train, test = sides(own_tree)
    table = pandas.read_csv(own_tree.stim_info, index_col=0)
    table.loc[test[1], ["cocoId", "cocoSplit"]] = table.loc[train[5], ["cocoId", "cocoSplit"]].to_numpy()
    table.to_csv(own_tree.stim_info)
    finding = audit_tree(own_tree.root, betas=False).finding("overlap by COCO id")
    assert (finding.level, finding.numbers["pairs"]) == ("problem", [[test[1], train[5]]])


def test_images_without_captions_are_all_named(own_tree: NsdLayout) -> None:
    train, test = sides(own_tree)
    change_captions(own_tree, train[0], 0)
    change_captions(own_tree, test[2], 0)
    change_captions(own_tree, train[1], 3)
    finding = audit_tree(own_tree.root, betas=False).finding("captions")
    assert finding.level == "problem"
    assert finding.numbers["without"] == sorted([train[0], test[2]])
    assert finding.numbers["few"] == [train[1]]


def test_a_region_without_voxels_is_named(own_tree: NsdLayout) -> None:
    path = own_tree.roi("floc-faces")
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.minimum(labels, 0), image.affine, dtype=labels.dtype), path)
    audit = audit_tree(own_tree.root, betas=False)
    assert audit.finding("regions").numbers == {"empty": ["faces"]}
    assert {entry.region: entry.voxels for entry in audit.regions}["faces"] == 0
    mask = read_mask(own_tree, "nsdgeneral")
    ncsnr = np.asarray(nibabel.load(own_tree.ncsnr()).dataobj, dtype=np.float64)[mask]
    expected = np.nanpercentile(100 * ncsnr**2 / (ncsnr**2 + 1 / 3), (25, 50, 75))
    assert audit.regions[0].quartiles == pytest.approx(expected, abs=2e-3)


def test_what_cannot_be_read_is_a_finding_and_the_rest_is_looked_at(own_tree: NsdLayout) -> None:
    own_tree.stimuli.unlink()
    shutil.rmtree(own_tree.captions("train2017").parent)
    audit = audit_tree(own_tree.root)
    assert levels(audit)["identical pictures"] == "problem"
    assert str(own_tree.stimuli) in audit.finding("identical pictures").found
    assert "fetch-captions" in audit.finding("captions").found
    assert levels(audit)["overlap by COCO id"] == "ok"
    assert len(audit.sessions) == 3


def test_the_command(tree: NsdLayout, own_tree: NsdLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", "--root", str(tree.root), "--subject", "1", "--threads", "1"]
    assert main([*arguments, "--out", str(tmp_path / "audit.json")]) == 0
    shown = capsys.readouterr().out
    assert "overlap by id" in shown
    assert "(simulated)" in shown
    assert "0 problems, " in shown
    assert load_audit(tmp_path / "audit.json") == audit_tree(tree.root)

    train, test = sides(own_tree)
    change_pictures(own_tree, lambda pictures: pictures.__setitem__(test[0], pictures[train[0]]))
    assert main(["audit", "--root", str(own_tree.root), "--no-betas", "--json", "--threads", "1"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["level"] == "problem"
    assert content["pictures"][0] == {"test_id": test[0], "train_id": train[0], "similarity": 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "neither RUN nor --root was given"),
        (["RUN", "--root", "TREE"], "both RUN and --root were given"),
        (["RUN", "--mask", "V1"], "--mask was given with RUN"),
        (["--root", "nowhere"], "nowhere: found no such folder"),
        (["nowhere"], "nowhere: found no such folder"),
        (["RUN"], "unibrain prepare"),
        (["--root", "TREE", "--mask", "V17"], "found no such file, nor a label V17"),
        (["--root", "TREE", "--near-duplicate", "1.5"], "found a likeness of 1.5"),
        (["--root", "TREE", "--subject", "9"], "9 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, tree: NsdLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(tmp_path), "TREE": str(tree.root)}
    assert main(["audit", *(places.get(word, word) for word in arguments), "--threads", "1"]) == 2
    assert words in capsys.readouterr().err


def test_an_audit_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    with pytest.raises(InputError, match="found no such file"):
        load_audit(path)
    for content in ("{}", "[1]", "nonsense", '{"format": 9}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="no audit"):
            load_audit(path)
