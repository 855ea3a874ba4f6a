"""Two-way identification: is a decoded item closer to its own image than to another one?"""

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-9  # correlations of features that are equal differ by less, from rounding alone


def correlations(true_features: NDArray[np.floating], decoded_features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation of every true image's features with every decoded item's features.

    Features have shape (n, ...) and (m, ...); the result (n, m): ``[i, j]`` belongs to true image i and decoded item j,
    NaN where one of the two is constant.
    """
    true, decoded = _standardised(true_features), _standardised(decoded_features)
    if true.shape[1] != decoded.shape[1]:
        raise ValueError(f"{true.shape[1]} true and {decoded.shape[1]} decoded features cannot be correlated")
    return true @ decoded.T


def _standardised(features: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    constant = (rows == rows[:, :1]).all(axis=1)
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # A constant row has no correlation. Rounding in the mean can leave it a tiny length, so it is looked at by itself.
    length[constant] = np.nan
    standardised: NDArray[np.float64] = centred / np.where(length == 0, np.nan, length)
    return standardised


def identify(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-way identification from a matrix of similarities, as from `correlations`.

    For each decoded item j, the share of the other true images i with ``[i, j] < [j, j]``: the decoded item is fixed
    and compared with all true images, as in the public evaluation scripts of Brain-Diffuser (Ozcelik and VanRullen
    2023) and MindEye (Scotti et al. 2023). A tie and a NaN fail; without ties, chance is 0.5.

    Examples
    --------
    >>> identify(np.array([[0.9, 0.3], [0.4, 0.2]]))
    array([1., 0.])
    """
    wins = similarity < _own(similarity) - _SAME
    # The diagonal is never below itself, so it does not count.
    share: NDArray[np.float64] = wins.sum(axis=0) / (len(similarity) - 1)
    return share


def count_ties(similarity: NDArray[np.float64]) -> int:
    """How many of the n (n - 1) comparisons of `identify` are ties: both images are equally close."""
    # A NaN is neither closer nor equally close.
    same = np.abs(similarity - _own(similarity)) <= _SAME
    return int(same.sum() - same.diagonal().sum())


def _own(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(similarity)
    if similarity.shape != (n, n) or n < 2:
        raise ValueError(f"a similarity matrix of shape {similarity.shape} is not square with at least two images")
    return np.diagonal(similarity)[None, :]
