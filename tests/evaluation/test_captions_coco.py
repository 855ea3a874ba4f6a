"""BLEU, ROUGE-L, CIDEr-D, the tokenizers and METEOR 1.5, against pycocoevalcap, nltk and sacrebleu."""

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from unibrain.errors import UnavailableError
from unibrain.evaluation.caption_files import read_captions
from unibrain.evaluation.caption_java import java_is_there, meteor_java
from unibrain.evaluation.caption_tokens import mteval_13a, ptb, ptb_like
from unibrain.evaluation.captions import bleu, cider_d, rouge_l_coco

BRAINHUB = Path(__file__).with_name("brainhub")
needs_java = pytest.mark.skipif(not java_is_there(), reason="Java is not installed (default-jre-headless)")


@pytest.fixture(scope="module")
def board():
    decoded, references = map(read_captions, (BRAINHUB / "sub01_decoded_caption.json", BRAINHUB / "fmri_cococap.json"))
    return [decoded[image][0] for image in decoded], [references[image] for image in decoded]


def cases(board):
    """Real captions, and random words with repetitions, an empty caption and references of many lengths."""
    decoded, references = board
    yield ptb_like(decoded), list(map(ptb_like, references))
    draw = random.Random(3)
    some = [[draw.choices("abcde", k=draw.randint(1, 9)) for _ in range(draw.randint(1, 6))] for _ in range(40)]
    yield [draw.choices("abcde", k=draw.randint(1, 9)) for _ in some[1:]] + [[]], some
    yield [["z"], ["z", "y"]], [[["a"]], [["b", "c"]]]  # nothing matches


def as_coco(decoded, references):
    return (
        {row: [" ".join(tokens) for tokens in true] for row, true in enumerate(references)},
        {row: [" ".join(tokens)] for row, tokens in enumerate(decoded)},
    )


def test_bleu_is_pycocoevalcaps(board):
    for decoded, references in cases(board):
        expected, _ = Bleu(4).compute_score(*as_coco(decoded, references), verbose=0)
        np.testing.assert_allclose(bleu(decoded, references), expected, rtol=1e-12)


def test_rouge_l_is_pycocoevalcaps(board):
    for decoded, references in cases(board):
        _, expected = Rouge().compute_score(*as_coco(decoded, references))
        np.testing.assert_allclose(rouge_l_coco(decoded, references), expected, rtol=1e-12)


def test_rouge_l_takes_precision_and_recall_from_different_references():
    # "a b": all of it is in the first reference (precision 1), and it is half of neither; recall is 1 with "a" alone.
    found = rouge_l_coco([["a", "b"]], [[["a", "b", "c", "d"], ["a"]]])
    assert found[0] == pytest.approx(1.0)


def test_cider_d_is_pycocoevalcaps(board):
    for decoded, references in cases(board):
        _, expected = Cider().compute_score(*as_coco(decoded, references))
        np.testing.assert_allclose(cider_d(decoded, references), expected, rtol=1e-10, atol=1e-12)


def test_cider_depends_on_the_pool(board):
    decoded, references = next(cases(board))
    assert cider_d(decoded, references)[0] != pytest.approx(cider_d(decoded[:10], references[:10])[0], rel=0.01)


def test_bleu_of_hugging_face_is_nltks_with_one_reference(board):
    decoded, references = board
    own, true = mteval_13a(decoded), [[tokens] for tokens in mteval_13a([captions[0] for captions in references])]
    expected = [corpus_bleu(true, own, weights=[1 / order] * order) for order in (1, 2, 3, 4)]
    np.testing.assert_allclose(bleu(own, true, "hf"), expected, rtol=1e-12)


