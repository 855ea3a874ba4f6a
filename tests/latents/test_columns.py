"""Blocks of columns of stored latents, read by zarr, from its chunk files, or from a memory map."""

import os

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibrain.errors import InputError
from unibrain.latents.chunk_files import ChunkFiles
from unibrain.latents.columns import LatentColumns


def make(path, shape=(23, 31), chunks=(6, 8), dtype="float32", **options):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    array = zarr.create_array(
        str(path), shape=shape, chunks=chunks, dtype=dtype, **{"compressors": None, "overwrite": True, **options}
    )
    array[...] = values
    return zarr.open_array(str(path), mode="r"), values


@pytest.fixture(params=["scattered reads", "whole chunks"])
def way(request, monkeypatch):
    if request.param == "whole chunks":
        monkeypatch.delattr(os, "preadv", raising=False)


@pytest.mark.usefixtures("way")
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_block_of_every_choice_of_rows_is_what_zarr_reads(tmp_path, data):
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)), "shape")
    chunks = data.draw(st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1])), "chunks")
    array, values = make(tmp_path / "array", shape, chunks, data.draw(st.sampled_from(["float16", "float32"])))
    assert ChunkFiles.are_plain(array)
    ascending = data.draw(st.booleans(), "ascending")
    rows = np.array(
        data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=30, unique=ascending), "rows")
    )
    rows = np.sort(rows) if ascending else rows
    columns = LatentColumns(array, rows)
    start = data.draw(st.integers(0, shape[1] - 1), "start")
    stop = data.draw(st.integers(start + 1, shape[1]), "stop")
    np.testing.assert_array_equal(columns[:, start:stop], values[rows, start:stop])
    wider = np.full((len(rows), stop - start), np.nan, dtype=data.draw(st.sampled_from(["float32", "float64"])))
    columns.read_into(wider, slice(start, stop))
    np.testing.assert_array_equal(wider, values[rows, start:stop])


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": "auto"},
        {"zarr_format": 2},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"shards": (12, 16)},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_arrays_are_left_to_zarr(tmp_path, options):
    array, values = make(tmp_path / "array", shape=(24, 32), **options)
    assert not ChunkFiles.are_plain(array)
    rows = np.array([20, 3, 3, 5])
    np.testing.assert_array_equal(LatentColumns(array, rows)[:, 5:19], values[rows, 5:19])


def test_memory_maps_are_read_alike(tmp_path):
    values = np.random.default_rng(0).standard_normal((700, 9)).astype(np.float16)
    np.save(tmp_path / "array.npy", values)
    rows = np.random.default_rng(1).permutation(700)[:600]
    columns = LatentColumns(np.load(tmp_path / "array.npy", mmap_mode="r"), rows)
    found = np.empty((600, 4), dtype=np.float32)
    columns.read_into(found, slice(2, 6))
    np.testing.assert_array_equal(found, values[rows, 2:6])


@pytest.mark.usefixtures("way")
def test_a_chunk_of_nothing_but_the_fill_value_has_no_file(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "array"), shape=(12, 16), chunks=(6, 8), dtype="float32", compressors=None, fill_value=2.5
    )
    array[:6, :8] = 1.0
    rows = np.array([2, 3, 7, 8])
    assert len(list((tmp_path / "array" / "c").rglob("*"))) == 2  # one folder, one file
    np.testing.assert_array_equal(LatentColumns(array, rows)[:, 0:8], np.asarray(array[:, 0:8])[rows])


@pytest.mark.usefixtures("way")
def test_a_truncated_chunk_is_one_sentence(tmp_path):
    array, _ = make(tmp_path / "array")
    path = tmp_path / "array" / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:-4])
    columns = LatentColumns(array, np.arange(23))
    assert columns[:, 8:16].shape == (23, 8)
    with pytest.raises(InputError, match=r"c/1/0: corrupted cache, 188 bytes found, expected 192: extract"):
        columns[:, 0:8]


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="the system has no scattered reads")
def test_whole_chunks_of_ascending_rows_need_no_copy(tmp_path, monkeypatch):
    """The way that streaming depends on is the one that is taken."""
    array, values = make(tmp_path / "array")
    monkeypatch.setattr(ChunkFiles, "read", lambda *_: pytest.fail("read a whole chunk"))
    rows = np.array([0, 1, 4, 5, 6, 13, 20, 22])
    out = np.empty((8, 8), dtype=np.float32)
    LatentColumns(array, rows).read_into(out, slice(8, 16))
    np.testing.assert_array_equal(out, values[rows, 8:16])
