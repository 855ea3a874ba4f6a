"""Latents on disk: exact, written part by part, resumed, and damage is noticed."""

import errno
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibrain.errors import DamagedFileError, InputError
from unibrain.latents import (
    LATENTS,
    Latents,
    LatentWriter,
    load_latents,
    open_latents,
    read_manifest,
    reopen_latents,
    save_latents,
)

SHAPES = {"z_image": (4, 3, 3), "z_text": (5,), "c_image": (2, 7), "c_text": (3, 7)}
WRITER = "unibrain.latents.writer"
both = pytest.mark.parametrize("storage", ["npy", "zarr"])


@pytest.fixture(autouse=True)
def _record_every_part(monkeypatch):
    monkeypatch.setattr(f"{WRITER}.INTERVAL", 0.0)


def draw(n=10, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal((n, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    return Latents(np.arange(100, 100 + n), arrays)


def write(folder, latents, storage="npy", precision="float32", key="", stop=None):
    writer = LatentWriter(folder, latents.stimulus_ids, "small", "f", storage=storage, precision=precision, key=key)
    writer.begin({name: array.shape[1:] for name, array in latents.items()})
    done = writer.done.get("rows", 0)
    for start in range(done, latents.n, 3):
        if stop is not None and start >= stop:
            return done
        writer.write_rows(start, {name: array[start : start + 3] for name, array in latents.items()})
        writer.mark("rows", min(start + 3, latents.n))
    writer.finish()
    return done


@pytest.fixture
def folder(tmp_path):
    save_latents(tmp_path / "latents", draw(), "small", "f" * 64, {"caption": "first"})
    return tmp_path / "latents"


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_latents_are_a_mapping_of_any_names():
    latents = draw(4)
    assert list(latents) == list(SHAPES) == list(LATENTS)
    assert repr(latents) == "Latents(4 images: z_image 4x3x3, z_text 5, c_image 2x7, c_text 3x7)"
    assert Latents(np.arange(2), {"anything": np.zeros((2, 1, 1, 1, 1), np.float32)}).n == 2
    trials = Latents(np.array([5, 9, 5, 2]), latents.arrays)
    chosen = trials.select(np.array([2, 5, 5]))
    assert chosen.stimulus_ids.tolist() == [2, 5, 5]
    np.testing.assert_array_equal(chosen["z_text"], latents["z_text"][[3, 0, 0]])
    for wrong in (np.zeros((3, 5)), np.zeros((4, 5, 1))):
        with pytest.raises(InputError, match="latent z_text has shape"):
            Latents(np.arange(4), {"z_text": wrong})


@both
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_parts_come_back_as_the_whole(tmp_path, storage, precision, monkeypatch):
    monkeypatch.setattr(f"{WRITER}.CHUNK", (4, 8))
    latents = draw()
    write(tmp_path / "latents", latents, storage, precision)
    assert [path.name for path in tmp_path.iterdir()] == ["latents"]
    stored, loaded = open_latents(tmp_path / "latents", fingerprint="f"), load_latents(tmp_path / "latents")
    chosen = stored.select(np.array([104, 101, 104]))
    for name, array in latents.items():
        expected = array.astype(precision)
        np.testing.assert_array_equal(loaded[name], expected)
        columns, flat = stored.columns(name), expected.reshape(latents.n, -1)
        assert (columns.shape, columns.dtype) == (flat.shape, np.dtype(precision))
        np.testing.assert_array_equal(columns[:, 1:5], flat[:, 1:5])
        np.testing.assert_array_equal(chosen.columns(name)[:, 2:4], flat[[4, 1, 4], 2:4])
    assert chosen.stimulus_ids.tolist() == [104, 101, 104]
    np.testing.assert_array_equal(chosen.read()["c_text"], latents["c_text"][[4, 1, 4]].astype(precision))


def test_npy_files_are_plain_and_memory_mapped(folder):
    manifest, loaded = read_manifest(folder), load_latents(folder, fingerprint="f" * 64)
    assert (manifest["backbone"], manifest["choices"]) == ("small", {"caption": "first"})
    for name, array in draw().items():
        content = (folder / f"{name}.npy").read_bytes()
        assert manifest["arrays"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy", allow_pickle=False), array)
        assert isinstance(loaded[name], np.memmap)
        assert not loaded[name].flags.writeable


def test_other_precision_order_and_names_are_stored_as_float32(tmp_path):
    wide = {name: np.asfortranarray(array.astype(np.float64)) for name, array in draw().items()} | {
        "z_sketch": np.ones((10, 2, 2))
    }
    save_latents(tmp_path / "latents", Latents(np.arange(10), wide), "small", "f")
    loaded = load_latents(tmp_path / "latents")
    assert set(loaded) == {*SHAPES, "z_sketch"}
    np.testing.assert_array_equal(loaded["c_text"], draw()["c_text"])
    save_latents(tmp_path / "latents", draw(3).rows(slice(2)), "small", "e")
    assert load_latents(tmp_path / "latents", fingerprint="e").n == 2


@both
def test_a_stopped_writer_continues_where_it_was(tmp_path, storage):
    write(tmp_path / "latents", draw(), storage, stop=6)
    assert not (tmp_path / "latents").exists()
    assert write(tmp_path / "latents", draw(), storage) == 6
    np.testing.assert_array_equal(load_latents(tmp_path / "latents")["c_image"], draw()["c_image"])


@pytest.mark.parametrize("damage", ["another key", "short array", "no record", "nested record"])
def test_unfinished_work_that_cannot_be_used_is_begun_again(tmp_path, damage):
    write(tmp_path / "latents", draw(), stop=6)
    unfinished = tmp_path / ".latents.unfinished"
    if damage == "short array":
        (unfinished / "c_text.npy").write_bytes(b"short")
    elif damage != "another key":
        (unfinished / "progress.json").write_text("" if damage == "no record" else "[" * 100_000)
    latents = draw(seed=1)
    assert write(tmp_path / "latents", latents, key=damage if damage == "another key" else "") == 0
    np.testing.assert_array_equal(load_latents(tmp_path / "latents")["c_image"], latents["c_image"])


def test_columns_can_be_written_too(tmp_path):
    latents = draw()
    writer = LatentWriter(tmp_path / "latents", latents.stimulus_ids, "small", "f", storage="zarr")
    writer.begin(SHAPES)
    for name, array in latents.items():
        flat = array.reshape(latents.n, -1)
        for start in range(0, flat.shape[1], 4):
            writer.write_columns(name, slice(start, min(start + 4, flat.shape[1])), flat[:, start : start + 4])
    writer.finish()
    np.testing.assert_array_equal(load_latents(tmp_path / "latents")["z_image"], latents["z_image"])


def test_large_latents_are_chunked_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{WRITER}.LARGE", 1000)
    write(tmp_path / "latents", draw(), "auto")
    array = zarr.open_array(str(tmp_path / "latents" / "arrays.zarr" / "c_text"), mode="r")
    np.testing.assert_array_equal(array[...], draw()["c_text"].reshape(10, -1))


def test_records_are_kept_apart_by_some_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(f"{WRITER}.INTERVAL", 5.0)
    monkeypatch.setattr(f"{WRITER}.time.monotonic", lambda: clock[0])

    def make():
        return LatentWriter(tmp_path / "latents", draw().stimulus_ids, "small", "f", storage="npy")

    writer = make()
    writer.begin(SHAPES)
    for second, safe in ((104.0, 0), (106.0, 2), (110.0, 2), (111.5, 4)):
        clock[0] = second
        writer.mark("rows", writer.done.get("rows", 0) + 1)
        assert make().done.get("rows", 0) == safe


def test_what_float16_cannot_hold_names_its_image(tmp_path):
    latents = draw()
    latents["z_text"][7, 2] = 1e6
    with pytest.raises(InputError, match=r"latent z_text of image id 107 .*float16"):
        write(tmp_path / "latents", latents, precision="float16")


@both
def test_on_a_full_disk_what_is_written_is_kept(tmp_path, monkeypatch, storage):
    write(tmp_path / "latents", draw(), storage, stop=6)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"{WRITER}.write_json", full)
        with pytest.raises(InputError, match=r"no space left.*\.latents\.unfinished"):
            write(tmp_path / "latents", draw(), storage)
    assert write(tmp_path / "latents", draw(), storage) == 6
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="no space left"):
        write(tmp_path / "other", draw())


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(("stimulus_ids", *SHAPES)), position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(folder, name, position, bit):
    flip(folder / f"{name}.npy", position, bit)
    with pytest.raises(DamagedFileError, match=f"{name}.npy"):
        load_latents(folder)
    flip(folder / f"{name}.npy", position, bit)


@both
def test_content_that_changed_under_the_same_time_is_found_when_opened_again(tmp_path, storage):
    write(tmp_path / "latents", draw(), storage)
    known = open_latents(tmp_path / "latents").manifest_sha256
    assert reopen_latents(tmp_path / "latents", known).manifest_sha256 == known
    path = tmp_path / "latents" / ("z_text.npy" if storage == "npy" else "arrays.zarr/z_text/c/0/0")
    flip(path, -3)
    with pytest.raises(DamagedFileError, match=r"z_text.*changed or damaged") as caught:
        reopen_latents(tmp_path / "latents", known)
    assert path.is_relative_to(caught.value.path)
    write(tmp_path / "latents", draw(seed=1), storage)
    with pytest.raises(InputError, match="other latents than the decoder"):
        reopen_latents(tmp_path / "latents", known)


def edit(**changes):
    return lambda manifest: manifest.update(changes)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            lambda f: (f / "c_image.npy").write_bytes((f / "c_image.npy").read_bytes()[:-3]),
            r"c_image\.npy is truncated",
        ),
        (lambda f: (f / "z_text.npy").unlink(), r"z_text\.npy is missing"),
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json is missing"),
        *[
            (lambda f, text=text: (f / "manifest.json").write_bytes(text), r"manifest\.json is damaged")
            for text in (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}')
        ],
    ],
)
def test_damaged_folders_are_named(folder, damage, named, verify):
    damage(folder)
    with pytest.raises(InputError, match=named):
        load_latents(folder, verify=verify)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit(format=["unibrain-latents", 2]), "format .*2"),
        (edit(fingerprint=None), "damaged"),
        (edit(storage="pickle"), "damaged"),
        (lambda m: m["arrays"].pop("stimulus_ids"), "damaged"),
        (lambda m: m["arrays"].update(c_text="../../secret.npy"), "damaged"),
        (lambda m: m["arrays"].update({"../../secret": m["arrays"]["c_text"]}), "damaged"),
        (lambda m: m["arrays"]["c_text"].update(dtype="object"), "c_text is float32"),
        (lambda m: m["arrays"]["c_text"].update(shape=[10, 21]), r"c_text.*\(10, 3, 7\)"),
    ],
)
def test_manifests_of_something_else_are_refused(folder, change, named):
    manifest = read_manifest(folder)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=named):
        load_latents(folder)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_npy_is_never_unpickled(folder):
    path = folder / "z_text.npy"
    np.save(path, np.array([Bomb()] * 10, dtype=object), allow_pickle=True)
    manifest = read_manifest(folder)
    about = manifest["arrays"]["z_text"]
    about.update(bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"z_text\.npy"):
        load_latents(folder)


