"""Which rows are left out together: folds of images, or one image at a time."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["Scheme", "batches", "split_folds", "split_images"]

Scheme = int | Literal["loo"]
"""Number of folds, or ``"loo"``: leave out one image (all its repeats) at a time."""

BATCH_ROWS = 1024
"""Small groups are worked on together, up to this many rows."""


def split_folds(stimulus_ids: NDArray[np.int64], folds: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Rows that each fold leaves out; rows of the same image stay together.

    Parameters
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row.
    folds : int
        Number of folds, at least 2 and at most the number of images.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    list of ndarray of int64
        Row numbers, ascending; every row is in exactly one fold.

    Raises
    ------
    InputError
        If there are fewer than two folds, or more folds than images.
    """
    images, image_of_row = np.unique(stimulus_ids, return_inverse=True)
    if folds < 2:
        raise InputError(f"folds is {folds}, expected at least 2: choose 2 to {len(images)} folds")
    if folds > len(images):
        raise InputError(
            f"{folds} folds for {len(images)} training images, expected at most one fold per image: "
            "choose fewer folds or add images"
        )
    fold_of_image = np.random.default_rng(seed).permutation(len(images)) % folds
    return [np.flatnonzero(fold_of_image[image_of_row] == fold) for fold in range(folds)]


def split_images(stimulus_ids: NDArray[np.int64], scheme: Scheme, seed: int = 0) -> list[NDArray[np.int64]]:
    """Rows that are left out together, by folds or one image at a time.

    Parameters
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row.
    scheme : int or "loo"
        Number of folds, or one image at a time.
    seed : int
        Seed of the folds; leaving out one image needs none.

    Returns
    -------
    list of ndarray of int64
        Row numbers, ascending; every row is in exactly one group, all rows of an image in the same.

    Raises
    ------
    InputError
        If the scheme is no number and not ``"loo"``, there are fewer than two folds or images, or more folds than
        images.

    Examples
    --------
    >>> [rows.tolist() for rows in split_images(np.array([7, 3, 7]), "loo")]
    [[1], [0, 2]]
    """
    if isinstance(scheme, int) and not isinstance(scheme, bool):
        return split_folds(stimulus_ids, scheme, seed)
    if scheme != "loo":
        raise InputError(f"scheme is {scheme!r}, expected a number of folds or 'loo': choose one of them")
    order = np.argsort(stimulus_ids, kind="stable")
    starts = np.unique(stimulus_ids[order], return_index=True)[1]
    if len(starts) < 2:
        raise InputError(f"{len(starts)} training images, expected at least two to leave one out: add training images")
    return np.split(order, starts[1:])


def batches(held_out: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    """Stack groups of the same size, so that thousands of small ones are worked on at once.

    Parameters
    ----------
    held_out : sequence of ndarray of int64
        Groups of rows, none empty.

    Yields
    ------
    ndarray of shape (groups, rows), int64
        One group per row.
    """
    sizes = np.array([len(rows) for rows in held_out])
    for size in np.unique(sizes):
        groups = np.stack([held_out[int(group)] for group in np.flatnonzero(sizes == size)])
        step = max(1, BATCH_ROWS // int(size))
        for start in range(0, len(groups), step):
            yield groups[start : start + step]
