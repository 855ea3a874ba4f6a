"""Harder splits: whole clusters of images are left out, beside a naive split of the same sizes.

Test images that are drawn at random have near twins in training, so that a decoder which only knew a few categories
would look good on them. Here images are clustered by what their captions say, and each cluster in turn is left out.
Where the scores of the naive split hold up, pictures are decoded; where they fall, categories were recognised.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.evaluation.identification import centroids, cluster_identification, correlations
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.regression import BrainDecoder
    from unibrain.stimuli import Stimuli

PROJECTED = 64
"""Dimensions that features are projected to before they are clustered: distances survive, and k-means is fast."""

_FORMAT = ("unibrain-folds", 1)
_CAPTIONS_AT_ONCE = 512


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A fold from 0 to k - 1 for every image, each of which is left out in turn; none is empty.

    `name` is ``"clusters"`` or ``"naive"``, `stimulus_ids` and `folds` have shape (n,), int64.
    """

    name: str
    k: int
    seed: int
    stimulus_ids: NDArray[np.int64]
    folds: NDArray[np.int64]

    def __post_init__(self) -> None:
        ids = self.stimulus_ids
        if ids.ndim != 1 or ids.shape != self.folds.shape or len(np.unique(ids)) != len(ids):
            raise InputError(f"The split {self.name} has {ids.size} images and {self.folds.size} folds. Give one each.")
        if self.k < 2 or not np.array_equal(np.unique(self.folds), np.arange(self.k)):
            raise InputError(
                f"The split {self.name} is of {self.k} folds and names {len(np.unique(self.folds))}. Use at least two, "
                "numbered from 0, and images in each."
            )

    def __repr__(self) -> str:
        return f"Split({self.name}, seed {self.seed}: {self.k} folds of {', '.join(map(str, self.sizes))} images)"

    @property
    def sizes(self) -> list[int]:
        """Number of images in each fold."""
        return [int(size) for size in np.bincount(self.folds, minlength=self.k)]

    def of(self, stimulus_ids: ArrayLike) -> NDArray[np.int64]:
        """Fold of each of `stimulus_ids`, in that order, repeats allowed."""
        wanted, order = np.asarray(stimulus_ids, dtype=np.int64), np.argsort(self.stimulus_ids)
        known = self.stimulus_ids[order]
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        absent = wanted[known[places] != wanted]
        if len(absent):
            raise InputError(f"The split {self.name} has no fold for image id {absent[0]}. Split this run's images.")
        return self.folds[order][places]


def caption_features(stimuli: "Stimuli", stimulus_ids: NDArray[np.int64], backbone: "Backbone") -> NDArray[np.float32]:
    """What the captions of each image say, shape (n, width): the mean of their CLIP embeddings."""
    if not stimuli.has_captions:
        raise InputError(f"{stimuli.source}: there are no captions to cluster images by. Import captions.")
    groups = [tuple(filter(None, texts)) for texts in stimuli.captions(stimulus_ids)]
    texts = list(dict.fromkeys(text for group in groups for text in group))
    starts = track(range(0, len(texts), _CAPTIONS_AT_ONCE), "embed captions", unit="batch")
    parts = [backbone.embed("caption", texts[start : start + _CAPTIONS_AT_ONCE]) for start in starts]
    embedded, place = np.concatenate(parts), {text: row for row, text in enumerate(texts)}
    return np.stack([embedded[[place[text] for text in group]].mean(axis=0) for group in groups])


def cluster_split(features: NDArray[np.floating], stimulus_ids: NDArray[np.int64], k: int, seed: int = 0) -> Split:
    """Cluster images by the direction of their features, so that each cluster can be left out.

    Features of shape (n, width), as from `caption_features`, are brought to length 1, projected to `PROJECTED`
    dimensions by a seeded Gaussian matrix if they have more, and clustered by k-means (the best of ten starts). Cluster
    0 is the largest.
    """
    from sklearn.cluster import KMeans
    from sklearn.random_projection import GaussianRandomProjection

    points = features.astype(np.float64)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    different = len(np.unique(points, axis=0))
    if not 2 <= k <= different:
        raise InputError(
            f"{k} clusters of {len(points)} images are wanted, of which {different} have captions of their own. Choose "
            f"2 to {different} clusters."
        )
    if points.shape[1] > PROJECTED:
        points = GaussianRandomProjection(PROJECTED, random_state=seed).fit_transform(points)
    found = KMeans(k, n_init=10, random_state=seed).fit(points).labels_.astype(np.int64)
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    return Split("clusters", k, seed, np.asarray(stimulus_ids, dtype=np.int64), np.argsort(order)[found])


def naive_split(split: Split) -> Split:
    """A split of the same images and sizes in which images are dealt to folds at random, by the same seed."""
    folds = np.random.default_rng(split.seed).permutation(split.folds)
    return Split("naive", split.k, split.seed, split.stimulus_ids, folds)


def write_folds(path: str | os.PathLike[str], splits: Sequence[Split]) -> None:
    """Write splits as JSON, atomically: each with its name, k, seed, and the fold of each stimulus id."""
    written = [
        {
            "name": split.name,
            "k": split.k,
            "seed": split.seed,
            "folds": dict(zip(map(str, split.stimulus_ids.tolist()), split.folds.tolist(), strict=True)),
        }
        for split in splits
    ]
    write_json(Path(path), {"format": _FORMAT, "splits": written})


