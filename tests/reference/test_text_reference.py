"""Tokenisation with the real vocabularies, and caption clean-up, against what the published code gave."""

import json
from pathlib import Path

import pytest

from unibrain.backbone.tokenizers import BertPieces, Gpt2Tokens, remove_repeated_phrases

VOCABULARIES = Path(__file__).parent / "vocabularies"


@pytest.fixture(scope="module")
def bert(reference, tmp_path_factory):
    whole = reference.folder / "bert-base-cased-vocab.txt"
    if not whole.exists():
        excerpt = json.loads((VOCABULARIES / "bert-base-cased-excerpt.json").read_text())
        lines = [f"[placeholder{index}]" for index in range(excerpt["size"])]
        for piece, index in excerpt["pieces"].items():
            lines[index] = piece
        whole = tmp_path_factory.mktemp("bert") / "vocab.txt"
        whole.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return BertPieces(whole)


@pytest.fixture(scope="module")
def gpt2():
    return Gpt2Tokens(VOCABULARIES / "gpt2-vocab.json", VOCABULARIES / "gpt2-merges.txt")


def test_bert_pieces(reference, bert):
    entries = reference.json("tokenization.json")["encode"]
    assert entries
    for entry in entries:
        assert bert.ids(entry["text"]) == entry["bert_ids"], entry["text"]


def test_gpt2_decoding(reference, gpt2):
    golden = reference.json("tokenization.json")
    special = golden["special_ids"]
    assert (gpt2.pad, gpt2.bos, gpt2.eos) == (special["PAD"], special["BOS"], special["EOS"])
    assert golden["decode"]
    for entry in golden["decode"]:
        assert gpt2.raw_text(entry["gpt2_ids"]) == entry["raw_decode"]
        assert gpt2.caption(entry["gpt2_ids"]) == entry["caption"]
        if "source" in entry:
            assert gpt2.ids(entry["source"]) == entry["gpt2_ids"]


def test_special_ids_of_bert(reference, bert):
    special = reference.json("tokenization.json")["special_ids"]
    assert (bert.pad, bert.cls, bert.sep) == (special["bert_pad"], special["bert_cls"], special["bert_sep"])
    assert bert.ids("\u4e00")[1] == special["bert_unk"]


def test_caption_cleanup(reference):
    entries = reference.json("caption_postprocess.json")
    assert entries
    for entry in entries:
        assert remove_repeated_phrases(entry["text"]) == entry["ngram_dedupe"], entry["text"]
