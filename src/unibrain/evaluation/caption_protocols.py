"""`CAPTION_PROTOCOLS`: how captions are scored by name, one record each, and `score_captions`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.caption_embeddings import SENTENCE_MODEL, CaptionEmbedder, sentence_embeddings
from unibrain.evaluation.caption_java import java_is_there, meteor_java
from unibrain.evaluation.caption_tokens import TOKENIZERS
from unibrain.evaluation.captions import (
    References,
    best_cosine,
    bleu,
    cider_d,
    clip_score,
    meteor,
    reference_clip_score,
    rouge,
    rouge_l_coco,
)
from unibrain.evaluation.identification import correlations, count_ties, identify
from unibrain.evaluation.wordnet import choose_synonyms, words_of

Networks = Callable[[str], CaptionEmbedder]

_PROMPT = "A photo depicts "
_BASE, _LARGE = "clip-vit-b-32", "clip-vit-l-14"
_OWN, _NLTK, _ROUGE = "the protocol's", "nltk word_tokenize", "rouge_score, no stemming"
_PACKAGES = {
    "ptb": ("pycocoevalcap",),
    "ptb-like": ("nltk",),
    _NLTK: ("nltk",),
    _ROUGE: ("rouge-score",),
    "": ("torch", "transformers"),
}


@dataclass(frozen=True)
class CaptionScore:
    """One score of decoded captions.

    Attributes
    ----------
    name, title : str
        Equal names in two protocols are what two groups print under one name, not equal definitions.
    value : float or None
        Of the whole corpus, in the metric's own unit; None if it cannot be computed here, and `note` says what to do.
    per_image : tuple of float
        One value per image, or empty if the metric has a value for a corpus only. Their mean is `value`, except for the
        Java program's METEOR.
    protocol : str
        Name in `CAPTION_PROTOCOLS`.
    tokenizer : str
        What made tokens or words; empty for embeddings.
    references : str
        Which references were used, and how many.
    pool : int
        Number of images: CIDEr and identification depend on it.
    versions : mapping of str to str
        Of the libraries that computed it.
    note : str
        What to know of the value; may be empty.
    direction : str
        Of an identification.
    """

    name: str
    title: str
    value: float | None
    per_image: tuple[float, ...]
    protocol: str
    tokenizer: str
    references: str
    pool: int
    versions: Mapping[str, str]
    note: str = ""
    direction: str = ""

    @property
    def printed(self) -> str:
        """The value as tables of this protocol print it; a dash if there is none."""
        record = CAPTION_PROTOCOLS[self.protocol]
        return "-" if self.value is None else f"{self.value * record.scale:.{record.digits}f}"


@dataclass
class _Items:
    """Captions to score, and what several metrics need of them."""

    decoded: Sequence[str]
    references: References
    tokenizer: str
    pictures: NDArray[np.uint8] | None
    networks: Networks
    _texts: dict[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> list[int]:
        return list(map(len, self.references))

    @cached_property
    def flat(self) -> list[str]:
        return [caption for true in self.references for caption in true]

    @cached_property
    def tokens(self) -> tuple[list[list[str]], list[list[list[str]]]]:
        tokens = TOKENIZERS[self.tokenizer]([*self.decoded, *self.flat])
        ends = len(self.decoded) + np.cumsum([0, *self.counts])
        return tokens[: len(self.decoded)], [tokens[start:end] for start, end in pairwise(ends)]

    @cached_property
    def clip_s(self) -> NDArray[np.float64]:
        if self.pictures is None:
            raise UnavailableError("the pictures that were seen were not given: CLIP-S compares captions with them")
        return clip_score(self.networks(_BASE).embed_images(self.pictures), self.texts(_BASE, _PROMPT)[0])

    def texts(self, network: str, prompt: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
        """Embeddings of the decoded captions, and of all references."""
        if (network, prompt) not in self._texts:
            embed = sentence_embeddings if network == SENTENCE_MODEL else self.networks(network).embed_text
            found = embed([prompt + caption for caption in (*self.decoded, *self.flat)])
            self._texts[network, prompt] = found[: len(self.decoded)], found[len(self.decoded) :]
        return self._texts[network, prompt]


@dataclass(frozen=True)
class _Found:
    value: float
    per_image: NDArray[np.float64]
    note: str = ""


def _each(values: NDArray[np.float64], note: str = "") -> _Found:
    return _Found(float(values.mean()), values, note)


def published_clip(name: str) -> CaptionEmbedder:
    """The published CLIP ``"clip-vit-b-32"`` or ``"clip-vit-l-14"``, whose weights are read when it first embeds."""
    from unibrain.evaluation.networks import ClipEmbedder

    return ClipEmbedder(name)


def _meteor(items: _Items, *, sentences: bool = False) -> _Found:
    wordnet, note = choose_synonyms(items.decoded, items.references)
    if wordnet is None:
        raise UnavailableError(note)
    words = words_of
    if sentences and any(re.search(r"[.!?]\s+\S", caption) for caption in (*items.decoded, *items.flat)):
        from nltk.tokenize import word_tokenize

        # Hugging Face's METEOR splits a caption into sentences first: a full stop inside becomes a token.
        try:
            word_tokenize("Two. Sentences.")
        except LookupError:
            hint = "a caption of several sentences was taken as one: run python -m nltk.downloader punkt_tab"
            note = "; ".join(filter(None, (note, hint)))
        else:
            words = word_tokenize
    return _each(meteor(items.decoded, items.references, wordnet, words), note)


def _rouge(items: _Items, *, kind: Literal["rouge1", "rougeL"]) -> _Found:
    return _each(rouge(items.decoded, items.references, kind))


def _bleu(items: _Items, *, order: int, kind: Literal["coco", "hf"]) -> _Found:
    return _Found(float(bleu(*items.tokens, kind)[order - 1]), np.empty(0))


def _cider(items: _Items) -> _Found:
    if len(items.decoded) < 2:
        raise UnavailableError("CIDEr weighs n-grams by the images they occur in, and needs at least two: decode more")
    return _each(cider_d(*items.tokens), f"idf from the references of these {len(items.decoded)} images")


def _text_cosine(items: _Items, *, network: str) -> _Found:
    return _each(best_cosine(*items.texts(network), items.counts))


def _two_way(items: _Items, *, network: str) -> _Found:
    n = len(items.decoded)
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
    """A metric in a protocol: what it is called, how it is computed, and what splits captions for it."""

    name: str
    title: str
    compute: Callable[[_Items], _Found] = field(repr=False)
    tokenizer: str = ""
    direction: str = ""


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
    scale, digits : float, int
        Tables of the protocol print ``value * scale`` with so many decimals.
    source : str
        Where it was read.
    """

    name: str
    references: Literal["all", "first"]
    tokenizer: str
    metrics: tuple[CaptionMetric, ...]
    scale: float
    digits: int
    source: str


