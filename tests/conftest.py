"""What all tests share."""

import gc
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toy_backbone import ToyBackbone

if TYPE_CHECKING:
    from unibrain.pipeline import RunFolder


# Imports make millions of objects that stay, and looking through them again and again is half of collecting the tests.
gc.disable()


def pytest_collection_finish() -> None:
    """Look through what comes from now on only."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def toy() -> ToyBackbone:
    return ToyBackbone()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A finished run on a tiny simulated subject, decoded by the toy backbone; not to be changed."""
    from runs import SETTINGS, cheaply, toy

    from unibrain.pipeline import RunFolder, run_all

    run = RunFolder(tmp_path_factory.mktemp("runs") / "finished")
    with cheaply():
        assert not any(result.skipped for result in run_all(run, SETTINGS, toy()))
    return run


@pytest.fixture
def run(finished: "RunFolder", tmp_path: Path) -> "RunFolder":
    """A copy to spoil."""
    from unibrain.pipeline import RunFolder

    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")
