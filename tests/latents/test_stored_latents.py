"""Latents that stay on disk: written part by part, resumed, read in blocks of columns, from npy, zarr and addresses."""

import errno
import os

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents, LatentWriter, extract_to, load_latents, open_latents, save_latents
from unibrain.latents import writer as writer_module
from unibrain.latents.stored import reopen_latents
from unibrain.stimuli.stimuli import Stimuli

SHAPES = {"z_image": (4, 3, 3), "z_text": (5,), "c_image": (2, 7), "c_text": (3, 7)}


@pytest.fixture(autouse=True)
def _record_every_part(monkeypatch):
    monkeypatch.setattr(writer_module, "INTERVAL", 0.0)


def draw(n=10, seed=0):
    rng = np.random.default_rng(seed)
    return Latents(np.arange(100, 100 + n), *(rng.standard_normal((n, *s)).astype(np.float32) for s in SHAPES.values()))


def write(folder, latents, storage="npy", precision="float32", key="", stop=None):
    writer = LatentWriter(folder, latents.stimulus_ids, "small", "f", storage=storage, precision=precision, key=key)
    writer.begin(SHAPES)
    done = writer.done.get("rows", 0)
    for start in range(done, len(latents), 3):
        if stop is not None and start >= stop:
            return done
        writer.write_rows(start, {name: array[start : start + 3] for name, array in latents.items()})
        writer.mark("rows", min(start + 3, len(latents)))
    writer.finish()
    return done


@pytest.mark.parametrize("storage", ["npy", "zarr"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_parts_come_back_as_the_whole(tmp_path, storage, precision, monkeypatch):
    monkeypatch.setattr(writer_module, "CHUNK", (4, 8))
    latents = draw()
    write(tmp_path / "latents", latents, storage, precision)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latents"]
    stored = open_latents(tmp_path / "latents", fingerprint="f", verify=True)
    loaded = load_latents(tmp_path / "latents")
    chosen = stored.select(np.array([104, 101, 104]))
    for name, array in latents.items():
        expected = array.astype(precision)
        np.testing.assert_array_equal(loaded[name], expected)
        columns = stored.columns(name)
        flat = expected.reshape(len(latents), -1)
        assert (columns.shape, columns.dtype) == (flat.shape, np.dtype(precision))
        np.testing.assert_array_equal(columns[:, 1:5], flat[:, 1:5])
        np.testing.assert_array_equal(chosen.columns(name)[:, 2:4], flat[[4, 1, 4], 2:4])
        np.testing.assert_array_equal(stored.select(np.array([103, 104])).columns(name)[:, 0:3], flat[3:5, :3])
    assert chosen.stimulus_ids.tolist() == [104, 101, 104]
    np.testing.assert_array_equal(chosen.read().c_text, latents.c_text[[4, 1, 4]].astype(precision))


@pytest.mark.parametrize("storage", ["npy", "zarr"])
def test_a_stopped_writer_continues_where_it_was(tmp_path, storage):
    latents = draw()
    write(tmp_path / "latents", latents, storage, stop=6)
    assert not (tmp_path / "latents").exists()
    assert write(tmp_path / "latents", latents, storage) == 6
    np.testing.assert_array_equal(load_latents(tmp_path / "latents").c_image, latents.c_image)


def test_unfinished_work_of_something_else_is_dropped(tmp_path):
    write(tmp_path / "latents", draw(), key="one", stop=6)
    assert write(tmp_path / "latents", draw(seed=1), key="two") == 0
    np.testing.assert_array_equal(load_latents(tmp_path / "latents").c_image, draw(seed=1).c_image)


def test_a_damaged_unfinished_folder_is_begun_again(tmp_path):
    write(tmp_path / "latents", draw(), stop=6)
    (tmp_path / ".latents.unfinished" / "c_text.npy").write_bytes(b"short")
    assert write(tmp_path / "latents", draw()) == 0


def test_columns_can_be_written_too(tmp_path):
    latents = draw()
    writer = LatentWriter(tmp_path / "latents", latents.stimulus_ids, "small", "f", storage="zarr")
    writer.begin(SHAPES)
    for name, array in latents.items():
        flat = array.reshape(len(latents), -1)
        for start in range(0, flat.shape[1], 4):
            writer.write_columns(name, slice(start, min(start + 4, flat.shape[1])), flat[:, start : start + 4])
    writer.finish()
    np.testing.assert_array_equal(load_latents(tmp_path / "latents").z_image, latents.z_image)


def test_large_latents_are_chunked_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "LARGE", 1000)
    write(tmp_path / "latents", draw(), "auto")
    assert (tmp_path / "latents" / "arrays.zarr" / "c_text").is_dir()
    assert (tmp_path / "latents" / "stimulus_ids.npy").is_file()


def test_refuses_what_float16_cannot_hold(tmp_path):
    latents = draw()
    latents.z_text[7, 2] = 1e6
    with pytest.raises(InputError, match="latent z_text of image id 107 is too large for float16"):
        write(tmp_path / "latents", latents, precision="float16")


@pytest.mark.parametrize("storage", ["npy", "zarr"])
def test_a_full_disk_is_one_sentence_and_what_is_written_is_kept(tmp_path, monkeypatch, storage):
    latents = draw()
    write(tmp_path / "latents", latents, storage, stop=6)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_json", full)
        with pytest.raises(InputError, match=r"no space left on the disk while writing it, what is written so far"):
            write(tmp_path / "latents", latents, storage)
    assert write(tmp_path / "latents", latents, storage) == 6


def test_a_disk_without_room_is_noticed_before_a_memory_map_is_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="no space left on the disk"):
        write(tmp_path / "latents", draw())


