"""What is copied from the page makes the very picture that the page shows."""

import base64
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import follow, npy
from runs import FEW_CONTROLS
from starlette.testclient import TestClient

from unibrain.cli.main import main
from unibrain.explorer import make_app, open_session
from unibrain.explorer.worker import Worker
from unibrain.pipeline import RunFolder, Settings, SimulateSection, run_one, write_settings

SETTINGS = {
    "use": ["z_image", "c_image", "c_text"],
    "seed": 11,
    "sampling": {
        "picture": {"image_weight": 0.3, "strength": 0.5, "steps": 4, "guidance_scale": 3.0},
        "caption": {"steps": 5},
    },
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run with the small backbone of the package."""
    run = RunFolder(tmp_path_factory.mktemp("recipes") / "a run")
    settings = Settings(simulate=SimulateSection(training_images=12, test_images=2, sessions=2), controls=FEW_CONTROLS)
    settings = settings.changed("reconstruct", {"steps": 4}, where="--")
    settings = settings.changed("fit", {"alpha": 1000.0, "rescale": "none"}, where="--")
    write_settings(run.settings, settings)
    run_one("reconstruct", run, settings, with_earlier=True)
    return run


@pytest.fixture(scope="module")
def shown(small: RunFolder) -> Iterator[dict[str, Any]]:
    """What the page, which stays open, says of a test image and of a scan that was handed over."""
    worker = Worker(traceback.print_exception)
    with open_session(small) as session:
        client = TestClient(make_app(session, worker), base_url="http://localhost", headers={"x-unibrain": "1"})
        image, scan = int(session.ids[0]), session.bench.test.betas[1]
        key = client.post("/api/uploads/scan", content=npy(scan)).json()["scan"]
        made = [
            follow(client, client.post("/api/decode", json=source | {"settings": SETTINGS}))
            for source in ({"image": image}, {"scan": key})
        ]
        yield {"image": made[0], "scan": made[1], "array": scan}
        worker.close()


@pytest.mark.parametrize("source", ["image", "scan"])
def test_the_same_bytes(
    shown: dict[str, Any],
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", shown["array"])
    said = shown[source]
    assert said["state"] == "done", said["error"]
    items = said["result"]["items"]
    picture = base64.b64decode(items["picture"]["item"].split(",")[1])
    words = shlex.split(said["recipe"]["command"])
    assert words[:2] == ["unibrain", "decode"]
    assert main(words[1:]) == 0
    folder = Path(words[words.index("--out") + 1])
    assert [path.read_bytes() for path in folder.glob("*.png")] == [picture]
    assert items["caption"]["item"] in capsys.readouterr().out
    for path in folder.glob("*"):
        path.unlink()
    exec(compile(said["recipe"]["python"], "copied.py", "exec"), {"__name__": "__main__"})
    assert [path.read_bytes() for path in folder.glob("*.png")] == [picture]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--image"),
        (["--image", "1", "--scan", "scan.npy"], "--scan"),
        (["--image", "99999999"], "99999999"),
        (["--image", "1", "--picture", "steps"], "'steps'"),
        (["--image", "1", "--picture", "colour=1"], "colour"),
        (["--image", "1", "--use", "z_picture"], "z_picture"),
        (["--scan", "scan.npy"], "scan.npy: the array has the shape 3"),
        (["--scan", "absent.npy"], "absent.npy"),
        (["--image", "1", "--out", "other"], "other holds other things"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    small: RunFolder,
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", np.zeros(3))
    Path("other").mkdir()
    Path("other/note.txt").write_text("mine")
    assert main(["decode", str(small.root), *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: ")
    assert named in error
