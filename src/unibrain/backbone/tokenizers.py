"""Sentences to numbers and back: three tokenizers, and the clean-up of decoded captions.

They are built on the `tokenizers` library, with nothing left to defaults.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unibrain.errors import InputError

if TYPE_CHECKING:
    from tokenizers.models import BPE

OPENING, CLOSING = "([{", "?!.,:;}])"

GLUE = ""
"""Stands between a word and a punctuation mark that touches it."""


def _refuse(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}. Take vocabularies, weights and config.json from the same place.")


def _read_lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): a vocabulary may hold other characters that Python takes for the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise _refuse(path, "there is no such file") from None
    except UnicodeDecodeError:
        raise _refuse(path, "this is no UTF-8 text") from None
    return lines if lines[-1] else lines[:-1]


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        content: Any = json.loads("\n".join(_read_lines(path)))
    except (ValueError, RecursionError):
        raise _refuse(path, "this is no valid JSON") from None
    if not isinstance(content, dict) or not all(type(index) is int for index in content.values()):
        raise _refuse(path, "this is no map of pieces to numbers")
    if sorted(content.values()) != list(range(len(content))):
        raise _refuse(path, f"the numbers of the {len(content)} pieces are not 0 to {len(content) - 1}")
    return content


def _byte_pairs(vocabulary: dict[str, int], merges: Path, **options: Any) -> "BPE":
    from tokenizers.models import BPE

    pairs = [line.split(" ") for line in _read_lines(merges) if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise _refuse(merges, "a line is no pair of pieces")
    try:
        return BPE(vocabulary, [(left, right) for left, right in pairs], **options)
    except Exception as error:  # the library raises nothing more special
        raise _refuse(merges, f"the merges do not fit their vocabulary ({error})") from None


class _Tokenizer:
    """What all three have: `size` tokens, marks included, read from `path`."""

    path: Path
    size: int

    def require_size(self, expected: int) -> None:
        """Refuse a vocabulary of another size than its network's."""
        # An embedding looked up under another vocabulary's number would be a wrong result that nobody notices.
        if self.size != expected:
            raise _refuse(self.path, f"it has {self.size} tokens, marks included, and config.json says {expected}")

    def _require_marks(self, pieces: dict[str, int], *marks: str) -> None:
        for mark in marks:
            if mark not in pieces:
                raise _refuse(self.path, f"it has no {mark}")