def _bleus(orders: Sequence[int], kind: Literal["coco", "hf"]) -> tuple[CaptionMetric, ...]:
    return tuple(
        CaptionMetric(f"bleu{order}", f"BLEU-{order}", partial(_bleu, order=order, kind=kind), _OWN) for order in orders
    )


_ROUGES = (
    CaptionMetric("rouge1", "ROUGE-1", partial(_rouge, kind="rouge1"), _ROUGE),
    CaptionMetric("rougeL", "ROUGE-L", partial(_rouge, kind="rougeL"), _ROUGE),
)
_CIDER = CaptionMetric("cider", "CIDEr-D", _cider, _OWN)
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
                    "two_way_caption",
                    "Two-way identification (CLIP text)",
                    partial(_two_way, network=_LARGE),
                    direction="recon->images",
                ),
            ),
            1.0,
            3,
            "ours",
        ),
        CaptionProtocol(
            "brainhub",
            "all",
            "ptb",
            (
                *_bleus((1, 2, 3, 4), "coco"),
                CaptionMetric("meteor", "METEOR 1.5 (Java)", lambda items: _Found(*meteor_java(*items.tokens)), _OWN),
                CaptionMetric("rougeL", "ROUGE-L (beta 1.2)", lambda items: _each(rouge_l_coco(*items.tokens)), _OWN),
                _CIDER,
                CaptionMetric("clip_s", "CLIP-S", lambda items: _each(items.clip_s)),
                CaptionMetric("ref_clip_s", "RefCLIP-S", _ref_clip_s),
                _SENTENCE,
            ),
            100.0,
            2,
            "weihaox/BrainHub, commit 4838666",
        ),
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
            1.0,
            4,
            "MedARC-AI/MindEyeV2, commit c184718; BLEU as in enomodnara/BrainCaptioning, commit e5c8c37",
        ),
    )
}
"""Protocols by name."""


def score_captions(
    decoded: Sequence[str],
    references: References,
    protocol: str = "standard",
    *,
    pictures: NDArray[np.uint8] | None = None,
    networks: Networks = published_clip,
) -> tuple[CaptionScore, ...]:
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
        Takes ``"clip-vit-b-32"`` or ``"clip-vit-l-14"``, and returns the `CaptionEmbedder` to use for it.

    Returns
    -------
    tuple of CaptionScore
        One per metric of the protocol, in its order. What cannot be computed here has no value, and a note says which
        command gets what is missing.

    Raises
    ------
    InputError
        If there is no such protocol, there are no captions, or their numbers differ, or an image has no reference or an
        empty one.
    """
    if protocol not in CAPTION_PROTOCOLS:
        raise InputError(f"There is no caption protocol {protocol!r}. Choose one of {', '.join(CAPTION_PROTOCOLS)}.")
    record = CAPTION_PROTOCOLS[protocol]
    _check(decoded, references, pictures)
    counts = sorted(map(len, references))
    used = f"{counts[0]} to {counts[-1]} per image" if counts[0] < counts[-1] else f"{counts[0]} per image"
    if record.references == "first":
        references, used = [true[:1] for true in references], f"the first of {used}"
    lacks_java = record.tokenizer == "ptb" and not java_is_there()
    tokenizer = "ptb-like" if lacks_java else record.tokenizer
    items = _Items(decoded, references, tokenizer, pictures, networks)
    empty = sum(not caption.strip() for caption in decoded)
    remark = f"empty decoded captions: {empty}" if empty else ""
    rows = []
    for metric in record.metrics:
        splits, notes = tokenizer if metric.tokenizer == _OWN else metric.tokenizer, [remark]
        value: float | None = None
        per_image: tuple[float, ...] = ()
        if metric.tokenizer == _OWN and lacks_java:
            notes.append(
                "tokenized by ptb-like for want of Java, so the digits are not the protocol's: run apt-get install "
                'default-jre-headless, and pip install "unibrain[captions]"'
            )
        try:
            found = metric.compute(items)
        except UnavailableError as missing:
            notes = [str(missing)]
        else:
            value, per_image = found.value, tuple(map(float, found.per_image))
            notes.append(found.note)
        rows.append(
            CaptionScore(
                metric.name,
                metric.title,
                value,
                per_image,
                protocol,
                splits,
                used,
                len(decoded),
                {package: version(package) for package in ("unibrain", *_PACKAGES.get(splits, ()))},
                "; ".join(filter(None, notes)),
                metric.direction,
            )
        )
    return tuple(rows)


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
