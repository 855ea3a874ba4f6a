"""NSD-Synthetic and NSD-Imagery against written miniatures; what comes out is known from the volumes they hold."""

from collections.abc import Callable

import nibabel
import numpy as np
import pandas
import pytest
from further_tree import RUNS, write_betas, write_imagery, write_synthetic
from scipy.io import savemat

from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, Subject, read_nsd
from unibrain.scans.nsd_further import IMAGERY_RUNS, read_further
from unibrain.scans.nsd_layout import NsdLayout


def volumes_of(layout: NsdLayout, subject: Subject) -> np.ndarray:
    """The three trials of each of the six test images, shape (6, 3, X, Y, Z), int16 as stored."""
    sessions = [np.asanyarray(nibabel.load(layout.betas(n, "nifti")).dataobj) for n in (1, 2, 3)]
    trials = np.moveaxis(np.concatenate(sessions, axis=3), 3, 0)
    shown = pandas.read_csv(layout.responses, sep="\t")["73KID"].to_numpy() - 1
    return np.stack([trials[shown == identity] for identity in subject.test.stimulus_ids])


def inside(subject: Subject, volumes: np.ndarray) -> np.ndarray:
    """Voxels of the subject, last axis."""
    return volumes.reshape(*volumes.shape[:-3], -1)[..., subject.voxel_indices]


@pytest.mark.parametrize("kind", ["hdf5", "nifti"])
def test_the_same_volumes_give_what_they_give_as_test_images(own_tree: NsdLayout, kind: str) -> None:
    subject = read_nsd(own_tree.root)
    volumes = volumes_of(own_tree, subject)
    write_imagery(own_tree, volumes, volumes[::-1], kind=kind)
    found = read_further(own_tree, "nsd-imagery", subject)
    always = (inside(subject, volumes) != 0).all(axis=(0, 1))  # one voxel was outside the slab in one session
    assert 0 < (~always).sum() < 9
    for task, rows, repeats in (("seen", slice(None), 3), ("imagined", slice(None, None, -1), 6)):
        np.testing.assert_allclose(found[task].betas[:, always], subject.test.betas[rows][:, always], atol=1e-5)
        assert found[task].stimulus_ids.tolist() == list(range(6))
        assert found[task].repeats.tolist() == [repeats] * 6
        assert found[task].is_test.all()
        assert found[task].simulated
        np.testing.assert_array_equal(found[task].regions["V1"], subject.regions["V1"])
        assert found[task].preparation["identified_repeats"] > 0.8
    assert RUNS == IMAGERY_RUNS


def test_statistics_of_the_set_itself_where_they_are_asked_for(own_tree: NsdLayout) -> None:
    subject = read_nsd(own_tree.root, 1, PrepareSettings(zscore="session"))
    order = np.array([3, 1, 1, 4, 3, 2, 1])
    volumes = np.random.default_rng(4).normal(50, 600, (7, *subject.grid_shape)).astype(np.int16)
    where = np.unravel_index(subject.voxel_indices[5], subject.grid_shape)
    volumes[(slice(None), *where)] = 0
    write_synthetic(own_tree, order, volumes, "nifti")
    found = read_further(own_tree, "nsd-synthetic", subject, zscore="set")
    trials = pandas.DataFrame(inside(subject, volumes).astype(float))
    expected = ((trials - trials.mean()) / trials.std()).groupby(order - 1).mean().fillna(0)
    assert list(found) == ["seen"]
    np.testing.assert_allclose(found["seen"].betas, expected, atol=1e-5)
    assert found["seen"].repeats.tolist() == [3, 1, 2, 1]
    assert (found["seen"].betas[:, 5] == 0).all(), "not measured: the mean"
    assert found["seen"].statistics is None
    raw = read_nsd(own_tree.root, 1, PrepareSettings(zscore="none"))
    found = read_further(own_tree, "nsd-synthetic", raw)
    np.testing.assert_allclose(found["seen"].betas, trials.groupby(order - 1).mean() / 300, rtol=1e-5)


