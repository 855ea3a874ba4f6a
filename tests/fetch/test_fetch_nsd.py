import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_bucket import S3, Between

from unibrain.errors import InputError
from unibrain.fetch import Choice, NsdFetched, fetch_nsd
from unibrain.fetch.bucket import NSD_BUCKET
from unibrain.fetch.manifest import MANIFEST_FILE
from unibrain.fetch.plan import label_volumes
from unibrain.fetch.web import Web
from unibrain.scans import read_nsd
from unibrain.scans.nsd_layout import NsdLayout

BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"
CHOICE = Choice(1)


class Asking:
    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.shown: list[str] = []

    def __call__(self, plan: str) -> bool:
        self.shown.append(plan)
        return self.answer


def fetch(
    choice: Choice, root: Path, endpoint: str, web: Web, asking: Asking | None = None, **more: bool
) -> NsdFetched:
    return fetch_nsd(choice, root, agree=asking or Asking(), endpoint=endpoint, web=web, jobs=3, **more)


def files_of(root: Path) -> set[str]:
    own = {MANIFEST_FILE, ".lock"}
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - own


def test_a_fetched_subject_is_what_the_bucket_holds_and_can_be_read(
    s3: S3, tree: Path, web: Web, tmp_path: Path
) -> None:
    asking = Asking()
    fetched = fetch(CHOICE, tmp_path / "nsd", s3.endpoint, web, asking)
    names = files_of(tmp_path / "nsd")
    assert fetched.state == "complete"
    assert fetched.downloaded == len(names)
    for name in names:
        assert (tmp_path / "nsd" / name).read_bytes() == (tree / name).read_bytes()
    needed = {
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
        "nsddata/ppdata/subj01/behav/responses.tsv",
        "nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz",
        f"{ROI}/nsdgeneral.nii.gz",
        f"{ROI}/prf-visualrois.nii.gz",
        f"{ROI}/lh.floc-faces.nii.gz",
        f"{ROI}/rh.floc-faces.nii.gz",
        "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab",
        f"{BETAS}/ncsnr.nii.gz",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
        *(f"{BETAS}/betas_session0{session}.hdf5" for session in (1, 2, 3)),
    }
    assert needed <= names
    assert not {name for name in names if "HCP" in name or "subj02" in name or "R2" in name or name.endswith(".pkl")}
    assert not {name for name in names if "betas_session" in name and name.endswith(".nii.gz")}
    whole = sum((tree / name).stat().st_size for name in names)
    assert f"{whole:,} bytes" in asking.shown[0]
    ours, theirs = read_nsd(tmp_path / "nsd", 1), read_nsd(tree, 1)
    np.testing.assert_array_equal(ours.betas, theirs.betas)
    assert set(ours.regions) == set(theirs.regions)


def test_the_manifest_says_from_where_how_large_and_how_checked(s3: S3, tree: Path, web: Web, tmp_path: Path) -> None:
    fetch(CHOICE, tmp_path, s3.endpoint, web)
    noted = json.loads((tmp_path / MANIFEST_FILE).read_text())["files"]
    assert set(noted) == files_of(tmp_path)
    for name, entry in noted.items():
        content = (tree / name).read_bytes()
        assert entry["url"] == s3.url(name)
        assert entry["size"] == len(content)
        assert entry["etag"] == hashlib.md5(content).hexdigest()
        assert entry["verified"] == "size and MD5"
        assert entry["date"].endswith("+00:00")


def test_a_second_fetch_asks_for_lists_only(between: Between, tmp_path: Path) -> None:
    fetch(CHOICE, tmp_path, between.endpoint, Web())
    between.asked.clear()
    asking = Asking()
    again = fetch(CHOICE, tmp_path, between.endpoint, Web(), asking)
    assert (again.state, again.downloaded) == ("complete", 0)
    assert between.asked
    assert not between.downloads()
    assert not asking.shown


def test_only_what_is_missing_or_changed_is_fetched(between: Between, web: Web, tmp_path: Path) -> None:
    fetch(CHOICE, tmp_path, between.endpoint, web)
    (tmp_path / f"{ROI}/nsdgeneral.nii.gz").unlink()
    # Of the same size, as a failing disk leaves it.
    betas = tmp_path / f"{BETAS}/betas_session02.hdf5"
    betas.write_bytes(bytes(betas.stat().st_size))
    # Not of the same size, as an interrupted copy leaves it.
    csv = tmp_path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    csv.write_bytes(csv.read_bytes()[:100])
    between.asked.clear()
    assert fetch(CHOICE, tmp_path, between.endpoint, web).downloaded == 3
    assert {asked.name for asked in between.downloads()} == {"nsdgeneral.nii.gz", betas.name, csv.name}
    assert fetch(CHOICE, tmp_path, between.endpoint, web).downloaded == 0


