"""How a caption becomes tokens before n-grams are counted: one function per tokenizer, by name in `TOKENIZERS`."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from unibrain.evaluation.caption_java import ptb_lines

DROPPED = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;", "-", "--", "..."])
"""What COCO's caption evaluation drops after tokenizing. Tokens are lower case by then, so its brackets never match."""

_ABBREVIATIONS = frozenset(["mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "inc", "co", "mt", "ave"])
_MARKS_13A = re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])")


def ptb(captions: Sequence[str]) -> list[list[str]]:
    """Penn Treebank tokens as COCO's caption evaluation makes them: Stanford CoreNLP 3.4.1 (Java), lower case."""
    # CoreNLP joins "8 1/2" by a no-break space, where pycocoevalcap's BLEU and CIDEr split it again.
    return [[token for token in line.split() if token not in DROPPED] for line in ptb_lines(captions)]


def ptb_like(captions: Sequence[str]) -> list[list[str]]:
    """Penn Treebank tokens without Java, by nltk's Treebank tokenizer: near to `ptb`, and not the same.

    Abbreviations are a short list, and numbers, currencies and dashes are left as they are.
    """
    return list(map(_ptb_like, captions))


@cache
def _treebank() -> Any:
    from nltk.tokenize import TreebankWordTokenizer

    return TreebankWordTokenizer()


def _ptb_like(caption: str) -> list[str]:
    text = re.sub(r"(?<!\S)'(?=\w{3})", "' ", caption.lower())  # a quotation begins
    text = re.sub(r"(\w+)\.(?=\s)", _split_full_stop, text)
    tokens = _treebank().tokenize(text, convert_parentheses=True)
    return [token for token in (token.lower() for token in tokens) if token not in DROPPED]


def _split_full_stop(word: "re.Match[str]") -> str:
    known = word[1] in _ABBREVIATIONS or len(word[1]) == 1
    return word[0] if known else f"{word[1]} ."


def mteval_13a(captions: Sequence[str]) -> list[list[str]]:
    """Tokens of NIST's mteval-v13a, as Hugging Face's BLEU makes them: marks stand alone, and case is kept."""
    return list(map(_mteval_13a, captions))


def _mteval_13a(caption: str) -> list[str]:
    text = caption.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for code, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(code, mark)
    text = _MARKS_13A.sub(r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([\.,])", r"\1 \2 ", text)
    text = re.sub(r"([\.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", text).split()


TOKENIZERS: Mapping[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "ptb": ptb,
    "ptb-like": ptb_like,
    "13a": mteval_13a,
}
