"""Bands of voxels: every voxel in exactly one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.errors import InputError
from unibrain.regression.bands import OTHER, band_kernels, check_bands, make_bands


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 10**6))
def test_bands_hold_every_voxel_once(voxels, count, seed):
    rng = np.random.default_rng(seed)
    regions = {f"r{i}": rng.random(voxels) < 0.5 for i in range(count)}
    definition = {f"b{i}": [f"r{i}"] for i in range(count)}
    firsts = np.argmax([*regions.values(), np.ones(voxels, dtype=bool)], axis=0)
    if not set(range(count)) <= set(firsts.tolist()):
        with pytest.raises(InputError, match="has no voxel"):
            make_bands(regions, definition, overlap="first")
        return
    bands = make_bands(regions, definition, overlap="first")
    assert (np.sum(list(bands.values()), axis=0) == 1).all()
    for number, band in enumerate([*definition, OTHER][: len(bands)]):
        np.testing.assert_array_equal(bands[band], firsts == number)
    assert (OTHER in bands) == (count in firsts)


def test_default_bands_join_the_early_areas():
    regions = {
        name: np.zeros(12, dtype=bool) for name in ("V1", "V2", "V3", "V4", "faces", "bodies", "places", "words")
    }
    for voxel, mask in enumerate(regions.values()):
        mask[voxel] = True
    bands = make_bands(regions)
    assert list(bands) == ["early", "faces", "bodies", "places", "words", OTHER]
    assert bands["early"].tolist() == [True] * 4 + [False] * 8
    assert bands[OTHER].sum() == 4


def test_refuses_bands():
    regions = {"V1": np.array([True, True, False]), "V2": np.array([False, True, True]), "V3": np.zeros(3, dtype=bool)}
    with pytest.raises(InputError, match="voxel 1 is in the bands a and b"):
        make_bands(regions, {"a": ["V1"], "b": ["V2"]})
    with pytest.raises(InputError, match="band c has no voxel"):
        make_bands(regions, {"a": ["V1"], "c": ["V3"]})
    with pytest.raises(InputError, match="band a is made of region V9, expected some of V1, V2, V3"):
        make_bands(regions, {"a": ["V1", "V9"]})
    with pytest.raises(InputError, match="no regions to make bands of"):
        make_bands({}, {"a": ["V1"]})
    with pytest.raises(InputError, match="voxel 2 is in no band"):
        check_bands({"a": regions["V1"]}, 3)
    with pytest.raises(InputError, match=r"shape \(3,\), expected bool of shape \(4,\)"):
        check_bands({"a": regions["V1"]}, 4)
    with pytest.raises(InputError, match="band a has no voxel"):
        band_kernels(np.ones((5, 3)), {"a": regions["V3"], "b": ~regions["V3"]})
    with pytest.raises(InputError, match="there are 0 bands"):
        check_bands({}, 3)