def test_files_from_another_download_are_checked_and_kept(
    between: Between, tree: Path, web: Web, tmp_path: Path
) -> None:
    betas = f"{BETAS}/betas_session01.hdf5"
    (tmp_path / betas).parent.mkdir(parents=True)
    (tmp_path / betas).write_bytes((tree / betas).read_bytes())
    fetch(replace(CHOICE, stimuli=False), tmp_path, between.endpoint, web)
    names = {asked.name for asked in between.downloads()}
    assert "betas_session02.hdf5" in names
    assert "betas_session01.hdf5" not in names
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["files"][betas]["verified"] == "size and MD5"


def test_a_manifest_that_cannot_be_read_costs_no_download(between: Between, web: Web, tmp_path: Path) -> None:
    fetch(CHOICE, tmp_path, between.endpoint, web)
    (tmp_path / MANIFEST_FILE).write_text('{"files": {"a": 1}')
    between.asked.clear()
    assert fetch(CHOICE, tmp_path, between.endpoint, web).downloaded == 0
    assert not between.downloads()


def test_sessions_format_masks_and_pictures_are_chosen(s3: S3, web: Web, tmp_path: Path) -> None:
    choice = Choice(1, (3, 1), "nifti", ("nsdgeneral", "HCP_MMP1"), stimuli=False)
    fetched = fetch(choice, tmp_path, s3.endpoint, web)
    names = files_of(tmp_path)
    assert {name for name in names if "betas_session" in name} == {
        f"{BETAS}/betas_session01.nii.gz",
        f"{BETAS}/betas_session03.nii.gz",
    }
    assert fetched.plan.sessions == (1, 3)
    assert f"{ROI}/HCP_MMP1.nii.gz" in names
    assert not {name for name in names if name.startswith("nsddata_stimuli")}


def test_the_list_is_true_and_a_dry_run_writes_nothing(between: Between, tree: Path, web: Web, tmp_path: Path) -> None:
    lines: list[str] = []
    root = tmp_path / "nsd"
    fetched = fetch_nsd(
        CHOICE, root, agree=Asking(False), show=lines.append, dry_run=True, endpoint=between.endpoint, web=web
    )
    assert fetched.state == "dry run"
    assert not root.exists()
    assert not between.downloads()
    for file in fetched.plan.files:
        assert file.remote.size == (tree / file.path.relative_to(root)).stat().st_size
        assert file.path.relative_to(root).as_posix() in lines[0]
    assert "the betas are" in lines[0]


