import re

import nltk
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from unibrain import demo
from unibrain.errors import InputError
from unibrain.evaluation import wordnet as wordnet_module
from unibrain.evaluation.captions import meteor, rouge
from unibrain.evaluation.wordnet import (
    DEBIAN_FOLDER,
    SynonymTable,
    bundled_synonyms,
    choose_synonyms,
    full_wordnet,
    synonym_names,
    words_of,
)

DECODED = [
    "a small dog next to a red car on a beach",
    "an automobile on the grass",
    "three cats are sleeping",
    "",
    "the the the of a zebra",
]
REFERENCES = [
    ("a red car next to a small dog on a beach", "a dog and a car at the seaside"),
    ("a car on a meadow", "there is a motorcar on the grass", "a vehicle outside"),
    ("a cat sleeps on a bed",),
    ("a house",),
    ("completely different words", "nothing shared here"),
]


needs_wordnet = pytest.mark.skipif(
    not (DEBIAN_FOLDER / "data.noun").is_file(), reason="WordNet is not installed (wordnet-base)"
)


@needs_wordnet
def test_meteor_is_nltks_with_the_full_wordnet():
    wordnet = full_wordnet()
    expected = [
        nltk.translate.meteor_score.meteor_score([r.split() for r in true], caption.split(), wordnet=wordnet)
        for caption, true in zip(DECODED, REFERENCES, strict=True)
    ]
    np.testing.assert_allclose(meteor(DECODED, REFERENCES, wordnet), expected, rtol=1e-12)


def test_meteor_worked_out_by_hand():
    # All 4 words match, "auto" as a synonym, in one chunk: precision = recall = 1, penalty = 0.5 * (1 / 4) ** 3.
    table = SynonymTable({"auto": ("car",)})
    assert meteor(["a red auto here"], [["a red car here"]], table)[0] == pytest.approx(1 - 0.5 / 64)
    # Without the synonym 3 of 4 match, in two chunks: F = .75, penalty = 0.5 * (2 / 3) ** 3.
    expected = 0.75 * (1 - 0.5 * 8 / 27)
    assert meteor(["a red auto here"], [["a red car here"]], SynonymTable({}))[0] == pytest.approx(expected)


def test_meteor_takes_stems_and_the_best_reference():
    table = SynonymTable({})
    one = meteor(["two dogs run"], [["two dog running"]], table)[0]
    assert one == pytest.approx(1 - 0.5 / 27)
    assert meteor(["two dogs run"], [["a house", "two dog running", "x"]], table)[0] == one


def test_an_empty_caption_scores_nothing():
    assert meteor([""], [["a house"]], bundled_synonyms())[0] == 0
    assert rouge([""], [["a house"]], "rouge1")[0] == 0


@pytest.mark.parametrize("kind", ["rouge1", "rougeL"])
def test_rouge_is_the_best_reference_of_rouge_score(kind):
    scorer = RougeScorer([kind], use_stemmer=False)
    expected = [
        max(scorer.score(reference, caption)[kind].fmeasure for reference in true)
        for caption, true in zip(DECODED, REFERENCES, strict=True)
    ]
    np.testing.assert_allclose(rouge(DECODED, REFERENCES, kind), expected, rtol=1e-12)


TABLE = SynonymTable({"a": ("a",), "car": ("auto", "car"), "dog": ("dog", "hound"), "on": (), "grass": ("grass",)})


@needs_wordnet
def test_the_bundled_table_equals_the_full_wordnet():
    wordnet, table = full_wordnet(), bundled_synonyms()
    assert len(table.synonyms) > 100
    for word, names in table.synonyms.items():
        assert names == synonym_names(wordnet, word), word
        assert synonym_names(table, word) == names


def test_the_bundled_table_has_every_word_of_the_scene_world():
    table = bundled_synonyms()
    words = {word for entry in demo.vocabulary() for word in words_of(entry)}
    assert sorted(word for word in words if word not in table) == []
    for index in range(50):
        for caption in demo.describe(demo.sample_scene(7, index, "test")):
            assert all(word in table for word in words_of(caption)), caption


@needs_wordnet
def test_meteor_of_scene_captions_is_the_same_with_the_table_and_with_the_full_wordnet():
    described = [demo.describe(demo.sample_scene(3, index, "test")) for index in range(20)]
    decoded = [true[0] for true in described[1:] + described[:1]]
    ours = meteor(decoded, described, bundled_synonyms())
    full = meteor(decoded, described, full_wordnet())
    assert (ours == full).all()
    assert 0 < ours.mean() < 1


def test_a_damaged_wordnet_is_reported(tmp_path):
    (tmp_path / "data.noun").write_text("nothing")
    with pytest.raises(InputError, match="apt-get install --reinstall wordnet-base"):
        full_wordnet(tmp_path)


FULL = SynonymTable({})
MANY = ["a dog on a car"] * 4


@pytest.mark.parametrize(
    ("decoded", "references", "full", "chosen", "said"),
    [
        # METEOR looks up decoded words only, so unknown words of a reference do not matter.
        (["a dog."], ["a zebra"], None, TABLE, ""),
        (["a zebra"], ["a dog"], FULL, FULL, "1 of 2 decoded words are .*'zebra'.* full WordNet was used"),
        ([*MANY, "a doog on a car"], ["a dog"] * 5, None, TABLE, "1 of 25 .*'doog'.* malformed"),
        # Without it there is no honest value: too many unknown words, or references from elsewhere.
        (["a doog"], ["a dog"], None, None, "apt-get install wordnet-base"),
        ([*MANY, "a doog on a car"], ["a zebra"] * 5, None, None, "apt-get install wordnet-base"),
    ],
)
def test_synonyms_are_taken_from_what_gives_an_honest_value(monkeypatch, decoded, references, full, chosen, said):
    monkeypatch.setattr(wordnet_module, "bundled_synonyms", lambda: TABLE)
    monkeypatch.setattr(wordnet_module, "full_wordnet", lambda: full)
    wordnet, note = choose_synonyms(decoded, [[reference] for reference in references])
    assert wordnet is chosen
    assert re.search(said, note)
    assert bool(note) == bool(said)
