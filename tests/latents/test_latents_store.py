"""Latents on disk: exact, memory-mapped, and damage is noticed."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents, load_latents, read_manifest, save_latents


def draw(n=6, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (4, 3, 3), (5,), (2, 7), (3, 7)
    ids = np.sort(rng.choice(73_000, n, replace=False))
    return Latents(ids, *(rng.standard_normal((n, *shape)).astype(np.float32) for shape in shapes))


@pytest.fixture
def folder(tmp_path):
    save_latents(tmp_path / "latents", draw(), "small", "f" * 64, {"caption": "first"})
    return tmp_path / "latents"


def test_comes_back_exactly_and_memory_mapped(folder):
    latents, loaded = draw(), load_latents(folder, fingerprint="f" * 64)
    np.testing.assert_array_equal(loaded.stimulus_ids, latents.stimulus_ids)
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(loaded[name], latents[name])
        assert isinstance(loaded[name], np.memmap)
        assert not loaded[name].flags.writeable


def test_files_are_plain_npy_of_float32_and_the_manifest_holds_their_checksums(folder):
    manifest = read_manifest(folder)
    assert (manifest["backbone"], manifest["choices"]) == ("small", {"caption": "first"})
    assert {path.name for path in folder.iterdir()} == {f"{n}.npy" for n in ("stimulus_ids", *LATENT_NAMES)} | {
        "manifest.json"
    }
    for name in LATENT_NAMES:
        content = (folder / f"{name}.npy").read_bytes()
        assert manifest["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert np.load(folder / f"{name}.npy", allow_pickle=False).dtype == np.float32


def test_other_precision_and_order_are_stored_as_float32(tmp_path):
    latents = draw()
    wide = Latents(latents.stimulus_ids, *(np.asfortranarray(a.astype(np.float64)) for _, a in latents.items()))
    save_latents(tmp_path / "latents", wide, "small", "f")
    for name, array in load_latents(tmp_path / "latents").items():
        np.testing.assert_array_equal(array, latents[name])


def test_writing_again_replaces_all(folder):
    save_latents(folder, draw(3, seed=1), "small", "e")
    assert len(load_latents(folder, fingerprint="e")) == 3
    assert [path.name for path in folder.parent.iterdir()] == ["latents"]


def test_refuses_latents_of_another_backbone(folder):
    with pytest.raises(InputError, match=r"another backbone \(small, ffffffffffff\), expected fingerprint abc"):
        load_latents(folder, fingerprint="abc")


def test_refuses_a_folder_without_latents(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json is missing"):
        load_latents(tmp_path)


@pytest.mark.parametrize("verify", [True, False])
def test_refuses_a_truncated_file(folder, verify):
    path = folder / "c_image.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"c_image\.npy: corrupted cache, \d+ bytes found, expected \d+"):
        load_latents(folder, verify=verify)


@settings(deadline=None)
@given(name=st.sampled_from(("stimulus_ids", *LATENT_NAMES)), position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_refuses_any_flipped_bit(tmp_path_factory, name, position, bit):
    folder = tmp_path_factory.mktemp("store") / "latents"
    save_latents(folder, draw(), "small", "f")
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(InputError, match="corrupted cache"):
        load_latents(folder)


def test_refuses_a_missing_file(folder):
    (folder / "z_text.npy").unlink()
    with pytest.raises(InputError, match=r"z_text\.npy: corrupted cache, the file is missing"):
        load_latents(folder)


def replace_array(folder, name, array, allow_pickle=False):
    """Put another array there, with a manifest that vouches for it."""
    path = folder / f"{name}.npy"
    np.save(path, array, allow_pickle=allow_pickle)
    manifest = read_manifest(folder)
    manifest["files"][name].update(bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_never_unpickles(folder):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was executed",)

    replace_array(folder, "z_text", np.array([Bomb()] * 6, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"z_text\.npy: corrupted cache"):
        load_latents(folder)


def test_refuses_another_shape_than_the_manifest_says(folder):
    replace_array(folder, "z_text", np.zeros((6, 4), dtype=np.float32))
    with pytest.raises(InputError, match=r"shape \(6, 4\), expected float32 of shape \(6, 5\)"):
        load_latents(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=3), "format version 3, expected 2"),
        (lambda m: m.update(format="decoder"), "corrupted cache"),
        (lambda m: m["files"].pop("c_text"), "corrupted cache"),
        (lambda m: m["files"].update(c_text="../../secret.npy"), "corrupted cache"),
        (lambda m: m.update(fingerprint=None), "corrupted cache"),
    ],
)
def test_refuses_another_manifest(folder, change, message):
    manifest = read_manifest(folder)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        load_latents(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff\xfe"])
def test_refuses_a_manifest_that_is_none(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="corrupted cache"):
        load_latents(folder)
