"""The shuffled control: what a metric gives if decoded items are compared with images they do not belong to."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["derangements", "shuffled_control"]


def derangements(n: int, count: int, seed: int) -> NDArray[np.int64]:
    """Random orders in which nothing stays in its place, each equally likely.

    Parameters
    ----------
    n : int
        Length of each order, at least 2.
    count : int
        How many.
    seed : int

    Returns
    -------
    ndarray of shape (count, n), int64

    Raises
    ------
    ValueError
        If `n` is below 2: then there is no such order.
    """
    if n < 2:
        raise ValueError(f"{n} items cannot be shuffled so that none stays in its place")
    random = np.random.default_rng(seed)
    orders = np.empty((count, n), np.int64)
    for row in range(count):
        # About 1 in e permutations has no fixed point, whatever n is.
        while ((order := random.permutation(n)) == np.arange(n)).any():
            pass
        orders[row] = order
    return orders


def shuffled_control(metric: Callable[[NDArray[np.int64]], NDArray[np.float64]], orders: NDArray[np.int64]) -> float:
    """Mean of a metric over shuffled pairings.

    Parameters
    ----------
    metric : callable
        Takes an order, shape (n,): image i is compared with decoded item ``order[i]``; returns n values.
    orders : ndarray of shape (count, n), int64
        As from `derangements`.

    Returns
    -------
    float
        Mean over all images and orders.
    """
    return float(np.mean([metric(order).mean() for order in orders]))
