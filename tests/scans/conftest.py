import shutil
from pathlib import Path

import pytest

from unibrain.demo import SimulationSettings, simulate_nsd
from unibrain.scans.nsd_layout import NsdLayout

SMALL = SimulationSettings(
    seed=5,
    training_images=24,
    test_images=6,
    sessions=3,
    grid=(8, 9, 7),
    picture_size=32,
    subjects=(1, 2),
    beta_formats=("hdf5", "nifti"),
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated tree; read only."""
    root = tmp_path_factory.mktemp("nsd") / "tree"
    simulate_nsd(root, SMALL)
    return root


@pytest.fixture
def own_tree(tree: Path, tmp_path: Path) -> NsdLayout:
    """The layout of a copy that a test may damage."""
    shutil.copytree(tree, tmp_path / "nsd")
    return NsdLayout(tmp_path / "nsd")