@pytest.mark.parametrize("storage", ["npy", "zarr"])
def test_other_content_is_noticed(tmp_path, storage):
    write(tmp_path / "latents", draw(), storage)
    stored = open_latents(tmp_path / "latents")
    known = stored.manifest_sha256, stored.signature
    assert reopen_latents(tmp_path / "latents", *known).signature == stored.signature
    name = "z_text.npy" if storage == "npy" else "arrays.zarr/z_text/c/0/0"
    path = tmp_path / "latents" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=r"z_text.*does not match its checksum"):
        reopen_latents(tmp_path / "latents", *known)
    write(tmp_path / "latents", draw(seed=1), storage)
    with pytest.raises(InputError, match="other latents than before"):
        reopen_latents(tmp_path / "latents", *known)


def test_a_missing_chunk_is_noticed(tmp_path):
    write(tmp_path / "latents", draw(), "zarr")
    (tmp_path / "latents" / "arrays.zarr" / "c_text" / "c" / "0" / "0").unlink()
    with pytest.raises(InputError, match="corrupted cache"):
        open_latents(tmp_path / "latents")


def test_an_object_store_is_read_by_its_address(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    latents = draw()
    write(tmp_path / "latents", latents, "zarr")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "latents"), "/bucket/latents", recursive=True)
    try:
        stored = open_latents("memory://bucket/latents", fingerprint="f")
        np.testing.assert_array_equal(stored.select(np.array([105, 102])).read().c_text, latents.c_text[[5, 2]])
        with pytest.raises(InputError, match="another backbone"):
            open_latents("memory://bucket/latents", fingerprint="g")
        with pytest.raises(InputError, match="no latents can be read there"):
            open_latents("memory://bucket/nothing")
        save_latents(tmp_path / "plain", latents, "small", "f")
        memory.put(str(tmp_path / "plain"), "/bucket/plain", recursive=True)
        with pytest.raises(InputError, match="expected zarr on an object store"):
            open_latents("memory://bucket/plain")
    finally:
        memory.rm("/bucket", recursive=True)


def test_refuses_rows_and_images_that_are_not_there(tmp_path):
    save_latents(tmp_path / "latents", draw(), "small", "f")
    stored = open_latents(tmp_path / "latents")
    with pytest.raises(InputError, match="no latents for image id 7 "):
        stored.select(np.array([101, 7]))
    with pytest.raises(InputError, match="row 10 is asked for and there are 10"):
        stored.at(np.array([10]))


def test_repeated_ids_select_the_first_row_of_each_image():
    latents = draw(4)
    trials = Latents(np.array([5, 9, 5, 2]), *(array for _, array in latents.items()))
    chosen = trials.select(np.array([2, 5, 5]))
    assert chosen.stimulus_ids.tolist() == [2, 5, 5]
    np.testing.assert_array_equal(chosen.z_text, latents.z_text[[3, 0, 0]])


class Backbone:
    name, fingerprint = "stand-in", "f"

    def __init__(self, stop_after=99):
        self.batches, self.stop_after = 0, stop_after

    def encode_pictures(self, pictures):
        self.batches += 1
        if self.batches > self.stop_after:
            raise KeyboardInterrupt
        return pictures[:, :2, :2].transpose(0, 3, 1, 2).astype(np.float32)

    def picture_contexts(self, pictures):
        return pictures.reshape(len(pictures), -1)[:, :12].reshape(-1, 3, 4).astype(np.float32)

    def encode_captions(self, captions):
        return np.array([[len(text), 1.0] for text in captions], dtype=np.float32)

    def caption_contexts(self, captions):
        return np.array([[[len(text), 2.0]] for text in captions], dtype=np.float32)


@pytest.mark.parametrize("storage", ["npy", "zarr"])
def test_a_stopped_extraction_continues_at_the_batch(tmp_path, storage):
    ids = np.arange(7)
    captions = {int(i): ("a dog" if i % 2 else f"picture {i}",) for i in ids}

    def read(wanted):
        return np.stack([np.random.default_rng(int(i)).integers(0, 256, (4, 4, 3), dtype=np.uint8) for i in wanted])

    stimuli = Stimuli(ids, captions, read, "seven pictures")
    extract_to(tmp_path / "whole", Backbone(), stimuli, ids, 2, storage=storage)
    with pytest.raises(KeyboardInterrupt):
        extract_to(tmp_path / "stopped", Backbone(stop_after=2), stimuli, ids, 2, storage=storage)
    again = Backbone()
    # Another batch size does not matter to what is there.
    extract_to(tmp_path / "stopped", again, stimuli, ids, 3, storage=storage)
    assert again.batches == 1
    whole, stopped = load_latents(tmp_path / "whole"), load_latents(tmp_path / "stopped")
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(stopped[name], whole[name])


def test_records_are_kept_apart_by_some_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(writer_module, "INTERVAL", 5.0)
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: clock[0])
    latents = draw()

    def make():
        return LatentWriter(tmp_path / "latents", latents.stimulus_ids, "small", "f", storage="npy")

    writer = make()
    writer.begin(SHAPES)
    for second, safe in ((104.0, 0), (106.0, 2), (110.0, 2), (111.5, 4)):
        clock[0] = second
        writer.mark("rows", writer.done.get("rows", 0) + 1)
        assert make().done.get("rows", 0) == safe
