"""Targets on disk: streamed fits and predictions, resuming, bounded memory."""

import errno
import os

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from stored_targets import M, N, same, store

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents, LatentWriter, load_latents, open_latents, save_latents
from unibrain.latents import writer as writer_module
from unibrain.regression import BrainDecoder
from unibrain.regression.targets import Targets, block_width


@pytest.fixture(autouse=True)
def _record_every_part(monkeypatch):
    monkeypatch.setattr(writer_module, "INTERVAL", 0.0)


@pytest.mark.parametrize("storage", ["npy", "zarr"])
@pytest.mark.parametrize("parameters", [{}, {"alpha": 20.0}, {"alpha_per": "token"}, {"alpha_per": "target"}])
@pytest.mark.parametrize("rows", ["neighbours", "scattered"])
def test_streamed_equals_in_memory(tmp_path, data, stored, storage, parameters, rows):
    X, latents = data
    if storage == "npy":
        stored = store(tmp_path / "npy", latents, "npy")
    order = np.arange(N) if rows == "neighbours" else np.random.default_rng(1).permutation(N + M)[:N]
    ids = latents.stimulus_ids[order]
    expected = BrainDecoder(**parameters).fit(X[order], latents.select(ids))
    found = BrainDecoder(**parameters).fit(X[order], stored.select(ids), ids)
    assert found.alpha_ == expected.alpha_
    same(found.predict(X[:5]), expected.predict(X[:5]))
    for name in LATENT_NAMES:
        np.testing.assert_allclose(found.gain_[name], expected.gain_[name], rtol=1e-4)


def test_half_precision_targets_are_those_of_half_precision(tmp_path, data):
    X, latents = data
    half = store(tmp_path / "half", latents, precision="float16")
    rounded = Latents(
        latents.stimulus_ids, *(a.astype(np.float16).astype(np.float64) for _, a in latents.items())
    ).rows(slice(0, N))
    decoder = BrainDecoder(alpha=9.0, rescale="none").fit(X[:N], half.at(np.arange(N)))
    predicted = decoder.predict(X[N:])
    assert predicted.c_text.dtype == np.float32
    for name in LATENT_NAMES:
        expected = Ridge(9.0).fit(X[:N].astype(float), rounded[name].reshape(N, -1)).predict(X[N:].astype(float))
        assert np.abs(predicted[name].reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_block_is_read_once_and_ahead(data, monkeypatch):
    reads = []

    class Reader:
        shape, dtype, chunk_columns = (N, 24), np.dtype(np.float32), 4
        values = data[1].z_image[:N].reshape(N, -1)

        def __getitem__(self, key):
            reads.append((key[1].start, key[1].stop))
            return self.values[key]

    targets = Targets(Reader(), "z_image", np.arange(N))
    blocks = []
    for block, values in targets.blocks(8):
        np.testing.assert_array_equal(values, Reader.values[:, block])
        blocks.append((block.start, block.stop))
    assert reads == blocks == [(0, 8), (8, 16), (16, 24)]


def test_block_width_follows_memory_and_chunks(stored):
    train = stored.at(np.arange(N))
    targets = Targets(train.columns("c_text"), "c_text", train.stimulus_ids)
    assert targets.chunk_columns == 8
    narrow, wide = (block_width(targets, 10, memory) for memory in (1_500, 1e9))
    assert (narrow < 8, wide) == (True, 8)
    with pytest.raises(InputError, match="memory is 1e-07 GB, expected at least"):
        block_width(targets, 10, 100)


def test_little_memory_changes_nothing(data, stored):
    X = data[0]
    wide, narrow = (
        BrainDecoder(alpha=20.0, memory=memory).fit(X[:N], stored.at(np.arange(N))).predict(X[N:])
        for memory in (2.0, 3e-5)
    )
    same(narrow, wide)


def test_predictions_stream_to_disk_and_continue_at_the_block(tmp_path, data, stored, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))
    expected = decoder.predict(X[N:])
    ids = latents.stimulus_ids[N:]
    writes, write = [], LatentWriter.write_columns

    def stopping(self, name, columns, values):
        if len(writes) == 4:
            writes.append("stopped")
            raise KeyboardInterrupt
        writes.append((name, columns.start))
        write(self, name, columns, values)

    monkeypatch.setattr(LatentWriter, "write_columns", stopping)
    with pytest.raises(KeyboardInterrupt):
        decoder.predict_to(tmp_path / "predicted", X[N:], ids)
    decoder.predict_to(tmp_path / "predicted", X[N:], ids)
    writes.remove("stopped")
    # Every block was written once, over both runs.
    assert len(set(writes)) == len(writes) > 6
    found = load_latents(tmp_path / "predicted")
    np.testing.assert_array_equal(found.stimulus_ids, ids)
    same(found, expected, 1e-12)
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


def test_unfinished_predictions_of_other_scans_are_not_continued(tmp_path, data, stored, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))
    with monkeypatch.context() as patch:
        patch.setattr(LatentWriter, "finish", lambda self: None)
        decoder.predict_to(tmp_path / "predicted", X[N:], latents.stimulus_ids[N:])
    other = -X[N:]
    decoder.predict_to(tmp_path / "predicted", other, latents.stimulus_ids[N:])
    same(load_latents(tmp_path / "predicted"), decoder.predict(other), 1e-12)


def test_a_full_disk_while_predicting_is_one_sentence(tmp_path, data, stored, monkeypatch):
    X = data[0]
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(InputError, match="no space left on the disk"):
            decoder.predict_to(tmp_path / "predicted", X[N:])
    decoder.predict_to(tmp_path / "predicted", X[N:])
    assert len(load_latents(tmp_path / "predicted")) == M


@pytest.mark.parametrize("rescale", ["none", "train"])
def test_stored_targets_that_are_not_finite_are_named_by_row_and_block(tmp_path, data, rescale):
    X, latents = data
    z_text = latents.z_text.copy()
    z_text[5, 3] = np.nan
    bad = Latents(latents.stimulus_ids, latents.z_image, z_text, latents.c_image, latents.c_text)
    save_latents(tmp_path / "latents", bad, "small", "f")
    targets = open_latents(tmp_path / "latents").at(np.arange(N))
    with pytest.raises(InputError, match=r"z_text of image id 105 .*row 5, target 3, in the block of targets 0 to 5"):
        BrainDecoder(alpha=1.0, rescale=rescale).fit(X[:N], targets)
