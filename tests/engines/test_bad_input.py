"""What is wrong with a place, a cluster or a worker is one sentence, before anything is done."""

import json
import os
from pathlib import Path

import pytest
from faulty import faulty, make_work

from unibrain.cli.main import main
from unibrain.engines import engine_of
from unibrain.engines.worker import RefusedError, check
from unibrain.errors import InputError
from unibrain.pipeline import RunFolder
from unibrain.pipeline.shards import program

PLACES = [
    ("nowhere", "local, local:WORKERS, dask:ADDRESS or slurm"),
    ("local:0", "at least 1, not '0'"),
    ("local:many", "not 'many'"),
    ("local:", "not ''"),
    ("dask:", "such as dask:tcp://login-node:8786"),
    ("dask:tcp://here", "the address of a scheduler"),
    ("slurm:gpu,time", "'time' is no KEY=VALUE"),
    ("slurm:gpu,partition=cpu", "there twice"),
    ("slurm:gpu,time=long", "time has a whole number"),
    ("slurm:gpu,workers=0", "workers has a whole number"),
    ("slurm:gpu,account=$(reboot)", "is no KEY=VALUE"),
    ("slurm:gpu,submit=elsewhere", "submit=local"),
]


@pytest.mark.parametrize(("place", "named"), PLACES)
def test_a_place_that_is_none(place: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    assert main(["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run"), "--on", place]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: --on is {place[:30]}")
    assert named in said
    (tmp_path / "settings.toml").write_text(f'[simulate]\n[engine]\non = "{place}"\n')
    assert main(["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "settings.toml: on in [engine] is " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def fake(folder: Path, **programs: str) -> str:
    """A folder of shell scripts to look programs up in."""
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


CLUSTERS = [
    ("dask:tcp://127.0.0.1:9", "no scheduler answers there"),
    ("slurm:nowhere", "sbatch: error: invalid partition specified: nowhere"),
]


@pytest.mark.parametrize(("place", "named"), CLUSTERS)
def test_a_cluster_that_is_not_there(place: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1"
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", sbatch=refusal, srun="exit 1"))
    monkeypatch.setattr("unibrain.engines.dask._PATIENCE", 0.2)
    work = make_work(tmp_path / "work", {"a": "none"})
    with pytest.raises(InputError, match=named):
        engine_of(place, 1.0, faulty)(work)
    assert not (work.folder / "tries").exists()


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not on this machine"):
        engine_of("slurm:gpu", 1.0, faulty)(make_work(tmp_path / "work", {"a": "none"}))


@pytest.mark.parametrize("name", ["version of unibrain", "code", "weights of the backbone", "precision"])
def test_a_worker_that_differs_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = dict.fromkeys(("version of unibrain", "code", "weights of the backbone", "precision"), "one")
    monkeypatch.setattr("unibrain.pipeline.shards.worker_facts", lambda *_: {"same": same | {name: "another"}})
    work = make_work(tmp_path / "work", {"a": "none"})
    path = work.folder / "work.json"
    about = {"device": "cpu", "dtype": "auto", "offload": False, "backbone": "small", "same": same}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"about": about}))
    with pytest.raises(RefusedError, match=rf"has another {name} \(another, and the run has one\)"):
        check(str(work.folder), work.token)


def test_a_worker_with_other_code_is_refused_though_it_needs_no_backbone(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", {"a": "none"})
    path = work.folder / "work.json"
    for code, refused in ((program()["code"], False), ("another", True)):
        about = {"device": "cpu", "same": program() | {"code": code}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"about": about}))
        if refused:
            with pytest.raises(RefusedError, match="has another code"):
                check(str(work.folder), work.token)
        else:
            check(str(work.folder), work.token)


def test_two_clients_on_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    with RunFolder(tmp_path / "run").lock():
        assert main(["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run"), "--on", "local:2"]) == 2
    assert "another run is working in this folder (process" in capsys.readouterr().err


def test_the_job_script_of_slurm_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    arguments = ["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run"), "--dry-run"]
    assert main([*arguments, "--on", "slurm:gpu,workers=8,time=90,account=lab,memory=32,nice=100"]) == 0
    script = capsys.readouterr().out
    for line in ("partition=gpu", "array=0-7%8", "time=90", "account=lab", "mem=32GB", "gpus-per-node=1", "nice=100"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --requeue\n" in script
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--on", "local"]) == 2
    assert "Add --on slurm:PARTITION" in capsys.readouterr().err
