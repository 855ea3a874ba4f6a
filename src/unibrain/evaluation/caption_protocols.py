"""`CAPTION_PROTOCOLS`: how captions are scored by name, one record each, and the metrics that they are made of."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.caption_java import java_is_there, meteor_java
from unibrain.evaluation.caption_tokens import TOKENIZERS
from unibrain.evaluation.captions import (
    SENTENCE_MODEL,
    References,
    best_cosine,
    bleu,
    cider_d,
    clip_score,
    meteor,
    reference_clip_score,
    rouge,
    rouge_l_coco,
    sentence_embeddings,
)
from unibrain.evaluation.features import FeatureCache
from unibrain.evaluation.identification import correlations, count_ties, identify
from unibrain.evaluation.metrics import Comparison, Measure, Metric
from unibrain.evaluation.pictures import Pictures
from unibrain.evaluation.scores import Score
from unibrain.evaluation.wordnet import choose_synonyms, words_of
from unibrain.reconstruction import Decoded
from unibrain.stimuli import Stimuli

if TYPE_CHECKING:
    from unibrain.evaluation.networks.clip import ClipEmbedder

Networks = Callable[[str], "ClipEmbedder"]

_PROMPT = "A photo depicts "
_BASE, _LARGE = "clip-vit-b-32", "clip-vit-l-14"
_OWN, _NLTK, _ROUGE = "the protocol's", "nltk word_tokenize", "rouge_score, no stemming"


@dataclass(frozen=True)
class _Items:
    """Captions to score in some order, and what several metrics need of them."""

    decoded: Sequence[str]
    references: References
    tokenize: Callable[[Sequence[str]], list[list[str]]]
    pictures: Pictures
    networks: Networks
    features: FeatureCache
    order: NDArray[np.int64]

    @property
    def captions(self) -> list[str]:
        return [self.decoded[row] for row in self.order]

    @property
    def counts(self) -> list[int]:
        return list(map(len, self.references))

    @property
    def flat(self) -> list[str]:
        return [caption for true in self.references for caption in true]

    @property
    def tokens(self) -> tuple[list[list[str]], list[list[list[str]]]]:
        # The same texts in every order: those that were seen before are known.
        tokens = self.tokenize([*self.decoded, *self.flat])
        ends = len(self.decoded) + np.cumsum([0, *self.counts])
        return [tokens[row] for row in self.order], [tokens[start:end] for start, end in pairwise(ends)]

    @property
    def clip_s(self) -> NDArray[np.float64]:
        network = self.networks(_BASE)
        (seen,) = self.features.get(
            f"pictures {network.name}", self.pictures, lambda some: [network.embed_images(some)]
        )
        return clip_score(np.stack(seen), self.texts(_BASE, _PROMPT)[0])

    def texts(self, network: str, prompt: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
        """Embeddings of the decoded captions, and of all references."""
        name = network
        embed: Callable[[Sequence[str]], NDArray[np.float32]] = partial(sentence_embeddings, model=network)
        if network != SENTENCE_MODEL:
            embedder = self.networks(network)
            name, embed = embedder.name, embedder.embed_text
        texts = [prompt + caption for caption in (*self.decoded, *self.flat)]
        found = np.stack(self.features.get(f"captions {name}", texts, lambda some: [embed(some)])[0])
        return found[self.order], found[len(self.decoded) :]


@dataclass(frozen=True)
class _Found:
    value: float
    per_image: NDArray[np.float64]
    note: str = ""


def _each(values: NDArray[np.float64], note: str = "") -> _Found:
    return _Found(float(values.mean()), values, note)


def published_clip(name: str) -> "ClipEmbedder":
    """The published CLIP ``"clip-vit-b-32"`` or ``"clip-vit-l-14"``, whose weights are read when it first embeds."""
    from unibrain.evaluation.networks.clip import ClipEmbedder

    return ClipEmbedder(name)


def _meteor(items: _Items, *, sentences: bool = False) -> _Found:
    wordnet, note = choose_synonyms(items.captions, items.references)
    if wordnet is None:
        raise UnavailableError(note)
    words = words_of
    if sentences and any(re.search(r"[.!?]\s+\S", caption) for caption in (*items.captions, *items.flat)):
        from nltk.tokenize import word_tokenize

        # Hugging Face's METEOR splits a caption into sentences first: a full stop inside becomes a token.
        try:
            word_tokenize("Two. Sentences.")
        except LookupError:
            hint = "a caption of several sentences was taken as one: run python -m nltk.downloader punkt_tab"
            note = "; ".join(filter(None, (note, hint)))
        else:
            words = word_tokenize
    return _each(meteor(items.captions, items.references, wordnet, words), note)


def _rouge(items: _Items, *, kind: Literal["rouge1", "rougeL"]) -> _Found:
    return _each(rouge(items.captions, items.references, kind))


def _bleu(items: _Items, *, order: int, kind: Literal["coco", "hf"]) -> _Found:
    return _Found(float(bleu(*items.tokens, kind)[order - 1]), np.empty(0))


def _cider(items: _Items) -> _Found:
    if len(items.captions) < 2:
        raise UnavailableError("CIDEr weighs n-grams by the images they occur in, and needs at least two: decode more")
    return _each(cider_d(*items.tokens), f"idf from the references of these {len(items.captions)} images")


def _text_cosine(items: _Items, *, network: str) -> _Found:
    return _each(best_cosine(*items.texts(network), items.counts))


def _two_way(items: _Items, *, network: str) -> _Found:
    n = len(items.captions)
    if n < 2:
        raise UnavailableError("two-way identification needs at least two images: decode more")
    decoded, references = items.texts(network)
    units = references / np.linalg.norm(references, axis=1, keepdims=True)
    starts = np.cumsum([0, *items.counts[:-1]])
    similarity = correlations(np.add.reduceat(units, starts) / np.array(items.counts)[:, None], decoded)
    ties = count_ties(similarity)
    note = f"{ties:,} of {n * (n - 1):,} comparisons are ties, which count as losses; " if ties else ""
    return _each(identify(similarity), f"{note}network: {items.networks(network).name}")


def _ref_clip_s(items: _Items) -> _Found:
    return _each(reference_clip_score(items.clip_s, best_cosine(*items.texts(_BASE, _PROMPT), items.counts)))


@dataclass(frozen=True)
class CaptionMetric:
    """A metric in a protocol: what it is called, how it is computed, and what splits captions for it.

    `corpus`: its value is of all captions together, and not the mean over images. `costly`: each value takes half a
    minute, so there are no controls.
    """

    name: str
    title: str
    compute: Callable[[_Items], _Found] = field(repr=False)
    tokenizer: str = ""
    direction: str = ""
    most: float = 1.0
    corpus: bool = False
    costly: bool = False


@dataclass(frozen=True)
class CaptionProtocol:
    """How captions are scored, by name.

    Attributes
    ----------
    name : str
    references : {"all", "first"}
        Which captions of an image count as true.
    tokenizer : {"ptb", "ptb-like", "13a"}
        Of BLEU, CIDEr, COCO's ROUGE-L and the Java program's METEOR. ``"ptb"`` needs Java; without it ``"ptb-like"``
        takes its place, and the scores say so.
    metrics : tuple of CaptionMetric
    """

    name: str
    references: Literal["all", "first"]
    tokenizer: str
    metrics: tuple[CaptionMetric, ...]


def _bleus(orders: Sequence[int], kind: Literal["coco", "hf"]) -> tuple[CaptionMetric, ...]:
    return tuple(
        CaptionMetric(f"bleu{order}", f"BLEU-{order}", partial(_bleu, order=order, kind=kind), _OWN, corpus=True)
        for order in orders
    )


_ROUGES = (
    CaptionMetric("rouge1", "ROUGE-1", partial(_rouge, kind="rouge1"), _ROUGE),
    CaptionMetric("rougeL", "ROUGE-L", partial(_rouge, kind="rougeL"), _ROUGE),
)
_CIDER = CaptionMetric("cider", "CIDEr-D", _cider, _OWN, most=10.0)
_SENTENCE = CaptionMetric(
    "sentence", "Sentence cosine (all-MiniLM-L6-v2)", partial(_text_cosine, network=SENTENCE_MODEL)
)

CAPTION_PROTOCOLS: Mapping[str, CaptionProtocol] = {
    protocol.name: protocol
    for protocol in (
        CaptionProtocol(
            "standard",
            "all",
            "ptb-like",
            (
                CaptionMetric("meteor", "METEOR (nltk)", _meteor, _NLTK),
                *_ROUGES,
                *_bleus((1, 2, 3, 4), "coco"),
                _CIDER,
                CaptionMetric(
                    "two_way_caption_l14",
                    "Two-way identification (CLIP ViT-L/14 text)",
                    partial(_two_way, network=_LARGE),
                    direction="recon->images",
                ),
            ),
        ),
        # weihaox/BrainHub, commit 4838666
        CaptionProtocol(
            "brainhub",
            "all",
            "ptb",
            (
                *_bleus((1, 2, 3, 4), "coco"),
                CaptionMetric(
                    "meteor",
                    "METEOR 1.5 (Java)",
                    lambda items: _Found(*meteor_java(*items.tokens)),
                    _OWN,
                    corpus=True,
                    costly=True,
                ),
                CaptionMetric("rougeL", "ROUGE-L (beta 1.2)", lambda items: _each(rouge_l_coco(*items.tokens)), _OWN),
                _CIDER,
                CaptionMetric("clip_s", "CLIP-S", lambda items: _each(items.clip_s), most=2.5),
                CaptionMetric("ref_clip_s", "RefCLIP-S", _ref_clip_s),
                _SENTENCE,
            ),
        ),
        # MedARC-AI/MindEyeV2, commit c184718; BLEU as in enomodnara/BrainCaptioning, commit e5c8c37
        CaptionProtocol(
            "mindeye2",
            "first",
            "13a",
            (
                CaptionMetric("meteor", "METEOR (nltk)", partial(_meteor, sentences=True), _NLTK),
                *_ROUGES,
                *_bleus((1, 4), "hf"),
                _SENTENCE,
                CaptionMetric("clip_text_b32", "CLIP text cosine (ViT-B/32)", partial(_text_cosine, network=_BASE)),
                CaptionMetric("clip_text_l14", "CLIP text cosine (ViT-L/14)", partial(_text_cosine, network=_LARGE)),
            ),
        ),
    )
}
"""Protocols by name."""


def protocol_metrics(name: str, networks: Networks = published_clip) -> dict[str, Metric]:
    """The metrics of a protocol by name; `InputError` if there is no such protocol.

    `networks` takes ``"clip-vit-b-32"`` or ``"clip-vit-l-14"``, and returns the `ClipEmbedder` to use for it. What
    cannot be computed here raises `UnavailableError` when it is asked for, and names the command that gets it.
    """
    if name not in CAPTION_PROTOCOLS:
        raise InputError(f"There is no caption protocol {name!r}. Choose one of {', '.join(CAPTION_PROTOCOLS)}.")
    protocol = CAPTION_PROTOCOLS[name]
    lacks_java = protocol.tokenizer == "ptb" and not java_is_there()
    tokenizer = "ptb-like" if lacks_java else protocol.tokenizer
    known: dict[str, list[str]] = {}

    def tokenize(texts: Sequence[str]) -> list[list[str]]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, TOKENIZERS[tokenizer](new), strict=True))
        return [known[text] for text in texts]

    def measure(metric: CaptionMetric, items: Comparison) -> Measure:
        references, decoded = items.references, items.captions or ()
        counts = sorted(map(len, references))
        used = f"{counts[0]} to {counts[-1]} per image" if counts[0] < counts[-1] else f"{counts[0]} per image"
        if protocol.references == "first":
            references, used = [true[:1] for true in references], f"the first of {used}"
        here = _Items(decoded, references, tokenize, items.seen, networks, items.features, np.arange(len(decoded)))

        @cache
        def found(order: bytes) -> _Found:
            return metric.compute(replace(here, order=np.frombuffer(order, np.int64)))

        first = found(here.order.tobytes())
        empty = sum(not caption.strip() for caption in decoded)
        notes = [f"empty decoded captions: {empty}" if empty else "", first.note]
        if metric.tokenizer == _OWN and lacks_java:
            notes.append(
                "tokenized by ptb-like for want of Java, so the digits are not the protocol's: run apt-get install "
                'default-jre-headless, and pip install "unibrain[captions]"'
            )
        return Measure(
            lambda order: found(order.tobytes()).per_image,
            "; ".join(filter(None, notes)),
            corpus=(lambda order: found(order.tobytes()).value) if metric.corpus else None,
            tokenizer=tokenizer if metric.tokenizer == _OWN else metric.tokenizer,
            references=used,
        )

    return {
        metric.name: Metric(
            metric.name,
            f"{metric.title}, {name}",
            metric.title,
            "caption",
            "How alike are the captions?",
            f"As the protocol {name} computes it, see docs/metrics-captions.md.",
            partial(measure, metric),
            bounds=(0.0, metric.most),
            direction=metric.direction,
            protocol=name,
            costly=metric.costly,
        )
        for metric in protocol.metrics
    }


def score_captions(
    decoded: Sequence[str],
    references: References,
    protocol: str = "standard",
    *,
    pictures: NDArray[np.uint8] | None = None,
    networks: Networks = published_clip,
) -> tuple[Score, ...]:
    """Score decoded captions as a named protocol does.

    Parameters
    ----------
    decoded : sequence of n str
        One caption per image. An empty one is scored, and counted in the notes.
    references : sequence of n sequences of str
        True captions of each image; their order matters where a protocol takes the first.
    protocol : str
        Name in `CAPTION_PROTOCOLS`.
    pictures : ndarray of shape (n, height, width, 3), uint8, optional
        What was seen, for CLIP-S.
    networks : callable
        Takes ``"clip-vit-b-32"`` or ``"clip-vit-l-14"``, and returns the `ClipEmbedder` to use for it.

    Returns
    -------
    tuple of Score
        One per metric of the protocol, in its order. What cannot be computed here has no value, and a note says which
        command gets what is missing.

    Raises
    ------
    InputError
        If there is no such protocol, there are no captions, or their numbers differ, or an image has no reference or an
        empty one.
    """
    from unibrain.evaluation.evaluate import evaluate

    metrics = protocol_metrics(protocol, networks)
    _check(decoded, references, pictures)

    def read(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        if pictures is None:
            raise UnavailableError("the pictures that were seen were not given: CLIP-S compares captions with them")
        return pictures[ids]

    ids = np.arange(len(decoded))
    stimuli = Stimuli(ids, dict(enumerate(map(tuple, references))), read, "the references")
    return evaluate(Decoded(ids, None, tuple(decoded)), stimuli, None, simulated=False, metrics=metrics).scores


def _check(decoded: Sequence[str], references: References, pictures: NDArray[np.uint8] | None) -> None:
    given = {len(decoded), len(references), len(decoded) if pictures is None else len(pictures)}
    if not decoded or len(given) > 1:
        shown = "" if pictures is None else f", and {len(pictures)} pictures"
        raise InputError(
            f"There are {len(decoded)} decoded captions for references of {len(references)} images{shown}. Give one "
            "caption per image, and at least one."
        )
    wrong = next((row for row, caption in enumerate(decoded) if not isinstance(caption, str)), None)
    if wrong is not None:
        raise InputError(f"The decoded caption of image {wrong} (counted from 0) is {decoded[wrong]!r}. Give text.")
    for row, true in enumerate(references):
        sound = [isinstance(caption, str) and bool(caption.strip()) for caption in true]
        if isinstance(true, str) or not sound or not all(sound):
            what = "one string" if isinstance(true, str) else "empty, or no text, in part" if sound else "none"
            raise InputError(f"The references of image {row} (counted from 0) are {what}. Give a list of captions.")
