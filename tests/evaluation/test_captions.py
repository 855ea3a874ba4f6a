import nltk
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from unibrain.evaluation.captions import meteor, rouge, words_of
from unibrain.evaluation.wordnet import DEBIAN_FOLDER, SynonymTable, bundled_synonyms, full_wordnet

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


@pytest.mark.skipif(not (DEBIAN_FOLDER / "data.noun").is_file(), reason="WordNet is not installed (wordnet-base)")
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


def test_rouge_worked_out_by_hand():
    # Shared words: a, red, car (3 of 4 and 3 of 5); longest common subsequence: red car (2).
    decoded, references = ["red car a house"], [["a big red car here"]]
    assert rouge(decoded, references, "rouge1")[0] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert rouge(decoded, references, "rougeL")[0] == pytest.approx(2 * 0.5 * 0.4 / 0.9)


def test_rouge_does_not_stem():
    assert rouge(["dogs"], [["dog"]], "rouge1")[0] == 0


def test_words_are_split_as_nltk_splits_a_sentence():
    assert words_of("A man's dog, isn't it?") == ["a", "man", "'s", "dog", ",", "is", "n't", "it", "?"]
