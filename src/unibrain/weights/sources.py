"""What the official backbone is made of, and where it is published: repositories, revisions, licences, file names."""

from dataclasses import dataclass
from typing import Literal

from unibrain.errors import InputError
from unibrain.weights.manifest import Role

__all__ = [
    "FLOWS_NAMES",
    "PUBLISHED_SHA256",
    "ROLE_NAMES",
    "VOCABULARIES_OF_CAPTIONS",
    "Precision",
    "Source",
    "Wanted",
    "official_sources",
]

Precision = Literal["fp16", "fp32"]
"""Which of the two published files of the flows is meant."""

FLOWS_NAMES: dict[Precision, tuple[str, ...]] = {
    "fp16": ("vd-four-flow-v1-0-fp16.pth", "vd-four-flow-v1-0-fp16-deprecated.pth"),
    "fp32": ("vd-four-flow-v1-0.pth", "vd-four-flow-v1-0-deprecated.pth"),
}
"""Published names of the flows' file, best first; "deprecated" ones hold the same weights under older keys."""

VOCABULARIES_OF_CAPTIONS: tuple[Role, ...] = ("bert-vocab", "gpt2-vocab", "gpt2-merges")
"""Vocabularies that only Optimus needs."""

ROLE_NAMES: dict[Role, str] = {
    "flows": "the four flows (vd-four-flow-v1-0-fp16.pth)",
    "autokl": "AutoKL, the autoencoder of pictures (kl-f8.pth)",
    "optimus": "Optimus, the autoencoder of captions (optimus-vae.pth)",
    "clip": "CLIP ViT-L/14 (model.safetensors of openai/clip-vit-large-patch14)",
    "diffusers": "the folder in diffusers' format (with model_index.json)",
    "clip-vocab": "CLIP's vocabulary (vocab.json)",
    "clip-merges": "CLIP's merges (merges.txt)",
    "bert-vocab": "the vocabulary of bert-base-cased (vocab.txt)",
    "gpt2-vocab": "GPT-2's vocabulary (vocab.json)",
    "gpt2-merges": "GPT-2's merges (merges.txt)",
}
"""Role to what it is called in messages."""

PUBLISHED_SHA256: dict[Role, str] = {
    "clip": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    "clip-merges": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    "bert-vocab": "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02",
    "gpt2-vocab": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "gpt2-merges": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
"""Content that is known for certain. All other hashes come from the hub, among them those of the .pth files."""


@dataclass(frozen=True)
class Wanted:
    """One file to get.

    Attributes
    ----------
    role : str
        What it is for.
    names : tuple of str
        Names by which it is published, best first.
    sha256 : str or None
        What its content must be, where that is known.
    """

    role: Role
    names: tuple[str, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """Files that come from one repository.

    Attributes
    ----------
    title : str
        What the repository holds.
    licence : str
        As its model card (for Versatile Diffusion also the code's repository) states it.
    repositories : tuple of str
        Where to look, in this order; the files are taken from the first that has them.
    revision : str or None
        Commit, branch or tag. None: `main`, as it is when the first fetch asks, kept for later ones.
    files : tuple of Wanted
    folder : str
        Where the files are in the repository; other places are searched too.
    """

    title: str
    licence: str
    repositories: tuple[str, ...]
    revision: str | None
    files: tuple[Wanted, ...]
    folder: str = ""


def _wanted(role: Role, *names: str) -> Wanted:
    return Wanted(role, names, PUBLISHED_SHA256.get(role))


def official_sources(
    precision: Precision = "fp16",
    *,
    pictures_only: bool = False,
    repository: str | None = None,
    revision: str | None = None,
) -> tuple[Source, ...]:
    """List what the official backbone is made of.

    CLIP and the tokenizers are pinned to public commits. Versatile Diffusion's repositories are not: no public record
    of a commit that surely holds `pretrained_pth` was found, so `main` is resolved once, and the commit is kept.

    Parameters
    ----------
    precision : {"fp16", "fp32"}
        Which file of the flows.
    pictures_only : bool
        Leave out Optimus' file. Its small vocabularies are fetched all the same: the flows' file may repeat Optimus.
    repository : str, optional
        Versatile Diffusion's repository, ``owner/name``, instead of the two known ones.
    revision : str, optional
        Commit, branch or tag of Versatile Diffusion's repository.

    Returns
    -------
    tuple of Source

    Raises
    ------
    InputError
        If `repository` is not of the form ``owner/name``.
    """
    if repository is not None and (repository.count("/") != 1 or not all(repository.split("/"))):
        raise InputError(
            f"--repository is {repository!r}, expected owner/name as on the hub: give for example "
            "shi-labs/versatile-diffusion"
        )
    known = ("shi-labs/versatile-diffusion-model", "shi-labs/versatile-diffusion")
    weights = [Wanted("flows", FLOWS_NAMES[precision]), Wanted("autokl", ("kl-f8.pth",))]
    if not pictures_only:
        weights.append(Wanted("optimus", ("optimus-vae.pth",)))
    sources = (
        Source(
            title="Versatile Diffusion",
            licence="MIT",
            repositories=known if repository is None else (repository,),
            revision=revision,
            files=tuple(weights),
            folder="pretrained_pth",
        ),
        Source(
            title="CLIP ViT-L/14",
            licence="MIT (of OpenAI's CLIP; the model card names none)",
            repositories=("openai/clip-vit-large-patch14",),
            revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
            files=(
                _wanted("clip", "model.safetensors"),
                _wanted("clip-vocab", "vocab.json"),
                _wanted("clip-merges", "merges.txt"),
            ),
        ),
        Source(
            title="tokenizer of BERT base, cased",
            licence="Apache-2.0",
            repositories=("google-bert/bert-base-cased", "bert-base-cased"),
            revision="cd5ef92a9fb2f889e972770a36d4ed042daf221e",
            files=(_wanted("bert-vocab", "vocab.txt"),),
        ),
        Source(
            title="tokenizer of GPT-2",
            licence="MIT",
            repositories=("openai-community/gpt2", "gpt2"),
            revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
            files=(_wanted("gpt2-vocab", "vocab.json"), _wanted("gpt2-merges", "merges.txt")),
        ),
    )
    return sources
