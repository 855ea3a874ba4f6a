"""How penalties were chosen is read from a decoder's file without its scans and targets."""

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents
from unibrain.regression import BrainDecoder
from unibrain.regression.store import load_choices

SHAPES = ((2, 3, 3), (4,), (3, 5), (2, 5))


def fitted(**parameters):
    rng = np.random.default_rng(0)
    latents = Latents(np.arange(30), *(rng.standard_normal((30, *shape)).astype(np.float32) for shape in SHAPES))
    betas = rng.standard_normal((30, 12)).astype(np.float32)
    regions = {"V1": np.arange(12) < 5, "faces": np.arange(12) >= 5}
    return BrainDecoder(alphas=(1.0, 10.0, 100.0), folds=3, **parameters).fit(betas, latents, regions=regions)


@pytest.mark.parametrize("per", ["latent", "token"])
def test_choices_of_alpha(tmp_path, per):
    decoder = fitted(alpha_per=per)
    decoder.save(tmp_path / "decoder.safetensors")
    choices, bands = load_choices(tmp_path / "decoder.safetensors")
    assert bands is None
    assert set(choices) == set(LATENT_NAMES)
    for name, choice in choices.items():
        assert choice.settings() == decoder.alpha_choice_[name].settings()
        np.testing.assert_array_equal(choice.best, decoder.alpha_choice_[name].best)


def test_choice_of_bands(tmp_path):
    decoder = fitted(bands={"early": ("V1",), "late": ("faces",)})
    decoder.save(tmp_path / "decoder.safetensors")
    _, bands = load_choices(tmp_path / "decoder.safetensors")
    assert bands.bands == decoder.band_choice_.bands
    np.testing.assert_array_equal(bands.shares, decoder.band_choice_.shares)


def test_nothing_was_chosen(tmp_path):
    fitted(alpha=3.0).save(tmp_path / "decoder.safetensors")
    assert load_choices(tmp_path / "decoder.safetensors") == ({}, None)


def test_refuses_what_is_no_decoder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_choices(tmp_path / "decoder.safetensors")
