from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unibrain.errors import InputError
from unibrain.pipeline import (
    ControlsSection,
    CustomSection,
    FitSection,
    PrepareSection,
    ReconstructSection,
    RunFolder,
    Settings,
    SimulateSection,
    demo_settings,
    kept_settings,
    read_settings,
    settings_text,
    write_settings,
)
from unibrain.workspace.stages import Chain, Stage


def read(tmp_path: Path, text: str | bytes) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(path)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()
    found = read(tmp_path, '[simulate]\n[fit]\nalpha = 60000\n[prepare]\nsessions = "1-3,5"\n')
    assert found.simulate == SimulateSection()
    assert found.fit == FitSection(alpha=60000.0)
    assert found.prepare.session_numbers() == (1, 2, 3, 5)
    assert PrepareSection(sessions="present").session_numbers() == "present"


WRONG = [
    ("[fitt]\n", '[fitt] is not a section. Did you mean "fit"?'),
    ("[fit]\nalhpa = 1\n", 'alhpa in [fit] is not known. Did you mean "alpha"?'),
    ("[fit]\nalpha = 0\n", "alpha in [fit] is 0"),
    ("[fit]\nalpha = nan\n", "alpha in [fit] is nan"),
    ('[fit]\nalpha = "CV"\n', 'Did you mean "cv"?'),
    ("[fit]\nalpha = true\n", "alpha in [fit] is True"),
    ("[fit]\nalpha = {a = 1}\n", "alpha in [fit] is {'a': 1}"),
    (f"[fit]\nseed = {'9' * 400}\n", "seed in [fit] is 9999"),
    (f"[fit]\nseed = {'9' * 5000}\n", "digits"),
    ("[fit]\nfolds = 1\n", "folds in [fit] is 1"),
    ('[fit]\nfolds = "5"\n', "folds in [fit] is 5"),
    ("[fit]\nshuffle_scans = 1\n", "shuffle_scans in [fit] is 1"),
    ('[fit]\nbands = "early"\n', "bands in [fit] is early"),
    ('[fit]\nbands = "a=V1,a=V2"\n', "a is there twice"),
    ('[fit]\ndevice = "gpu"\n', "device in [fit] is gpu"),
    ('[simulate]\ndifficulty = "eazy"\n', 'Did you mean "easy"?'),
    ("[simulate]\ntest_images = 1\n", "test_images in [simulate] is 1"),
    ("[reconstruct]\nimage_weight_pictures = 1.01\n", "image_weight_pictures in [reconstruct] is 1.01"),
    ("[reconstruct]\nstrength = 0.0\n", "strength in [reconstruct] is 0.0"),
    ('[prepare]\nmask = "../nsdgeneral"\n', "mask in [prepare] is ../nsdgeneral"),
    ('[prepare]\nregions = "V1;V2"\n', "regions in [prepare] is V1;V2"),
    ('[prepare]\nprotocol = "nsd"\n', "protocol in [prepare] is nsd"),
    ('[prepare]\nsessions = "1 to 3"\n', "'1 to 3' is no number or range"),
    ('[prepare]\nsessions = "3-1,5"\n', "'3-1' ends before it begins"),
    ('[prepare]\nsessions = "0-3"\n', "'0-3' begins at 0"),
    ('[prepare]\nsessions = "1-99999999"\n', "'1-99999999'"),
    ('[prepare]\nroot = "a\\u0000b"\n', "root in [prepare]"),
    ('[prepare]\nroot = "~nouser/nsd"\n', "~nouser"),
    ('[extract]\ncaptions_file = "curated.npy"\n', "captions_file in [extract] is curated.npy"),
    ('[custom]\nregions = "V1"\n', "regions in [custom] is V1"),
    ('[custom]\nregions = "V1=a.npy;V1=b.npy"\n', "V1 is there twice"),
    ("fit = 3\n", "fit is 3"),
    ("[fit\n", "TOML"),
    (f"[fit]\nx = {'[' * 5000}{']' * 5000}\n", "nested too deeply"),
    (b"[report]\ntitle = '\xff\xfe'\n", "not a text file"),
    ('[simulate]\n[prepare]\nroot = "/nsd"\n', "root = '/nsd' in [prepare]"),
    ("[simulate]\n[custom]\n", "[simulate] and [custom]"),
    ('[custom]\n[prepare]\nmask = "V1"\n', "mask = 'V1' in [prepare]"),
    ('[custom]\n[prepare]\nroot = "/nsd"\n', "root = '/nsd' in [prepare]"),
]


@pytest.mark.parametrize(("text", "named"), WRONG, ids=range(len(WRONG)))
def test_every_mistake_is_one_sentence_that_names_the_file_and_the_value(
    tmp_path: Path, text: str | bytes, named: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'settings.toml'}: ")
    assert named in said
    assert "\n" not in said
    assert len(said) < 400


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_settings(path)


