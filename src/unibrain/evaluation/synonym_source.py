"""Which synonyms METEOR may use for these captions, so that its value is the one the full WordNet would give."""

from collections.abc import Callable, Iterable, Sequence

from unibrain.evaluation.captions import words_of
from unibrain.evaluation.wordnet import SynonymTable, WordNet, bundled_synonyms, full_wordnet

__all__ = ["LARGEST_UNKNOWN_SHARE", "WORDNET_HINT", "choose_synonyms"]

LARGEST_UNKNOWN_SHARE = 0.05
"""Up to this share of the decoded words may be malformed, that is, in no table."""

WORDNET_HINT = (
    "METEOR needs the full WordNet for these words: run apt-get install wordnet-base, "
    "or python -m nltk.downloader wordnet, then evaluate again"
)


def choose_synonyms(
    decoded: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    table: SynonymTable | None = None,
    full: Callable[[], WordNet | None] = full_wordnet,
) -> tuple[WordNet | None, str]:
    """Choose the source of synonyms.

    METEOR looks up decoded words only. So the table gives the very value of the full WordNet if it has all of them.
    If it has not, the full WordNet is used where it is installed. Where it is not, a few decoded words that are in no
    table are taken as malformed (without synonyms) if all words of the references are known, and counted in the note;
    otherwise there is no honest value.

    Parameters
    ----------
    decoded : sequence of str
        Decoded captions.
    references : sequence of sequences of str
        True captions.
    table : SynonymTable, optional
        The small table; the one of the package by default.
    full : callable
        Returns the full WordNet, or None where it is not installed.

    Returns
    -------
    wordnet : WordNet or None
        None if METEOR cannot be computed.
    note : str
        What to know of the value, or how to get one; empty if the table has every word.
    """
    table = bundled_synonyms() if table is None else table
    words = [word for caption in decoded for word in words_of(caption)]
    unknown = _outside(table, words)
    if not unknown:
        return table, ""
    what = f"{len(unknown)} of {len(words)} decoded words are not in the synonym table (for example {unknown[0]!r})"
    wordnet = full()
    if wordnet is not None:
        return wordnet, f"{what}, so the full WordNet was used"
    known_references = not _outside(
        table, (word for true in references for caption in true for word in words_of(caption))
    )
    if known_references and len(unknown) <= LARGEST_UNKNOWN_SHARE * len(words):
        return table, f"{what}; they count as malformed, without synonyms"
    return None, f"{what}; {WORDNET_HINT}"


def _outside(table: SynonymTable, words: Iterable[str]) -> list[str]:
    return [word for word in words if word not in table]
