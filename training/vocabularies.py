"""Vocabularies of the small backbone's three tokenizers, made from the captions it is trained on."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens


@dataclass(frozen=True)
class Vocabularies:
    """The three tokenizers; `sizes` are the entries of their vocabularies in this order (GPT-2: with its marks)."""

    bert: BertPieces
    gpt2: Gpt2Tokens
    clip: ClipTokens
    sizes: tuple[int, int, int]


def make_vocabularies(captions: Iterable[str], folder: Path) -> None:
    """Write the files of vocabularies; every word of the captions becomes one token, all other words are spelled."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer

    captions = list(captions)
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({word for caption in captions for word in caption.lower().replace("-", " - ").split()})
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + letter for letter in letters if letter.isalnum())]
    pieces += [word for word in words if word not in pieces]
    (folder / "bert-vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")

    alphabet = sorted(ByteLevel.alphabet())
    for name, ending in (("gpt2", ""), ("clip", "</w>")):
        tokenizer = Tokenizer(BPE(end_of_word_suffix=ending) if ending else BPE())
        if ending:
            split = Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True)
            tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
        else:
            tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        # Every byte may end a word, as in CLIP's own vocabulary. The trainer would number those that it meets in any
        # order, and decide by number between equally frequent pairs; named in advance, they are the same every time.
        endings = [letter + ending for letter in alphabet] if ending else []
        suffix: dict[str, Any] = {"end_of_word_suffix": ending, "special_tokens": endings} if ending else {}
        trainer = BpeTrainer(
            vocab_size=4000,
            min_frequency=2,
            initial_alphabet=alphabet,
            show_progress=False,
            **suffix,
        )
        tokenizer.train_from_iterator((caption if ending else " " + caption for caption in captions), trainer)
        model = json.loads(tokenizer.to_str())["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        marks = ["<|startoftext|>", "<|endoftext|>"] if ending else []
        known = dict.fromkeys([*alphabet, *endings, *(pair.replace(" ", "") for pair in merges), *marks])
        vocabulary = {piece: index for index, piece in enumerate(known)}
        (folder / f"{name}-vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        (folder / f"{name}-merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def open_vocabularies(folder: Path, text_tokens: int, max_pieces: int) -> Vocabularies:
    """Open what `make_vocabularies` wrote, for so many tokens of CLIP and word pieces of Optimus."""
    bert = BertPieces(folder / "bert-vocab.txt", max_pieces)
    gpt2 = Gpt2Tokens(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt")
    clip = ClipTokens(folder / "clip-vocab.json", folder / "clip-merges.txt", text_tokens)
    return Vocabularies(bert, gpt2, clip, (bert.size, gpt2.size, clip.size))


def unrepeated(captions: Iterable[str], gpt2: Gpt2Tokens) -> tuple[int, ...]:
    """Tokens of words that the captions say, but none of them twice, such as the nouns of different objects."""
    most: Counter[int] = Counter()
    for caption in captions:
        most |= Counter(gpt2.ids(caption)[1:-1])  # without the marks; the larger count of each
    return tuple(sorted(token for token, count in most.items() if count == 1))
