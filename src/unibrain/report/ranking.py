"""Which images were decoded well: one overall rank out of all scores, and a fair sample of best, median and worst."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unibrain.evaluation.scores import Score

__all__ = ["fair_sample", "overall_rank"]


def overall_rank(scores: Sequence[Score], images: int) -> NDArray[np.float64]:
    """Where each image stands among all, averaged over the scores; pictures and captions count alike.

    Parameters
    ----------
    scores : sequence of Score
        Those without one value per image are left out.
    images : int
        Number of images.

    Returns
    -------
    ndarray of shape (images,), float64, 0 to 1
        1 for an image that is best in every score, 0 for one that is worst in every score. 0.5 where there are no
        scores or no other images.
    """
    from scipy.stats import rankdata

    kinds = []
    for about in ("picture", "caption"):
        ranks = [
            (rankdata(score.per_image if score.higher_is_better else np.negative(score.per_image)) - 1) / (images - 1)
            for score in scores
            if score.about == about and score.per_image and images > 1
        ]
        if ranks:
            kinds.append(np.mean(ranks, axis=0))
    overall: NDArray[np.float64] = np.mean(kinds, axis=0) if kinds else np.full(images, 0.5)
    return overall


def fair_sample(rank: NDArray[np.float64], count: int) -> dict[str, list[int]]:
    """Rows of the best, the median and the worst images, so that nobody is shown the best ones only.

    Parameters
    ----------
    rank : ndarray of shape (n,)
        Higher is better.
    count : int
        How many of each at most; fewer if there are not three times as many images.

    Returns
    -------
    dict of str to list of int
        ``Best`` from the top down, ``Median`` around the middle, ``Worst`` with the very worst last. With fewer than
        three images, only ``All``.
    """
    order = np.argsort(-rank, kind="stable").tolist()
    n = len(order)
    if n < 3:
        return {"All": order}
    count = min(count, n // 3)
    middle = (n - count) // 2
    return {"Best": order[:count], "Median": order[middle : middle + count], "Worst": order[n - count :]}