def zarr_2_with_a_pickle(path):
    """A zarr v2 array whose filter is numcodecs' pickle codec."""
    for inner in path.rglob("*"):
        if inner.is_file():
            inner.unlink()
    about = {"zarr_format": 2, "shape": [10, 5], "chunks": [10, 5], "dtype": "|O", "compressor": None, "order": "C"}
    (path / ".zarray").write_text(json.dumps(about | {"fill_value": 0, "filters": [{"id": "pickle", "protocol": 5}]}))
    (path / "0.0").write_bytes(pickle.dumps([Bomb()] * 50))


def change_zarr(**changes):
    def change(path):
        about = json.loads((path / "zarr.json").read_text()) | changes
        (path / "zarr.json").write_text(json.dumps(about))

    return change


@pytest.mark.parametrize(
    "change",
    [
        zarr_2_with_a_pickle,
        change_zarr(codecs=[{"name": "numcodecs.pickle", "configuration": {}}]),
        change_zarr(codecs=[{"name": "bytes", "configuration": {"endian": "big"}}]),
        change_zarr(storage_transformers=[{"name": "other"}]),
        change_zarr(node_type="group"),
        change_zarr(data_type="string"),
        lambda path: (path / "zarr.json").write_text("[" * 100_000),
    ],
)
def test_only_plain_zarr_arrays_are_opened(tmp_path, change):
    write(tmp_path / "latents", draw(), "zarr")
    array = tmp_path / "latents" / "arrays.zarr" / "z_text"
    change(array)
    manifest = read_manifest(tmp_path / "latents")
    manifest["arrays"]["z_text"]["bytes"] = sum(f.stat().st_size for f in array.rglob("*") if f.is_file())
    (tmp_path / "latents" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"z_text is not a zarr .* plain floats"):
        open_latents(tmp_path / "latents", verify=False)


