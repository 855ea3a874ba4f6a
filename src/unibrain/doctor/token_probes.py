"""Probes of the three tokenizers, on the small backbone's vocabularies."""

from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.doctor.fingerprint import Fingerprint, of_exact
from unibrain.doctor.patterns import SENTENCES
from unibrain.doctor.probe import Bench, Probe

__all__ = ["TOKENS"]


def _bert(bench: Bench) -> Fingerprint:
    ids, mask = BertPieces(bench.folder / "bert-vocab.txt", 24)(SENTENCES)
    return of_exact(pieces=ids.tolist(), lengths=mask.sum(dim=1).tolist())


def _gpt2(bench: Bench) -> Fingerprint:
    tokens = Gpt2Tokens(bench.folder / "gpt2-vocab.json", bench.folder / "gpt2-merges.txt")
    rows = [tokens.ids(sentence) for sentence in SENTENCES]
    return of_exact(tokens=rows, read_back=[tokens.caption(row) for row in rows])


def _clip(bench: Bench) -> Fingerprint:
    tokens = ClipTokens(bench.folder / "clip-vocab.json", bench.folder / "clip-merges.txt", 20)
    return of_exact(tokens=tokens(SENTENCES).tolist())


TOKENS = (
    Probe("tokens-bert", "BERT's pieces of five sentences", ("tokenizers",), _bert, reads=("bert-vocab.txt",)),
    Probe(
        "tokens-gpt2",
        "GPT-2's tokens of the same, and back to text",
        ("tokenizers",),
        _gpt2,
        reads=("gpt2-vocab.json", "gpt2-merges.txt"),
    ),
    Probe(
        "tokens-clip",
        "CLIP's tokens of the same",
        ("tokenizers",),
        _clip,
        reads=("clip-vocab.json", "clip-merges.txt"),
    ),
)
