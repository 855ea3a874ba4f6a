"""How alike two captions are: METEOR, ROUGE, BLEU, CIDEr-D, and cosines of embeddings, against several references.

METEOR and ROUGE take captions; BLEU, CIDEr-D and COCO's ROUGE-L take tokens, as from
`unibrain.evaluation.caption_tokens`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import UnavailableError
from unibrain.evaluation.wordnet import SynonymTable, WordNet, synonym_names, words_of

References = Sequence[Sequence[str]]
Tokens = Sequence[str]

_ORDERS = 4  # n-grams of 1 to 4 tokens, in BLEU and in CIDEr
_CIDER_SIGMA = 6.0
_ROUGE_BETA = 1.2
_CLIP_SCALE = 2.5

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_SENTENCE_TOKENS = 256
_AT_ONCE = 64


@cache
def _stemmer() -> Any:
    """Porter's stemmer with a memory: captions share most of their words."""
    from nltk.stem.porter import PorterStemmer

    return SimpleNamespace(stem=lru_cache(2**16)(PorterStemmer().stem))


@lru_cache(2**16)
def _synonyms(wordnet: Any, word: str) -> tuple[str, ...]:
    return synonym_names(wordnet, word)


def meteor(
    decoded: Sequence[str],
    references: References,
    wordnet: WordNet,
    words: Callable[[str], Sequence[str]] = words_of,
) -> NDArray[np.float64]:
    """METEOR (Lavie and Agarwal 2007) as nltk computes it, against the best reference: shape (n,), 0 to 1.

    Exact matches, matches of Porter stems, then synonyms of the decoded words; alpha 0.9, beta 3, gamma 0.5. Not on the
    scale of the Java program METEOR 1.5. An empty caption scores 0. `words` splits a caption into tokens.
    """
    from nltk.translate.meteor_score import meteor_score

    tokens = cache(words)
    # Synonyms that no reference has can match nothing, and most are such.
    vocabulary = {word for true in references for reference in true for word in tokens(reference)}
    table = SynonymTable(
        {
            word: tuple(name for name in _synonyms(wordnet, word) if name in vocabulary)
            for word in {word for caption in decoded for word in tokens(caption)}
        }
    )
    values = [
        meteor_score([tokens(reference) for reference in true], tokens(caption), stemmer=_stemmer(), wordnet=table)
        for caption, true in zip(decoded, references, strict=True)
    ]
    return np.array(values, dtype=np.float64)


def rouge(decoded: Sequence[str], references: References, kind: Literal["rouge1", "rougeL"]) -> NDArray[np.float64]:
    """ROUGE-1 (shared words) or ROUGE-L (longest common subsequence; Lin 2004): shape (n,), 0 to 1.

    The F measure, without stemming, against the best reference; one value per sentence, to be averaged (no bootstrap,
    so the result is the same every time). An empty caption scores 0.
    """
    scorer = _rouge_scorer(kind)
    values = [
        scorer.score_multi(list(true), caption)[kind].fmeasure
        for caption, true in zip(decoded, references, strict=True)
    ]
    return np.array(values, dtype=np.float64)


@cache
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=False)
    return RougeScorer([kind], tokenizer=SimpleNamespace(tokenize=lru_cache(2**16)(tokenizer.tokenize)))


def rouge_l_coco(decoded: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """ROUGE-L of COCO's caption evaluation (pycocoevalcap), from tokens: shape (n,), 0 to 1.

    The longest common subsequence gives a precision and a recall with each reference. The best precision and the best
    recall, which may be of two references, are joined with beta 1.2: ``(1 + b²) p r / (r + b² p)``.
    """
    values = np.zeros(len(decoded))
    for row, (caption, true) in enumerate(zip(decoded, references, strict=True)):
        common = [_common_length(reference, caption) for reference in true]
        if any(common):
            precision = max(common) / len(caption)
            recall = max(shared / max(len(reference), 1) for shared, reference in zip(common, true, strict=True))
            values[row] = (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)
    return values


def _common_length(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for token in first:
        before = 0
        for place, other in enumerate(second, 1):
            above = lengths[place]
            lengths[place] = before + 1 if token == other else max(above, lengths[place - 1])
            before = above
    return lengths[-1]


def _ngrams(tokens: Tokens) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(tokens) - order + 1)
    )