def test_bleu_of_hugging_face_worked_out_by_hand():
    # All 3 words and 2 pairs match; the shortest reference is shorter, so nothing is taken off.
    decoded, references = [["a", "b", "c"]], [[["a", "b", "c", "d"], ["x"]]]
    assert bleu(decoded, references, "hf").tolist() == [1, 1, 1, 0]
    # COCO's takes the closest length, 4.
    assert bleu(decoded, references)[0] == pytest.approx(np.exp(1 - 4 / 3))
    assert bleu([[]], [[["a"]]], "hf").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [  # as sacrebleu 2.6.0's Tokenizer13a splits them
        ("It's A.B. dog/cat 3.5% off - now, 2, 3", "It's A . B . dog / cat 3.5 % off - now , 2 , 3"),
        ("Nine red. fighter jets &amp; smoke &quot;trails&quot;", 'Nine red . fighter jets & smoke " trails "'),
        ("a close-up: 10:30 a.m.", "a close-up : 10 : 30 a . m ."),
        ("", ""),
    ],
)
def test_13a_is_sacrebleus(caption, tokens):
    assert mteval_13a([caption]) == [tokens.split()]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [  # as CoreNLP 3.4.1 splits them; brackets stay, because COCO's list has them in capitals
        ('A cake reading "happy birthday joan."', "a cake reading happy birthday joan"),
        ("Nine red. fighter jets fly; close-up", "nine red fighter jets fly close-up"),
        ("A man's (old) dog can't run...", "a man 's -lrb- old -rrb- dog ca n't run"),
        ("It's in the U.S. Open, Mt. Fuji 5:30 p.m., 50% off", "it 's in the u.s. open mt. fuji 5:30 p.m. 50 % off"),
        ("A sign 'quoted' & a 5-year-old's 8 1/2", "a sign quoted & a 5-year-old 's 8 1/2"),
        ("", ""),
    ],
)
def test_the_tokenizer_without_java_follows_the_penn_treebank(caption, tokens):
    assert ptb_like([caption]) == [tokens.split()]
    if java_is_there():
        assert ptb([caption]) == [tokens.split()]


@needs_java
def test_ptb_is_pycocoevalcaps(board):
    decoded, references = board
    captions = [*decoded, *(caption for true in references for caption in true), "", "caf\u00e9 \u00bd £5 — 1/2 [b]"]
    expected = PTBTokenizer().tokenize({row: [{"caption": caption}] for row, caption in enumerate(captions)})
    assert ptb(captions) == [expected[row][0].split() for row in range(len(captions))]
    same = sum(one == other for one, other in zip(ptb(captions), ptb_like(captions), strict=True))
    assert same == len(captions) - 1


@needs_java
def test_a_line_break_does_not_tear_a_caption():
    assert ptb(["a dog\nruns", "a\u2028cat"]) == [["a", "dog", "runs"], ["a", "cat"]]


# As pycocoevalcap 1.2's Meteor gave for the same tokens, with OpenJDK 17.
METEOR_CORPUS = 0.22195496675924942
METEOR_EACH = (0.05703003231203789, 0.2820643301937958, 0.34532486572308, 0.0)


@needs_java
def test_meteor_java_is_pycocoevalcaps(board):
    decoded, references = board
    corpus, each = meteor_java(ptb_like([*decoded, ""]), list(map(ptb_like, (*references, ["a dog"]))))
    assert corpus == pytest.approx(METEOR_CORPUS, abs=1e-12)
    np.testing.assert_allclose(each[[0, 1, 2, -1]], METEOR_EACH, atol=1e-12)
    assert each.mean() != pytest.approx(corpus, rel=0.01)


@pytest.mark.parametrize("script", ["exit 1", "echo no score", "cat", "echo Out of memory >&2; exit 1"])
def test_java_that_fails_is_said_and_nothing_hangs(tmp_path, monkeypatch, script):
    (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UnavailableError, match=r"METEOR 1\.5 failed"):
        meteor_java([["a"]] * 3, [[["a"]]] * 3)
    with pytest.raises(UnavailableError, match="PTBTokenizer failed") if script != "cat" else contextlib.nullcontext():
        ptb(["a dog", "a cat"])


def test_without_java_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get install default-jre-headless"):
        ptb(["a dog"])
