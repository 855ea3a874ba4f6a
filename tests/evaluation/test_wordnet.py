import string
from functools import partial

import pytest

from unibrain.errors import InputError
from unibrain.evaluation import captions
from unibrain.evaluation.wordnet import (
    DEBIAN_FOLDER,
    WORDNET_HINT,
    SynonymTable,
    bundled_synonyms,
    choose_synonyms,
    full_wordnet,
    synonym_names,
)

needs_wordnet = pytest.mark.skipif(
    not (DEBIAN_FOLDER / "data.noun").is_file(), reason="WordNet is not installed (wordnet-base)"
)

TABLE = SynonymTable({"a": ("a",), "car": ("auto", "car"), "dog": ("dog", "hound"), "on": (), "grass": ("grass",)})


@needs_wordnet
def test_the_bundled_table_equals_the_full_wordnet():
    wordnet, table = full_wordnet(), bundled_synonyms()
    assert len(table.synonyms) > 100
    for word, names in table.synonyms.items():
        assert names == synonym_names(wordnet, word), word
        assert synonym_names(table, word) == names


def test_the_bundled_table_has_every_word_of_the_scene_world():
    from unibrain import demo

    table = bundled_synonyms()
    words = {word for entry in demo.vocabulary() for word in captions.words_of(entry)}
    assert sorted(word for word in words if word not in table) == []
    for index in range(50):
        for caption in demo.describe(demo.sample_scene(7, index, "test")):
            assert all(word in table for word in captions.words_of(caption)), caption


@needs_wordnet
def test_meteor_of_scene_captions_is_the_same_with_the_table_and_with_the_full_wordnet():
    from unibrain import demo

    described = [demo.describe(demo.sample_scene(3, index, "test")) for index in range(20)]
    decoded = [true[0] for true in described[1:] + described[:1]]
    ours = captions.meteor(decoded, described, bundled_synonyms())
    full = captions.meteor(decoded, described, full_wordnet())
    assert (ours == full).all()
    assert 0 < ours.mean() < 1


@needs_wordnet
def test_the_full_wordnet_knows_inflections_and_no_marks():
    wordnet = full_wordnet()
    assert "automobile" in synonym_names(wordnet, "cars")
    assert "mouse" in synonym_names(wordnet, "mice")
    assert not any(synonym_names(wordnet, mark) for mark in string.punctuation)
    assert all(mark in bundled_synonyms() for mark in string.punctuation)


def test_the_licence_lies_beside_the_table():
    from importlib.resources import files

    text = (files("unibrain.evaluation") / "data" / "LICENSE-WORDNET.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in text
    assert "hereby granted" in text


def test_a_damaged_wordnet_is_reported(tmp_path):
    (tmp_path / "data.noun").write_text("nothing")
    with pytest.raises(InputError, match="apt-get install --reinstall wordnet-base"):
        full_wordnet(tmp_path)


def test_known_decoded_words_need_no_full_wordnet():
    """METEOR looks up decoded words only, so unknown words of a reference do not matter."""
    wordnet, note = choose_synonyms(["a dog."], [["a zebra"]], table=TABLE, full=partial(pytest.fail, "asked for"))
    assert wordnet is TABLE
    assert note == ""


def test_unknown_decoded_words_take_the_full_wordnet():
    full = SynonymTable({})
    wordnet, note = choose_synonyms(["a zebra"], [["a dog"]], table=TABLE, full=lambda: full)
    assert wordnet is full
    assert "1 of 2 decoded words" in note
    assert "full WordNet was used" in note


def test_without_it_a_few_malformed_words_are_counted():
    decoded = ["a dog on a car"] * 4 + ["a doog on a car"]
    wordnet, note = choose_synonyms(decoded, [["a dog"]] * 5, table=TABLE, full=lambda: None)
    assert wordnet is TABLE
    assert "1 of 25" in note
    assert "'doog'" in note
    assert "malformed" in note


@pytest.mark.parametrize(
    ("decoded", "reference"),
    [("a doog", "a dog"), ("a dog on a car " * 10 + "a zebra", "a zebra")],
    ids=["too many unknown words", "references from elsewhere"],
)
def test_without_it_there_is_no_value_that_would_not_be_honest(decoded, reference):
    wordnet, note = choose_synonyms([decoded], [[reference]], table=TABLE, full=lambda: None)
    assert wordnet is None
    assert WORDNET_HINT in note
