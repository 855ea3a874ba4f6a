"""WordNet's synonyms for METEOR: a small table in the package, and the full WordNet where it is installed."""

import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from unibrain.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/wordnet")
"""Where Debian's ``wordnet-base`` keeps WordNet 3.0."""

LARGEST_UNKNOWN_SHARE = 0.05
"""Up to this share of the decoded words may be malformed, that is, in no table."""

WORDNET_HINT = (
    "METEOR needs the full WordNet for these words: run apt-get install wordnet-base, "
    "or python -m nltk.downloader wordnet, then evaluate again"
)

# nltk asks for a file that Debian does not install; these are its 45 names (manual page lexnames(5WN)), with the
# number of the part of speech. METEOR does not depend on them.
_LEXNAMES = (
    ("adj", 3, "all pert"),
    ("adv", 4, "all"),
    (
        "noun",
        1,
        "Tops act animal artifact attribute body cognition communication event feeling food group location motive "
        "object person phenomenon plant possession process quantity relation shape state substance time",
    ),
    (
        "verb",
        2,
        "body change cognition communication competition consumption contact creation emotion motion perception "
        "possession social stative weather",
    ),
    ("adj", 3, "ppl"),
)


class WordNet(Protocol):
    """The part of nltk's WordNet reader that METEOR uses."""

    def __hash__(self) -> int: ...

    def synsets(self, word: str) -> Sequence[Any]:
        """All meanings of a word; each has ``lemmas()``, and each of those ``name()``."""
        ...


@lru_cache(2**16)
def words_of(caption: str) -> tuple[str, ...]:
    """The lower-case tokens of a caption as METEOR sees them (nltk's word tokeniser; a caption is one sentence).

    Examples
    --------
    >>> words_of("A red car, next to a dog.")
    ('a', 'red', 'car', ',', 'next', 'to', 'a', 'dog', '.')
    """
    from nltk.tokenize import word_tokenize

    # A whole line needs no sentence splitter, whose model is a download.
    return tuple(word_tokenize(caption.lower(), preserve_line=True))


@dataclass(frozen=True)
class _Lemma:
    word: str

    def name(self) -> str:
        return self.word


@dataclass(frozen=True)
class _Synset:
    known: tuple[_Lemma, ...]

    def lemmas(self) -> tuple[_Lemma, ...]:
        return self.known


@dataclass(frozen=True, eq=False)
class SynonymTable:
    """A table of synonyms that METEOR can use in the place of WordNet.

    METEOR asks for the words that share a meaning with a *decoded* word, and compares them with the words of the
    reference; it needs no more of WordNet than `synonyms` keeps: lower-case word to the one-word names of all its
    synsets, empty for a word that WordNet does not have.

    Examples
    --------
    >>> table = SynonymTable({"car": ("auto", "car")})
    >>> [lemma.name() for synset in table.synsets("car") for lemma in synset.lemmas()]
    ['auto', 'car']
    >>> "tractor" in table
    False
    """

    synonyms: Mapping[str, tuple[str, ...]]

    def __contains__(self, word: str) -> bool:
        # A mark such as a full stop is no word of WordNet, so nothing is missing for it.
        return word.lower() in self.synonyms or not any(character.isalnum() for character in word)

    def synsets(self, word: str) -> list[_Synset]:
        """One synset with all synonyms of `word`; none if there are none, or the word is not in the table."""
        names = self.synonyms.get(word.lower(), ())
        return [_Synset(tuple(map(_Lemma, names)))] if names else []


def synonym_names(wordnet: WordNet, word: str) -> tuple[str, ...]:
    """The one-word names of all synsets of `word`, sorted: all that METEOR uses of WordNet."""
    names: Iterable[str] = (lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas())
    return tuple(sorted({name for name in names if "_" not in name}))


@cache
def bundled_synonyms() -> SynonymTable:
    """The table of the scene world's vocabulary, derived from WordNet 3.0 (its licence lies beside it)."""
    source = files("unibrain.evaluation") / "data" / "wordnet-synonyms.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    return SynonymTable({word: tuple(names) for word, names in content["synonyms"].items()})


@cache
def full_wordnet(folder: Path = DEBIAN_FOLDER) -> WordNet | None:
    """The full WordNet, from Debian's package or from nltk's own data; None if neither is installed."""
    if (folder / "data.noun").is_file():
        return _read_folder(folder)
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    reader: WordNet = wordnet
    return reader


def _read_folder(folder: Path) -> WordNet:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    # nltk reads files only below the folders of its search path; adding one there is its way to permit it.
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))
    names = [(f"{kind}.{name}", number) for kind, number, group in _LEXNAMES for name in group.split()]
    lexnames = "".join(f"{row:02d}\t{name}\t{number}\n" for row, (name, number) in enumerate(names))

    class Reader(WordNetCorpusReader):  # type: ignore[misc]  # nltk has no types
        def open(self, file: str) -> object:
            return io.StringIO(lexnames) if file == "lexnames" else super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """No map to nltk's own copy of WordNet: only other languages than English need one."""

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other languages than English are not there
            reader: WordNet = Reader(str(folder), None)
    except (OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{folder}: WordNet cannot be read from there ({error}). Run apt-get install --reinstall wordnet-base."
        ) from error
    return reader


def choose_synonyms(decoded: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[WordNet | None, str]:
    """Choose the source of synonyms, and what to know of it; None if there would be no honest value.

    METEOR looks up decoded words only. So the table gives the very value of the full WordNet if it has all of them.
    If it has not, the full WordNet is used where it is installed. Where it is not, a few decoded words that are in no
    table are taken as malformed (without synonyms) if all words of the references are known, and counted in the note.
    """
    table = bundled_synonyms()
    words = [word for caption in decoded for word in words_of(caption)]
    unknown = [word for word in words if word not in table]
    if not unknown:
        return table, ""
    what = f"{len(unknown)} of {len(words)} decoded words are not in the synonym table (for example {unknown[0]!r})"
    wordnet = full_wordnet()
    if wordnet is not None:
        return wordnet, f"{what}, so the full WordNet was used"
    known_references = all(word in table for true in references for caption in true for word in words_of(caption))
    if known_references and len(unknown) <= LARGEST_UNKNOWN_SHARE * len(words):
        return table, f"{what}; they count as malformed, without synonyms"
    return None, f"{what}; {WORDNET_HINT}"
