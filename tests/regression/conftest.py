"""Targets on a disk, shared by the tests of what is fitted to them."""

import pytest
from stored_targets import N, make, store

from unibrain.latents import writer as writer_module
from unibrain.regression import targets as targets_module


@pytest.fixture(scope="session")
def data():
    """Scans, and latents of the same images."""
    return make()


@pytest.fixture
def stored(tmp_path, data, monkeypatch):
    """The latents as zarr, in small chunks."""
    monkeypatch.setattr(writer_module, "CHUNK", (16, 8))
    # Blocks of a few columns, so that there are many of them.
    monkeypatch.setattr(targets_module, "MAX_BLOCK_BYTES", N * 4 * 9)
    return store(tmp_path / "latents", data[1])
