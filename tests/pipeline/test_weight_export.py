from pathlib import Path

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.latents import Latents
from unibrain.pipeline import FitSection, RunFolder
from unibrain.pipeline.weight_export import write_weights
from unibrain.regression import BrainDecoder, export_weights
from unibrain.scans import save_subject
from unibrain.scans.subject import Subject


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((12, 6)).astype(np.float32)
    shapes = (2, 2, 2), (5,), (2, 4), (3, 4)
    latents = Latents(np.arange(12), *(rng.standard_normal((12, *shape)).astype(np.float32) for shape in shapes))
    subject = Subject(
        name="simulated",
        betas=betas,
        stimulus_ids=np.arange(12),
        is_test=np.zeros(12, dtype=bool),
        repeats=np.full(12, 3),
        voxel_indices=np.arange(6),
        grid_shape=(3, 2, 1),
        regions={"V1": np.arange(6) < 2, "faces": np.arange(6) == 5},
        noise_ceiling=np.full(6, 50.0, dtype=np.float32),
        simulated=True,
    )
    run = RunFolder(tmp_path / "run")
    run.artefact("decoder").mkdir(parents=True)
    save_subject(run.artefact("subject"), subject)
    BrainDecoder(alpha=3.0).fit(betas, latents).save(run.artefact("decoder"))
    return run


def test_writes_the_weights_of_regions(run: RunFolder, tmp_path: Path) -> None:
    assert write_weights(run, "z_text", tmp_path / "w.npy", "1:4", ("faces", "V1")) == (3, 3)
    decoder = BrainDecoder.load(run.artefact("decoder"))
    expected = export_weights(decoder, "z_text")[[0, 1, 5], 1:4]
    np.testing.assert_allclose(np.load(tmp_path / "w.npy", allow_pickle=False), expected, atol=1e-7)
    assert write_weights(run, "c_text", tmp_path / "w.npy") == (6, 12)


@pytest.mark.parametrize(
    ("targets", "regions", "message"),
    [("1-4", None, "targets is '1-4', expected start:stop"), (":", ("V9",), "has no region V9, expected some of V1")],
)
def test_refuses(run: RunFolder, tmp_path: Path, targets: str, regions: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_weights(run, "z_text", tmp_path / "w.npy", targets, regions)
    assert not (tmp_path / "w.npy").exists()


def test_bands_are_written_as_text() -> None:
    section = FitSection(bands="early=V1+V2,faces=faces", folds="loo")
    assert section.band_regions() == {"early": ("V1", "V2"), "faces": ("faces",)}
    assert FitSection().band_regions() is None
    with pytest.raises(InputError, match="bands of"):
        FitSection(bands="early")