def test_an_object_store_is_read_by_its_address(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    latents = draw()
    write(tmp_path / "latents", latents, "zarr")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "latents"), "/bucket/latents", recursive=True)
    try:
        stored = open_latents("memory://bucket/latents", fingerprint="f")
        np.testing.assert_array_equal(stored.select(np.array([105, 102])).read()["c_text"], latents["c_text"][[5, 2]])
        save_latents(tmp_path / "plain", latents, "small", "f")
        memory.put(str(tmp_path / "plain"), "/bucket/plain", recursive=True)
        for address, fingerprint, named in (
            ("latents", "g", "another backbone"),
            ("nothing", None, "nothing: no latents"),
            ("plain", None, "needs zarr"),
        ):
            with pytest.raises(InputError, match=named):
                open_latents(f"memory://bucket/{address}", fingerprint)
    finally:
        memory.rm("/bucket", recursive=True)


def test_rows_images_and_backbones_that_are_not_there(folder):
    stored = open_latents(folder)
    with pytest.raises(InputError, match=r"image id 7 .*1 of 2"):
        stored.select(np.array([101, 7]))
    with pytest.raises(InputError, match="no row 10"):
        stored.at(np.array([10]))
    with pytest.raises(InputError, match=r"another backbone \(small, ffffffffffff; this one is abc\)"):
        load_latents(folder, fingerprint="abc")
