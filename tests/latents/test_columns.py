"""Blocks of columns of stored latents are what zarr and NumPy read."""

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibrain.errors import DamagedFileError
from unibrain.latents import LatentColumns


def make(path, shape=(23, 31), chunks=(6, 8), dtype="float32", **options):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    array = zarr.create_array(
        str(path), shape=shape, chunks=chunks, dtype=dtype, **{"compressors": None, "overwrite": True, **options}
    )
    array[...] = values
    return zarr.open_array(str(path), mode="r"), values


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_block_of_every_choice_of_rows(tmp_path, data):
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)), "shape")
    chunks = data.draw(st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1])), "chunks")
    array, values = make(tmp_path / "array", shape, chunks, data.draw(st.sampled_from(["float16", "float32"])))
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=30), "rows"))
    rows = np.sort(rows) if data.draw(st.booleans(), "ascending") else rows
    start = data.draw(st.integers(0, shape[1] - 1), "start")
    stop = data.draw(st.integers(start + 1, shape[1]), "stop")
    for columns in (LatentColumns(array, rows, tmp_path / "array"), LatentColumns(array, rows)):
        np.testing.assert_array_equal(columns[:, start:stop], values[rows, start:stop])
        out = np.empty((len(rows), stop - start), dtype=np.float32)
        columns.read_into(out, slice(start, stop))
        np.testing.assert_array_equal(out, values[rows, start:stop])


def test_memory_maps_are_read_alike(tmp_path):
    values = np.random.default_rng(0).standard_normal((700, 9)).astype(np.float16)
    np.save(tmp_path / "array.npy", values)
    rows = np.random.default_rng(1).permutation(700)[:600]
    columns = LatentColumns(np.load(tmp_path / "array.npy", mmap_mode="r"), rows)
    found = np.empty((600, 4), dtype=np.float32)
    columns.read_into(found, slice(2, 6))
    np.testing.assert_array_equal(found, values[rows, 2:6])


def test_a_chunk_of_nothing_but_the_fill_value_has_no_file(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "array"), shape=(12, 16), chunks=(6, 8), dtype="float32", compressors=None, fill_value=2.5
    )
    array[:6, :8] = 1.0
    rows = np.array([2, 3, 7, 8])
    assert len(list((tmp_path / "array" / "c").rglob("*"))) == 2  # one folder, one file
    found = LatentColumns(array, rows, tmp_path / "array")[:, 0:16]
    np.testing.assert_array_equal(found, np.asarray(array[...])[rows])


def test_a_truncated_chunk_is_named(tmp_path):
    array, _ = make(tmp_path / "array")
    path = tmp_path / "array" / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:-4])
    columns = LatentColumns(array, np.arange(23), tmp_path / "array")
    assert columns[:, 8:16].shape == (23, 8)
    with pytest.raises(DamagedFileError, match="c/1/0 is truncated") as caught:
        columns[:, 0:8]
    assert caught.value.path == path
