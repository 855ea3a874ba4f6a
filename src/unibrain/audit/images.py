"""`Images`: which images were shown, how often, and on which side of the split they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_design import Design
from unibrain.scans.subject import Subject

__all__ = ["Images"]


@dataclass(frozen=True)
class Images:
    """Images on both sides of a split; an id may be on both, which is then a finding.

    Attributes
    ----------
    train_ids, test_ids : ndarray of shape (images,), int64
        0-based stimulus ids, ascending, each once.
    train_repeats, test_repeats : ndarray of shape (images,), int64
        Trials of each.
    """

    train_ids: NDArray[np.int64]
    test_ids: NDArray[np.int64]
    train_repeats: NDArray[np.int64]
    test_repeats: NDArray[np.int64]

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids, ascending, each once."""
        return np.union1d(self.train_ids, self.test_ids)

    @classmethod
    def of(
        cls, stimulus_ids: NDArray[np.int64], is_test: NDArray[np.bool_], trials: NDArray[np.int64] | None = None
    ) -> "Images":
        """Gather the rows of each image.

        Parameters
        ----------
        stimulus_ids : ndarray of shape (rows,), int64
        is_test : ndarray of shape (rows,), bool
        trials : ndarray of shape (rows,), int64, optional
            Trials of each row; 1 by default.

        Returns
        -------
        Images

        Examples
        --------
        >>> images = Images.of(np.array([7, 3, 7]), np.array([False, True, False]))
        >>> images.train_ids, images.train_repeats
        (array([7]), array([2]))
        """
        counts = np.ones(len(stimulus_ids), dtype=np.int64) if trials is None else trials
        sides = []
        for side in (~is_test, is_test):
            ids, rows = np.unique(stimulus_ids[side], return_inverse=True)
            sides.append((ids, np.bincount(rows, weights=counts[side], minlength=len(ids)).astype(np.int64)))
        (train, train_repeats), (test, test_repeats) = sides
        return cls(train, test, train_repeats, test_repeats)

    @classmethod
    def of_subject(cls, subject: Subject) -> "Images":
        """Images of a prepared subject."""
        return cls.of(subject.stimulus_ids, subject.is_test, subject.repeats)

    @classmethod
    def of_design(cls, design: Design) -> "Images":
        """Images of some sessions of NSD."""
        return cls.of(design.stimulus_ids, design.is_shared)