def edit(run: str, **values: object) -> Callable[[NsdLayout], None]:
    def spoil(layout: NsdLayout) -> None:
        table = pandas.read_csv(layout.imagery_responses(run), sep="\t")
        for name, value in values.items():
            table[name] = table[name].astype(object)
            table.loc[4, name] = value
        table.to_csv(layout.imagery_responses(run), sep="\t", index=False)

    return spoil


def pairs(*rows: tuple[object, ...]) -> Callable[[NsdLayout], None]:
    def spoil(layout: NsdLayout) -> None:
        cells = np.empty((len(rows), len(rows[0])), dtype=object)
        for number, row in enumerate(rows):
            cells[number] = row
        savemat(layout.imagery_pairs["B"], {"pair_list": cells})

    return spoil


def other_betas(shape: tuple[int, ...]) -> Callable[[NsdLayout], None]:
    return lambda layout: write_betas(layout, "nsd-imagery", np.ones(shape, np.int16), "hdf5")


def without(part: str) -> Callable[[NsdLayout], None]:
    return lambda layout: next(layout.root.rglob(part)).unlink()


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (without("betas_nsdimagery.hdf5"), ("betas_nsdimagery.hdf5", "no such file", "--further")),
        (without("nsdimagery_subj01_attB.tsv"), ("attB.tsv", "no such file", "--further")),
        (without("A_pair_list.mat"), ("A_pair_list.mat", "no such file", "--further")),
        (edit("imgB_2", TRIAL=4), ("imgB_2.tsv", "TRIAL", "9 lines")),
        (edit("visA", CONDITION="Q"), ("visA.tsv", "CONDITION Q", "A_pair_list.mat")),
        (edit("visA", TRIAL="one"), ("visA.tsv", "TRIAL", "'one'")),
        (pairs((1.0, "a.png")), ("B_pair_list.mat", "number, picture and letter")),
        (pairs((1.0, "../a.png", "W")), ("B_pair_list.mat", "'../a.png'")),
        (pairs((1.0, "a.png", "H")), ("B_pair_list.mat", "letter H")),
        (pairs((1.0, np.zeros(2), "W")), ("B_pair_list.mat", "cell of pair_list")),
        (lambda layout: savemat(layout.imagery_pairs["A"], {"pair_list": np.eye(3)}), ("A_pair_list.mat", "cells")),
        (other_betas((134, 8, 9, 7)), ("betas_nsdimagery.hdf5", "(134, 7, 9, 8)", "(135, 7, 9, 8)")),
        (other_betas((135, 9, 9, 7)), ("betas_nsdimagery.hdf5", "(135, 7, 9, 9)")),
    ],
)
def test_what_is_wrong_is_named(
    own_tree: NsdLayout, subject: Subject, spoil: Callable[[NsdLayout], None], names: tuple[str, ...]
) -> None:
    write_imagery(own_tree, *np.ones((2, 6, 3, *subject.grid_shape), np.int16))
    spoil(own_tree)
    with pytest.raises(InputError) as caught:
        read_further(own_tree, "nsd-imagery", subject)
    for name in names:
        assert name in str(caught.value)


@pytest.fixture(scope="module")
def subject(tree: object) -> Subject:
    return read_nsd(tree)  # type: ignore[arg-type]


def test_runs_that_lack_what_it_takes(own_tree: NsdLayout) -> None:
    by_session, raw = (read_nsd(own_tree.root, 1, PrepareSettings(zscore=how)) for how in ("session", "none"))
    with pytest.raises(InputError, match=r"session by session.*--zscore set"):
        read_further(own_tree, "nsd-synthetic", by_session)
    with pytest.raises(InputError, match="was not z-scored"):
        read_further(own_tree, "nsd-synthetic", raw, zscore="set")
    with pytest.raises(InputError, match=r"nsdsynthetic_expdesign\.mat.*--further"):
        read_further(own_tree, "nsd-synthetic", raw)
    with pytest.raises(InputError, match="nsd-synthetic, nsd-imagery"):
        read_further(own_tree, "nsd-core", raw)
    write_synthetic(own_tree, np.array([1, 0, 2]), np.ones((3, *raw.grid_shape), np.int16))
    with pytest.raises(InputError, match="masterordering goes from 0"):
        read_further(own_tree, "nsd-synthetic", raw)
