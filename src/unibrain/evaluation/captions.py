"""How alike two captions are: METEOR and ROUGE against several references."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unibrain.evaluation.wordnet import WordNet

References = Sequence[Sequence[str]]


def words_of(caption: str) -> list[str]:
    """The lower-case tokens of a caption as METEOR sees them (nltk's word tokeniser; a caption is one sentence).

    Examples
    --------
    >>> words_of("A red car, next to a dog.")
    ['a', 'red', 'car', ',', 'next', 'to', 'a', 'dog', '.']
    """
    from nltk.tokenize import word_tokenize

    # A whole line needs no sentence splitter, whose model is a download.
    tokens: list[str] = word_tokenize(caption.lower(), preserve_line=True)
    return tokens


class _CachedStemmer:
    """Porter's stemmer with a memory: captions share most of their words."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = cache(PorterStemmer().stem)


def meteor(decoded: Sequence[str], references: References, wordnet: "WordNet") -> NDArray[np.float64]:
    """METEOR (Lavie and Agarwal 2007) as nltk computes it, against the best reference: shape (n,), 0 to 1.

    Exact matches, matches of Porter stems, then synonyms of the decoded words; alpha 0.9, beta 3, gamma 0.5. Not on the
    scale of the Java program METEOR 1.5. An empty caption scores 0.
    """
    from nltk.translate.meteor_score import meteor_score

    stemmer = _CachedStemmer()
    tokens = cache(words_of)
    values = [
        meteor_score([tokens(reference) for reference in true], tokens(caption), stemmer=stemmer, wordnet=wordnet)
        for caption, true in zip(decoded, references, strict=True)
    ]
    return np.array(values, dtype=np.float64)


def rouge(decoded: Sequence[str], references: References, kind: Literal["rouge1", "rougeL"]) -> NDArray[np.float64]:
    """ROUGE-1 (shared words) or ROUGE-L (longest common subsequence; Lin 2004): shape (n,), 0 to 1.

    The F measure, without stemming, against the best reference; one value per sentence, to be averaged (no bootstrap,
    so the result is the same every time). An empty caption scores 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=False)
    values = [
        scorer.score_multi(list(true), caption)[kind].fmeasure
        for caption, true in zip(decoded, references, strict=True)
    ]
    return np.array(values, dtype=np.float64)
