"""`evaluate`: every metric on what was decoded, beside its shuffled control."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.metrics import METRICS, Comparison, Metric, UnavailableError
from unibrain.evaluation.scores import Score, Scores
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.latents import Latents, StoredLatents
    from unibrain.reconstruction import Decoded
    from unibrain.stimuli import Stimuli

_SHUFFLES = 10
_SHUFFLED_PAIRS = 4000  # enough for a control within a hundredth; keeps 982 large pictures affordable


def evaluate(
    decoded: "Decoded",
    stimuli: "Stimuli",
    backbone: "Backbone",
    *,
    simulated: bool,
    seed: int = 0,
    predicted: "Latents | StoredLatents | None" = None,
    latents: "Latents | StoredLatents | None" = None,
    region_accuracy: Sequence[tuple[str, str, float]] = (),
    metrics: Mapping[str, Metric] = METRICS,
) -> Scores:
    """Score what was decoded against what was seen.

    Parameters
    ----------
    decoded : Decoded
        One picture and caption per image, or one of the two kinds only.
    stimuli : Stimuli
        The pictures that were seen and their captions; all ids of `decoded` must be in it.
    backbone : Backbone
        It embeds captions for their two-way identification; no other member is used.
    simulated : bool
        Whether the scans were simulated; carried along to wherever the numbers are shown.
    seed : int
        Seed of the shuffles.
    predicted, latents : Latents or StoredLatents, optional
        Latents as the decoder predicted them, and the true ones of the same images in the same order.
    region_accuracy : sequence of (latent, region, correlation)
        Prediction accuracy from the voxels of single regions, as from `unibrain.regression.region_accuracy`; carried
        along behind that of all voxels.
    metrics : mapping of str to Metric
        Which metrics; by default all.

    Returns
    -------
    Scores
        The control of each score is the mean over up to ten shuffles in which no item stays with its image. A score
        that cannot be computed here has no value and a note that says what to do.

    Raises
    ------
    InputError
        If there is nothing to score, or an image is not among the stimuli.
    """
    ids = decoded.stimulus_ids
    n = len(ids)
    if n == 0:
        raise InputError("there are no decoded images to score. Reconstruct the test images first.")
    references = [tuple(filter(None, true)) for true in stimuli.captions(ids)]
    items = Comparison(stimuli.pictures(ids), decoded.pictures, references, decoded.captions, backbone)
    orders = derangements(n, min(_SHUFFLES, max(1, _SHUFFLED_PAIRS // n)), seed) if n > 1 else np.empty((0, n), int)
    rows = [metric for metric in metrics.values() if metric.kind != "latent"]
    scores = tuple(_score(metric, items, orders) for metric in track(rows, "scores", unit="metric"))
    accuracy: list[tuple[str, str, float]] = []
    if predicted is not None and latents is not None and n > 1:
        for metric in metrics.values():
            if metric.kind == "latent":
                found = metric.function(predicted, latents)
                accuracy += [(name, "all", float(value)) for name, value in found.items()]
    accuracy += [entry for entry in region_accuracy if entry[:2] not in {known[:2] for known in accuracy}]
    return Scores(scores, tuple(int(identity) for identity in ids), tuple(accuracy), simulated)


def _score(metric: Metric, items: Comparison, orders: NDArray[np.int64]) -> Score:
    n, title = len(items.seen), metric.title.format(backbone=items.backbone.name)
    try:
        _require(metric, items)
        measure = metric.function(items)
    except UnavailableError as missing:
        return Score(metric.name, title, metric.kind, None, None, n, metric.higher_is_better, note=str(missing))
    raw, note = measure.values(np.arange(n)), measure.note
    # A picture of one colour correlates with nothing: it counts as 0 rather than being left out of the mean.
    undefined = int(np.isnan(raw).sum())
    if undefined:
        note = f"{note}; " * bool(note) + f"pictures of one colour, counted as 0: {undefined}"
    values = np.nan_to_num(raw, nan=0.0)
    controls = [np.nan_to_num(measure.values(order), nan=0.0).mean() for order in orders]
    return Score(
        metric.name,
        title,
        metric.kind,
        float(values.mean()),
        float(np.mean(controls)) if controls else None,
        n,
        metric.higher_is_better,
        tuple(float(value) for value in values),
        note,
    )


def _require(metric: Metric, items: Comparison) -> None:
    if metric.kind == "picture" and items.pictures is None:
        raise UnavailableError("no pictures were decoded")
    if metric.kind == "caption" and not all(items.references):
        raise UnavailableError("no captions were given with the pictures: add them to score captions")
    if metric.kind == "caption" and items.captions is None:
        raise UnavailableError("no captions were decoded")


def derangements(n: int, count: int, seed: int) -> NDArray[np.int64]:
    """Random orders in which nothing stays in its place, each equally likely: shape (count, n), for n of at least 2."""
    random = np.random.default_rng(seed)
    orders = np.empty((count, n), np.int64)
    for row in range(count):
        # About 1 in e permutations has no fixed point, whatever n is.
        while ((order := random.permutation(n)) == np.arange(n)).any():
            pass
        orders[row] = order
    return orders