def bleu(
    decoded: Sequence[Tokens], references: Sequence[Sequence[Tokens]], kind: Literal["coco", "hf"] = "coco"
) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), from tokens: shape (4,), 0 to 1.

    Counts are summed over all captions, so there is no value per image. Two definitions that the field prints:
    ``"coco"`` is pycocoevalcap's, which compares lengths with the reference of closest length (the shorter of two) and
    adds 1e-15 to counts of matches and 1e-9 to counts of guesses; ``"hf"`` is that of Hugging Face's ``evaluate``
    without smoothing, which compares lengths with the shortest reference.
    """
    correct, guesses, length, reference_length = np.zeros(_ORDERS), np.zeros(_ORDERS), 0, 0
    for caption, true in zip(decoded, references, strict=True):
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in true:
            allowed |= _ngrams(reference)
        for ngram, count in (_ngrams(caption) & allowed).items():
            correct[len(ngram) - 1] += count
        guesses += np.maximum(len(caption) - np.arange(_ORDERS), 0)
        length += len(caption)
        lengths = map(len, true)
        reference_length += (
            min(lengths, key=lambda tokens: (abs(tokens - len(caption)), tokens)) if kind == "coco" else min(lengths)
        )
    tiny, small = (1e-15, 1e-9) if kind == "coco" else (0.0, 0.0)
    if length == 0 and kind == "hf":
        return np.zeros(_ORDERS)
    precisions = (correct + tiny) / (np.maximum(guesses, 1 - np.sign(small)) + small)
    ratio = (length + tiny) / (reference_length + small)
    brevity = np.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    means: NDArray[np.float64] = np.cumprod(precisions) ** (1 / np.arange(1, _ORDERS + 1)) * brevity
    return means


def cider_d(decoded: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """CIDEr-D (Vedantam et al. 2015), which pycocoevalcap calls CIDEr, from tokens: shape (n,), 0 to 10.

    Cosines of tf-idf weights of n-grams (n = 1 to 4), clipped to the reference's weight, times a Gaussian penalty of
    the difference in length (sigma 6), averaged over n and references, times 10. The idf comes from the references of
    these n images alone: **the value of an image depends on the pool it is scored in**, and with one image all are 0.
    """
    documents = Counter(ngram for true in references for ngram in set().union(*map(_ngrams, true)))
    all_images = np.log(max(len(references), 1))
    idf = {ngram: float(all_images - np.log(count)) for ngram, count in documents.items()}

    def weigh(tokens: Tokens) -> tuple[dict[tuple[str, ...], float], NDArray[np.float64], int]:
        weights = {ngram: count * idf.get(ngram, float(all_images)) for ngram, count in _ngrams(tokens).items()}
        squares = np.zeros(_ORDERS)
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        # pycocoevalcap's length is the number of pairs of words.
        return weights, np.sqrt(squares), max(len(tokens) - 1, 0)

    values = np.zeros(len(decoded))
    for row, (caption, true) in enumerate(zip(decoded, references, strict=True)):
        own, own_norm, own_length = weigh(caption)
        for reference in true:
            weights, norm, length = weigh(reference)
            products = np.zeros(_ORDERS)
            for ngram in own.keys() & weights.keys():
                products[len(ngram) - 1] += min(own[ngram], weights[ngram]) * weights[ngram]
            norms = own_norm * norm
            cosines = np.divide(products, norms, out=np.zeros(_ORDERS), where=norms > 0)
            penalty = np.exp(-((own_length - length) ** 2) / (2 * _CIDER_SIGMA**2))
            values[row] += 10 * cosines.mean() * penalty / len(true)
    return values


def sentence_embeddings(captions: Sequence[str], model: str = SENTENCE_MODEL) -> NDArray[np.float32]:
    """Embed captions with a sentence encoder of the Hugging Face hub: shape (n, width), rows of norm 1.

    The mean over the tokens of the last layer (Reimers and Gurevych 2019), of at most 256 tokens. The weights are read
    from the hub's cache, or from a folder; `UnavailableError` names the command that gets them.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    known: dict[str, Any] = {"local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **known)
        network = AutoModel.from_pretrained(model, use_safetensors=True, **known).eval()
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the sentence encoder is not here: run hf download {model}") from error
    # Captions of one length together: little is computed for padding.
    order = np.argsort([len(caption) for caption in captions], kind="stable")
    rows: NDArray[np.float32] = np.empty((len(captions), network.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            batch = tokenizer(
                [captions[place] for place in places],
                padding=True,
                truncation=True,
                max_length=_SENTENCE_TOKENS,
                return_tensors="pt",
            )
            there = batch["attention_mask"][..., None].to(torch.float32)
            means = (network(**batch).last_hidden_state * there).sum(1) / there.sum(1)
            rows[places] = torch.nn.functional.normalize(means, dim=1).numpy()
    return rows


def cosine(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each row of `first` with the same row of `second`, both (n, width): shape (n,), -1 to 1.

    NaN where a row is zero.
    """
    one, other = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return found


def best_cosine(captions: NDArray[Any], references: NDArray[Any], counts: Sequence[int]) -> NDArray[np.float64]:
    """Cosine of each caption's embedding with the best of its references, shape (n,).

    `references` has shape (sum of `counts`, width); ``counts[i]`` of its rows, in order, are of caption i.
    """
    each = cosine(np.repeat(captions, counts, axis=0), references)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    best: NDArray[np.float64] = np.maximum.reduceat(each, starts)
    return best


def clip_score(pictures: NDArray[Any], captions: NDArray[Any]) -> NDArray[np.float64]:
    """CLIP-S (Hessel et al. 2021) from CLIP embeddings (n, width) of pictures and captions: shape (n,), 0 to 2.5.

    ``2.5 max(cosine, 0)``. Its captions begin with "A photo depicts ", and its network is CLIP ViT-B/32.
    """
    score: NDArray[np.float64] = _CLIP_SCALE * np.maximum(cosine(pictures, captions), 0)
    return score


def reference_clip_score(scores: NDArray[Any], reference_cosines: NDArray[Any]) -> NDArray[np.float64]:
    """RefCLIP-S (Hessel et al. 2021): harmonic mean of each CLIP-S and the best cosine with a reference, shape (n,).

    The cosine is neither multiplied by 2.5 nor cut at 0, as in the authors' code. Where the two add up to 0 it is 0.
    """
    total = scores + reference_cosines
    mean: NDArray[np.float64] = np.divide(
        2 * scores * reference_cosines, total, out=np.zeros(len(total)), where=total != 0
    )
    return mean