def test_without_agreement_nothing_is_downloaded(between: Between, web: Web, tmp_path: Path) -> None:
    assert fetch(CHOICE, tmp_path, between.endpoint, web, Asking(False)).state == "declined"
    assert not between.downloads()
    assert not files_of(tmp_path)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (replace(CHOICE, sessions=(1, 2, 3, 4, 5, 9)), r"no session 4-5, 9 of subj01 as hdf5, there are sessions 1-3"),
        (replace(CHOICE, subject=3), r"no betas of subj03, there is subj01"),
        (replace(CHOICE, subject=9), r"subject is 9, expected 1 to 8"),
        (replace(CHOICE, subject=0), r"subject is 0, expected 1 to 8"),
        (replace(CHOICE, beta_version="betas_fithrf"), r"there is betas_assumehrf, betas_fithrf_GLMdenoise_RR: give"),
        (replace(CHOICE, beta_version="../betas"), r"expected a plain name"),
        (
            replace(CHOICE, beta_version="betas_assumehrf", file_format="nifti"),
            r"sessions 1 as hdf5: give --format hdf5",
        ),
        (replace(CHOICE, masks=("nsdgenral",)), r"nsdgenral.nii.gz: found no such file, there is HCP_MMP1.nii.gz"),
        (replace(CHOICE, masks=("../../x",)), r"expected a plain name"),
        (replace(CHOICE, sessions=()), r"no session was named"),
        (replace(CHOICE, file_format="mat"), r"--format is 'mat'"),
    ],
)
def test_what_the_bucket_lacks_is_said_with_what_it_has(
    choice: Choice, said: str, between: Between, web: Web, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as raised:
        fetch(choice, tmp_path / "nsd", between.endpoint, web)
    assert "\n" not in str(raised.value)
    assert not between.downloads()
    assert not (tmp_path / "nsd").exists()


def test_a_file_that_the_protocol_needs_and_the_bucket_lacks(s3: S3, tree: Path, web: Web, tmp_path: Path) -> None:
    key = "nsddata/ppdata/subj01/behav/responses.tsv"
    s3.delete(key)
    try:
        with pytest.raises(InputError, match=r"responses.tsv: found no such file, there is nothing"):
            fetch(CHOICE, tmp_path, s3.endpoint, web)
    finally:
        s3.put(key, (tree / key).read_bytes())


def test_a_useful_file_that_the_bucket_lacks_is_named(s3: S3, tree: Path, web: Web, tmp_path: Path) -> None:
    key = f"{BETAS}/ncsnr.nii.gz"
    s3.delete(key)
    try:
        asking = Asking()
        fetch(CHOICE, tmp_path, s3.endpoint, web, asking)
        assert f"not in the bucket, and not needed: {key}" in asking.shown[0]
        assert (tmp_path / f"{BETAS}/betas_session01.hdf5").is_file()
    finally:
        s3.put(key, (tree / key).read_bytes())


def test_a_bucket_of_more_files_than_a_page(s3: S3, web: Web) -> None:
    from unibrain.fetch.bucket import Bucket

    bucket = Bucket(web, s3.endpoint)
    whole = bucket.files(ROI)
    page = bucket._page
    bucket._page = lambda parameters: page({**parameters, "max-keys": "4"})  # type: ignore[method-assign]
    assert len(whole) > 8
    assert bucket.files(ROI) == whole


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (b"<html>please log in</html>", "found <html>, expected S3's list"),
        (b"please log in", "no XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "found a page"),
        (b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>", "a without size"),
        (b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "a list that does not end"),
    ],
)
def test_an_answer_that_is_no_list(
    spoiled: bytes, said: str, s3: S3, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Web, "text", lambda self, response, limit: spoiled)
    with pytest.raises(InputError, match=said):
        fetch(CHOICE, tmp_path, s3.endpoint, web)


def test_a_refused_list_and_a_missing_bucket(between: Between, web: Web, tmp_path: Path) -> None:
    between.status[""] = [403]
    with pytest.raises(InputError, match=r"refused access \(403\)"):
        fetch(CHOICE, tmp_path, between.endpoint, web)
    between.status[""] = [503, 503, 503]
    with pytest.raises(InputError, match=r"busy or broken \(503\)"):
        fetch(CHOICE, tmp_path, between.endpoint, web)
    with pytest.raises(InputError, match=r"no such bucket there \(404\).*--endpoint"):
        fetch(CHOICE, tmp_path, f"{between.endpoint}/elsewhere", web)
    between.status[""] = [503, 503]
    assert fetch(replace(CHOICE, stimuli=False), tmp_path, between.endpoint, web).state == "complete"


def test_a_proxy_of_the_environment_is_asked(
    between: Between, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", between.endpoint)
    fetch(replace(CHOICE, stimuli=False), tmp_path, "http://nsd.invalid", web)
    assert between.asked[0].target.startswith(f"http://nsd.invalid/{NSD_BUCKET}/")


def test_no_connection_and_no_address(web: Web, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no connection .* expected an answer: check the network"):
        fetch(CHOICE, tmp_path, "http://127.0.0.1:9", web)
    for endpoint in ("ftp://somewhere", "somewhere"):
        with pytest.raises(InputError, match="expected an address that starts with https://"):
            fetch(CHOICE, tmp_path, endpoint, web)
    with pytest.raises(InputError, match="no address that can be asked"):
        fetch(CHOICE, tmp_path, "http://", web)


def test_simulated_data_and_a_file_are_no_places(s3: S3, web: Web, tmp_path: Path) -> None:
    (tmp_path / "SIMULATED.json").write_text("{}")
    with pytest.raises(InputError, match="found simulated data"):
        fetch(CHOICE, tmp_path, s3.endpoint, web)
    with pytest.raises(InputError, match="found a file, expected a folder"):
        fetch(CHOICE, tmp_path / "SIMULATED.json", s3.endpoint, web)


def test_too_small_a_disk_is_said_before_the_download(
    between: Between, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unibrain.fetch import space

    monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)
    with pytest.raises(InputError, match=r"found 1.0 kB free on the disk, expected"):
        fetch(CHOICE, tmp_path, between.endpoint, web)
    assert not between.downloads()


def test_masks_are_made_from_label_volumes() -> None:
    assert label_volumes(["V1", "faces,streams", "prf-visualrois:hV4 + rh.FFA-1", "all", "lh"]) == {
        "prf-visualrois",
        "floc-faces",
        "streams",
    }


def test_every_label_volume_is_fetched_when_asked_for(s3: S3, web: Web, tmp_path: Path) -> None:
    plan = fetch(replace(CHOICE, masks=("all",), stimuli=False), tmp_path, s3.endpoint, web, dry_run=True).plan
    assert NsdLayout(tmp_path).roi("HCP_MMP1") in {file.path for file in plan.files}


def test_every_key_of_the_plan_is_where_the_reader_looks(s3: S3, web: Web, tmp_path: Path) -> None:
    plan = fetch(CHOICE, tmp_path, s3.endpoint, web).plan
    layout = NsdLayout(tmp_path, 1)
    paths = {file.path for file in plan.files}
    assert {layout.expdesign, layout.stim_info, layout.responses, layout.brainmask, layout.stimuli} <= paths
    assert {layout.betas(session, "hdf5") for session in (1, 2, 3)} <= paths
