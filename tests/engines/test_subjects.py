"""Several subjects: what all see is encoded once, one that fails stops no other, and some are done at a time."""

from pathlib import Path

import pytest
from clients import faulty_client, tried
from runs import SETTINGS, cheaply, toy

from unibrain.cli.main import main
from unibrain.engines.subjects import run_subjects, share_of
from unibrain.errors import InputError
from unibrain.pipeline import PrepareSection, RunFolder, Settings, run_all
from unibrain.pipeline.place import parse_place, place_text
from unibrain.workspace.files import is_partial

SMALL = SETTINGS.changed("controls", {"controls": "none"}, where="--").changed("extract", {"batch_size": 7}, where="--")


def subject(number: int, settings: Settings = SMALL) -> Settings:
    return settings.model_copy(update={"prepare": PrepareSection(subject=number)})


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, str]]:
    """Three subjects, the second with settings that no fit takes; what was encoded, and what failed.

    Simulated subjects 1 and 5 have the same captions of what both see, and others have more of some.
    """
    root, source = tmp_path_factory.mktemp("several"), toy()
    runs = {"subj01": subject(1), "subj02": subject(5, SMALL.changed("fit", {"folds": 900}, where="--"))}
    with cheaply():
        failed = run_subjects(root, runs | {"subj05": subject(5)}, source)
    calls = source.load("toy").calls  # type: ignore[attr-defined]
    return root, [call for call in calls if call.startswith("encode z_image")], failed


def test_one_that_fails_stops_no_other_and_what_all_see_is_encoded_once(
    several: tuple[Path, list[str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, encoded, failed = several
    assert list(failed) == ["subj02"]
    assert "folds is 900" in failed["subj02"]
    # Six test images, which all see, and thirty of each subject's own in batches of seven.
    assert encoded == [f"encode z_image {size}" for size in (6, *3 * (7, 7, 7, 7, 2))]
    assert RunFolder(root / "subj05").artefact("report").exists()
    assert (root / ".encoded").exists(), "for the next call, which does the second"
    assert main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert said.count("report      done in") == 2
    assert "subj02\nsimulate    done" in said
    assert "fit         begun, and not ended" in said


def test_a_subject_alone_has_the_bytes_that_it_has_in_company(
    several: tuple[Path, list[str], dict[str, str]], tmp_path: Path
) -> None:
    alone = RunFolder(tmp_path / "alone")
    with cheaply():
        run_all(alone, subject(5), toy())
    company = RunFolder(several[0] / "subj05")
    for name in ("latents", "decoder", "predicted", "decoded"):
        files = [path for path in sorted(alone.artefact(name).rglob("*")) if path.is_file()]
        assert files
        for path in files:
            assert (company.root / path.relative_to(alone.root)).read_bytes() == path.read_bytes()
    assert run_subjects(several[0], {"subj05": subject(5)}, toy()) == {}
    assert not (several[0] / ".encoded").exists(), "once all are finished"


def test_some_at_a_time_with_a_client_that_is_killed_and_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unibrain.engines.subjects.run_subject", faulty_client)
    monkeypatch.setattr("unibrain.engines.subjects._encode_for_all", lambda *_: None)
    failed = run_subjects(tmp_path, {f"subj{n:02d}": subject(n) for n in (1, 2, 5)}, toy(), "local:2")
    assert failed == {"subj05": "betas_session03.nii.gz: this file ends in the middle. Download it again."}
    tries = {name: tried(tmp_path / name) for name in ("subj01", "subj02", "subj05")}
    assert {name: len(found) for name, found in tries.items()} == {"subj01": 1, "subj02": 2, "subj05": 1}
    assert {place for found in tries.values() for _, place in found} == {"local:1"}
    assert tries["subj01"][0][0] != tries["subj02"][0][0], "each with a process of its own"
    assert not [path for path in tmp_path.rglob("*") if is_partial(path)]
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("report      not begun") == 3, "they have settings, and no more"


def test_a_cluster_that_is_not_there_is_told_before_each_subject_finds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unibrain.engines.dask._PATIENCE", 0.2)
    monkeypatch.setattr("unibrain.engines.subjects._side_by_side", lambda *_: pytest.fail("clients were started"))
    runs = {f"subj{number:02d}": subject(number) for number in (1, 5)}
    with cheaply(), pytest.raises(InputError, match="no scheduler answers there"):
        run_subjects(tmp_path, runs, toy(), "dask:tcp://127.0.0.1:9")
    assert not RunFolder(tmp_path / "subj05").begun


def test_what_is_not_finished_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unibrain.engines.subjects.run_subjects", lambda *_: {"subj05": "betas_session03 is short."})
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    arguments = ["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "all"), "--subjects", "1,5"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "1 of 2 subjects are not finished, the others are." in said.err
    assert f"{tmp_path / 'all' / 'subj05'}: betas_session03 is short." in said.err
    assert "subj01: " in said.out


PLACES = ["local", "local:3", "dask:tcp://here:8786", "slurm", "slurm:gpu,time=60,account=lab", "slurm:qos=long"]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_written_as_it_is_read_and_without_workers_not_shared_out(place: str) -> None:
    assert place_text(parse_place(place)) == place
    assert share_of(place, 2, 0) == (place if place != "local:3" else "local:2")
