import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from runs import toy

from unibrain.cli.main import main
from unibrain.explorer import Session, export, open_session
from unibrain.pipeline import RunFolder


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_everything_that_the_page_names_is_beside_it(session: Session, folder: Path) -> None:
    page = export(session, folder)
    text = page.read_text(encoding="utf-8")
    links = [link for link in Links(text).found if not link.startswith(("data:", "#"))]
    assert [link for link in links if re.match(r"[a-z]+:|/", link)] == []
    assert [link for link in links if not (folder / link).is_file()] == []
    assert {f"pictures/{int(i):06d}-{what}.webp" for i in session.ids for what in ("seen", "decoded")} <= set(links)
    assert "experiments/sweep/index.html" in links
    assert "report.html" in links
    assert "Simulated data." in text
    assert text.count("data-setting=") == 3  # as run, 0 and 1
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    export(session, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == first


def test_a_run_beside_another_one(finished: RunFolder, tmp_path: Path, folder: Path) -> None:
    for name in ("run", "other"):
        shutil.copytree(finished.root, tmp_path / name)
    with open_session(RunFolder(tmp_path / "run"), [RunFolder(tmp_path / "other")], toy()) as session:
        page = export(session, folder)
    assert "experiments/beside-other/index.html" in Links(page.read_text(encoding="utf-8")).found
    found = json.loads((folder / "experiments" / "beside-other" / "findings.json").read_text())
    assert {cell["difference"] for cell in found["cells"] if cell["setting"] == "other" and cell["against"]} == {0.0}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--export", "other"], "other holds other files"),
        (["--export", "note.txt"], "note.txt is a file"),
        (["--export", "new", "--beside", "nowhere"], "nowhere: there is no run"),
        (["--export", "new", "--beside", "run", "--beside", "./run"], "called run"),
    ],
)
def test_a_wrong_export_is_one_sentence_and_replaces_nothing(
    finished: RunFolder,
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished.root, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unibrain.pipeline.BackboneSource", lambda *args, **options: toy())
    Path("other").mkdir()
    for path in (Path("other/mine.txt"), Path("note.txt")):
        path.write_text("mine")
    assert main(["explore", "run", *words]) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert Path("other/mine.txt").read_text() == Path("note.txt").read_text() == "mine"
    assert not Path("new").exists()


def test_a_run_without_decoded_items_says_what_to_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: RunFolder
) -> None:
    shutil.copytree(finished.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "decoded")
    monkeypatch.setattr("unibrain.pipeline.BackboneSource", lambda *args, **options: toy())
    assert main(["explore", str(tmp_path / "run"), "--port", "0"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "reconstruct is not up to date" in error
    assert f"Run `unibrain reconstruct {tmp_path / 'run'}` first" in error


def test_without_the_server_it_says_what_to_install(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["explore", str(finished.root)]) == 2
    assert "unibrain[explore]" in capsys.readouterr().err.splitlines()[-1]