TYPED = [
    ("fit", {"alpha": "x"}, "--alpha is x"),
    ("fit", {"folds": "1"}, "--folds is 1"),
    ("fit", {"seed": "9" * 5000}, "--seed is 9999"),
    ("prepare", {"sessions": "3-1,5"}, "--sessions is 3-1,5"),
    ("extract", {"captions_file": "a.npy"}, "--captions-file is a.npy"),
    ("report", {"title": "\udcff"}, "--title is ?"),
    ("prepare", {"root": "\udcff"}, "--root is ?"),
]


@pytest.mark.parametrize(("section", "values", "named"), TYPED)
def test_the_option_that_was_typed_is_named(section: str, values: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}"):
        Settings().changed(section, values, where="--", text=True)


def test_text_becomes_values() -> None:
    changed = Settings().changed("fit", {"alpha": "1e3", "folds": "7", "shuffle_scans": "true"}, where="--", text=True)
    assert changed.fit == FitSection(alpha=1000.0, folds=7, shuffle_scans=True)
    again = changed.changed("fit", {"folds": "loo"}, where="--", text=True)
    assert again.fit == FitSection(alpha=1000.0, folds="loo", shuffle_scans=True)


def test_python_is_checked_as_the_file_is() -> None:
    with pytest.raises(ValidationError):
        FitSection(folds=0)
    with pytest.raises(ValidationError):
        FitSection(alpha=3).alpha = 4  # type: ignore[misc]
    assert FitSection(alpha=3) == FitSection(alpha=3.0)
    with pytest.raises(InputError, match="--test-images is 1"):
        demo_settings(images=1)


def test_bands_regions_and_controls_are_taken_apart() -> None:
    assert ControlsSection(controls="oracle, random").names() == ["random", "oracle"]
    assert ControlsSection(controls="none").names() == []
    bands = FitSection(bands="early=V1+V2,faces=faces", folds="loo").band_regions()
    assert bands == {"early": ("V1", "V2"), "faces": ("faces",)}
    assert FitSection().band_regions() is None
    assert CustomSection(regions="V1=/a.npy; V2 = /b.npy").region_files() == {
        "V1": Path("/a.npy"),
        "V2": Path("/b.npy"),
    }


def test_paths_are_taken_from_the_settings_file_and_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/ada")
    assert read(tmp_path, '[prepare]\nroot = "data/nsd"\n').prepare.root == str(tmp_path / "data" / "nsd")
    assert read(tmp_path, '[prepare]\nroot = "../nsd"\n').prepare.root == str(tmp_path.parent / "nsd")
    assert read(tmp_path, '[prepare]\nroot = "~/nsd"\n').prepare.root == "/home/ada/nsd"
    assert read(tmp_path, '[extract]\nbackbone = "small"\n').extract.backbone == "small"
    assert read(tmp_path, '[extract]\nbackbone = "./mine"\n').extract.backbone == str(tmp_path / "mine")
    custom = read(tmp_path, '[custom]\nscans = "b.h5:run/betas"\nregions = "V1=masks/a.npy;f=../b.nii.gz"\n').custom
    assert custom is not None
    assert custom.scans == str(tmp_path / "b.h5:run/betas")
    assert custom.region_files() == {"V1": tmp_path / "masks/a.npy", "f": tmp_path.parent / "b.nii.gz"}
    assert PrepareSection(root="nsd").root == "/nsd"


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
    settings = settings.changed("report", {"title": title}, where="test")
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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_settings_that_lost_their_end_are_not_taken_for_others(tmp_path: Path, share: float) -> None:
    run = RunFolder(tmp_path)
    write_settings(run.settings, demo_settings())
    with run.lock():
        Chain(run, [Stage("simulate", {}, (), ("nsd",), lambda *_: run.artefact("nsd").mkdir())]).run("simulate")
    assert kept_settings(run) == demo_settings()
    whole = run.settings.read_bytes()
    run.settings.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=str(run.settings)):
        kept_settings(run)
    run.settings.unlink()
    with pytest.raises(InputError, match=r"missing or empty, and simulate was run"):
        kept_settings(run)


def test_the_example_shows_every_setting_and_is_the_demo() -> None:
    example = Path(__file__).parents[2] / "examples" / "settings.toml"
    shown = read_settings(example)
    # The demo leaves predictions as they are, for its small flows; that is no advice for other backbones.
    assert shown.changed("fit", {"rescale": "none"}, where="--") == demo_settings()
    text = example.read_text(encoding="utf-8")
    for line in settings_text(shown).splitlines()[1:-1]:
        assert line in text
