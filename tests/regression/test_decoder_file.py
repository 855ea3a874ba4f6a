"""A decoder's file: the very same predictions, the same bytes, found targets, and what damaged ones say."""

import os
import shutil

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from stored_targets import M, N, make, same, store

from unibrain.errors import DamagedFileError, InputError
from unibrain.regression import BrainDecoder, load_choices

BANDS = {"bands": {"early": ("V1",), "late": ("faces",)}}
REGIONS = {"V1": np.arange(60) < 25, "faces": np.arange(60) >= 25}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("latents", {"folds": 3, "seed": 2}),
        ("mapping", {"alpha_per": "token"}),
        ("array", {"alpha": 3, "rescale": "test"}),
        ("stored", {"folds": "loo", **BANDS}),
    ],
)
def test_a_loaded_decoder_is_the_saved_one(tmp_path, data, stored, kind, parameters):
    X, latents = data
    train = latents.rows(slice(0, N))
    Y = {
        "latents": train,
        "mapping": {"mine.r2": train["c_text"], "mine": train["z_text"].astype(float)},
        "array": train["c_text"],
        "stored": stored.at(np.arange(N)),
    }[kind]
    decoder = BrainDecoder(**parameters, alphas=np.array([1.0, 10.0, 1e4])).fit(
        np.asfortranarray(X[:N]), Y, regions=REGIONS
    )
    decoder.save(tmp_path / "run" / "decoder")
    file = tmp_path / "run" / "decoder" / "decoder.safetensors"
    assert [*file.parent.iterdir()] == [file]
    loaded = BrainDecoder.load(tmp_path / "run" / "decoder")
    expected, found = decoder.predict(X[N:]), loaded.predict(X[N:])
    assert type(found) is type(expected)
    same(*({"y": found}, {"y": expected}) if kind == "array" else (found, expected), 0)
    assert loaded.get_params()["folds"] == decoder.folds
    assert loaded.alpha_ == decoder.alpha_
    assert loaded.n_features_in_ == 60
    np.testing.assert_array_equal(loaded.groups_, decoder.groups_)
    for choices, bands in ((loaded.alpha_choice_, loaded.band_choice_), load_choices(file.parent)):
        assert list(choices) == list(decoder.alpha_choice_)
        for name, choice in choices.items():
            assert choice.describe() == decoder.alpha_choice_[name].describe()
            np.testing.assert_array_equal(choice.r2, decoder.alpha_choice_[name].r2)
        assert (bands is None) == ("bands" not in parameters)
        if bands is not None:
            assert (bands.bands, bands.latents) == (("early", "late"), decoder.band_choice_.latents)
            np.testing.assert_array_equal(bands.shares, decoder.band_choice_.shares)


def test_the_same_decoder_is_the_same_file_that_others_may_read(tmp_path, data, stored):
    X, latents = data
    contents = []
    for number in range(3):
        if number:
            # Another time of the targets' files, and another place of the whole run.
            shutil.copytree(tmp_path / "latents", tmp_path / str(number) / "latents")
            stored = store(tmp_path / str(number) / "latents", latents)
            for path in (tmp_path / str(number)).rglob("*"):
                os.utime(path, ns=(number, number))
        umask = os.umask(0o022)
        try:
            folder = (tmp_path / str(number) if number else tmp_path) / "decoder"
            BrainDecoder(folds=3).fit(X[:N], stored.at(np.arange(N))).save(folder)
        finally:
            os.umask(umask)
        contents.append((folder / "decoder.safetensors").read_bytes())
        assert (folder / "decoder.safetensors").stat().st_mode & 0o777 == 0o644
    assert contents[0] == contents[1] == contents[2]
    assert str(tmp_path).encode() not in contents[0]


# Damage


@pytest.fixture
def saved(tmp_path, data, stored):
    X = data[0]
    BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N))).save(tmp_path / "decoder")
    return tmp_path / "decoder" / "decoder.safetensors"


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files_are_damaged(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(DamagedFileError, match=saved.name) as caught:
        BrainDecoder.load(saved.parent)
    assert caught.value.path == saved


def test_a_flipped_bit_anywhere_is_damage(saved):
    content = saved.read_bytes()
    for place in np.random.default_rng(0).integers(8, len(content), 60).tolist() + list(range(8, 300, 7)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        saved.write_bytes(flipped)
        with pytest.raises(DamagedFileError) as caught:
            BrainDecoder.load(saved.parent)
        assert caught.value.path == saved


def test_a_flipped_bit_of_the_choice_is_damage_where_only_that_is_read(tmp_path, data):
    X, latents = data
    decoder = BrainDecoder(folds=3).fit(X[:N], latents.rows(slice(0, N)))
    decoder.save(tmp_path)
    file = tmp_path / "decoder.safetensors"
    content = bytearray(file.read_bytes())
    place = content.index(decoder.alpha_choice_["c_text"].r2.tobytes())
    content[place + 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedFileError):
        load_choices(tmp_path)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(NotFittedError):
        BrainDecoder().save(tmp_path)
    for load in (BrainDecoder.load, load_choices):
        with pytest.raises(InputError, match=r"decoder\.safetensors does not exist"):
            load(tmp_path)


# Targets that a decoder refers to


def test_a_run_may_be_moved_as_a_whole(tmp_path, data, saved):
    expected = BrainDecoder.load(saved.parent).predict(data[0][N:])
    (tmp_path / "elsewhere").mkdir()
    for name in ("latents", "decoder"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    same(BrainDecoder.load(tmp_path / "elsewhere" / "decoder").predict(data[0][N:]), expected, 0)


def test_missing_targets_are_named_and_may_be_elsewhere(tmp_path, data, saved):
    (tmp_path / "latents").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=str(tmp_path / "latents")):
        BrainDecoder.load(saved.parent)
    found = BrainDecoder.load(saved.parent, targets=tmp_path / "moved").predict(data[0][N:])
    assert found.n == M


def test_changed_targets_are_refused(tmp_path, saved):
    chunk = tmp_path / "latents" / "arrays.zarr" / "c_text" / "c" / "0" / "0"
    content, times = bytearray(chunk.read_bytes()), chunk.stat()
    content[0] ^= 1
    chunk.write_bytes(content)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedFileError, match="c_text"):
        BrainDecoder.load(saved.parent)
    store(tmp_path / "latents", make(seed=1)[1])
    with pytest.raises(InputError, match="other latents"):
        BrainDecoder.load(saved.parent)
