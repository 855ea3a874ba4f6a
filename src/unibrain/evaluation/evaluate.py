"""`evaluate`: every metric on what was decoded, beside its controls and ceilings, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.controls import CONTROLS
from unibrain.evaluation.dialects import check_images, dialect_metrics
from unibrain.evaluation.features import FeatureCache
from unibrain.evaluation.identification import latent_identification
from unibrain.evaluation.metrics import Comparison, Measure, Metric
from unibrain.evaluation.pictures import SeenPictures
from unibrain.evaluation.scores import TOP, Beside, LatentIdentification, Score, Scores
from unibrain.evaluation.statistics import bootstrap_interval, holm, permutation_p, share_interval
from unibrain.reconstruction import Decoded
from unibrain.workspace.progress import say, track
from unibrain.workspace.provenance import installed

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.latents import Latents, StoredLatents
    from unibrain.stimuli import Stimuli

_LIBRARIES = (
    "unibrain",
    "numpy",
    "scipy",
    "scikit-image",
    "pillow",
    "torch",
    "transformers",
    "nltk",
    "rouge-score",
    "pycocoevalcap",
)
"""What scores depend on."""

_SHUFFLES = 10
_SHUFFLED_PAIRS = 4000  # enough for a control within a hundredth; keeps 982 large pictures affordable


def evaluate(
    decoded: Decoded,
    stimuli: "Stimuli",
    backbone: "Backbone | None",
    *,
    simulated: bool,
    seed: int = 0,
    predicted: "Latents | StoredLatents | None" = None,
    latents: "Latents | StoredLatents | None" = None,
    training: "Latents | StoredLatents | None" = None,
    region_accuracy: Sequence[tuple[str, str, float]] = (),
    metrics: Mapping[str, Metric] | None = None,
    controls: Mapping[str, Decoded] | None = None,
    dialect: str = "standard",
    protocol: str = "none",
    features: Path | None = None,
    known: Mapping[str, Score] | None = None,
) -> Scores:
    """Score what was decoded against what was seen.

    Parameters
    ----------
    decoded : Decoded
        One picture and caption per image, or one of the two kinds only.
    stimuli : Stimuli
        The pictures that were seen and their captions; all ids of `decoded` must be in it.
    backbone : Backbone or None
        It embeds captions for their two-way identification; of the rest, only its name and fingerprint are used. None:
        without that score.
    simulated : bool
        Whether the scans were simulated, and the images are composed scenes; carried along to wherever the numbers are
        shown.
    seed : int
        Seed of the shuffles and of the bootstrap.
    predicted, latents : Latents or StoredLatents, optional
        Latents as the decoder predicted them, and the true ones of the same images in the same order.
    training : Latents or StoredLatents, optional
        Those of the training images, each once: predicted latents are also identified among all of them.
    region_accuracy : sequence of (latent, region, correlation)
        Prediction accuracy from the voxels of single regions, as from `unibrain.regression.region_accuracy`; carried
        along behind that of all voxels.
    metrics : mapping of str to Metric, optional
        Which metrics; by default all of the dialect.
    controls : mapping of str to Decoded, optional
        By name of a row of `CONTROLS`, what stands in the place of the decoded items, for some or all of the images;
        as from `unibrain.evaluation.controls.decode_controls`.
    dialect : str
        Whose definitions of the metrics of pictures: a name in `unibrain.evaluation.dialects.DIALECTS`.
    protocol : str
        Scores of captions as a group computes them, in the place of those of the same name: a name in
        `unibrain.evaluation.caption_protocols.CAPTION_PROTOCOLS`, or ``"none"``.
    features : pathlib.Path, optional
        A folder that keeps features of pictures for the next time.
    known : mapping of str to Score, optional
        What `metric_scores` found before with the same arguments, by name of the metric; it is not computed again.

    Returns
    -------
    Scores
        The shuffled control of each score is the mean over up to ten shuffles in which no item stays with its image.
        Intervals are bootstraps over images; p is from permutations of the images, where that is affordable, corrected
        by Holm's method over the metrics. A score that cannot be computed here has no value and a note that says what
        to do.

    Raises
    ------
    InputError
        If there is nothing to score, or an image is not among the stimuli.
    """
    ids = decoded.stimulus_ids
    n = len(ids)
    if n == 0:
        raise InputError("there are no decoded images to score. Reconstruct the test images first.")
    metrics = metrics_of(dialect, protocol, metrics)
    scored = scored_metrics(metrics, simulated)
    kept = dict(known or {})
    left = [metric for metric in scored if metric.name not in kept]
    made = metric_scores(
        decoded, stimuli, backbone, left, seed=seed, controls=controls, dialect=dialect, features=features
    )
    kept |= {score.name: score for score in made}
    pairs = [(metric, kept[metric.name]) for metric in scored]
    scores = [score for metric, score in pairs if score.value is not None or not metric.optional]
    corrected = holm({score.name: score.p for score in scores if score.p is not None})
    scores = [replace(score, p=corrected.get(score.name)) for score in scores]
    accuracy: list[tuple[str, str, float]] = []
    identified: list[LatentIdentification] = []
    if predicted is not None and latents is not None and n > 1:
        for metric in metrics.values():
            if metric.kind == "latent":
                correlation = metric.function(predicted, latents)
                accuracy += [(name, "all", float(value)) for name, value in correlation.items()]
        found = latent_identification(predicted, latents, training)
        identified = [
            LatentIdentification(
                one.latent,
                one.among,
                one.pool,
                float(one.two_way.mean()),
                tuple(float(one.top(k).mean()) for k in TOP),
            )
            for one in found
        ]
    accuracy += [entry for entry in region_accuracy if entry[:2] not in {known[:2] for known in accuracy}]
    warning = check_images(dialect, n)
    if warning:
        say(warning)
    image_ids = tuple(int(identity) for identity in ids)
    return Scores(tuple(scores), image_ids, tuple(accuracy), simulated, tuple(identified))


def metrics_of(dialect: str, protocol: str, metrics: Mapping[str, Metric] | None = None) -> Mapping[str, Metric]:
    """All metrics of a dialect, or `metrics`, by name; captions have those of the protocol in the place of others."""
    if metrics is None:
        metrics = dialect_metrics(dialect)
    if protocol == "none":
        return metrics
    from unibrain.evaluation.caption_protocols import protocol_metrics

    return dict(metrics) | protocol_metrics(protocol)


def scored_metrics(metrics: Mapping[str, Metric], simulated: bool) -> list[Metric]:
    """Those that are about pictures or captions, and of simulated scans also about composed scenes."""
    return [metric for metric in metrics.values() if metric.kind != "latent" and (simulated or not metric.scenes_only)]


def metric_scores(
    decoded: Decoded,
    stimuli: "Stimuli",
    backbone: "Backbone | None",
    metrics: Sequence[Metric],
    *,
    seed: int = 0,
    controls: Mapping[str, Decoded] | None = None,
    dialect: str = "standard",
    features: Path | None = None,
) -> list[Score]:
    """Scores of some metrics of pictures and captions, each by itself: p is not corrected for their number.

    See `evaluate`, which does that.
    """
    controls = controls or {}
    versions = {name: found for name in _LIBRARIES if (found := installed(name)) != "absent"}
    compare = partial(_comparison, stimuli, backbone, FeatureCache(features))
    items = compare(decoded)
    others = {name: compare(other) for name, other in controls.items()}
    # Controls are mostly of the same images, which are compared once.
    which = {name: other.stimulus_ids.tobytes() for name, other in controls.items()}
    same = {which[name]: compare(_same_images(decoded, other)) for name, other in controls.items()}
    scores = []
    for metric in track(metrics, "scores", unit="metric"):
        score = replace(_score(metric, items, seed), dialect=metric.protocol or dialect, versions=versions)
        beside = dict[str, Beside]()
        if score.value is not None or not metric.optional:
            own = {key: None if metric.costly else _value(metric, some) for key, some in same.items()}
            for name in (name for name in CONTROLS if name in others and not metric.costly):
                value = _value(metric, others[name])
                if value is not None:
                    beside[name] = Beside(value, own[which[name]], len(others[name].references))
        scores.append(replace(score, beside=beside))
    return scores


def _comparison(
    stimuli: "Stimuli", backbone: "Backbone | None", features: FeatureCache, decoded: Decoded
) -> Comparison:
    ids = decoded.stimulus_ids
    references = [tuple(filter(None, true)) for true in stimuli.captions(ids)]
    seen = SeenPictures(stimuli, ids)
    return Comparison(seen, decoded.pictures, references, decoded.captions, backbone, features)


def _same_images(decoded: Decoded, other: Decoded) -> Decoded:
    """What was decoded, of the images of a control only."""
    row_of = {int(identity): row for row, identity in enumerate(decoded.stimulus_ids)}
    missing = [identity for identity in other.stimulus_ids if int(identity) not in row_of]
    if missing:
        raise InputError(f"image id {missing[0]} has a control and was not decoded. Decode the controls again.")
    return decoded.rows(np.array([row_of[int(identity)] for identity in other.stimulus_ids]))


def _score(metric: Metric, items: Comparison, seed: int) -> Score:
    n, title = len(items.seen), metric.title.format(backbone="no" if items.backbone is None else items.backbone.name)
    empty = Score(
        metric.name,
        title,
        metric.kind,
        None,
        None,
        n,
        metric.higher_is_better,
        direction=metric.direction,
        image_path=metric.image_path,
    )
    try:
        measure = _measure(metric, items)
    except UnavailableError as missing:
        return replace(empty, note=str(missing))
    straight, note = np.arange(n), measure.note
    raw = measure.values(straight)
    # A picture of one colour correlates with nothing: it counts as unrelated rather than being left out of the mean.
    undefined = int(np.isnan(raw).sum())
    if undefined:
        note = f"{note}; " * bool(note) + f"pictures of one colour, counted as {metric.unrelated:g}: {undefined}"
    where = np.ones(len(raw), dtype=bool) if measure.where is None else measure.where
    raw = np.nan_to_num(raw, nan=metric.unrelated)
    values = raw[where]
    shuffles = 0 if metric.costly or n < 2 else min(_SHUFFLES, max(1, _SHUFFLED_PAIRS // n))
    shuffled = [measure.score(order, metric.unrelated) for order in derangements(n, shuffles, seed)]
    whole = measure.corpus is not None  # an interval over images is not that of such a value
    interval = None if whole or len(values) < 2 else share_interval(values) or bootstrap_interval(values, seed=seed)
    better, p = metric.higher_is_better, None
    if measure.cheap and n > 1:
        p = permutation_p(
            lambda orders: np.nan_to_num(measure.values(orders), nan=metric.unrelated)[:, where],
            n,
            higher_is_better=better,
            seed=seed,
        )
    return replace(
        empty,
        value=measure.score(straight, metric.unrelated),
        control=float(np.mean(shuffled)) if shuffled else None,
        images=n if whole else len(values),
        per_image=tuple(float(value) if there else None for value, there in zip(raw, where, strict=True)),
        note=note,
        interval=None if interval is None else (interval.low, interval.high),
        p=p,
        tokenizer=measure.tokenizer,
        references=measure.references,
    )


def _value(metric: Metric, items: Comparison) -> float | None:
    try:
        return _measure(metric, items).score(np.arange(len(items.seen)), metric.unrelated)
    except UnavailableError:
        return None


def _measure(metric: Metric, items: Comparison) -> Measure:
    if metric.kind == "picture" and items.pictures is None:
        raise UnavailableError("no pictures were decoded")
    if metric.kind == "caption" and not all(items.references):
        raise UnavailableError("no captions were given with the pictures: add them to score captions")
    if metric.kind == "caption" and items.captions is None:
        raise UnavailableError("no captions were decoded")
    measure: Measure = metric.function(items)
    return measure


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
