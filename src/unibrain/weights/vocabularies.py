"""Choosing the vocabularies that go with the weights, and refusing those that do not."""

from collections.abc import Collection, Mapping
from pathlib import Path

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError
from unibrain.weights.diffusers_folder import tokenizer_file
from unibrain.weights.expected import Expected
from unibrain.weights.manifest import Role

__all__ = ["CAPTION_ROLES", "check_vocabularies", "choose_vocabularies"]

_FILES: dict[Role, str] = {
    "clip-vocab": "clip-vocab.json",
    "clip-merges": "clip-merges.txt",
    "bert-vocab": "bert-vocab.txt",
    "gpt2-vocab": "gpt2-vocab.json",
    "gpt2-merges": "gpt2-merges.txt",
}
_PUBLISHED: dict[Role, str] = {
    "clip-vocab": "vocab.json of openai/clip-vit-large-patch14",
    "clip-merges": "merges.txt of openai/clip-vit-large-patch14",
    "bert-vocab": "vocab.txt of bert-base-cased",
    "gpt2-vocab": "vocab.json of gpt2",
    "gpt2-merges": "merges.txt of gpt2",
}
_CLIP_ROLES: tuple[Role, ...] = ("clip-vocab", "clip-merges")
CAPTION_ROLES: tuple[Role, ...] = ("bert-vocab", "gpt2-vocab", "gpt2-merges")
"""Vocabularies that only Optimus needs."""


def choose_vocabularies(files: Mapping[Role, Path], needs_captions: bool) -> dict[str, Path]:
    """Find the vocabularies among the given files; CLIP's may also lie in the diffusers folder.

    Parameters
    ----------
    files : mapping of str to Path
        See `unibrain.weights.convert.convert`.
    needs_captions : bool
        Whether Optimus is there.

    Returns
    -------
    dict of str to Path
        Name in the backbone folder to source.

    Raises
    ------
    InputError
        If one is missing.
    """
    chosen = dict(files)
    if "diffusers" in files:
        for role, name in zip(_CLIP_ROLES, ("vocab.json", "merges.txt"), strict=True):
            path = tokenizer_file(files["diffusers"], name)
            if path is not None:
                chosen.setdefault(role, path)
    wanted = _CLIP_ROLES + (CAPTION_ROLES if needs_captions else ())
    for role in wanted:
        if role not in chosen:
            raise InputError(f"no {role} was given, expected {_PUBLISHED[role]}: give it too")
    return {_FILES[role]: chosen[role] for role in wanted}


def check_vocabularies(
    paths: Mapping[str, Path], config: BackboneConfig, expected: Expected, present: Collection[str]
) -> None:
    """Open the vocabularies and compare their sizes with the weights'.

    Parameters
    ----------
    paths : mapping of str to Path
        Name in the backbone folder to where the file lies now.
    config : BackboneConfig
    expected : Expected
    present : collection of str
        Parts that are there.

    Raises
    ------
    InputError
        If one is damaged or of another size.
    """
    clip = ClipTokens(paths["clip-vocab.json"], paths["clip-merges.txt"])
    sizes = [("clip-vocab.json", clip.size, expected.clip_tokens)]
    if "optimus" in present:
        bert = BertPieces(paths["bert-vocab.txt"])
        gpt2 = Gpt2Tokens(paths["gpt2-vocab.json"], paths["gpt2-merges.txt"])
        sizes.append(("bert-vocab.txt", bert.size, expected.bert_pieces))
        sizes.append(("gpt2-vocab.json", gpt2.size, expected.gpt2_tokens))
    for name, found, wanted in sizes:
        if found != wanted:
            raise InputError(
                f"{paths[name]}: {found} tokens, marks included, expected the {wanted} of the weights: "
                "take vocabularies and weights from the same place"
            )
    if clip.eos != config.clip.eos_token_id:
        raise InputError(
            f"{paths['clip-vocab.json']}: the end token is number {clip.eos}, expected {config.clip.eos_token_id}: "
            "take CLIP's vocabulary and weights from the same place"
        )
