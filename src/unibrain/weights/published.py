"""What the official backbone is made of: the published files, by the name, repository and licence of each."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal[
    "flows",
    "autokl",
    "optimus",
    "clip",
    "diffusers",
    "clip-vocab",
    "clip-merges",
    "bert-vocab",
    "gpt2-vocab",
    "gpt2-merges",
]
"""What a published file is for; ``diffusers`` is a folder, everything else a file."""

ROLES: tuple[Role, ...] = get_args(Role)

Precision = Literal["fp16", "fp32"]
"""Which of the two published files of the flows is meant."""

FLOWS_NAMES: dict[Precision, tuple[str, ...]] = {
    "fp16": ("vd-four-flow-v1-0-fp16.pth", "vd-four-flow-v1-0-fp16-deprecated.pth"),
    "fp32": ("vd-four-flow-v1-0.pth", "vd-four-flow-v1-0-deprecated.pth"),
}
"""Published names of the flows' file, best first; "deprecated" ones hold the same weights under older keys."""

ROLE_NAMES: dict[Role, str] = {
    "flows": "the four flows (vd-four-flow-v1-0-fp16.pth)",
    "autokl": "AutoKL, the autoencoder of pictures (kl-f8.pth)",
    "optimus": "Optimus, the autoencoder of captions (optimus-vae.pth)",
    "clip": "CLIP ViT-L/14 (model.safetensors of openai/clip-vit-large-patch14)",
    "diffusers": "the folder of Versatile Diffusion in diffusers' format (with image_unet and text_unet)",
    "clip-vocab": "CLIP's vocabulary (vocab.json of openai/clip-vit-large-patch14)",
    "clip-merges": "CLIP's merges (merges.txt of openai/clip-vit-large-patch14)",
    "bert-vocab": "the vocabulary of bert-base-cased (vocab.txt)",
    "gpt2-vocab": "GPT-2's vocabulary (vocab.json of gpt2)",
    "gpt2-merges": "GPT-2's merges (merges.txt of gpt2)",
}
"""Role to what it is called in messages."""

CLIP_VOCABULARY: tuple[Role, ...] = ("clip-vocab", "clip-merges")
CAPTION_VOCABULARIES: tuple[Role, ...] = ("bert-vocab", "gpt2-vocab", "gpt2-merges")
"""Vocabularies that only Optimus needs."""

VOCABULARY_FILES: dict[Role, str] = {
    "clip-vocab": "clip-vocab.json",
    "clip-merges": "clip-merges.txt",
    "bert-vocab": "bert-vocab.txt",
    "gpt2-vocab": "gpt2-vocab.json",
    "gpt2-merges": "gpt2-merges.txt",
}
"""Role of a vocabulary to its name in a backbone folder."""

PUBLISHED_SHA256: dict[Role, str] = {
    "clip": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    "clip-merges": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    "bert-vocab": "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02",
    "gpt2-vocab": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "gpt2-merges": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
"""Content that is known for certain. All other hashes come from the hub, among them those of the .pth files."""


@dataclass(frozen=True)
class Source:
    """Files that come from one repository of the hub.

    `repositories` are tried in this order, `revision` is a commit, branch or tag, and `files` gives the names by which
    each file is published, best first.
    """

    title: str
    licence: str
    repositories: tuple[str, ...]
    revision: str
    files: dict[Role, tuple[str, ...]]


def official_sources(
    precision: Precision = "fp16",
    *,
    pictures_only: bool = False,
    repository: str | None = None,
    revision: str | None = None,
) -> tuple[Source, ...]:
    """List what the official backbone is made of.

    CLIP and the tokenizers are pinned to public commits. Versatile Diffusion's repositories are not: no public record
    of a commit that surely holds `pretrained_pth` was found. Without Optimus (`pictures_only`), its small vocabularies
    are fetched all the same: the flows' file may repeat Optimus.
    """
    weights: dict[Role, tuple[str, ...]] = {"flows": FLOWS_NAMES[precision], "autokl": ("kl-f8.pth",)}
    if not pictures_only:
        weights["optimus"] = ("optimus-vae.pth",)
    known = ("shi-labs/versatile-diffusion-model", "shi-labs/versatile-diffusion")
    return (
        Source(
            "Versatile Diffusion",
            "MIT",
            known if repository is None else (repository,),
            revision or "main",
            {role: tuple(f"pretrained_pth/{name}" for name in names) for role, names in weights.items()},
        ),
        Source(
            "CLIP ViT-L/14",
            "MIT (of OpenAI's CLIP; the model card names none)",
            ("openai/clip-vit-large-patch14",),
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            {"clip": ("model.safetensors",), "clip-vocab": ("vocab.json",), "clip-merges": ("merges.txt",)},
        ),
        Source(
            "tokenizer of BERT base, cased",
            "Apache-2.0",
            ("google-bert/bert-base-cased",),
            "cd5ef92a9fb2f889e972770a36d4ed042daf221e",
            {"bert-vocab": ("vocab.txt",)},
        ),
        Source(
            "tokenizer of GPT-2",
            "MIT",
            ("openai-community/gpt2",),
            "607a30d783dfa663caf39e06633721c8d4cfcd7e",
            {"gpt2-vocab": ("vocab.json",), "gpt2-merges": ("merges.txt",)},
        ),
    )
