import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unibrain.cli.evaluate import evaluate as command
from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.result_files import read_results


def write(folder, names, side=32, seed=0, mode="RGB"):
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        picture = Image.fromarray(random.integers(0, 256, (side, side, 3)).astype(np.uint8))
        picture.convert(mode).save(folder / name)
    return folder


@pytest.fixture
def folders(tmp_path):
    names = ("a.png", "b.png", "c.png")
    return write(tmp_path / "seen", names), write(tmp_path / "theirs", ("a.jpg", "b.png", "c.webp"), 48, 1)


@pytest.fixture
def texts(tmp_path):
    true, said = tmp_path / "true.json", tmp_path / "said.json"
    true.write_text(json.dumps({"a": ["a dog", "one dog"], "b": ["a red car"], "c": ["the sea"]}))
    said.write_text(json.dumps({"a": "a dog", "b": "a car", "c": "a boat"}))
    return true, said


def test_folders_and_files_meet_by_name(folders, texts):
    decoded, stimuli, names = read_results(*folders, *texts)
    assert names == ("a", "b", "c")
    assert decoded.pictures.shape == (3, 48, 48, 3)
    assert stimuli.pictures([2]).shape == (1, 32, 32, 3)
    assert decoded.captions == ("a dog", "a car", "a boat")
    assert stimuli.captions([0]) == [("a dog", "one dog")]


def test_numbered_captions_and_pictures(tmp_path):
    seen, theirs = (write(tmp_path / side, ("0.png", "1.png"), seed=k) for k, side in enumerate(("seen", "theirs")))
    true, said = tmp_path / "true.txt", tmp_path / "said.txt"
    true.write_text("a dog\na car\n")
    said.write_text("a cat\na car\n")
    decoded, stimuli, _ = read_results(seen, theirs, true, said)
    assert decoded.captions == ("a cat", "a car")
    assert stimuli.captions([1]) == [("a car",)]


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_command_scores_them(folders, texts):
    given = ("--seen", folders[0], "--decoded", folders[1], "--references", texts[0], "--captions", texts[1])
    table = run(*given)
    assert table.exit_code == 0
    assert "PixCorr" in table.output
    assert "ROUGE-L" in table.output
    rows = list(csv.DictReader(io.StringIO(run(*given, "--format", "csv").stdout)))
    assert [row["image"] for row in rows] == ["a", "b", "c"]
    content = json.loads(run(*given, "--format", "json").stdout)["metrics"]
    assert float(rows[0]["rougeL"]) == content["rougeL"]["per_image"][0] == 1
    assert "\\toprule" in run(*given, "--format", "latex").output
    assert run(*given, "--format", "markdown").output.startswith("| Score |")
    assert "MindEye2" in run(*given, "--like", "mindeye2-subject1").output
    assert "BLEU-4" in run(*given, "--protocol", "standard").output
    assert "brain-diffuser" in run(*given, "--all-dialects").output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda seen, theirs: (theirs / "c.webp").unlink(), "theirs.* c "),
        (lambda seen, theirs: write(theirs, ("d.png",), 48), "seen.* d "),
        (lambda seen, theirs: write(theirs, ("b.jpeg",), 48), r"b\.png"),
        (lambda seen, theirs: write(theirs, ("b.png",), 40), r"b\.png.*40 x 40"),
        (lambda seen, theirs: write(theirs, ("b.png",), 48, mode="LA"), r"b\.png.*LA"),
        (lambda seen, theirs: (theirs / "b.png").write_bytes(b"no picture"), r"b\.png"),
        (lambda seen, theirs: [path.unlink() for path in theirs.iterdir()], "theirs"),
    ],
)
def test_wrong_folders(folders, change, named):
    change(*folders)
    with pytest.raises(InputError, match=named):
        read_results(*folders)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seen": 0}, "--decoded"),
        ({"decoded": 1}, "--seen"),
        ({"captions": 1}, "--references"),
        ({}, "--seen"),
    ],
)
def test_half_of_it(folders, texts, given, named):
    sides = {"seen": folders, "decoded": folders, "references": texts, "captions": texts}
    with pytest.raises(InputError, match=named):
        read_results(**{name: sides[name][place] for name, place in given.items()})


def test_captions_alone_have_no_pictures_and_may_have_those_that_were_seen(folders, texts):
    decoded, stimuli, _ = read_results(None, None, *texts)
    assert decoded.pictures is None
    with pytest.raises(UnavailableError, match="--seen"):
        stimuli.pictures([0])
    decoded, stimuli, _ = read_results(folders[0], None, *texts)
    assert decoded.pictures is None
    assert stimuli.pictures([0, 2]).shape == (2, 32, 32, 3)
    (folders[0] / "b.png").unlink()
    with pytest.raises(InputError, match=r"seen.* b "):
        read_results(folders[0], None, *texts)


def test_a_caption_that_is_missing(folders, texts):
    texts[1].write_text(json.dumps({"a": "a dog", "b": "a car"}))
    with pytest.raises(InputError, match=r"said\.json.* c "):
        read_results(*folders, *texts)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "run folder"),
        (("my-run", "--seen", "x"), "--seen"),
        (("--seen", "x", "--like", "mindeye3"), "mindeye3"),
        (("--seen", "x", "--decoded", "y"), "x"),
    ],
)
def test_wrong_commands(arguments, named):
    with pytest.raises(InputError, match=named):
        run(*arguments)
