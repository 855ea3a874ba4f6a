import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation import caption_protocols, evaluate, format_table
from unibrain.evaluation.caption_files import read_captions
from unibrain.evaluation.caption_protocols import CAPTION_PROTOCOLS, score_captions
from unibrain.evaluation.captions import (
    best_cosine,
    bleu,
    cider_d,
    clip_score,
    cosine,
    meteor,
    reference_clip_score,
    rouge,
    sentence_embeddings,
)
from unibrain.evaluation.networks.clip import ClipEmbedder
from unibrain.evaluation.scores import to_table
from unibrain.evaluation.wordnet import bundled_synonyms
from unibrain.reconstruction import Decoded
from unibrain.stimuli import Stimuli

BRAINHUB = Path(__file__).with_name("brainhub")
DECODED = ["a red car on a beach", "a dog on the grass", "a cat in a house"]
REFERENCES = [["a blue car", "a red car on a beach"], ["a dog on grass", "grass"], ["a cat in a house", "a tree"]]


class Network:
    """Captions and pictures by hand: a caption is the counts of its first letters."""

    name = "letters"

    def __init__(self):
        self.asked = []

    def embed_text(self, captions):
        self.asked.append(tuple(captions))
        return np.array([[sum(map(ord, c)) % 7 + 1, len(c), c.count("a")] for c in captions], np.float32)

    def embed_images(self, pictures):
        return pictures[:, 0, 0].astype(np.float32)


def letters(name):
    return Network()


def by_name(scores):
    return {score.name: score for score in scores}


def test_cosines_and_clip_s_worked_out_by_hand():
    pictures, captions = np.array([[1, 0], [1, 0], [0, 2]]), np.array([[3, 4], [-1, 0], [0, 1]], np.float16)
    assert cosine(pictures, captions) == pytest.approx([0.6, -1, 1])
    found = clip_score(pictures, captions)
    assert found == pytest.approx([1.5, 0, 2.5])
    references = np.array([[0, 1], [3, 4], [1, 0], [1, 1], [-1, 1]])
    best = best_cosine(captions, references, [2, 1, 2])
    assert best == pytest.approx([1, -1, 0.5**0.5])
    assert reference_clip_score(found, best) == pytest.approx([1.2, 0, 2 * 2.5 * best[2] / (2.5 + best[2])])
    assert reference_clip_score(np.zeros(1), np.zeros(1))[0] == 0


