"""Targets on disk: streamed fits and predictions, bounded memory."""

import errno
import os

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from stored_targets import SHAPES, M, N, changed, flat, same, store

from unibrain.errors import InputError
from unibrain.latents import Latents, LatentWriter, load_latents, open_latents, save_latents
from unibrain.regression import BrainDecoder
from unibrain.regression.targets import Targets, block_width


@pytest.mark.parametrize(
    ("storage", "rows", "parameters"),
    [
        ("npy", "neighbours", {}),
        ("npy", "scattered", {"alpha_per": "token"}),
        ("zarr", "neighbours", {"alpha": 20.0}),
        ("zarr", "scattered", {"alpha_per": "target"}),
    ],
)
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
    for name in SHAPES:
        np.testing.assert_allclose(found.gain_[name], expected.gain_[name], rtol=1e-4)


def test_half_precision_targets_are_those_of_half_precision(tmp_path, data):
    X, latents = data
    half = store(tmp_path / "half", latents, precision="float16")
    decoder = BrainDecoder(alpha=9.0, rescale="none").fit(X[:N], half.at(np.arange(N)))
    predicted = decoder.predict(X[N:])
    assert predicted["c_text"].dtype == np.float32
    for name in SHAPES:
        rounded = flat(latents, name)[:N].astype(np.float16).astype(float)
        expected = Ridge(9.0).fit(X[:N].astype(float), rounded).predict(X[N:].astype(float))
        assert np.abs(flat(predicted, name) - expected).max() < 1e-4 * np.abs(expected).max()


def test_block_width_follows_memory_and_chunks(stored):
    train = stored.at(np.arange(N))
    targets = Targets(train.columns("c_text"), "c_text", train.stimulus_ids)
    assert targets.chunk_columns == 8
    narrow, wide = (block_width(targets, 10, memory) for memory in (1_500, 1e9))
    assert (narrow < 8, wide) == (True, 8)
    with pytest.raises(InputError, match="1e-07"):
        block_width(targets, 10, 100)


def test_predictions_stream_to_disk(tmp_path, data, monkeypatch):
    X, latents = data
    mine = Latents(latents.stimulus_ids, {"fifth": latents["c_text"], "z_text": latents["z_text"]}).rows(slice(0, N))
    decoder, ids = BrainDecoder(alpha=20.0).fit(X[:N], mine), latents.stimulus_ids[N:]
    with monkeypatch.context() as patch:
        # What a killed one of other scans left is not mixed in.
        patch.setattr(LatentWriter, "finish", lambda self: None)
        decoder.predict_to(tmp_path / "predicted", -X[N:], ids)
    decoder.predict_to(tmp_path / "predicted", X[N:], ids, "small", "f")
    found = load_latents(tmp_path / "predicted", "f")
    np.testing.assert_array_equal(found.stimulus_ids, ids)
    same(found, decoder.predict(X[N:]), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["predicted"]

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"other: no space left on the disk\. Free some space, and run again\.$"):
        decoder.predict_to(tmp_path / "other", X[N:])
    assert [path.name for path in tmp_path.iterdir()] == ["predicted"]


@pytest.mark.parametrize("rescale", ["none", "train"])
def test_stored_targets_that_are_not_finite_are_named(tmp_path, data, rescale):
    X, latents = data
    z_text = latents["z_text"].copy()
    z_text[5, 3] = np.nan
    save_latents(tmp_path / "latents", changed(latents, z_text=z_text), "small", "f")
    with pytest.raises(InputError, match=r"z_text.* 105 .*row 5, target 3"):
        BrainDecoder(alpha=1.0, rescale=rescale).fit(X[:N], open_latents(tmp_path / "latents").at(np.arange(N)))
