"""`METRICS`: one row per metric. To add one, write its function and its row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import UnavailableError
from unibrain.evaluation.captions import References, meteor, rouge
from unibrain.evaluation.features import FeatureCache
from unibrain.evaluation.identification import Direction, correlations, count_ties, win_table
from unibrain.evaluation.pictures import (
    INSTALL_HINT,
    Pictures,
    at_size,
    network_is_installed,
    picture_features,
    pixel_correlation,
    structural_similarity,
)
from unibrain.evaluation.scene_judge import Judge, background_in, objects_in, scene_content, scene_judge
from unibrain.evaluation.wordnet import choose_synonyms
from unibrain.regression.accuracy import latent_accuracy

if TYPE_CHECKING:
    from unibrain.backbone import Backbone

Kind = Literal["picture", "caption", "latent"]

_AT_ONCE = 32
"""Pictures that are compared at once."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """What a metric of pictures or captions compares: n images that were seen beside what was decoded.

    Attributes
    ----------
    seen : Pictures
        Of shape (n, height, width, 3), uint8, read when they are asked for.
    pictures : ndarray of shape (n, h, w, 3), uint8, or None
        Decoded pictures; None if none were decoded.
    references : sequence of n sequences of str
        True captions of each image.
    captions : sequence of n str, or None
        Decoded captions; None if none were decoded.
    backbone : Backbone or None
        None: what needs its CLIP is not available.
    features : FeatureCache
        Features of pictures and captions, kept by their content.
    """

    seen: Pictures
    pictures: NDArray[np.uint8] | None
    references: References
    captions: Sequence[str] | None
    backbone: "Backbone | None"
    features: FeatureCache

    @cached_property
    def content(self) -> tuple[list[set[str]], list[str | None]]:
        """Objects and background of each image of the scene world, from its true captions."""
        return scene_content(self.references)

    @cached_property
    def network_features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of EfficientNet-lite0 of what was seen and of what was decoded."""
        if not network_is_installed():
            raise UnavailableError(INSTALL_HINT)
        assert self.pictures is not None
        get = partial(self.features.get, "efficientnet-lite0", compute=lambda some: [picture_features(some)])
        return np.stack(get(self.seen)[0]), np.stack(get(self.pictures)[0])


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
    cheap : bool
        Whether a thousand orders can be asked for within seconds.
    where : ndarray of shape (n,), bool, or None
        Images that the metric is about; None: all.
    corpus : callable or None
        Of a metric whose value is not the mean over images (BLEU): takes an order, returns the value. `values` then
        may return nothing.
    tokenizer, references : str
        Of captions: what splits them, and which true captions were used.
    """

    values: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    note: str = ""
    cheap: bool = False
    where: NDArray[np.bool_] | None = None
    corpus: Callable[[NDArray[np.int64]], float] | None = None
    tokenizer: str = ""
    references: str = ""

    def score(self, order: NDArray[np.int64], unrelated: float) -> float:
        """The value of an order; an undefined image counts as `unrelated`."""
        if self.corpus is not None:
            return self.corpus(order)
        values = np.nan_to_num(self.values(order), nan=unrelated)
        return float((values if self.where is None else values[self.where]).mean())


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
    scenes_only : bool
        Whether it is about the scene world of the simulated subject, and makes no sense elsewhere.
    direction : str
        Of an identification: who is compared with all others (see `unibrain.evaluation.identification`).
    image_path : str
        How pictures get to the metric; empty for captions.
    optional : bool
        Whether it is left out, rather than shown without a value, where its weights are not installed.
    protocol : str
        Of captions: the protocol whose definition this is, see `unibrain.evaluation.caption_protocols`.
    costly : bool
        Whether a value takes so long that there are no controls beside it.
    network : str
        Whose features it looks at; metrics of one network share them.
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
    scenes_only: bool = False
    direction: str = ""
    image_path: str = ""
    optional: bool = False
    protocol: str = ""
    costly: bool = False
    network: str = ""

    @property
    def unrelated(self) -> float:
        """What an undefined value counts as: no correlation, which as a distance is 1."""
        return 0.0 if self.higher_is_better else 1.0

    def __repr__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        return f"Metric({self.name} of a {self.kind}, {self.bounds[0]:g} to {self.bounds[1]:g}, {better} is better)"


def looked_up(table: NDArray[Any], note: str = "", where: NDArray[np.bool_] | None = None) -> Measure:
    """Make a measure of a table (n, n): the value of image i with decoded item j."""
    rows = np.arange(len(table))
    return Measure(lambda order: table[rows, order].astype(np.float64), note, cheap=True, where=where)


def on_pictures(
    compare: Callable[[Any, Any], NDArray[np.float64]], prepare: Callable[..., Any] | None = None
) -> Callable[[Comparison], Measure]:
    """Make a metric of a function that takes n seen and n decoded pictures of one size and returns n values.

    `prepare` brings pictures to that size; without it, decoded pictures are brought to the size of the seen ones.
    """

    def measure(items: Comparison) -> Measure:
        assert items.pictures is not None
        pictures = items.pictures

        def values(order: NDArray[np.int64]) -> NDArray[np.float64]:
            found = []
            # A few at a time: in floating point, a thousand pictures would not fit into memory.
            for start in range(0, len(order), _AT_ONCE):
                rows = slice(start, start + _AT_ONCE)
                seen, decoded = items.seen[rows], pictures[order[rows]]
                if prepare is None:
                    found.append(compare(seen, at_size(decoded, *seen.shape[1:3])))
                else:
                    found.append(compare(prepare(seen), prepare(decoded)))
            return np.concatenate(found)

        return Measure(values)

    return measure


def on_captions(compare: Callable[[Any, Any], NDArray[np.float64]]) -> Callable[[Comparison], Measure]:
    """Make a metric of a function that takes n decoded captions and n tuples of true ones and returns n values."""
    return lambda items: Measure(lambda order: compare([(items.captions or ())[i] for i in order], items.references))


def two_way(
    features: Callable[[Comparison], tuple[Any, Any]], direction: Direction = "recon->images", minus_one: bool = False
) -> Callable[[Comparison], Measure]:
    """Make two-way identification of a function that returns features of what was seen and of what was decoded."""

    def measure(items: Comparison) -> Measure:
        n = len(items.seen)
        if n < 2:
            raise UnavailableError("two-way identification needs at least two images: decode more")
        similarity = correlations(*features(items))
        ties, pairs = count_ties(similarity, direction), n * (n - 1)
        chance = f"{0.5 * (1 - ties / pairs):.3f}, not 0.5"
        note = f"{ties:,} of {pairs:,} comparisons are ties, which count as losses: chance is {chance}"
        return looked_up((win_table(similarity, direction) - minus_one) / (n - 1), note if ties else "")

    return measure


def _two_way_same_background(items: Comparison) -> Measure:
    """Two-way identification of captions against other images with the same background, where there are any."""
    behind = np.array([name or "" for name in items.content[1]])
    rivals = np.array([((behind == name) & (behind != "")).sum() - 1 for name in behind])
    if not (rivals > 0).any():
        raise UnavailableError("no two images have the same background")
    similarity = correlations(*_caption_embeddings(items))
    table = np.zeros(similarity.shape)
    for name in np.unique(behind[rivals > 0]):
        group = behind == name
        table[group] = win_table(similarity[group]) / (group.sum() - 1)
    return looked_up(table, where=rivals > 0)


def _judged(look: Callable[[Comparison, Judge], NDArray[np.bool_]], single: bool = False) -> Callable[..., Measure]:
    """Make a metric of what the judge sees: (n, n), whether decoded picture j shows what is asked of image i."""

    def measure(items: Comparison) -> Measure:
        judge = scene_judge()
        if judge is None:
            raise UnavailableError("the weights of the judge are not in this installation: install unibrain again")
        table = look(items, judge)
        where = np.array([len(objects) == 1 for objects in items.content[0]]) if single else None
        if where is not None and not where.any():
            raise UnavailableError("no image has a single object")
        return looked_up(table, where=where)

    return measure


def _object_seen(items: Comparison, judge: Judge) -> NDArray[np.bool_]:
    named, _ = judge.names(items.network_features[1])
    return np.array([[name in objects for (name,) in named] for objects in items.content[0]])


def _background_seen(items: Comparison, judge: Judge) -> NDArray[np.bool_]:
    _, named = judge.names(items.network_features[1])
    return np.array([[name == behind for name in named] for behind in items.content[1]])


def _read(agree: Callable[[set[str], set[str]], bool]) -> Callable[[Comparison], Measure]:
    """Make a metric of the objects that a decoded caption names, and those that are there."""

    def measure(items: Comparison) -> Measure:
        named = [objects_in(caption) for caption in items.captions or ()]
        table = np.array([[agree(said, there) for said in named] for there in items.content[0]])
        return looked_up(table)

    return measure


def _background_read(items: Comparison) -> Measure:
    named = np.array([background_in(caption) or "" for caption in items.captions or ()])
    return looked_up(named == np.array([name or "none" for name in items.content[1]])[:, None])


def _caption_embeddings(items: Comparison) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """CLIP embeddings: the mean over all true captions of an image, and those of the decoded captions."""
    if items.backbone is None:
        raise UnavailableError("no backbone was named whose CLIP could compare captions: add --backbone official")
    backbone, counts = items.backbone, [len(true) for true in items.references]
    texts = [*(caption for true in items.references for caption in true), *(items.captions or ())]
    way = f"captions {backbone.name} {backbone.fingerprint}"
    found = np.stack(items.features.get(way, texts, lambda some: [backbone.embed("caption", some)])[0])
    each, decoded = found[: sum(counts)], found[sum(counts) :]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    means = np.add.reduceat(each, starts, axis=0) / np.array(counts, np.float32)[:, None]
    return means.astype(np.float32), decoded


def _meteor(items: Comparison) -> Measure:
    wordnet, note = choose_synonyms(items.captions or (), items.references)
    if wordnet is None:
        raise UnavailableError(note)
    measure = on_captions(partial(meteor, wordnet=wordnet))(items)
    return Measure(measure.values, note)


_by_lite = partial(Metric, image_path="224 x 224, bicubic (Pillow)", network="efficientnet-lite0")

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
    _by_lite(
        "two_way_picture",
        "Two-way identification (EfficientNet-lite0)",
        "2-way picture",
        "picture",
        "Is it closer to its own picture than to another one?",
        "A network trained elsewhere (EfficientNet-lite0 on ImageNet photographs) compares each decoded picture with "
        "the picture that was seen and with every other one. The score is the share of comparisons that its own "
        "picture wins. Guessing gives 50 %; a tie counts as lost, so where there are ties guessing gives less.",
        two_way(lambda items: items.network_features),
        direction="recon->images",
    ),
    _by_lite(
        "judge_object",
        "Judge sees the object (one object)",
        "Object seen",
        "picture",
        "Can one see what it shows?",
        "A classifier that was trained on rendered scenes, never on decoded ones, names the object it sees most of, "
        "among more than a hundred. The score is how often that object was there; for images of one object only.",
        _judged(_object_seen, single=True),
        scenes_only=True,
    ),
    _by_lite(
        "judge_any_object",
        "Judge sees one of the objects",
        "Any object seen",
        "picture",
        "Can one see something that was there?",
        "The object that the same classifier sees most of is one of those that were there; all images.",
        _judged(_object_seen),
        scenes_only=True,
    ),
    _by_lite(
        "judge_background",
        "Judge sees the background",
        "Background seen",
        "picture",
        "Can one see where it is?",
        "The background that the same classifier sees is the true one.",
        _judged(_background_seen),
        scenes_only=True,
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
        direction="recon->images",
        network="backbone",
    ),
    Metric(
        "two_way_caption_same_background",
        "Two-way among images with the same background (CLIP)",
        "2-way caption, same background",
        "caption",
        "Does it tell apart what is shown before the same background?",
        "As above, but each caption is compared only with the captions of images that have the same background: naming "
        "the background does not help.",
        _two_way_same_background,
        scenes_only=True,
        direction="recon->images",
        network="backbone",
    ),
    Metric(
        "caption_object",
        "Caption names a true object",
        "Object named",
        "caption",
        "Does it name something that was there?",
        "At least one object of the image is named, by any of its names.",
        _read(lambda said, there: bool(said & there)),
        scenes_only=True,
    ),
    Metric(
        "caption_objects",
        "Caption names every object",
        "All objects named",
        "caption",
        "Does it name all that was there?",
        "All objects of the image, one or two, are named in the decoded caption, each by any of its names.",
        _read(lambda said, there: bool(there) and said >= there),
        scenes_only=True,
    ),
    Metric(
        "caption_background",
        "Caption names the background",
        "Background named",
        "caption",
        "Does it say where it is?",
        "The background that the caption names is the true one.",
        _background_read,
        scenes_only=True,
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
