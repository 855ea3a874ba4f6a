"""A decoder's file refers to the targets that it was fitted to, and finds them again."""

import numpy as np
import pytest
from stored_targets import N, make, same, store

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES
from unibrain.regression import BrainDecoder


@pytest.mark.parametrize("parameters", [{"alpha": 20.0}, {"alpha_per": "token"}, {"rescale": "test"}])
def test_a_decoder_refers_to_its_targets(tmp_path, data, stored, parameters):
    X = data[0]
    decoder = BrainDecoder(**parameters).fit(X[:N], stored.at(np.arange(N)))
    expected = decoder.predict(X[N:])
    (tmp_path / "run" / "decoder").mkdir(parents=True)
    path = tmp_path / "run" / "decoder" / "decoder.safetensors"
    decoder.save(path)
    loaded = BrainDecoder.load(path)
    found = loaded.predict(X[N:])
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_array_equal(loaded.alphas_[name], decoder.alphas_[name])
    decoder.save(tmp_path / "whole.safetensors", embed_targets=True)
    same(BrainDecoder.load(tmp_path / "whole.safetensors").predict(X[N:]), expected)


@pytest.fixture
def saved(tmp_path, data, stored):
    BrainDecoder(alpha=20.0).fit(data[0][:N], stored.at(np.arange(N))).save(tmp_path / "decoder.safetensors")
    return tmp_path / "decoder.safetensors"


def test_a_run_may_be_moved_as_a_whole(tmp_path, data, saved):
    expected = BrainDecoder.load(saved).predict(data[0][N:])
    (tmp_path / "elsewhere").mkdir()
    for name in ("latents", "decoder.safetensors"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    same(BrainDecoder.load(tmp_path / "elsewhere" / "decoder.safetensors").predict(data[0][N:]), expected, 1e-12)


def test_missing_targets_are_named_and_may_be_elsewhere(tmp_path, data, saved):
    (tmp_path / "latents").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its training targets are not at .*latents.*put them back"):
        BrainDecoder.load(saved)
    assert len(BrainDecoder.load(saved, targets=tmp_path / "moved").predict(data[0][0])) == 1


def test_changed_targets_are_refused(tmp_path, data, saved):
    chunk = tmp_path / "latents" / "arrays.zarr" / "c_text" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(InputError, match=r"c_text.*does not match its checksum"):
        BrainDecoder.load(saved)
    store(tmp_path / "latents", make(seed=1)[1])
    with pytest.raises(InputError, match="other latents than before"):
        BrainDecoder.load(saved)


def test_targets_in_memory_cannot_be_referred_to(tmp_path, data):
    decoder = BrainDecoder(alpha=20.0).fit(data[0][:N], data[1].rows(slice(0, N)))
    with pytest.raises(InputError, match="the training targets are in memory"):
        decoder.save(tmp_path / "decoder.safetensors", embed_targets=False)
