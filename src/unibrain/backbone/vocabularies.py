"""The tokenizers of a backbone folder, checked against the networks that read their numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrain.backbone.parts import Parts
from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError

__all__ = ["Tokenizers", "open_tokenizers"]


@dataclass(frozen=True)
class Tokenizers:
    """Tokenizers of the parts that are loaded; None where there is none.

    Attributes
    ----------
    bert, gpt2
        Of Optimus.
    clip
    """

    bert: BertPieces | None = None
    gpt2: Gpt2Tokens | None = None
    clip: ClipTokens | None = None

    def joined(self, other: "Tokenizers") -> "Tokenizers":
        """These, and what `other` has beside them."""
        return Tokenizers(self.bert or other.bert, self.gpt2 or other.gpt2, self.clip or other.clip)


def open_tokenizers(folder: Path, parts: Parts, max_pieces: int, end_token: int) -> Tokenizers:
    """Open the tokenizers that the loaded parts need.

    Parameters
    ----------
    folder : Path
        With the vocabularies.
    parts : Parts
    max_pieces : int
        Word pieces that Optimus reads.
    end_token : int
        CLIP's end token as the configuration has it.

    Returns
    -------
    Tokenizers

    Raises
    ------
    InputError
        If a vocabulary is missing, damaged, or of another size than its network.
    """
    bert, gpt2, clip = None, None, None
    if "optimus" in parts:
        optimus = parts.get("optimus")
        bert = BertPieces(folder / "bert-vocab.txt", max_pieces)
        gpt2 = Gpt2Tokens(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt")
        _check_size(folder / "bert-vocab.txt", bert, optimus.bert.config.vocab_size)
        _check_size(folder / "gpt2-vocab.json", gpt2, optimus.gpt2.config.vocab_size)
    if "clip" in parts:
        config = parts.get("clip").config.text_config
        clip = ClipTokens(folder / "clip-vocab.json", folder / "clip-merges.txt", config.max_position_embeddings)
        _check_size(folder / "clip-vocab.json", clip, config.vocab_size)
        if clip.eos != end_token:
            raise InputError(
                f"{folder / 'clip-vocab.json'}: the end token is number {clip.eos}, expected {end_token} as in "
                "config.json: take vocabularies and weights from the same place"
            )
    return Tokenizers(bert, gpt2, clip)


def _check_size(file: Path, tokenizer: Any, expected: int) -> None:
    # An embedding looked up under another vocabulary's number would be a wrong result that nobody notices.
    if tokenizer.size != expected:
        raise InputError(
            f"{file}: {tokenizer.size} tokens, marks included, expected the {expected} of config.json: "
            "take vocabularies and weights from the same place"
        )
