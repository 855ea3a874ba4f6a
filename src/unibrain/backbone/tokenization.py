"""The three tokenizers, built on the `tokenizers` library from vocabulary files, with nothing left to defaults."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unibrain.errors import InputError

if TYPE_CHECKING:
    from tokenizers.models import BPE

__all__ = ["BertPieces", "ClipTokens", "Gpt2Tokens"]


def _read_lines(path: Path, what: str) -> list[str]:
    try:
        # Not splitlines(): a vocabulary may hold other characters that Python takes for the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected {what}: fetch the backbone again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: no UTF-8 text, expected {what}: fetch the backbone again") from None
    return lines if lines[-1] else lines[:-1]


def _read_json_vocabulary(path: Path) -> dict[str, int]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a tokenizer's vocabulary: fetch the backbone again") from None
    except ValueError as error:
        raise InputError(
            f"{path}: no valid JSON ({error}), expected a tokenizer's vocabulary: fetch the backbone again"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(index, int) for index in content.values()):
        raise InputError(
            f"{path}: no map of pieces to numbers, expected a tokenizer's vocabulary: fetch the backbone again"
        )
    return content


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = _read_lines(path, "a tokenizer's merges")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{path}: a line is no pair, expected two pieces per line: fetch the backbone again")
    return [(left, right) for left, right in pairs]


def _byte_pairs(vocabulary: dict[str, int], merges: Path, **options: Any) -> "BPE":
    from tokenizers.models import BPE

    pairs = _read_merges(merges)
    try:
        return BPE(vocabulary, pairs, **options)
    except Exception as error:  # the library raises nothing more special
        raise InputError(
            f"{merges}: does not fit its vocabulary ({error}), expected merges of known pieces: fetch the backbone "
            "again"
        ) from None


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


class BertPieces:
    """Word pieces for Optimus' encoder.

    Sentences are lower-cased before a *cased* vocabulary looks at them (so did the published training); accents stay.

    Parameters
    ----------
    vocabulary : path-like
        One piece per line; must hold ``[PAD]``, ``[UNK]``, ``[CLS]`` and ``[SEP]``.
    max_pieces : int
        The rest of a longer sentence is cut off.
    """

    def __init__(self, vocabulary: str | Path, max_pieces: int = 77) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        lines = _read_lines(Path(vocabulary), "BERT's vocabulary")
        pieces = {piece: index for index, piece in enumerate(lines)}
        self.size = len(lines)
        for mark in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
            if mark not in pieces:
                raise InputError(f"{vocabulary}: holds no {mark}, expected BERT's vocabulary: fetch the backbone again")
        self.max_pieces = max_pieces
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
        ids = _pad([self.ids(sentence) for sentence in sentences], self.pad)
        return ids, (ids != self.pad).long()


class Gpt2Tokens:
    """Tokens of Optimus' decoder, and its sentences as text.

    Parameters
    ----------
    vocabulary, merges : path-like
        GPT-2's files. Padding, begin and end of sentence are the three ids after the vocabulary.
    """

    def __init__(self, vocabulary: str | Path, merges: str | Path) -> None:
        from tokenizers import Tokenizer
        from tokenizers.decoders import ByteLevel as ByteLevelDecoder
        from tokenizers.pre_tokenizers import ByteLevel

        pieces = _read_json_vocabulary(Path(vocabulary))
        self.size = len(pieces) + 3
        self.special = {len(pieces): "<PAD>", len(pieces) + 1: "<BOS>", len(pieces) + 2: "<EOS>"}
        self.pad, self.bos, self.eos = self.special
        self._tokenizer = Tokenizer(_byte_pairs(pieces, Path(merges)))
        self._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = ByteLevelDecoder()

    def ids(self, sentence: str) -> list[int]:
        """Tokens of one sentence from begin to end mark; a space sets it off, as in Optimus' training."""
        return [self.bos, *self._tokenizer.encode(" " + sentence.strip()).ids, self.eos]

    def raw_text(self, ids: Sequence[int]) -> str:
        """Text with the marks in it and the spaces before punctuation taken out."""
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
        return _close_up("".join(parts))

    def caption(self, ids: Sequence[int]) -> str:
        """The sentence alone: the first and the last word, which are the marks, are dropped.

        As in the published code, a first word that is glued to the begin mark goes with it.
        """
        return " ".join(self.raw_text(ids).split()[1:-1])


def _close_up(text: str) -> str:
    for ending in (".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(" " + ending, ending)
    return text.replace(" ' ", "'")


class ClipTokens:
    """CLIP's tokens: lower-cased, byte-level pairs with word ends.

    Parameters
    ----------
    vocabulary, merges : path-like
        CLIP's files.
    length : int
        Every sentence is cut or padded to it.
    """

    def __init__(self, vocabulary: str | Path, merges: str | Path, length: int = 77) -> None:
        from tokenizers import Regex, Tokenizer
        from tokenizers.normalizers import NFC, Lowercase, Replace
        from tokenizers.normalizers import Sequence as NormalizerSequence
        from tokenizers.pre_tokenizers import ByteLevel, Split
        from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence

        pieces = _read_json_vocabulary(Path(vocabulary))
        for mark in ("<|startoftext|>", "<|endoftext|>"):
            if mark not in pieces:
                raise InputError(f"{vocabulary}: holds no {mark}, expected CLIP's vocabulary: fetch the backbone again")
        self.length, self.size = length, len(pieces)
        self.bos, self.eos = pieces["<|startoftext|>"], pieces["<|endoftext|>"]
        self._tokenizer = Tokenizer(
            _byte_pairs(pieces, Path(merges), end_of_word_suffix="</w>", unk_token="<|endoftext|>")
        )
        self._tokenizer.normalizer = NormalizerSequence([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
        self._tokenizer.pre_tokenizer = PreTokenizerSequence(
            [Split(words, behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Tokens of shape (B, length), int64: begin, sentence, end, padded with the end token."""
        rows = [
            [self.bos, *self._tokenizer.encode(sentence).ids[: self.length - 2], self.eos] for sentence in sentences
        ]
        return torch.tensor([row + [self.eos] * (self.length - len(row)) for row in rows], dtype=torch.int64)
