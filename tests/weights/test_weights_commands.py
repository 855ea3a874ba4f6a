import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import FakeHub, serving

from unibrain.cli.main import main
from unibrain.weights.sources import official_sources


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**kept, "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
    command = [sys.executable, "-m", "unibrain", "weights", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def test_variables_of_the_hub_are_followed_and_a_wrong_file_ends_in_one_sentence(tmp_path: Path) -> None:
    files = {
        source.repositories[0]: {
            (f"{source.folder}/" if source.folder else "") + file.names[0]: random.Random(file.role).randbytes(20_000)
            for file in source.files
        }
        for source in official_sources()
    }
    commits = {source.repositories[0]: source.revision for source in official_sources() if source.revision}
    variables = {"HF_HOME": str(tmp_path / "hf"), "UNIBRAIN_HOME": str(tmp_path / "unibrain")}
    with serving(FakeHub(files, commits, token="hf_lab")) as server:
        variables["HF_ENDPOINT"] = server.url
        done = run("fetch", "official", "--yes", HF_TOKEN="hf_lab", **variables)
    # The endpoint was asked with the token, and the cache is where HF_HOME says. What came is not CLIP, which is seen.
    assert {request.token for request in server.gets("/api/models/")} == {"Bearer hf_lab"}
    assert list((tmp_path / "hf" / "hub" / "models--shi-labs--versatile-diffusion-model" / "snapshots").iterdir())
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "expected a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb" in errors[0]
    assert "Traceback" not in done.stderr
    assert "licence MIT" in done.stdout
    assert not (tmp_path / "unibrain" / "backbones" / "official").exists()


def test_offline_variable_is_followed(tmp_path: Path) -> None:
    done = run("fetch", "official", "--yes", HF_HOME=str(tmp_path), UNIBRAIN_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: shi-labs/versatile-diffusion-model and shi-labs/versatile-diffusion: not complete"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import"], "nothing to import was given"),
        (["import", "x", "--name", "small"], "expected a plain name other than small"),
        (["import", "x", "--name", "../x"], "expected a plain name other than small"),
        (["import", "/no/such/place"], "/no/such/place: no such file or folder"),
        (["verify", "/no/such/place"], "/no/such/place: no backbone there"),
        (["fetch", "official", "--repository", "x"], "--repository is 'x', expected owner/name"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path))
    assert main(["weights", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
