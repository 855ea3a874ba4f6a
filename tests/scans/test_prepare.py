import numpy as np
import pandas
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.scans.nsd_design import Design
from unibrain.scans.prepare import average_repeats, standardise


def make(seed: int, trials: int, sessions: int, images: int, shared: int) -> tuple[Design, list]:
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(1, sessions + 1), trials)
    ids = rng.integers(0, images, trials * sessions) * 7
    ids[:images] = np.arange(images) * 7  # every image at least once
    design = Design(tuple(range(1, sessions + 1)), session, ids, ids < shared * 7)
    betas = rng.integers(-900, 900, (trials * sessions, 5)).astype(np.int16)
    return design, [(s, betas[session == s]) for s in design.sessions]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_averages_equal_pandas(seed: int) -> None:
    design, sessions = make(seed, trials=30, sessions=2, images=12, shared=4)
    averages = average_repeats(iter(sessions), design)
    table = pandas.DataFrame(np.concatenate([b for _, b in sessions]).astype(float)).groupby(design.stimulus_ids)
    np.testing.assert_allclose(averages.betas, table.mean().to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(averages.stimulus_ids, table.mean().index)
    np.testing.assert_array_equal(averages.repeats, table.size())
    np.testing.assert_array_equal(averages.is_test, averages.stimulus_ids < 28)


def test_a_voxel_outside_the_slab_is_averaged_over_its_other_sessions() -> None:
    design, sessions = make(2, trials=30, sessions=3, images=40, shared=5)
    sessions[1][1][:, 3] = 0
    averages = average_repeats(iter(sessions), design)
    table = pandas.Series(np.concatenate([b[:, 3] for _, b in sessions]).astype(float))
    table[design.session == 2] = np.nan
    expected = table.groupby(design.stimulus_ids).mean().to_numpy()
    known = np.isfinite(expected)
    assert averages.partial.tolist() == [3]
    np.testing.assert_array_equal(averages.missing[:, 0], ~known)
    np.testing.assert_allclose(averages.betas[known, 3], expected[known], rtol=1e-5)

    z, _, statistics = standardise(averages)
    training = pandas.Series(expected[~averages.is_test])
    assert statistics is not None
    np.testing.assert_allclose(statistics[:, 3], [training.mean(), training.std()], rtol=1e-5)
    np.testing.assert_allclose(z[known, 3], (expected[known] - training.mean()) / training.std(), atol=1e-5)
    assert not known.all()
    np.testing.assert_array_equal(z[~known, 3], 0)


def test_many_voxels_are_treated_block_by_block_alike() -> None:
    design, sessions = make(3, trials=30, sessions=2, images=12, shared=4)
    few, *_ = standardise(average_repeats(iter(sessions), design))
    wide = [(s, np.tile(b, (1, 500))) for s, b in sessions]
    many, kept, _ = standardise(average_repeats(iter(wide), design))
    assert kept.shape == (2500,)
    np.testing.assert_array_equal(many, np.tile(few, (1, 500)))


def test_a_voxel_that_changes_only_over_test_images_is_dropped() -> None:
    design, sessions = make(4, trials=30, sessions=2, images=12, shared=4)
    for session, betas in sessions:
        betas[~design.is_shared[design.session == session], 2] = 77
    z, kept, statistics = standardise(average_repeats(iter(sessions), design))
    assert kept.tolist() == [True, True, False, True, True]
    assert z.shape == (12, 4)
    assert statistics is not None
    assert statistics.shape == (2, 4)
    assert z.flags.c_contiguous
