"""A laboratory's own data through the whole pipeline, with captions and without."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_backbone import FakeBackbone
from PIL import Image

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.latents import read_manifest
from unibrain.pipeline import (
    BackboneSource,
    OwnSection,
    PrepareSection,
    ReconstructSection,
    RunFolder,
    Settings,
    SimulateSection,
    kept_settings,
    read_settings,
    run_all,
    run_one,
    write_settings,
)
from unibrain.reconstruction import load_decoded
from unibrain.scans import load_subject

PICTURES = 30


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of 64 pixels, seen once each; voxels are noisy mixtures of their colours."""
    root, random = tmp_path_factory.mktemp("lab"), np.random.default_rng(2)
    colours = 128 + 50 * random.normal(size=(PICTURES, 3)) @ random.normal(size=(3, 192))
    coarse = colours.clip(0, 255).astype(np.uint8).reshape(PICTURES, 8, 8, 3)
    (root / "shown").mkdir()
    for number, picture in enumerate(coarse):
        Image.fromarray(picture.repeat(8, 0).repeat(8, 1)).save(root / "shown" / f"{number}.png")
    features = coarse.reshape(PICTURES, -1) / 127.5 - 1
    np.save(root / "betas.npy", features @ random.normal(size=(192, 50)) + random.normal(size=(PICTURES, 50)))
    np.save(root / "early.npy", np.arange(50) < 20)
    for name, captioned in (("trials.csv", True), ("silent.csv", False)):
        with (root / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["scan_from_1", "picture", *["captions"] * captioned])
            writer.writerows([n + 1, f"{n}.png", *[f"a red car {n}|the dog {n}"] * captioned] for n in range(PICTURES))
    return root


def settings_of(export: Path, table: str) -> Settings:
    own = OwnSection(
        scans=str(export / "betas.npy"),
        pictures=str(export / "shown"),
        table=str(export / table),
        regions=f"early={export / 'early.npy'}",
        test_share=0.2,
        name="lab-1",
        simulated=True,
    )
    return Settings(own=own)


@pytest.fixture(scope="module")
def spoken(export: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "spoken")
    run_all(run, settings_of(export, "trials.csv"), BackboneSource(loaded=FakeBackbone()))
    return run


@pytest.fixture(scope="module")
def silent(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, FakeBackbone]:
    run, fake = RunFolder(tmp_path_factory.mktemp("runs") / "silent"), FakeBackbone()
    run_all(run, settings_of(export, "silent.csv"), BackboneSource(loaded=fake))
    return run, fake


def test_with_captions_all_is_as_for_nsd(spoken: RunFolder) -> None:
    subject = load_subject(spoken.artefact("subject"))
    assert (subject.name, subject.simulated) == ("lab-1", True)
    assert list(subject.regions) == ["early"]
    assert subject.is_test.sum() == 6
    decoded = load_decoded(spoken.artefact("decoded"))
    assert set(decoded.stimulus_ids) == set(subject.test.stimulus_ids)
    assert all(decoded.captions)
    scores = json.loads(spoken.artefact("scores").read_text())
    assert scores["metrics"]["rouge1"]["value"] is not None
    assert {entry["latent"] for entry in scores["latent_accuracy"]} == {"z_image", "z_text", "c_image", "c_text"}
    assert scores["provenance"]["split"]["preparation"]["source"] == "own data"
    assert list(scores["provenance"]["stages"]) == ["prepare", "extract", "fit", "reconstruct"]