def test_standard_scores_all_references_and_needs_no_java(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = by_name(score_captions(DECODED, REFERENCES, networks=letters))
    table = bundled_synonyms()
    assert found["meteor"].per_image == tuple(meteor(DECODED, REFERENCES, table))
    assert found["rougeL"].value == rouge(DECODED, REFERENCES, "rougeL").mean()
    assert found["bleu1"].per_image == ()
    assert found["bleu4"].tokenizer == "ptb-like"
    assert "these 3 images" in found["cider"].note
    assert found["two_way_caption_l14"].direction == "recon->images"
    assert "network: letters" in found["two_way_caption_l14"].note
    for score in found.values():
        assert (score.references, score.images, score.dialect) == ("2 per image", 3, "standard")
        assert "unibrain" in score.versions
        assert score.value is not None


def test_mindeye2_takes_the_first_reference_only():
    network = Network()
    found = by_name(score_captions(DECODED, REFERENCES, "mindeye2", networks=lambda name: network))
    first = [true[:1] for true in REFERENCES]
    assert found["rouge1"].per_image == tuple(rouge(DECODED, first, "rouge1"))
    assert found["meteor"].references == "the first of 2 per image"
    assert found["bleu1"].tokenizer == "13a"
    expected = cosine(network.embed_text(DECODED), network.embed_text([true[0] for true in REFERENCES]))
    assert found["clip_text_b32"].per_image == pytest.approx(expected)
    assert found["clip_text_l14"].value == pytest.approx(expected.mean())
    changed = [[true[0], "something else"] for true in REFERENCES]
    again = by_name(score_captions(DECODED, changed, "mindeye2", networks=lambda name: network))
    assert again["rouge1"].value == found["rouge1"].value


def test_brainhub_prompts_clip_and_its_meteor_is_of_the_corpus(monkeypatch):
    monkeypatch.setattr(caption_protocols, "meteor_java", lambda *tokens: (0.25, np.array([0.1, 0.2, 0.3])))
    network, pictures = Network(), np.array([[[[1, 2, 3]]], [[[3, 1, 1]]], [[[0, 5, 1]]]], np.uint8)
    found = by_name(score_captions(DECODED, REFERENCES, "brainhub", pictures=pictures, networks=lambda name: network))
    assert all(caption.startswith("A photo depicts ") for asked in network.asked for caption in asked)
    assert len(network.asked) == 1
    prompted = ["A photo depicts " + caption for caption in DECODED]
    assert found["clip_s"].per_image == pytest.approx(clip_score(pictures[:, 0, 0], network.embed_text(prompted)))
    # The corpus has a value of its own, which is not the mean.
    assert (found["meteor"].value, found["meteor"].interval, found["meteor"].control) == (0.25, None, None)
    assert found["meteor"].per_image == (0.1, 0.2, 0.3)
    assert found["ref_clip_s"].value is not None


def test_brainhubs_json_in_its_protocol_without_java(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said, true = map(read_captions, (BRAINHUB / "sub01_decoded_caption.json", BRAINHUB / "fmri_cococap.json"))
    found = by_name(score_captions([said[image][0] for image in said], [true[image] for image in said], "brainhub"))
    # pycocoevalcap 1.2 with CoreNLP's tokens gives these digits for the same 21 images.
    printed = {
        name: f"{100 * found[name].value:.2f}" for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "cider")
    }
    assert printed == {
        "bleu1": "67.51",
        "bleu2": "50.34",
        "bleu3": "36.64",
        "bleu4": "27.27",
        "rougeL": "50.85",
        "cider": "81.70",
    }
    assert found["bleu1"].tokenizer == "ptb-like"
    assert "digits are not the protocol's" in found["bleu1"].note
    for name, command in (
        ("meteor", "apt-get install default-jre-headless"),
        ("clip_s", "pictures that were seen were not given"),
        ("sentence", "hf download sentence-transformers/all-MiniLM-L6-v2"),
    ):
        assert (found[name].value, found[name].per_image) == (None, ())
        assert command in found[name].note


def test_what_is_missing_is_named_and_the_rest_is_scored(tmp_path):
    found = by_name(score_captions(DECODED[:1], REFERENCES[:1]))
    assert "at least two" in found["cider"].note
    assert "at least two" in found["two_way_caption_l14"].note
    assert found["bleu1"].value == pytest.approx(1)
    nothing = partial(ClipEmbedder, folder=tmp_path)
    for protocol, name in (("standard", "two_way_caption_l14"), ("mindeye2", "clip_text_b32")):
        score = by_name(score_captions(DECODED, REFERENCES, protocol, networks=nothing))[name]
        assert score.value is None
        assert "unibrain weights fetch metrics" in score.note


def test_sentences_that_cannot_be_split_are_said(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    references = [["a dog. a car", "x"], *REFERENCES[1:]]
    assert "punkt_tab" in by_name(score_captions(DECODED, references, "mindeye2", networks=letters))["meteor"].note
    assert "punkt_tab" not in by_name(score_captions(DECODED, references, networks=letters))["meteor"].note


def test_sentences_are_split_before_meteor_where_that_can_be_done(monkeypatch):
    monkeypatch.setattr("nltk.tokenize.word_tokenize", lambda text, **_: text.replace(".", " .").split())
    references = [["a red car. on a beach"], *REFERENCES[1:]]
    found = by_name(score_captions(["a red car. on a beach", *DECODED[1:]], references, "mindeye2", networks=letters))
    assert found["meteor"].per_image[0] == pytest.approx(1 - 0.5 / 7**3)  # seven tokens, one of them a full stop
    assert found["meteor"].note == ""


def test_an_empty_decoded_caption_is_counted():
    found = score_captions(["", *DECODED[1:]], REFERENCES, networks=letters)
    assert all("empty decoded captions: 1" in score.note for score in found if score.value is not None)


@pytest.mark.parametrize(
    ("decoded", "references", "protocol", "pictures", "said"),
    [
        (DECODED, REFERENCES, "coco", None, "'coco'. Choose one of standard, brainhub, mindeye2"),
        (DECODED[:2], REFERENCES, "standard", None, "2 decoded captions for references of 3 images"),
        ([], [], "standard", None, "0 decoded captions"),
        (DECODED, REFERENCES, "brainhub", np.zeros((2, 4, 4, 3), np.uint8), "and 2 pictures"),
        (DECODED, [*REFERENCES[:2], []], "standard", None, "image 2 .* are none"),
        (DECODED, [*REFERENCES[:2], ["a", " "]], "standard", None, "image 2 .* empty, or no text"),
        (DECODED, [*REFERENCES[:2], ["a", None]], "standard", None, "image 2 .* empty, or no text"),
        ([*DECODED[:2], None], REFERENCES, "standard", None, "image 2 .* is None"),
        (DECODED, ["a dog"] * 3, "standard", None, "image 0 .* one string"),
    ],
)
def test_wrong_captions_are_refused(decoded, references, protocol, pictures, said):
    with pytest.raises(InputError, match=said):
        score_captions(decoded, references, protocol, pictures=pictures)


def test_rows_of_a_protocol_stand_among_all_others(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    ids = np.arange(3)
    stimuli = Stimuli(
        ids, dict(enumerate(map(tuple, REFERENCES))), lambda ids: np.zeros((len(ids), 16, 16, 3), np.uint8), ""
    )
    decoded = Decoded(ids, None, tuple(DECODED))
    other = Decoded(ids, None, ("the sea", "a dog", "the moon"))
    found = evaluate(decoded, stimuli, None, simulated=False, protocol="brainhub", controls={"random": other})
    assert found["rouge1"].dialect == "standard"
    for name in ("bleu1", "bleu4", "rougeL", "cider"):
        score = found[name]
        assert (score.dialect, score.images, score.tokenizer) == ("brainhub", 3, "ptb-like")
        assert score.control < score.value
        assert score.beside["random"].value < score.value == score.beside["random"].score
    tokens = [caption.split() for caption in DECODED], [[text.split() for text in true] for true in REFERENCES]
    assert found["bleu4"].value == bleu(*tokens)[3]
    assert found["cider"].per_image == tuple(cider_d(*tokens))
    assert "BLEU-4, brainhub" in format_table(found)
    assert "| brainhub |" in to_table(found, "markdown")
    assert found.to_frame().loc["bleu4", "references"] == "2 per image"
    with pytest.raises(InputError, match="'coco'"):
        evaluate(decoded, stimuli, None, simulated=False, protocol="coco")


def test_protocols_can_be_printed():
    for protocol in CAPTION_PROTOCOLS.values():
        assert re.match(r"CaptionProtocol\(name='[a-z0-9]+'", repr(protocol))
        assert len({metric.name for metric in protocol.metrics}) == len(protocol.metrics)


@pytest.fixture
def tiny_encoder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "a", "dog", "cat", "on", "grass"]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=300,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_sentences_are_means_over_their_own_tokens(tiny_encoder, monkeypatch):
    captions = ["a dog on grass", "cat", "a a " * 200, "a dog"]
    found = sentence_embeddings(captions, str(tiny_encoder))
    network = BertModel.from_pretrained(tiny_encoder).eval()
    for caption, row in zip([[3, 4, 6, 7], [5], [3] * 256, [3, 4]], found, strict=True):
        with torch.inference_mode():
            mean = network(torch.tensor([caption])).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, mean / mean.norm(), atol=1e-5)
    monkeypatch.setattr("unibrain.evaluation.captions._AT_ONCE", 1)
    np.testing.assert_allclose(sentence_embeddings(captions, str(tiny_encoder)), found, atol=1e-6)


def test_a_sentence_encoder_that_is_not_here_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UnavailableError, match="hf download"):
        sentence_embeddings(["a"], str(tmp_path))
