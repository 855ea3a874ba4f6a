"""All scores of decoded pictures and captions, each beside its shuffled control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.captions import meteor, rouge
from unibrain.evaluation.controls import derangements, shuffled_control
from unibrain.evaluation.features import INSTALL_HINT, network_is_installed, picture_features
from unibrain.evaluation.identification import correlations, identify
from unibrain.evaluation.pixels import at_size, pixel_correlation, structural_similarity
from unibrain.evaluation.scores import Score, Scores
from unibrain.evaluation.synonym_source import choose_synonyms
from unibrain.reconstruction.decoded import Decoded
from unibrain.stimuli.stimuli import Stimuli
from unibrain.workspace.progress import track

__all__ = ["CaptionEmbedder", "evaluate"]

_METRICS = 7
_SHUFFLES = 10
_SHUFFLED_PAIRS = 4000  # enough for a control within a hundredth; keeps 982 large pictures affordable

Measure = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Takes an order: image i is compared with decoded item ``order[i]``. Returns one value per image."""


class CaptionEmbedder(Protocol):
    """The part of a backbone that scores need."""

    @property
    def name(self) -> str:
        """Name of the backbone."""
        ...

    def caption_embeddings(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """CLIP embedding of each caption, shape (n, width)."""
        ...


@dataclass(frozen=True)
class _Job:
    """A metric that is about to be computed."""

    name: str
    title: str
    about: Literal["picture", "caption"]
    measure: Measure | None
    note: str = ""


def evaluate(
    decoded: Decoded,
    stimuli: Stimuli,
    backbone: CaptionEmbedder,
    *,
    simulated: bool,
    seed: int = 0,
    latent_accuracy: Sequence[tuple[str, str, float]] = (),
) -> Scores:
    """Score decoded pictures and captions against what was seen.

    Parameters
    ----------
    decoded : Decoded
        One picture and one caption per image.
    stimuli : Stimuli
        The pictures that were seen and their captions; all ids of `decoded` must be in it.
    backbone : CaptionEmbedder
        Its CLIP text encoder embeds captions for their two-way identification.
    simulated : bool
        Whether the scans were simulated; carried along to wherever the numbers are shown.
    seed : int
        Seed of the shuffles.
    latent_accuracy : sequence of (latent, region, correlation)
        Prediction accuracy of the latents, carried along.

    Returns
    -------
    Scores
        ``pixcorr``, ``ssim``, ``two_way_picture``, ``meteor``, ``rouge1``, ``rougeL``, ``two_way_caption``. The control
        of each is the mean over up to ten shuffles in which no item stays with its image. A score that cannot be
        computed here has no value and a note that says what to do; without captions, those of captions have none.

    Raises
    ------
    InputError
        If there is nothing to score, or an image is not among the stimuli.
    """
    n = len(decoded.stimulus_ids)
    if n == 0:
        raise InputError(
            "there are 0 decoded images to score, expected at least one: reconstruct the test images first"
        )
    shuffles = min(_SHUFFLES, max(1, _SHUFFLED_PAIRS // n))
    orders = derangements(n, shuffles, seed) if n > 1 else np.empty((0, n), np.int64)
    captions = _caption_jobs(decoded, stimuli, backbone) if stimuli.has_captions else _no_captions()
    jobs = chain(_picture_jobs(decoded, stimuli), captions)
    scores = tuple(_score(job, n, orders) for job in track(jobs, "scores", total=_METRICS, unit="metric"))
    identities = tuple(int(identity) for identity in decoded.stimulus_ids)
    return Scores(scores, identities, tuple(latent_accuracy), simulated)


def _score(job: _Job, n: int, orders: NDArray[np.int64]) -> Score:
    measure, note = job.measure, job.note
    if measure is None:
        return Score(job.name, job.title, job.about, None, None, n, True, note=note)

    def defined(order: NDArray[np.int64]) -> NDArray[np.float64]:
        # A picture of one colour correlates with nothing: it counts as 0 rather than being left out of the mean.
        return np.nan_to_num(measure(order), nan=0.0)

    raw = measure(np.arange(n))
    undefined = int(np.isnan(raw).sum())
    if undefined:
        note = f"{note}; " * bool(note) + f"pictures of one colour, counted as 0: {undefined}"
    values = np.nan_to_num(raw, nan=0.0)
    control = shuffled_control(defined, orders) if len(orders) else None
    per_image = tuple(float(value) for value in values)
    return Score(job.name, job.title, job.about, float(values.mean()), control, n, True, per_image, note)


def _picture_jobs(decoded: Decoded, stimuli: Stimuli) -> Iterator[_Job]:
    seen = stimuli.pictures(decoded.stimulus_ids)
    pictures = at_size(decoded.pictures, *seen.shape[1:3])
    yield _Job("pixcorr", "PixCorr", "picture", lambda order: pixel_correlation(seen, pictures[order]))
    yield _Job("ssim", "SSIM", "picture", lambda order: structural_similarity(seen, pictures[order]))
    measure, note = None, INSTALL_HINT
    if network_is_installed():
        measure, note = _identification(lambda: (picture_features(seen), picture_features(decoded.pictures)), len(seen))
    yield _Job("two_way_picture", "Two-way identification (EfficientNet-lite0)", "picture", measure, note)


def _no_captions() -> Iterator[_Job]:
    note = "no captions were given with the pictures: add them to score captions"
    for name, title in (
        ("meteor", "METEOR"),
        ("rouge1", "ROUGE-1"),
        ("rougeL", "ROUGE-L"),
        ("two_way_caption", "Two-way identification (CLIP)"),
    ):
        yield _Job(name, title, "caption", None, note)


def _caption_jobs(decoded: Decoded, stimuli: Stimuli, backbone: CaptionEmbedder) -> Iterator[_Job]:

    def shuffled(order: NDArray[np.int64]) -> list[str]:
        return [decoded.captions[row] for row in order]

    references = [tuple(filter(None, true)) for true in stimuli.captions(decoded.stimulus_ids)]
    wordnet, note = choose_synonyms(decoded.captions, references)
    measure = None if wordnet is None else lambda order: meteor(shuffled(order), references, wordnet)
    yield _Job("meteor", "METEOR", "caption", measure, note)
    yield _Job("rouge1", "ROUGE-1", "caption", lambda order: rouge(shuffled(order), references, "rouge1"))
    yield _Job("rougeL", "ROUGE-L", "caption", lambda order: rouge(shuffled(order), references, "rougeL"))

    def embeddings() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        counts = [len(true) for true in references]
        each = backbone.caption_embeddings([caption for true in references for caption in true])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        means = np.add.reduceat(each, starts, axis=0) / np.array(counts, np.float32)[:, None]
        return means.astype(np.float32), backbone.caption_embeddings(list(decoded.captions))

    measure, note = _identification(embeddings, len(references))
    yield _Job("two_way_caption", f"Two-way identification (CLIP, {backbone.name} backbone)", "caption", measure, note)


def _identification(
    features: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]], n: int
) -> tuple[Measure | None, str]:
    if n < 2:
        return None, "two-way identification needs at least two images: decode more"
    similarity = correlations(*features())

    def measure(order: NDArray[np.int64]) -> NDArray[np.float64]:
        return identify(similarity[:, order])

    return measure, ""
