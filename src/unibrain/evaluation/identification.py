"""Two-way identification: is a decoded item closer to its own image than to another one?"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlations", "identify", "two_way_identification"]


def correlations(true_features: NDArray[np.floating], decoded_features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation of every true image's features with every decoded item's features.

    Parameters
    ----------
    true_features, decoded_features : ndarray of shape (n, ...) and (m, ...)
        Features; everything after the first axis is flattened.

    Returns
    -------
    ndarray of shape (n, m), float64
        ``[i, j]`` belongs to true image i and decoded item j; NaN where one of the two is constant.

    Raises
    ------
    ValueError
        If the two have different numbers of features.
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
    """Two-way identification from a matrix of similarities.

    Parameters
    ----------
    similarity : ndarray of shape (n, n)
        ``[i, j]`` belongs to true image i and decoded item j.

    Returns
    -------
    ndarray of shape (n,), float64, 0 to 1
        For each decoded item j, the share of the other true images i with ``[i, j] < [j, j]``: a tie and a NaN fail.
        Chance is 0.5.

    Raises
    ------
    ValueError
        If the matrix is not square, or there is only one image.
    """
    n = len(similarity)
    if similarity.shape != (n, n) or n < 2:
        raise ValueError(f"a similarity matrix of shape {similarity.shape} is not square with at least two images")
    # The diagonal is never below itself, so it does not count.
    wins = (similarity < np.diagonal(similarity)[None, :]).sum(axis=0)
    share: NDArray[np.float64] = wins / (n - 1)
    return share


def two_way_identification(
    true_features: NDArray[np.floating], decoded_features: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Two-way identification of each decoded item among all true images.

    The decoded item is fixed and compared with all true images, as in the public evaluation scripts of Brain-Diffuser
    (Ozcelik and VanRullen 2023) and MindEye (Scotti et al. 2023); the similarity is Pearson's correlation of features.

    Parameters
    ----------
    true_features, decoded_features : ndarray of shape (n, ...)
        Features of true images and decoded items, row by row.

    Returns
    -------
    ndarray of shape (n,), float64, 0 to 1
        Share of the other images that are correctly told apart; chance is 0.5. A constant decoded item scores 0.

    Examples
    --------
    >>> two_way_identification(np.eye(3), np.eye(3))
    array([1., 1., 1.])
    """
    return identify(correlations(true_features, decoded_features))