class BertPieces(_Tokenizer):
    """Word pieces for Optimus' encoder, from one piece per line.

    Sentences are lower-cased before a *cased* vocabulary looks at them (so did the published training); accents stay.
    What is beyond `max_pieces` is cut off.
    """

    def __init__(self, vocabulary: Path, max_pieces: int = 77) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        lines = _read_lines(vocabulary)
        pieces = {piece: index for index, piece in enumerate(lines)}
        self.path, self.size, self.max_pieces = vocabulary, len(lines), max_pieces
        self._require_marks(pieces, "[PAD]", "[UNK]", "[CLS]", "[SEP]")
        self.pad, self.cls, self.sep = pieces["[PAD]"], pieces["[CLS]"], pieces["[SEP]"]
        self._tokenizer = Tokenizer(WordPiece(pieces, unk_token="[UNK]"))
        self._tokenizer.normalizer = BertNormalizer(lowercase=False, strip_accents=False)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def ids(self, sentence: str) -> list[int]:
        """Pieces of one sentence with begin and end marks."""
        pieces = self._tokenizer.encode(sentence.lower(), add_special_tokens=False).ids
        return [self.cls, *pieces[: self.max_pieces], self.sep]

    def __call__(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Pieces (B, longest), int64, padded, and the mask (B, longest), int64: 1 where there is a piece."""
        rows = [self.ids(sentence) for sentence in sentences]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad] * (width - len(row))] for row in rows], dtype=torch.int64)
        return ids, (ids != self.pad).long()


class Gpt2Tokens(_Tokenizer):
    """Tokens of Optimus' decoder, and its sentences as text.

    Padding, begin and end of sentence are the three numbers after the vocabulary.
    """

    def __init__(self, vocabulary: Path, merges: Path) -> None:
        from tokenizers import Tokenizer
        from tokenizers.decoders import ByteLevel as ByteLevelDecoder
        from tokenizers.pre_tokenizers import ByteLevel

        pieces = _read_vocabulary(vocabulary)
        self.path, self.size = vocabulary, len(pieces) + 3
        self.special = {len(pieces): "<PAD>", len(pieces) + 1: "<BOS>", len(pieces) + 2: "<EOS>"}
        self.pad, self.bos, self.eos = self.special
        self._tokenizer = Tokenizer(_byte_pairs(pieces, merges))
        self._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = ByteLevelDecoder()

    def ids(self, sentence: str) -> list[int]:
        """Tokens of one sentence from begin to end mark; a space sets it off, as in Optimus' training."""
        return [self.bos, *self._tokenizer.encode(" " + sentence.strip()).ids, self.eos]

    def raw_text(self, ids: Sequence[int]) -> str:
        """Text with the marks in it, cleaned up as the published code does."""
        parts: list[str] = []
        plain: list[int] = []
        for token in [*ids, None]:
            if token is not None and token not in self.special:
                plain.append(token)
                continue
            if plain:
                parts.append(self._tokenizer.decode(plain, skip_special_tokens=False))
                plain = []
            if token is not None:
                parts.append(" " + self.special[token])
        return clean_up("".join(parts))

    def caption(self, ids: Sequence[int]) -> str:
        """The sentence alone: the first and the last word, which are the marks, are dropped.

        As in the published code, a first word that is glued to the begin mark goes with it.
        """
        return " ".join(self.raw_text(ids).split()[1:-1])


class ClipTokens(_Tokenizer):
    """CLIP's tokens: lower-cased, byte-level pairs with word ends; every sentence is cut or padded to `length`."""

    def __init__(self, vocabulary: Path, merges: Path, length: int = 77) -> None:
        from tokenizers import Regex, Tokenizer
        from tokenizers.normalizers import NFC, Lowercase, Replace
        from tokenizers.normalizers import Sequence as NormalizerSequence
        from tokenizers.pre_tokenizers import ByteLevel, Split
        from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence

        pieces = _read_vocabulary(vocabulary)
        self.path, self.length, self.size = vocabulary, length, len(pieces)
        self._require_marks(pieces, "<|startoftext|>", "<|endoftext|>")
        self.bos, self.eos = pieces["<|startoftext|>"], pieces["<|endoftext|>"]
        self._tokenizer = Tokenizer(_byte_pairs(pieces, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
        self._tokenizer.normalizer = NormalizerSequence([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
        self._tokenizer.pre_tokenizer = PreTokenizerSequence(
            [Split(words, behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def require_end(self, expected: int) -> None:
        """Refuse a vocabulary whose end token is not that of the configuration."""
        if self.eos != expected:
            raise _refuse(self.path, f"the end token is number {self.eos}, and config.json says {expected}")

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Tokens of shape (B, length), int64: begin, sentence, end, padded with the end token."""
        rows = [
            [self.bos, *self._tokenizer.encode(sentence).ids[: self.length - 2], self.eos] for sentence in sentences
        ]
        return torch.tensor([row + [self.eos] * (self.length - len(row)) for row in rows], dtype=torch.int64)


def clean_up(text: str) -> str:
    """Take out spaces before punctuation and contract, by the list of the published code, in its order.

    It contracts wherever letters match: "does not" stays, and " do nothing" loses its meaning. Published captions were
    made so.
    """
    for found, put in (
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ):
        text = text.replace(found, put)
    return text


def remove_repeated_phrases(caption: str) -> str:
    """Keep one of equal neighbouring phrases, shortest phrases first; marks close up to their words.

    As the published code: a punctuation mark is a word of its own, and whether it touches its word counts.

    >>> remove_repeated_phrases("a dog on a dog on a dog on a beach")
    'a dog on a beach'
    >>> remove_repeated_phrases("a plate of food , food , food .")
    'a plate of food, food.'
    """
    tokens: list[str] = []
    for word in caption.split():
        rest = word.lstrip(OPENING)
        core = rest.rstrip(CLOSING)
        for mark in word[: len(word) - len(rest)]:
            tokens += [mark, GLUE]
        tokens += [core] if core else []
        for mark in rest[len(core) :]:
            tokens += [GLUE, mark]
    length = 1
    while 2 * length <= len(tokens):
        starts = range(len(tokens) - 2 * length + 1)
        again = [i + length for i in starts if tokens[i : i + length] == tokens[i + length : i + 2 * length]]
        if again:
            del tokens[again[0] : again[0] + length]
        else:
            length += 1
    return " ".join(tokens).replace(f" {GLUE} ", "").strip()
