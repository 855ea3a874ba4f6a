import gzip
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from runs import toy

from unibrain.errors import InputError
from unibrain.evaluation.statistics import paired_interval
from unibrain.experiments import Bench, Findings, open_bench, regions, write_findings
from unibrain.experiments.brain_map import map_bytes, map_figure, voxel_contributions
from unibrain.experiments.latent_scores import correlations_of
from unibrain.experiments.region_decoding import ALL
from unibrain.experiments.regions import NOTHING, activate, choose_regions, volume_affine
from unibrain.pipeline import RunFolder
from unibrain.regression import BrainDecoder, export_weights, latent_accuracy

pytestmark = pytest.mark.usefixtures("few_metrics")


@pytest.fixture(scope="module")
def bench(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("regions") / "run"
    shutil.copytree(finished.root, root)
    with open_bench(RunFolder(root), 6, source=toy()) as opened:
        yield opened


def strips(found: Findings) -> dict[str, tuple[bytes, list[str]]]:
    return {strip.label: (strip.pictures.tobytes(), list(strip.captions)) for strip in found.strips}


def label_volume(bench: Bench, name: str) -> np.ndarray:
    path = bench.run.root / "nsd" / "nsddata" / "ppdata" / "subj01" / "func1pt8mm" / "roi" / f"{name}.nii.gz"
    return np.asarray(nibabel.load(path).dataobj).ravel()[bench.subject.voxel_indices]


def test_early_areas_are_those_of_the_label_volume(bench: Bench) -> None:
    labels = label_volume(bench, "prf-visualrois")
    for name, numbers in {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V4": (7,)}.items():
        assert np.array_equal(bench.subject.regions[name], np.isin(labels, numbers))
    found = choose_regions(bench, ["V1+V2", "prf-visualrois:V1v+prf-visualrois:V1d", "prf-eccrois:ecc1"], {})
    assert np.array_equal(found["V1+V2"], np.isin(labels, (1, 2, 3, 4)))
    assert np.array_equal(found["prf-visualrois:V1v+prf-visualrois:V1d"], bench.subject.regions["V1"])
    assert np.array_equal(found["prf-eccrois:ecc1"], label_volume(bench, "prf-eccrois") == 2)
    assert list(choose_regions(bench, (), {})) == [name for name, mask in bench.subject.regions.items() if mask.any()]


def test_active_scan_is_what_was_asked(bench: Bench) -> None:
    chosen, betas = choose_regions(bench, ["faces"], {}), bench.train.betas.astype(np.float64)
    scan = betas.mean(axis=0)
    for voxel in np.flatnonzero(bench.subject.regions["faces"]):
        scan[voxel] += 2.5 * np.std(betas[:, voxel], ddof=1)
    found, expected = activate(bench, chosen, 2.5), bench.decoder.predict(scan.astype(np.float32))
    train = bench.stored.select(bench.train.stimulus_ids).read()
    for name in expected:
        assert np.allclose(found["faces"][name], expected[name], atol=1e-5)
        assert np.allclose(found[NOTHING][name][0], train[name].mean(axis=0), atol=1e-5)


def test_result_depends_on_nothing_but_the_region(bench: Bench) -> None:
    first = strips(regions(bench, ["V1", "faces"], seeds=2))
    shutil.rmtree(bench.cache)
    again = strips(regions(bench, ["places", "faces", "V4", "V1"], seeds=2))
    assert {name: again[name] for name in first} == first
    assert len({pictures for pictures, _ in again.values()}) == 5
    # A further seed adds an item, and a seed is that of a run.
    pictures = {strip.label: strip.pictures for strip in regions(bench, ["V1"], seeds=3).strips}["V1 active"]
    assert pictures[:2].tobytes() == first["V1 active"][0]
    alone = bench.decode(activate(bench, choose_regions(bench, ["V1"], {}), 2.0)["V1"], seed=2)
    assert np.array_equal(alone.pictures[0], pictures[2])


def test_mask_equal_to_a_region_gives_its_result(bench: Bench, tmp_path: Path) -> None:
    faces, subject = bench.subject.regions["faces"], bench.subject
    volume = np.zeros(int(np.prod(subject.grid_shape)), dtype=np.uint8)
    volume[subject.voxel_indices[faces]] = 1
    volume = volume.reshape(subject.grid_shape)
    np.save(tmp_path / "row.npy", faces)
    np.save(tmp_path / "volume.npy", volume.astype(bool))
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volume.nii.gz")
    files = {"row": "row.npy", "volume": "volume.npy", "nifti": "volume.nii.gz"}
    found = strips(regions(bench, ["faces"], {name: tmp_path / file for name, file in files.items()}, seeds=1))
    assert all(found[f"{name} active"] == found["faces active"] for name in files)
    assert found["faces active"] != found[NOTHING]


@pytest.mark.usefixtures("drawn")
def test_decoding_from_a_region_alone_and_without_it(bench: Bench) -> None:
    found = regions(bench, ["V1"], seeds=1, decode=True)
    train, true, mask = bench.train, bench.true, bench.subject.regions["V1"]
    for name, columns in {"V1 alone": mask, "without V1": ~mask}.items():
        decoder = BrainDecoder().fit(train.betas[:, columns], bench.stored.select(train.stimulus_ids))
        predicted = decoder.predict(bench.test.betas[:, columns], bench.ids)
        for latent, value in latent_accuracy(predicted, true).items():
            assert found.cell(name, f"{latent}_r").value == pytest.approx(value, abs=1e-4)
        own, whole = (correlations_of(one, true)["z_image"].explained for one in (predicted, bench.predicted))
        cell, interval = found.cell(name, "z_image_explained"), paired_interval(own, whole)
        assert cell.difference == pytest.approx(np.mean(own) - np.mean(whole), abs=1e-4)
        assert (cell.difference_low, cell.difference_high) == pytest.approx((interval.low, interval.high), abs=1e-3)
        score = bench.score(bench.decode(predicted))["pixcorr"].value
        assert found.cell(name, "pixcorr").value == pytest.approx(score, abs=1e-3)
    assert found.cell(ALL, "ssim").value == pytest.approx(bench.score(bench.decoded())["ssim"].value)
    assert "V1 alone" in found.answer
    assert len(found.figures) == 3


@pytest.mark.parametrize("options", [{"alpha": 3.0}, {"alpha_per": "target"}, {"bands": {"a": ("left",)}}], ids=str)
def test_contributions_are_the_norm_of_the_weights(options: dict) -> None:
    rng = np.random.default_rng(0)
    betas, left = rng.normal(size=(20, 30)) * rng.uniform(0.5, 2, 30), np.arange(30) < 12
    latents = {"mine": rng.normal(size=(20, 3, 4)), "other": rng.normal(size=(20, 5))}
    decoder = BrainDecoder(**options).fit(betas, latents, regions={"left": left})
    decoder.memory = 2e-5  # a few voxels at a time
    for name in latents:
        weights = export_weights(decoder, name)
        expected = np.sqrt(np.mean(weights**2, axis=1)) * betas.std(axis=0, ddof=1)
        assert np.allclose(voxel_contributions(decoder, name), expected)


@pytest.mark.usefixtures("drawn")
def test_map_is_written_where_the_voxels_are(bench: Bench, tmp_path: Path) -> None:
    found = regions(bench, ["V1", "places"], seeds=1, contributions=True)
    page = write_findings(tmp_path / "regions", found)
    own = voxel_contributions(bench.decoder, "c_image")
    image = nibabel.load(page.with_name("contribution-c_image.nii.gz"))
    volume = np.asarray(image.dataobj)
    assert image.shape == bench.subject.grid_shape
    assert np.allclose(volume.ravel()[bench.subject.voxel_indices], own)
    assert np.count_nonzero(volume) == len(own)
    assert np.array_equal(image.affine, nibabel.load(next(bench.run.root.rglob("nsdgeneral.nii.gz"))).affine)
    expected = own[bench.subject.regions["V1"]].mean() / own.mean()
    assert found.cell("V1", "c_image_contribution").value == pytest.approx(expected)
    assert found.files["contribution-c_image.nii.gz"] == map_bytes(bench.subject, own, volume_affine(bench)[1])
    # Scans without a grid are one row of voxels.
    voxels = len(bench.subject.voxel_indices)
    row = replace(bench.subject, grid_shape=(voxels, 1, 1), voxel_indices=np.arange(voxels))
    assert map_figure(row, {"c_image": own}, bench.subject.regions).lstrip().startswith(b"<?xml")
    assert nibabel.Nifti1Image.from_bytes(gzip.decompress(map_bytes(row, own, np.eye(4)))).shape == (voxels, 1, 1)


@pytest.mark.parametrize(
    ("names", "masks", "options", "named"),
    [
        (["nix"], {}, {}, "'nix' is no region of this run, which has V1"),
        (["V1+"], {}, {}, "'V1[+]'"),
        (["V1", "../V1"], {}, {}, "'../V1'"),
        (["floc-bodies:mTL-bodies"], {}, {}, "floc-bodies:mTL-bodies has none of the"),
        (["V1"], {"V1": "row.npy"}, {}, "--mask V1"),
        ([], {"mine": "none.npy"}, {}, "none.npy"),
        ([], {"mine": "short.npy"}, {}, "short.npy: has 3 values"),
        ([], {"mine": "empty.npy"}, {}, "region mine has no voxel"),
        ([], {"mine": "cube.npy"}, {}, "cube.npy: has the grid"),
        (["nsdgeneral"], {}, {"decode": True}, "nsdgeneral has all voxels"),
        (["V1"], {}, {"seeds": 0}, "--seeds is 0"),
        (["V1"], {}, {"value": float("nan")}, "--value nan"),
        (["V1"], {}, {"budget": 0.0}, "--budget"),
    ],
)
def test_refused_before_work(
    bench: Bench, tmp_path: Path, names: list[str], masks: dict[str, str], options: dict, named: str
) -> None:
    voxels = len(bench.subject.voxel_indices)
    for file, values in {
        "row.npy": np.ones(voxels),
        "short.npy": np.ones(3),
        "empty.npy": np.zeros(voxels),
        "cube.npy": np.ones((2, 2, 2)),
    }.items():
        np.save(tmp_path / file, values)
    source = toy().load("toy")
    strict = replace(bench, network=source, budget=options.pop("budget", bench.budget))
    with pytest.raises(InputError, match=named):
        regions(strict, names, {name: tmp_path / file for name, file in masks.items()}, **options)
    assert not source.calls
