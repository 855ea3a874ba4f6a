"""The three tokenizers against those of transformers, on the same vocabulary files; the clean-up of captions."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer, CLIPTokenizer, GPT2Tokenizer

from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens, clean_up, remove_repeated_phrases

WORDS = sorted({"a", "red", "bus", "on", "the", "street", "dog", "grass", "two", "birds", "house", "sea", "horse"})
UNICODE = (
    "a café naïve",
    "日本語 sign",
    "dog\u00a0cat",
    "giraffe 🦒!",
    "İstanbul ß",
    "cafe\u0301 e\u0301",
    "“red” bus…",
)
texts = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.lists(st.sampled_from([*WORDS, *UNICODE, "bus.", "dog's", "isn't", "3", "42", "A", "Bus", ","]), max_size=8).map(
        " ".join
    ),
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def byte_pairs(folder: Path, name: str) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    lines = (folder / f"{name}-merges.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#version")
    pieces = json.loads((folder / f"{name}-vocab.json").read_text(encoding="utf-8"))
    return pieces, [tuple(line.split()) for line in lines[1:]]


@pytest.fixture(scope="module")
def theirs(vocabulary_folder: Path) -> dict[str, Any]:
    """The tokenizers of transformers on the same files."""
    lines = (vocabulary_folder / "bert-vocab.txt").read_text(encoding="utf-8").splitlines()
    pieces = {piece: index for index, piece in enumerate(lines)}
    return {
        "bert": BertTokenizer(pieces, do_lower_case=False, strip_accents=False),
        "gpt2": GPT2Tokenizer(*byte_pairs(vocabulary_folder, "gpt2")),
        "clip": CLIPTokenizer(*byte_pairs(vocabulary_folder, "clip")),
    }


@quick
@given(texts)
@example("a café naïve")
@example("日本語 sign")
@example("giraffe 🦒!")
@example("İstanbul ß")
@example("cafe\u0301 e\u0301")
def test_tokens_are_those_of_transformers(
    bert: BertPieces, gpt2: Gpt2Tokens, clip: ClipTokens, theirs: Any, text: str
) -> None:
    pieces = theirs["bert"](text.lower())["input_ids"]
    assert bert.ids(text) == [*pieces[:-1][: bert.max_pieces + 1], pieces[-1]]
    assert gpt2.ids(text) == [gpt2.bos, *theirs["gpt2"](" " + text.strip())["input_ids"], gpt2.eos]
    tokens = theirs["clip"](text, padding="max_length", truncation=True, max_length=clip.length)["input_ids"]
    assert clip([text]).tolist() == [tokens]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_captions_come_back(gpt2: Gpt2Tokens, words: list[str]) -> None:
    caption = " ".join(words)
    tokens = gpt2.ids(caption)
    assert gpt2.caption(tokens) == caption
    assert gpt2.raw_text(tokens).split() == ["<BOS>", *words, "<EOS>"]


def test_unusual_captions_come_back(gpt2: Gpt2Tokens) -> None:
    for caption in ("a café naïve", "giraffe 🦒!", "a dog's house, isn't it?", "3 dogs"):
        assert gpt2.caption(gpt2.ids(caption)) == caption
    _, *dog, _ = gpt2.ids("a dog")
    assert gpt2.caption([gpt2.bos, *dog, gpt2.pad, *dog, gpt2.eos]) == "a dog <PAD> a dog"


def test_padding_and_mask(bert: BertPieces) -> None:
    ids, mask = bert(["a dog", "", "a red bus on the street"])
    assert mask.sum(1).tolist() == [len(bert.ids(text)) for text in ("a dog", "", "a red bus on the street")]
    assert ids.shape == mask.shape == (3, mask.sum(1).max())
    assert (ids[mask == 0] == bert.pad).all()


def test_long_sentences_are_cut(bert: BertPieces, clip: ClipTokens) -> None:
    sentence = " ".join(["dog"] * 50)
    ids, _ = bert([sentence])
    assert ids.shape == (1, bert.max_pieces + 2)
    assert ids[0, -1] == bert.sep
    tokens = clip([sentence])
    assert tokens.shape == (1, clip.length)
    assert (tokens[0] == clip.eos).sum() == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog , a cat .", "a dog, a cat."),
        ("dogs do not bark !", "dogs don't bark!"),
        ("it is n't the dog 's house ?", "it isn't the dog's house?"),
        ("i 'm sure they 've seen that we 're here", "i'm sure they've seen that we're here"),
        ("the dogs ' house", "the dogs'house"),
        ("a dog does not bark", "a dog does not bark"),
    ],
)
def test_the_published_contractions(text: str, expected: str) -> None:
    assert clean_up(text) == expected


MARKED = [*WORDS, "dog,", "(a", "dog)", "street.", ".", ",", "'", "dog's", "[", "))"]
marked = st.lists(st.sampled_from(MARKED), max_size=10).map(" ".join)
anything = st.one_of(marked, st.text("ab .,()", max_size=14), st.text(max_size=20))


@given(anything)
@settings(max_examples=300, deadline=None)
def test_no_word_is_added_or_lost_for_good(caption: str) -> None:
    before, after = (Counter(re.findall(r"\w+", text)) for text in (caption, remove_repeated_phrases(caption)))
    assert after <= before
    assert set(after) == set(before)
