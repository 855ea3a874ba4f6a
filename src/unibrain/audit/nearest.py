"""Nearest neighbours by cosine, some rows at a time."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest", "unit_rows"]

_VALUES_AT_ONCE = 2**22


def unit_rows(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Divide every row by its length; a row of zeros stays so, and is like nothing.

    Parameters
    ----------
    features : ndarray of shape (n, d)

    Returns
    -------
    ndarray of shape (n, d), float32
    """
    rows = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length == 0, 1, length), dtype=np.float32)


def nearest(
    queries: NDArray[np.float32], keys: NDArray[np.float32], values_at_once: int = _VALUES_AT_ONCE
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the key with the largest cosine for every query.

    The matrix of all cosines is never held: 1,000 x 9,000 pictures take 16 MB beside their features.

    Parameters
    ----------
    queries, keys : ndarray of shape (m, d) and (n, d), float32
        Rows of length 1 (see `unit_rows`). If `queries` is `keys` itself, a row is not its own neighbour.
    values_at_once : int
        Largest number of cosines in memory.

    Returns
    -------
    index : ndarray of shape (m,), int64
        Of the first of equally near ones.
    cosine : ndarray of shape (m,), float32

    Raises
    ------
    ValueError
        If there is no key to be near to.

    Examples
    --------
    >>> points = unit_rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]))
    >>> nearest(points, points)[0]
    array([2, 2, 0])
    """
    itself = queries is keys
    if len(keys) < 1 + itself:
        raise ValueError(f"{len(keys)} rows are too few to have a neighbour among")
    index = np.empty(len(queries), dtype=np.int64)
    cosine = np.empty(len(queries), dtype=np.float32)
    step = max(1, values_at_once // len(keys))
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        cosines = queries[rows] @ keys.T
        if itself:
            cosines[rows - start, rows] = -np.inf
        index[rows] = cosines.argmax(axis=1)
        cosine[rows] = cosines[rows - start, index[rows]]
    return index, np.clip(cosine, -1, 1)
