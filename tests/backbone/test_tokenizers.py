"""The three tokenizers against those of transformers, on the same vocabulary files."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer, CLIPTokenizer, GPT2Tokenizer

from unibrain.backbone.storage import VOCABULARY_FILES
from unibrain.training.vocabularies import Vocabularies, make_vocabularies

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


def read_json(path: Path) -> dict[str, int]:
    return json.loads(path.read_text(encoding="utf-8"))


def merges(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#version")
    return [tuple(line.split()) for line in lines[1:]]


@pytest.fixture(scope="module")
def bert(vocabulary_folder: Path) -> Any:
    lines = (vocabulary_folder / "bert-vocab.txt").read_text(encoding="utf-8").splitlines()
    return BertTokenizer({piece: index for index, piece in enumerate(lines)}, do_lower_case=False, strip_accents=False)


@pytest.fixture(scope="module")
def plain_bert(vocabulary_folder: Path) -> Any:
    """The older one, in Python only: it shares no code with ours."""
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    return legacy.BertTokenizerLegacy(
        str(vocabulary_folder / "bert-vocab.txt"), do_lower_case=False, strip_accents=False
    )


@pytest.fixture(scope="module")
def gpt2(vocabulary_folder: Path) -> Any:
    return GPT2Tokenizer(
        read_json(vocabulary_folder / "gpt2-vocab.json"), merges(vocabulary_folder / "gpt2-merges.txt")
    )


@pytest.fixture(scope="module")
def clip(vocabulary_folder: Path) -> Any:
    return CLIPTokenizer(
        read_json(vocabulary_folder / "clip-vocab.json"), merges(vocabulary_folder / "clip-merges.txt")
    )


@quick
@given(texts)
@example("a café naïve")
@example("日本語 sign")
def test_bert_pieces_are_those_of_transformers(vocabularies: Vocabularies, bert: Any, text: str) -> None:
    ours = vocabularies.bert
    expected = bert(text.lower())["input_ids"]
    assert ours.ids(text) == [*expected[:-1][: ours.max_pieces + 1], expected[-1]]


@quick
@given(texts)
@example("a café naïve")
def test_bert_pieces_are_those_of_the_python_tokenizer(vocabularies: Vocabularies, plain_bert: Any, text: str) -> None:
    pieces = plain_bert.convert_tokens_to_ids(plain_bert.tokenize(text.lower()))
    ours = vocabularies.bert
    assert ours.ids(text) == [ours.cls, *pieces[: ours.max_pieces], ours.sep]


@quick
@given(texts)
@example("a café naïve")
@example("giraffe 🦒!")
def test_gpt2_tokens_are_those_of_transformers(vocabularies: Vocabularies, gpt2: Any, text: str) -> None:
    ours = vocabularies.gpt2
    assert ours.ids(text) == [ours.bos, *gpt2(" " + text.strip())["input_ids"], ours.eos]


@quick
@given(texts)
@example("İstanbul ß")
@example("cafe\u0301 e\u0301")
def test_clip_tokens_are_those_of_transformers(vocabularies: Vocabularies, clip: Any, text: str) -> None:
    ours = vocabularies.clip
    expected = clip(text, padding="max_length", truncation=True, max_length=ours.length)["input_ids"]
    assert ours([text]).tolist() == [expected]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_captions_come_back(vocabularies: Vocabularies, words: list[str]) -> None:
    caption = " ".join(words)
    tokens = vocabularies.gpt2.ids(caption)
    assert vocabularies.gpt2.caption(tokens) == caption
    assert vocabularies.gpt2.raw_text(tokens).split() == ["<BOS>", *words, "<EOS>"]


@pytest.mark.parametrize("caption", ["a café naïve", "giraffe 🦒!", "a dog's house, isn't it?", "3 dogs"])
def test_unusual_captions_come_back(vocabularies: Vocabularies, caption: str) -> None:
    assert vocabularies.gpt2.caption(vocabularies.gpt2.ids(caption)) == caption


def test_marks_inside_a_sentence_stay(vocabularies: Vocabularies) -> None:
    gpt2 = vocabularies.gpt2
    _, *dog, _ = gpt2.ids("a dog")
    assert gpt2.caption([gpt2.bos, *dog, gpt2.pad, *dog, gpt2.eos]) == "a dog <PAD> a dog"


def test_every_word_of_the_captions_is_one_token(vocabularies: Vocabularies, captions: tuple[str, ...]) -> None:
    known = [word for word in WORDS if sum(word in caption.split() for caption in captions) > 1]
    assert len(known) > 5
    for word in known:
        assert len(vocabularies.bert.ids(word)) == len(vocabularies.gpt2.ids(word)) == 3
        assert int((vocabularies.clip([word]) != vocabularies.clip.eos).sum()) == 2


def test_padding_and_mask(vocabularies: Vocabularies) -> None:
    ids, mask = vocabularies.bert(["a dog", "", "a red bus on the street"])
    assert mask.sum(1).tolist() == [4, 2, 8]
    assert ids.shape == mask.shape == (3, 8)
    assert (ids[mask == 0] == vocabularies.bert.pad).all()


def test_long_sentences_are_cut(vocabularies: Vocabularies) -> None:
    sentence = " ".join(["dog"] * 50)
    ids, _ = vocabularies.bert([sentence])
    assert ids.shape == (1, vocabularies.bert.max_pieces + 2)
    assert ids[0, -1] == vocabularies.bert.sep
    tokens = vocabularies.clip([sentence])
    assert tokens.shape == (1, vocabularies.clip.length)
    assert (tokens[0] == vocabularies.clip.eos).sum() == 1


def test_vocabularies_are_made_the_same_again(
    vocabulary_folder: Path, captions: tuple[str, ...], tmp_path: Path
) -> None:
    make_vocabularies(captions, tmp_path)
    for name in VOCABULARY_FILES:
        assert (tmp_path / name).read_bytes() == (vocabulary_folder / name).read_bytes(), name
