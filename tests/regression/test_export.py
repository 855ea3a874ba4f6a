"""Primal weights, on request."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from stored_targets import SHAPES, VOXELS, M, N, flat

from unibrain.errors import InputError
from unibrain.regression import BrainDecoder, export_weights


@pytest.mark.parametrize("parameters", [{"alpha": 20.0}, {"alpha_per": "target"}])
def test_exported_weights_are_those_of_ridge(tmp_path, data, stored, parameters, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(memory=2e-4, **parameters).fit(X[:N], stored.at(np.arange(N)))
    for name in SHAPES:
        Y = flat(latents, name)[:N].astype(float)
        alpha = np.broadcast_to(decoder.alphas_[name], Y.shape[1])
        expected = Ridge(alpha).fit(X[:N].astype(float), Y).coef_.T
        found = export_weights(decoder, name)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        part = export_weights(decoder, name, [4, 1], np.arange(VOXELS) < 7, path=tmp_path / "weights.npy")
        np.testing.assert_allclose(part, found[:7, [4, 1]], atol=1e-6)
        assert np.load(tmp_path / "weights.npy", allow_pickle=False).shape == (7, 2)
        regions = {"a": np.arange(VOXELS) == 3, "b": np.arange(VOXELS) >= 58}
        np.testing.assert_allclose(
            export_weights(decoder, name, slice(2, 5), regions=regions), found[[3, 58, 59], 2:5], atol=1e-6
        )
    with pytest.raises(InputError, match="'z'"):
        export_weights(decoder, "z")
    with pytest.raises(InputError, match=r"targets.* 6"):
        export_weights(decoder, "z_text", [6])
    with pytest.raises(InputError, match=r"voxels.*regions"):
        export_weights(decoder, "z_text", voxels=[1], regions=regions)


def test_exported_weights_predict(data, stored):
    X = data[0]
    decoder = BrainDecoder(alpha=20.0, rescale="none").fit(X[:N], stored.at(np.arange(N)))
    weights = export_weights(decoder, "c_image").astype(float)
    mean = flat(data[1], "c_image")[:N].mean(axis=0)
    expected = (X[N:] - decoder.betas_mean_) @ weights + mean
    np.testing.assert_allclose(decoder.predict(X[N:])["c_image"].reshape(M, -1), expected, atol=1e-4)
