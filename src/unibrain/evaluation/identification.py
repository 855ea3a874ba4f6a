"""Is what was decoded closer to its own image than to others? Two-way, N-way, top-k, and in the space of latents.

Everything follows from one matrix of similarities, ``[i, j]`` of true image i and decoded item j, and from one count:
how many other images an item's own image beats. A tie is no win, and neither is a comparison with NaN.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError

Direction = Literal["recon->images", "image->recons"]
DIRECTIONS: tuple[Direction, ...] = ("recon->images", "image->recons")
"""Who is compared with all others: a decoded item with all true images (the usual way), or an image with all items."""

SAME = 1e-9
"""Correlations of features that are equal differ by less, from rounding alone."""

_BLOCK_BYTES = 2**26
_MEMORY = 1e9  # bytes for blocks of latents that are read


def correlations(
    true_features: Sequence[NDArray[Any]] | NDArray[Any], decoded_features: Sequence[NDArray[Any]] | NDArray[Any]
) -> NDArray[np.float64]:
    """Pearson correlation of every true image's features with every decoded item's features.

    Features have shape (n, ...) and (m, ...), and any float type, or are lists of such rows, which may lie on disk:
    they are read in blocks. The result (n, m): ``[i, j]`` belongs to true image i and decoded item j, NaN where one of
    the two is constant. Double precision throughout, so that equal features tie.
    """
    true, decoded = ([np.asarray(row).reshape(-1) for row in rows] for rows in (true_features, decoded_features))
    widths = sorted({len(row) for row in (*true, *decoded)})
    if len(widths) > 1:
        raise InputError(
            f"Features have {' and '.join(map(str, widths))} dimensions. Use the same network for true images and for "
            "decoded items."
        )
    width = widths[0] if widths else 0
    step = max(64, _BLOCK_BYTES // (8 * max(1, len(true) + len(decoded))))
    starts = range(0, width if true and decoded else 0, step)
    blocks = (tuple(np.stack([row[at : at + step] for row in side]) for side in (true, decoded)) for at in starts)
    return _correlate(blocks, len(true), len(decoded))


def _correlate(blocks: Iterable[tuple[NDArray[Any], ...]], rows: int, columns: int) -> NDArray[np.float64]:
    """Correlation of two matrices' rows from blocks of their columns, each of which is looked at once."""
    product, count = np.zeros((rows, columns)), 0
    sums: list[NDArray[np.float64]] = [np.zeros(rows), np.zeros(columns)]
    squares: list[NDArray[np.float64]] = [np.zeros(rows), np.zeros(columns)]
    shifts: list[NDArray[np.float64]] = []
    for block in blocks:
        if not shifts:
            # A row's own shift changes no correlation, but leaves few digits to cancel, and nothing of a constant row.
            shifts = [np.median(side[:, :64].astype(np.float64), axis=1, keepdims=True) for side in block]
        width = block[0].shape[1]
        step = max(1, _BLOCK_BYTES // (8 * (rows + columns)))
        for start in range(0, width, step):
            a, b = (side[:, start : start + step] - shift for side, shift in zip(block, shifts, strict=True))
            product += a @ b.T
            for side, values in enumerate((a, b)):
                sums[side] += values.sum(axis=1)
                squares[side] += np.einsum("ij,ij->i", values, values)
        count += width
    if not count:
        return np.full((rows, columns), np.nan)
    product -= np.outer(sums[0], sums[1]) / count
    lengths = [np.sqrt(np.maximum(square - total**2 / count, 0)) for square, total in zip(squares, sums, strict=True)]
    # What rounding leaves of a length is no length.
    for side, length in enumerate(lengths):
        length[length**2 <= 1e-15 * squares[side]] = np.nan
    found: NDArray[np.float64] = product / lengths[0][:, None] / lengths[1]
    return found


def count_wins(
    similarity: NDArray[np.float64], direction: Direction = "recon->images", truth: ArrayLike | None = None
) -> NDArray[np.int64]:
    """How many others each item's own image beats, shape (m,).

    `similarity` has shape (n, m), as from `correlations`. The true image of item j is row ``truth[j]``; without `truth`
    it is row j, and rows beyond m are further images of the pool. From image to recons, the true images of the items
    are asked, and the others are the other items.
    """
    compared, own = _sides(similarity, direction, truth)
    wins: NDArray[np.int64] = (compared < _own_similarity(compared, own) - SAME).sum(axis=0)
    return wins


def _sides(
    similarity: NDArray[np.float64], direction: Direction, truth: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The matrix with one column for each who is asked, and the row of each one's own partner."""
    pool, items = similarity.shape
    own = np.arange(items) if truth is None else np.asarray(truth, dtype=np.int64)
    if own.shape != (items,) or (items and not 0 <= own.min() <= own.max() < pool):
        raise InputError(f"The true images of {items} decoded items are to be among {pool} rows. Name one row each.")
    if direction not in DIRECTIONS:
        raise InputError(f"direction is {direction!r}. Choose one of {', '.join(DIRECTIONS)}.")
    if direction == "image->recons":
        compared, own = similarity[own].T, np.arange(items)
    else:
        compared = similarity
    if len(compared) < 2:
        raise InputError(f"Identification compares with other images, and the pool has {len(compared)}. Give two.")
    return compared, own


def _own_similarity(compared: NDArray[Any], own: NDArray[np.int64]) -> NDArray[Any]:
    return compared[own, np.arange(compared.shape[1])]


def identify(
    similarity: NDArray[np.float64],
    direction: Direction = "recon->images",
    *,
    way: int = 2,
    truth: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """N-way identification, two-way by default: one value per decoded item (or image), shape (m,).

    The expected share of successes over all sets of ``way - 1`` others that may be drawn as distractors, exactly and
    without drawing: ``C(wins, way - 1) / C(pool - 1, way - 1)``. Without ties, chance is ``1 / way``. Two-way, from
    recon to images, it is what the public scripts of Brain-Diffuser (Ozcelik and VanRullen 2023) and MindEye (Scotti et
    al. 2023) compute.

    Examples
    --------
    >>> similarity = np.array([[0.9, 0.3], [0.1, 0.2]])
    >>> identify(similarity)
    array([1., 0.])
    >>> identify(similarity, "image->recons")
    array([1., 1.])
    """
    wins = count_wins(similarity, direction, truth)
    pool = len(similarity) if direction == "recon->images" else similarity.shape[1]
    if not 2 <= way <= pool:
        raise InputError(f"{way}-way identification needs {way} images, and the pool has {pool}. Choose 2 to {pool}.")
    different, places = np.unique(wins, return_inverse=True)
    # Whole numbers of any size: their quotient is rounded once.
    shares = np.array([comb(int(number), way - 1) / comb(pool - 1, way - 1) for number in different])
    return shares[places]


def retrieve(
    similarity: NDArray[np.float64], k: int = 1, direction: Direction = "recon->images", truth: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Top-k retrieval: whether each item's own image is among the k most similar of the pool, shape (m,); its mean is
    the score, and chance is ``k / pool``. A tie fails, as everywhere: all equal images count as closer.
    """
    pool = len(similarity) if direction == "recon->images" else similarity.shape[1]
    if not 1 <= k <= pool:
        raise InputError(f"Top-{k} retrieval needs {k} images, and the pool has {pool}. Choose 1 to {pool}.")
    found: NDArray[np.bool_] = count_wins(similarity, direction, truth) >= pool - k
    return found


def count_ties(
    similarity: NDArray[np.float64], direction: Direction = "recon->images", truth: ArrayLike | None = None
) -> int:
    """How many of the m (n - 1) comparisons of `identify` are ties: both images are equally close."""
    compared, own = _sides(similarity, direction, truth)
    # A NaN is neither closer nor equally close.
    same = np.abs(compared - _own_similarity(compared, own)) <= SAME
    return int(same.sum() - _own_similarity(same, own).sum())


def win_table(similarity: NDArray[np.float64], direction: Direction = "recon->images") -> NDArray[np.int64]:
    """``[i, j]``: how many others would be beaten if item j were decoded from image i.

    From recon to images, item j then beats other images; from image to recons, image i beats other items. The diagonal
    is `count_wins`; any relabelling of the items is a look-up.
    """
    if direction == "image->recons":
        return win_table(similarity.T).T
    table = np.empty(similarity.shape, np.int64)
    for item, column in enumerate(similarity.T):
        # NaNs are sorted to the end: nothing finite beats them.
        table[:, item] = np.searchsorted(np.sort(column), column - SAME)
    table[np.isnan(similarity)] = 0
    return table


def centroids(features: NDArray[Any], clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean features of the images of each cluster, shape (k, ...), for clusters numbered from 0 without a gap."""
    numbers, sizes = np.unique(clusters, return_counts=True)
    if len(clusters) != len(features) or not np.array_equal(numbers, np.arange(len(numbers))):
        raise InputError(
            f"Clusters of {len(clusters)} images, numbered {numbers[:3].tolist()} and on, do not fit {len(features)} "
            "rows of features. Number them from 0, one per row."
        )
    order = np.argsort(clusters, kind="stable")
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(features[order].astype(np.float64), starts, axis=0)
    found: NDArray[np.float64] = sums / sizes.reshape(-1, *[1] * (features.ndim - 1))
    return found


def cluster_identification(similarity: NDArray[np.float64], clusters: ArrayLike) -> NDArray[np.bool_]:
    """Whether each decoded item is closer to the centre of its own cluster than to any other, shape (m,).

    `similarity` has shape (k, m): correlations of the clusters' `centroids` with the decoded items; `clusters` is the
    row of each item's own. Chance is ``1 / k``. A decoder that has learnt categories, not pictures, is good at clusters
    that it was trained on, and no better than chance at those left out.
    """
    return retrieve(similarity, 1, truth=clusters)


def neighbour_identification(
    similarity: NDArray[np.float64], true_similarity: NDArray[np.float64], neighbours: int
) -> NDArray[np.float64]:
    """Two-way identification among each image's nearest neighbours only, shape (n,): the hardest distractors.

    `true_similarity` of shape (n, n) compares the true images with each other. With n - 1 neighbours it is `identify`.
    """
    n = len(similarity)
    if similarity.shape != true_similarity.shape or similarity.shape != (n, n) or not 1 <= neighbours < n:
        raise InputError(
            f"Among {n} images there are {n - 1} neighbours of each, and {neighbours} are wanted, from similarities of "
            f"shapes {similarity.shape} and {true_similarity.shape}. Give square matrices, and choose fewer."
        )
    near = np.where(np.isnan(true_similarity), -2.0, true_similarity)
    np.fill_diagonal(near, -np.inf)  # behind all others, also where those have no correlation
    order = np.argsort(-near, axis=0, kind="stable")[:neighbours]
    wins = np.take_along_axis(similarity, order, axis=0) < similarity.diagonal() - SAME
    share: NDArray[np.float64] = wins.mean(axis=0)
    return share


@dataclass(frozen=True, eq=False)
class LatentScore:
    """How often one latent's true images are told from the others of a pool.

    `wins` of shape (n,) is how many others each true image beats, `pool` the number of images with the true one, and
    `ties` the comparisons in which both were equally close, which are no wins.
    """

    latent: str
    among: Literal["test", "training"]
    pool: int
    wins: NDArray[np.int64]
    ties: int

    def __repr__(self) -> str:
        return (
            f"LatentScore({self.latent} among {self.pool} {self.among} images: two-way {self.two_way.mean():.3f}, "
            f"top-1 {self.top(1).mean():.3f})"
        )

    @property
    def two_way(self) -> NDArray[np.float64]:
        """Two-way identification of each image, shape (n,); chance is 0.5."""
        return self.wins / (self.pool - 1)

    @property
    def rank(self) -> NDArray[np.int64]:
        """Rank of each true image in the pool, shape (n,): 1 is the most similar."""
        return self.pool - self.wins

    def top(self, k: int) -> NDArray[np.bool_]:
        """Whether each true image is among the k most similar, shape (n,); chance is ``k / pool``."""
        return self.rank <= k


def latent_identification(predicted: Any, true: Any, pool: Any = None) -> tuple[LatentScore, ...]:
    """Identify predicted latents among those of the test images and, with `pool`, among those of all training images.

    Latents are flattened and compared by Pearson's correlation, as features of pictures are (`identify`). The field's
    retrieval compares flattened CLIP latents by their cosine (MindEye), which differs by each row's own mean alone.
    Dimensions are not standardised: that would need statistics of the pool, and the score of an image would change
    with the company that it is in.

    All are Latents, StoredLatents, or mappings of names to arrays of shape (n, ...): `predicted` and `true` of the same
    test images in the same order, `pool` of the training images, each once. They are read in blocks, once. There is one
    score per latent among the test images and, with `pool`, one among the training images and the true one.
    """
    from unibrain.regression.targets import training_targets

    found, truth = training_targets(predicted), training_targets(true)
    others = None if pool is None else training_targets(pool)
    _check_images(found, truth, others)
    scores = []
    for name in found:
        for side in (truth, others):
            if side is not None and side.shapes.get(name) != found.shapes[name]:
                raise InputError(
                    f"Latent {name} is predicted in shape {found.shapes[name]}, and {side.shapes.get(name)} in truth. "
                    "Use latents of one backbone."
                )
        similarity = _stream(truth[name], found[name])
        scores.append(LatentScore(name, "test", len(similarity), count_wins(similarity), count_ties(similarity)))
        if others is not None:
            own = similarity.diagonal()
            similarity = _stream(others[name], found[name])
            wins, ties = (similarity < own - SAME).sum(axis=0), int((np.abs(similarity - own) <= SAME).sum())
            scores.append(LatentScore(name, "training", len(similarity) + 1, wins, ties))
    return tuple(scores)


def _check_images(found: Any, truth: Any, others: Any) -> None:
    if not np.array_equal(found.ids, truth.ids):
        raise InputError(
            "The predicted and the true latents are not of the same images in the same order. Select the true latents "
            "by the predicted ones' stimulus ids."
        )
    if len(truth.ids) < 2:
        raise InputError(f"Identification compares with other images, and there are {len(truth.ids)}. Give two.")
    if others is not None and others.kind == "latents":
        ids, counts = np.unique(others.ids, return_counts=True)
        wrong = [*ids[counts > 1], *np.intersect1d(ids, truth.ids)]
        if wrong:
            raise InputError(
                f"The pool of training latents holds image id {wrong[0]} twice, or it is a test image. Select each "
                "training image once."
            )


def _stream(true: Any, predicted: Any) -> NDArray[np.float64]:
    """Correlations of stored latents, read in blocks of columns."""
    from unibrain.regression.targets import block_width

    width = min(block_width(side, 1, _MEMORY) for side in (true, predicted))
    blocks = zip(true.blocks(width), predicted.blocks(width), strict=True)
    return _correlate(((a, b) for (_, a), (_, b) in blocks), true.shape[0], predicted.shape[0])