def read_folds(path: str | os.PathLike[str]) -> tuple[Split, ...]:
    """Read what `write_folds` wrote; anything else is refused with `InputError`."""
    try:
        content = json.loads(Path(path).read_bytes())
        if tuple(content["format"]) != _FORMAT:
            raise ValueError(f"format {content['format']}")
        splits = []
        for entry in content["splits"]:
            ids = np.array([int(identity) for identity in entry["folds"]], dtype=np.int64)
            folds = np.array(list(entry["folds"].values()))
            if folds.dtype.kind != "i":
                raise ValueError("folds that are no whole numbers")
            splits.append(Split(str(entry["name"]), int(entry["k"]), int(entry["seed"]), ids, folds.astype(np.int64)))
        return tuple(splits)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Write one with `unibrain split`.") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, InputError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: this is no file of folds ({reason}). Write one with `unibrain split`.") from error


@dataclass(frozen=True)
class Refit:
    """How well one latent of left-out images is predicted by decoders that never saw their fold.

    `accuracy` is Pearson's r across the images of a fold, mean over dimensions, then over images. Folds are kept apart:
    pooled, the training mean of each, which moves away from what was left out, would count as a prediction.
    `clusters_told` is the share of predictions that are closest to the mean latent of their image's own cluster,
    `chance` what guessing gets of it, and `images` the number of training scans.
    """

    latent: str
    split: str
    accuracy: float
    clusters_told: float
    chance: float
    images: int


def refit_on(decoder: "BrainDecoder", split: Split, clusters: Split) -> tuple[Refit, ...]:
    """Leave each fold of the training images out of a fitted decoder, and predict it from the others.

    Exact, and fast: ridge regressions without a fold follow from the one factorisation that the decoder holds
    (`unibrain.regression.leave_out`). Penalties stay those of the decoder (of a latent with several, their geometric
    mean), which were chosen, and voxels z-scored, with all training images; predictions are not rescaled. Of a latent
    with more than `unibrain.regression.accuracy.SAMPLED_TARGETS` dimensions, so many are drawn.

    `clusters` are the ones that predictions are to tell apart, the same for every split that is compared. There is one
    result per latent.
    """
    from unibrain.regression.accuracy import SAMPLED_TARGETS, latent_accuracy
    from unibrain.regression.leave_out import left_out_operator

    n, fold_of_row = len(decoder.groups_), split.of(decoder.groups_)
    held_out = [np.flatnonzero(fold_of_row == fold) for fold in np.unique(fold_of_row)]
    cluster_of_row = np.unique(clusters.of(decoder.groups_), return_inverse=True)[1]
    if len(held_out) < 2 or cluster_of_row.max() < 1:
        raise InputError(f"All training images are in one fold of {split.k}. Choose another number of clusters.")
    found: dict[str, Refit] = {}
    for system in decoder.systems_:
        made: tuple[float, NDArray[np.float64]] | None = None
        for name in track(system.names, f"leave out {split.name}", unit="latent"):
            alpha, targets = decoder.alpha_[name], decoder.targets_[name]
            if made is None or made[0] != alpha:
                made = alpha, left_out_operator(system.solver, held_out, alpha, np.arange(n))
            width, rng = targets.shape[1], np.random.default_rng(0)
            sampled = np.sort(rng.choice(width, min(width, SAMPLED_TARGETS), replace=False))
            true = targets.take(sampled, decoder.memory * 1e9)
            mean = true.mean(axis=0, dtype=np.float64).astype(true.dtype)
            true -= mean  # small numbers lose nothing in single precision
            predicted = made[1].astype(true.dtype) @ true
            accuracy, counted = 0.0, 0
            for rows in held_out:
                predicted[rows] -= true[rows].sum(axis=0) / (n - len(rows))  # the mean of the images that were kept
                if len(rows) > 1:
                    accuracy += len(rows) * latent_accuracy({name: predicted[rows]}, {name: true[rows]})[name]
                    counted += len(rows)
            similarity = correlations(centroids(true + mean, cluster_of_row), predicted + mean)
            told = float(cluster_identification(similarity, cluster_of_row).mean())
            chance = 1 / len(similarity)
            found[name] = Refit(name, split.name, accuracy / counted if counted else 0.0, told, chance, n)
    return tuple(found[name] for name in decoder.targets_)


def refit_lines(refits: Sequence[Refit]) -> list[str]:
    """Lay out refits on several splits as text: one line per latent, the splits side by side."""
    splits, latents = (list(dict.fromkeys(getattr(refit, key) for refit in refits)) for key in ("split", "latent"))
    by_key = {(refit.latent, refit.split): refit for refit in refits}
    width = max(map(len, [*latents, "latent"]))
    headings = [f"{what}, {name}" for name in splits for what in ("accuracy", "clusters told")]
    lines = [f"{'latent':<{width}}" + "".join(f"  {heading:>23}" for heading in headings)]
    for latent in latents:
        cells = [by_key[latent, name] for name in splits]
        values = [value for cell in cells for value in (cell.accuracy, cell.clusters_told)]
        lines.append(f"{latent:<{width}}" + "".join(f"  {value:>23.3f}" for value in values))
    return [
        *lines,
        f"Accuracy: r across the {refits[0].images:,} training scans, each predicted without its fold, fold by fold.",
        f"Clusters told: predictions closest to their own cluster's mean; guessing gets {refits[0].chance:.3f}, and",
        "what only knows the clusters that it was trained on gets less.",
    ]