def test_without_captions_pictures_are_decoded_and_everything_says_so(
    silent: tuple[RunFolder, FakeBackbone], spoken: RunFolder
) -> None:
    run, fake = silent
    assert not [call for call in fake.calls if call.startswith("sample caption")]
    decoded = load_decoded(run.artefact("decoded"))
    assert decoded.captions == ("",) * 6
    # The image side does not notice: same split, same latents, same pictures.
    np.testing.assert_array_equal(decoded.pictures, load_decoded(spoken.artefact("decoded")).pictures)
    assert read_manifest(run.artefact("latents"))["choices"] == {"captions": "none"}
    about = json.loads(run.artefact("scores").read_text())
    for metric in about["metrics"].values():
        if metric["about"] == "caption":
            assert metric["value"] is None
            assert "no captions were given" in metric["note"]
    assert about["metrics"]["pixcorr"]["value"] > 0.2
    assert {entry["latent"] for entry in about["latent_accuracy"]} == {"z_image", "c_image"}
    assert set(about["provenance"]["alpha"]) == {"z_image", "c_image"}
    assert about["provenance"]["settings"]["sampling of pictures"]["image_weight"] == 1
    assert "sampling of captions" not in about["provenance"]["settings"]
    page = run.artefact("report").read_text()
    assert "No captions were given with these pictures" in page
    assert "the caption side is switched off" in page
    assert "true caption" not in page.split("</style>")[1].split('id="reading"')[0]


def test_without_captions_no_weight_of_theirs_can_be_asked_for(
    silent: tuple[RunFolder, FakeBackbone], export: Path
) -> None:
    run, fake = silent
    settings = replace(settings_of(export, "silent.csv"), reconstruct=ReconstructSection(image_weight_pictures=0.6))
    with pytest.raises(InputError, match=r"image_weight_pictures is 0\.6 and no captions were given, expected 1"):
        run_one("reconstruct", run, settings, BackboneSource(loaded=fake))


def test_nothing_is_done_twice_and_a_changed_table_is_seen(spoken: RunFolder, export: Path) -> None:
    source = BackboneSource(loaded=FakeBackbone())
    settings = settings_of(export, "trials.csv")
    assert all(result.skipped for result in run_all(spoken, settings, source))
    assert settings.own is not None
    other = replace(settings, own=replace(settings.own, split_seed=1))
    assert not run_one("prepare", spoken, other, source).skipped
    assert not run_one("prepare", spoken, settings, source).skipped


def test_the_command_reads_and_keeps_its_settings(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--scans", str(export / "betas.npy"), "--pictures", str(export / "shown"), "--simulated"]
    assert main(["import", str(run), *arguments]) == 2
    assert "names no table in [own]" in capsys.readouterr().err
    region = f"early={export / 'early.npy'}"
    assert main(["import", str(run), "--table", str(export / "silent.csv"), "--region", region]) == 0
    shown = capsys.readouterr()
    assert f"Next: unibrain extract {run}" in shown.out
    assert "the caption side is switched off" in shown.err
    assert "30 of 30 scans, 50 voxels, 30 pictures of 64 x 64 pixels; split: drawn by picture with seed 0" in shown.err
    own = kept_settings(RunFolder(run)).own
    assert own is not None
    assert own.region_files() == {"early": export / "early.npy"}
    assert main(["prepare", str(run)]) == 0
    assert "up to date" in capsys.readouterr().err
    assert main(["prepare", str(run), "--mask", "V1"]) == 2
    assert "a section [own] and mask = 'V1' in [prepare]" in capsys.readouterr().err


def test_paths_of_regions_are_taken_from_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "settings.toml"
    path.write_text('[own]\nscans = "betas.h5:run/betas"\nregions = "V1=masks/a.npy;faces=../b.nii.gz"\n')
    settings = read_settings(path)
    assert settings.own is not None
    assert settings.own.scans == str(tmp_path / "deep" / "betas.h5:run/betas")
    assert settings.own.region_files() == {"V1": tmp_path / "deep/masks/a.npy", "faces": tmp_path / "b.nii.gz"}
    write_settings(tmp_path / "again.toml", settings)
    assert read_settings(tmp_path / "again.toml") == settings


def test_scans_come_from_one_place() -> None:
    with pytest.raises(InputError, match=r"sections \[simulate\] and \[own\]"):
        Settings(simulate=SimulateSection(), own=OwnSection())
    with pytest.raises(InputError, match=r"\[own\] and root = '/nsd' in \[prepare\]"):
        Settings(own=OwnSection(), prepare=PrepareSection(root="/nsd"))
    with pytest.raises(InputError, match=r"regions of \[own\] is 'V1', expected NAME=FILE"):
        OwnSection(regions="V1")
