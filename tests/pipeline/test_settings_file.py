import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrain.errors import InputError
from unibrain.pipeline import (
    FitSection,
    PrepareSection,
    ReconstructSection,
    Settings,
    SimulateSection,
    demo_settings,
    read_settings,
    settings_text,
    write_settings,
)


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()
    found = read(tmp_path, '[simulate]\n[fit]\nalpha = 60000\n[prepare]\nsessions = "1-3,5"\n')
    assert found.simulate == SimulateSection()
    assert found.fit == FitSection(alpha=60000.0)
    assert found.prepare.session_numbers() == (1, 2, 3, 5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[fitt]\n", r"unknown section \[fitt\] \(did you mean \"fit\"\?\), expected some of simulate, own, prepare"),
        (
            "[fit]\nalhpa = 1\n",
            r"\[fit\] holds the unknown key alhpa \(did you mean \"alpha\"\?\), expected one of alpha",
        ),
        ("[fit]\nalpha = 0\n", r"alpha in \[fit\] is 0, expected a number above 0 or \"cv\""),
        ("[fit]\nalpha = -1.5\n", r"alpha in \[fit\] is -1\.5, expected"),
        ("[fit]\nalpha = nan\n", r"alpha in \[fit\] is nan, expected"),
        (
            '[fit]\nalpha = "CV"\n',
            r"alpha in \[fit\] is 'CV', expected a number above 0 or \"cv\" \(did you mean \"cv\"\?\)",
        ),
        ("[fit]\nalpha = true\n", r"alpha in \[fit\] is True, expected"),
        ("[fit]\nalpha = [1]\n", r"alpha in \[fit\] is \[1\], expected"),
        ("[fit]\nfolds = 2.5\n", r"folds in \[fit\] is 2\.5, expected a whole number of at least 2"),
        ("[fit]\nfolds = 1\n", r"folds in \[fit\] is 1, expected"),
        ("[fit]\nshuffle_scans = 1\n", r"shuffle_scans in \[fit\] is 1, expected true or false"),
        (
            "[fit]\nseed = 4294967296\n",
            r"seed in \[fit\] is 4294967296, expected a whole number from 0 to 4,294,967,295",
        ),
        (
            '[simulate]\ndifficulty = "eazy"\n',
            r"is 'eazy', expected \"easy\" or \"realistic\" \(did you mean \"easy\"\?\)",
        ),
        ("[simulate]\ntest_images = 1\n", r"test_images in \[simulate\] is 1, expected a whole number from 2 to 1,000"),
        ("[reconstruct]\nimage_weight_pictures = 1.01\n", "expected a number from 0 to 1"),
        ("[reconstruct]\nstrength = 0.0\n", r"strength in \[reconstruct\] is 0\.0, expected a number above 0"),
        ('[prepare]\nmask = "../nsdgeneral"\n', r"mask in \[prepare\] is '\.\./nsdgeneral', expected"),
        (
            '[prepare]\nsessions = "1 to 3"\n',
            r"sessions in \[prepare\] is '1 to 3', expected numbers and ranges such as",
        ),
        ("fit = 3\n", r"fit is 3, expected a section \[fit\]"),
        ("[fit\n", "is not valid TOML"),
        ('[simulate]\n[prepare]\nroot = "/nsd"\n', r"a section \[simulate\] and root = '/nsd'"),
    ],
)
def test_every_mistake_is_one_sentence_that_names_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'settings.toml'}")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there, expected a settings file"):
        read_settings(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="is not a text file"):
        read_settings(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text file"):
        read_settings(tmp_path / "binary.toml")


@pytest.mark.parametrize("sessions", ["0", "0-3", "5-2"])
def test_sessions_count_from_one_upwards(sessions: str) -> None:
    with pytest.raises(InputError, match="sessions is"):
        PrepareSection(sessions=sessions).session_numbers()


def test_python_is_checked_as_the_file_is() -> None:
    with pytest.raises(InputError, match=r"setting folds of \[fit\] is 0, expected a whole number of at least 2"):
        FitSection(folds=0)
    assert dataclasses.asdict(FitSection(alpha=3)) == dataclasses.asdict(FitSection(alpha=3.0))
    assert isinstance(FitSection(alpha=3).alpha, float)


def test_a_relative_root_is_meant_from_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert read(tmp_path, '[prepare]\nroot = "data/nsd"\n').prepare.root == str(tmp_path / "data" / "nsd")
    assert read(tmp_path, '[prepare]\nroot = "/data/nsd"\n').prepare.root == "/data/nsd"
    assert read(tmp_path, '[extract]\nbackbone = "small"\n').extract.backbone == "small"
    assert read(tmp_path, '[extract]\nbackbone = "mine"\n').extract.backbone == str(tmp_path / "mine")


settings = st.builds(
    Settings,
    simulate=st.none() | st.builds(SimulateSection, seed=st.integers(0, 2**32 - 1)),
    fit=st.builds(
        FitSection,
        alpha=st.just("cv") | st.floats(min_value=1e-300, max_value=1e300),
        shuffle_scans=st.booleans(),
        rescale=st.sampled_from(["train", "none"]),
    ),
    reconstruct=st.builds(ReconstructSection, eta=st.none() | st.floats(0, 1), steps=st.none() | st.integers(1, 999)),
)


@given(settings=settings, title=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_written_reads_back_equal(
    settings: Settings, title: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = dataclasses.replace(settings, report=dataclasses.replace(settings.report, title=title))
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    write_settings(path, settings)
    assert read_settings(path) == settings


def test_equal_settings_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    write_settings(path, demo_settings())
    before = path.stat().st_ino
    write_settings(path, demo_settings())
    assert path.stat().st_ino == before
    write_settings(path, demo_settings(seed=2))
    assert path.stat().st_ino != before


def test_the_example_shows_every_setting_and_is_the_demo() -> None:
    example = Path(__file__).parents[2] / "examples" / "settings.toml"
    assert read_settings(example) == demo_settings()
    assert settings_text(demo_settings()) in example.read_text(encoding="utf-8")
