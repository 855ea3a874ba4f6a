"""One subject: what is needed, what is asked for, what is written, and what the command says."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_bucket import NSD_BUCKET, S3, Between
from further_tree import write_imagery, write_synthetic

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.nsd_download import Choice, fetch_nsd
from unibrain.nsd_download.fetch import MANIFEST_FILE, NsdFetched, label_volumes
from unibrain.scans import read_nsd
from unibrain.scans.nsd_layout import NsdLayout

BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"
IMAGERY_PICTURES = "nsddata/experiments/nsdimagery/rawtargetimages/setA"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
CHOICE = Choice(1)
SMALL = replace(CHOICE, stimuli=False)


def fetch(choice: Choice, root: Path, endpoint: str, answer: bool = True, **more: Any) -> tuple[NsdFetched, list[str]]:
    shown: list[str] = []

    def agree(plan: str) -> bool:
        shown.append(plan)
        return answer

    return fetch_nsd(choice, root, agree=agree, endpoint=endpoint, jobs=3, **more), shown


def files_of(root: Path) -> set[str]:
    ours = {MANIFEST_FILE, ".lock"}
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - ours


def test_a_fetched_subject_is_what_the_bucket_holds_and_can_be_read(s3: S3, tree: Path, tmp_path: Path) -> None:
    fetched, shown = fetch(CHOICE, tmp_path / "nsd", s3.endpoint)
    names = files_of(tmp_path / "nsd")
    assert (fetched.state, fetched.downloaded) == ("complete", len(names))
    noted = json.loads((tmp_path / "nsd" / MANIFEST_FILE).read_text())["files"]
    assert set(noted) == names
    for name in names:
        content = (tree / name).read_bytes()
        assert (tmp_path / "nsd" / name).read_bytes() == content
        assert noted[name]["url"] == f"{s3.endpoint}/{NSD_BUCKET}/{name}"
        assert noted[name]["etag"] == hashlib.md5(content).hexdigest()
        assert (noted[name]["size"], noted[name]["verified"]) == (len(content), "size and MD5")
    layout = NsdLayout(tmp_path / "nsd", 1)
    needed = {layout.expdesign, layout.stim_info, layout.responses, layout.brainmask, layout.ncsnr(), layout.stimuli}
    needed |= {layout.roi(name, side) for name in ("prf-visualrois", "floc-faces") for side in ("", "lh", "rh")}
    needed |= {layout.betas(session, "hdf5") for session in (1, 2, 3)}
    needed |= {layout.roi("nsdgeneral"), layout.label_tables("floc-faces")[0]}
    assert {path.relative_to(layout.root).as_posix() for path in needed} <= names
    assert not {name for name in names if "HCP" in name or "subj02" in name or "R2" in name or name.endswith(".pkl")}
    assert not {name for name in names if "betas_session" in name and name.endswith(".nii.gz")}
    assert f"{sum((tree / name).stat().st_size for name in names):,} bytes" in shown[0]
    ours, theirs = read_nsd(tmp_path / "nsd", 1), read_nsd(tree, 1)
    np.testing.assert_array_equal(ours.betas, theirs.betas)
    assert set(ours.regions) == set(theirs.regions)


def test_only_what_is_missing_or_changed_is_fetched(between: Between, tmp_path: Path) -> None:
    fetch(CHOICE, tmp_path, between.endpoint)
    between.asked.clear()
    again, shown = fetch(CHOICE, tmp_path, between.endpoint)
    assert (again.state, again.downloaded, shown) == ("complete", 0, [])
    assert between.asked
    assert not between.downloads()
    (tmp_path / f"{ROI}/nsdgeneral.nii.gz").unlink()
    # Of the same size, as a failing disk leaves it.
    betas = tmp_path / f"{BETAS}/betas_session02.hdf5"
    betas.write_bytes(bytes(betas.stat().st_size))
    # Not of the same size, as an interrupted copy leaves it.
    csv = tmp_path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    csv.write_bytes(csv.read_bytes()[:100])
    assert fetch(CHOICE, tmp_path, between.endpoint)[0].downloaded == 3
    assert {asked.name for asked in between.downloads()} == {"nsdgeneral.nii.gz", betas.name, csv.name}


def test_files_from_another_download_are_checked_and_kept(between: Between, tmp_path: Path) -> None:
    fetch(SMALL, tmp_path, between.endpoint)
    manifest = tmp_path / MANIFEST_FILE
    for content in (None, "{", '{"files": {"a": 1}}'):
        manifest.unlink()
        if content is not None:
            manifest.write_text(content)
        between.asked.clear()
        assert fetch(SMALL, tmp_path, between.endpoint)[0].downloaded == 0
        assert not between.downloads()
        assert {entry["verified"] for entry in json.loads(manifest.read_text())["files"].values()} == {"size and MD5"}


def test_sessions_format_masks_and_pictures_are_chosen(s3: S3, tmp_path: Path) -> None:
    fetched, _ = fetch(Choice(1, (3, 1), "nifti", ("HCP_MMP1",), stimuli=False), tmp_path, s3.endpoint)
    names = files_of(tmp_path)
    betas = {f"{BETAS}/betas_session0{session}.nii.gz" for session in (1, 3)}
    assert {name for name in names if "betas_session" in name} == betas
    assert fetched.plan.sessions == (1, 3)
    assert f"{ROI}/HCP_MMP1.nii.gz" in names
    assert not {name for name in names if name.startswith("nsddata_stimuli")}
    everything = fetch(replace(SMALL, masks=("all",)), tmp_path, s3.endpoint, dry_run=True, show=str)[0].plan
    assert NsdLayout(tmp_path).roi("HCP_MMP1") in {file.path for file in everything.files}
    masks = ["V1", "faces,streams", "prf-visualrois:hV4 + rh.FFA-1", "all", "lh"]
    assert label_volumes(masks) == {"prf-visualrois", "floc-faces", "streams"}


def test_further_experiments_come_with_what_tells_their_trials(s3: S3, tmp_path: Path) -> None:
    layout = NsdLayout(tmp_path / "written")
    volumes = np.zeros((6, 2, 3, 3, 3), np.int16)
    write_imagery(layout, volumes, volumes)
    write_synthetic(layout, np.array([1, 2, 3, 4]), volumes[:4, 0])
    written = files_of(layout.root)
    not_needed = {"nsddata/experiments/nsdimagery/C_pair_list.mat", f"{IMAGERY_PICTURES}/.DS_Store"}
    for name in (*sorted(written), *sorted(not_needed)):
        s3.put(name, (layout.root / name).read_bytes() if name in written else b"not needed")
    try:
        both = ("nsd-synthetic", "nsd-imagery")
        chosen = [replace(SMALL, stimuli=stimuli, further=both) for stimuli in (True, False)]
        plans = [fetch(choice, tmp_path, s3.endpoint, dry_run=True, show=str)[0].plan for choice in chosen]
        with pytest.raises(InputError, match=r"nsdsyntheticbetas_fithrf_GLMdenoise_RR.*betas_nsdsynthetic\.hdf5"):
            fetch(replace(SMALL, file_format="nifti", further=both[:1]), tmp_path, s3.endpoint)
    finally:
        for name in written | not_needed:
            s3.delete(name)
    pictures = {name for name in written if name.startswith(("nsddata_stimuli", IMAGERY_PICTURES[:-1]))}
    assert len(pictures) == 2 + 6
    planned = [{file.path.relative_to(tmp_path).as_posix() for file in plan.files} for plan in plans]
    assert planned[0] - planned[1] == pictures | {STIMULI}
    assert planned[1] & (written | not_needed) == written - pictures


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        (replace(CHOICE, sessions=(1, 2, 3, 4, 5, 9)), "sessions 4-5, 9 as hdf5.*sessions 1-3 as hdf5"),
        (replace(CHOICE, subject=3), "subj01"),
        (replace(CHOICE, beta_version="betas_fithrf"), "betas_assumehrf, betas_fithrf_GLMdenoise_RR"),
        (replace(CHOICE, beta_version="../betas"), "../betas"),
        (replace(CHOICE, beta_version="betas_assumehrf", file_format="nifti"), "sessions 1 as hdf5.*--format"),
        (replace(CHOICE, masks=("nsdgenral",)), "nsdgenral.nii.gz: .*HCP_MMP1.nii.gz.*--mask"),
        (replace(CHOICE, file_format="mat"), "--format is 'mat'"),
    ],
)
def test_what_the_bucket_lacks_is_said_with_what_it_has(
    choice: Choice, named: str, between: Between, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=named) as raised:
        fetch(choice, tmp_path / "nsd", between.endpoint)
    assert "\n" not in str(raised.value)
    assert not between.downloads()
    assert not (tmp_path / "nsd").exists()


@pytest.mark.parametrize(
    ("key", "needed"),
    [
        ("nsddata/experiments/nsd/nsd_expdesign.mat", True),
        ("nsddata/ppdata/subj01/behav/responses.tsv", False),
    ],
)
def test_a_file_that_the_bucket_lacks(key: str, needed: bool, s3: S3, tree: Path, tmp_path: Path) -> None:
    s3.delete(key)
    try:
        if needed:
            with pytest.raises(InputError, match=key):
                fetch(SMALL, tmp_path, s3.endpoint)
        else:
            assert f"not needed: {key}" in fetch(SMALL, tmp_path, s3.endpoint)[1][0]
    finally:
        s3.put(key, (tree / key).read_bytes())


def test_places_that_are_wrong(s3: S3, between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim" / "SIMULATED.json").write_text("{}")
    for root in (tmp_path / "sim", tmp_path / "sim" / "SIMULATED.json"):
        with pytest.raises(InputError, match=f"{root}: .*--out"):
            fetch(CHOICE, root, s3.endpoint)
    monkeypatch.setattr("unibrain.workspace.files.free_bytes", lambda path: 1000)
    with pytest.raises(InputError, match=r"1\.0 kB free.*--out"):
        fetch(CHOICE, tmp_path / "nsd", between.endpoint)
    assert not between.downloads()


def nsd(*arguments: str) -> int:
    return main(["nsd", "fetch", "--subject", "1", *arguments])


def test_the_command_shows_the_list_the_terms_and_what_is_next(
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--sessions", "1-2", "--out", str(tmp_path / "nsd"), "--endpoint", s3.endpoint]
    assert nsd(*call, "--dry-run") == 0
    assert "sessions 1-2" in capsys.readouterr().out
    assert not (tmp_path / "nsd").exists()
    assert nsd(*call, "--yes") == 0
    shown = capsys.readouterr().out
    for words in ("naturalscenesdataset.org", "sessions 1-2", "bytes)", "unibrain nsd fetch-captions --out"):
        assert words in shown
    assert (tmp_path / "nsd" / BETAS / "betas_session02.hdf5").is_file()
    assert not (tmp_path / "nsd" / BETAS / "betas_session03.hdf5").exists()
    assert nsd(*call) == 0
    assert "0 files downloaded" in capsys.readouterr().out


def test_terms_that_are_not_accepted(
    between: Between, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["--out", str(tmp_path), "--endpoint", between.endpoint]
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    assert nsd(*call) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda text, default: False)
    assert nsd(*call) == 2
    assert "nothing was downloaded" in capsys.readouterr().err
    assert not between.downloads()
    assert not files_of(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--sessions", "38-40"], "38-40"), (["--sessions", "5-2"], "--sessions"), (["--endpoint", "nowhere"], "nowhere")],
)
def test_mistakes_end_with_2_and_one_sentence(
    arguments: list[str], named: str, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nsd("--out", str(tmp_path), "--yes", "--endpoint", s3.endpoint, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("Error: ")
    assert named in error[0]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen")


def test_ctrl_c_leaves_beginnings_that_the_same_command_continues(between: Between, tree: Path, tmp_path: Path) -> None:
    call = ["nsd", "fetch", "--subject", "1", "--out", str(tmp_path), "--endpoint", between.endpoint, "--yes"]
    between.hang = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "unibrain", *call],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore Ctrl-C
    )
    try:
        until(lambda: any(path.stat().st_size for path in tmp_path.rglob("*.partial")))
        process.send_signal(signal.SIGINT)
        between.hang.set()
        assert process.wait(30) == 130
    finally:
        process.kill()
        between.hang.set()
    between.hang = None
    between.asked.clear()
    assert main(call) == 0
    assert any(asked.range != "bytes=0-" for asked in between.downloads())
    assert not list(tmp_path.rglob("*.partial"))
    assert (tmp_path / STIMULI).read_bytes() == (tree / STIMULI).read_bytes()
