"""`METRICS`: one row per metric. To add one, write its function and its row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.evaluation.captions import References, choose_synonyms, meteor, rouge
from unibrain.evaluation.identification import correlations, count_ties, identify
from unibrain.evaluation.pictures import (
    INSTALL_HINT,
    at_size,
    network_is_installed,
    picture_features,
    pixel_correlation,
    structural_similarity,
)
from unibrain.regression.accuracy import latent_accuracy

if TYPE_CHECKING:
    from unibrain.backbone import Backbone

Kind = Literal["picture", "caption", "latent"]


class UnavailableError(Exception):
    """A metric cannot be computed here; the message says why and what to do. The score then has no value."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """What a metric of pictures or captions compares: n images that were seen beside what was decoded.

    Attributes
    ----------
    seen : ndarray of shape (n, height, width, 3), uint8
    pictures : ndarray of shape (n, h, w, 3), uint8, or None
        Decoded pictures; None if none were decoded.
    references : sequence of n sequences of str
        True captions of each image.
    captions : sequence of n str, or None
        Decoded captions; None if none were decoded.
    backbone : Backbone
    """

    seen: NDArray[np.uint8]
    pictures: NDArray[np.uint8] | None
    references: References
    captions: Sequence[str] | None
    backbone: "Backbone"

    @cached_property
    def resized(self) -> NDArray[np.uint8]:
        """Decoded pictures at the size of those that were seen."""
        assert self.pictures is not None
        return at_size(self.pictures, *self.seen.shape[1:3])


@dataclass(frozen=True)
class Measure:
    """A metric, ready to be asked.

    Attributes
    ----------
    values : callable
        Takes an order, shape (n,), int64: image i is compared with decoded item ``order[i]``. Returns one value per
        image; NaN where it is not defined. Features are computed before, so that shuffled controls cost little.
    note : str
        What to know of the values; may be empty.
    """

    values: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    note: str = ""


@dataclass(frozen=True, repr=False)
class Metric:
    """A row of `METRICS`.

    Attributes
    ----------
    name : str
        Key of the row and in ``scores.json``.
    title : str
        For people; ``{backbone}`` stands for the backbone's name.
    short : str
        For narrow places.
    kind : {"picture", "caption", "latent"}
        What it is about.
    question : str
        The question that it answers.
    explanation : str
        How to read its value.
    function : callable
        Of a picture or caption metric: takes a `Comparison`, returns a `Measure` or raises `UnavailableError`. Of a
        latent metric: takes the predicted and the true `Latents`, returns a mapping of latent name to value.
    higher_is_better : bool
    bounds : (float, float)
        Lowest and highest possible value.
    """

    name: str
    title: str
    short: str
    kind: Kind
    question: str
    explanation: str
    function: Callable[..., Any]
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def __repr__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        return f"Metric({self.name} of a {self.kind}, {self.bounds[0]:g} to {self.bounds[1]:g}, {better} is better)"


def on_pictures(compare: Callable[[Any, Any], NDArray[np.float64]]) -> Callable[[Comparison], Measure]:
    """Make a metric of a function that takes n seen and n decoded pictures of one size and returns n values."""
    return lambda items: Measure(lambda order: compare(items.seen, items.resized[order]))


def on_captions(compare: Callable[[Any, Any], NDArray[np.float64]]) -> Callable[[Comparison], Measure]:
    """Make a metric of a function that takes n decoded captions and n tuples of true ones and returns n values."""
    return lambda items: Measure(lambda order: compare([(items.captions or ())[i] for i in order], items.references))


def two_way(
    features: Callable[[Comparison], tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Callable[[Comparison], Measure]:
    """Make two-way identification of a function that returns features of what was seen and of what was decoded."""

    def measure(items: Comparison) -> Measure:
        n = len(items.seen)
        if n < 2:
            raise UnavailableError("two-way identification needs at least two images: decode more")
        similarity = correlations(*features(items))
        ties, pairs = count_ties(similarity), n * (n - 1)
        chance = f"{0.5 * (1 - ties / pairs):.3f}, not 0.5"
        note = f"{ties:,} of {pairs:,} comparisons are ties, which count as losses: chance is {chance}"
        return Measure(lambda order: identify(similarity[:, order]), note if ties else "")

    return measure


def _network_features(items: Comparison) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if not network_is_installed():
        raise UnavailableError(INSTALL_HINT)
    assert items.pictures is not None
    return picture_features(items.seen), picture_features(items.pictures)


def _caption_embeddings(items: Comparison) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """CLIP embeddings: the mean over all true captions of an image, and those of the decoded captions."""
    counts = [len(true) for true in items.references]
    each = items.backbone.embed("caption", [caption for true in items.references for caption in true])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    means = np.add.reduceat(each, starts, axis=0) / np.array(counts, np.float32)[:, None]
    return means.astype(np.float32), items.backbone.embed("caption", list(items.captions or ()))


def _meteor(items: Comparison) -> Measure:
    wordnet, note = choose_synonyms(items.captions or (), items.references)
    if wordnet is None:
        raise UnavailableError(note)
    measure = on_captions(partial(meteor, wordnet=wordnet))(items)
    return Measure(measure.values, note)


_ROWS = (
    Metric(
        "pixcorr",
        "PixCorr",
        "PixCorr",
        "picture",
        "Do light and colour fall in the same places?",
        "Pearson's correlation of all pixel values of the two pictures. 1: the same up to brightness and contrast; "
        "0: unrelated. Layout and background matter most, what is shown matters little.",
        on_pictures(pixel_correlation),
        bounds=(-1.0, 1.0),
    ),
    Metric(
        "ssim",
        "SSIM",
        "SSIM",
        "picture",
        "Is the local structure alike?",
        "Structural similarity of the grey pictures in small windows. 1: identical; near 0: unrelated. "
        "Two smooth pictures already score some, so compare it with the control.",
        on_pictures(structural_similarity),
        bounds=(-1.0, 1.0),
    ),
    Metric(
        "two_way_picture",
        "Two-way identification (EfficientNet-lite0)",
        "2-way picture",
        "picture",
        "Is it closer to its own picture than to another one?",
        "A network trained elsewhere (EfficientNet-lite0 on ImageNet photographs) compares each decoded picture with "
        "the picture that was seen and with every other one. The score is the share of comparisons that its own "
        "picture wins. Guessing gives 50 %; a tie counts as lost, so where there are ties guessing gives less.",
        two_way(_network_features),
    ),
    Metric(
        "meteor",
        "METEOR",
        "METEOR",
        "caption",
        "Does it use the same words, or synonyms, in the same order?",
        "Words of the decoded caption that match the best true caption: the same word, the same stem or a synonym "
        "(WordNet), with a penalty for scattered order. 1: the same sentence; 0: nothing in common.",
        _meteor,
    ),
    Metric(
        "rouge1",
        "ROUGE-1",
        "ROUGE-1",
        "caption",
        "How many words do they share?",
        "Overlap of single words (F measure) with the best true caption. Little words such as “a” count too, "
        "so compare it with the control.",
        on_captions(partial(rouge, kind="rouge1")),
    ),
    Metric(
        "rougeL",
        "ROUGE-L",
        "ROUGE-L",
        "caption",
        "How long is the sequence of words they share?",
        "Longest common subsequence of words (F measure) with the best true caption. The same words in another order "
        "score less than in ROUGE-1.",
        on_captions(partial(rouge, kind="rougeL")),
    ),
    Metric(
        "two_way_caption",
        "Two-way identification (CLIP, {backbone} backbone)",
        "2-way caption",
        "caption",
        "Is it closer to its own captions than to another image's?",
        "The backbone's CLIP compares each decoded caption with the true captions of its image and with those of every "
        "other image. The score is the share of comparisons that its own image wins. Guessing gives 50 %; a tie counts "
        "as lost, so where captions are alike guessing gives less.",
        two_way(_caption_embeddings),
    ),
    Metric(
        "latent_accuracy",
        "Latent accuracy",
        "Latent accuracy",
        "latent",
        "How well is each latent predicted from the scans?",
        "Pearson's correlation, across the unseen images, between a latent that was predicted and the true one; mean "
        "over its dimensions. 1: perfect; 0: chance.",
        latent_accuracy,
        bounds=(-1.0, 1.0),
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
"""Name to metric, in the order in which scores are shown."""
