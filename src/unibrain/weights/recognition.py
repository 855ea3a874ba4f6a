"""Telling published files apart by their keys, so that a wrong one is named and not merely refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from unibrain.errors import InputError
from unibrain.weights.manifest import Role

__all__ = ["WANTED", "Kind", "check_role", "recognise"]

Kind = Literal[
    "flows",
    "flows-deprecated",
    "stable-diffusion",
    "autokl",
    "autokl-diffusers",
    "optimus",
    "clip",
    "clip-text",
    "clip-vision",
    "clip-openai",
    "image-unet",
    "bert",
    "gpt2",
    "converted",
    "unknown",
]


@dataclass(frozen=True)
class _Sign:
    """A kind of file: all of these keys or beginnings of keys are in it."""

    kind: Kind
    starts: tuple[str, ...]
    what: str
    remedy: str = ""


_CLIP_REMEDY = "get model.safetensors of openai/clip-vit-large-patch14"
_FOLDER_REMEDY = "give the folder above it as the diffusers folder"

# The first that fits counts, so the more particular ones come first.
_SIGNS = (
    _Sign("flows", ("diffuser.",), "the four flows of Versatile Diffusion"),
    _Sign("flows-deprecated", ("model.diffusion_model.unet_",), "the four flows of Versatile Diffusion (old layout)"),
    _Sign(
        "stable-diffusion",
        ("model.diffusion_model.",),
        "a Stable Diffusion checkpoint",
        "get vd-four-flow-v1-0-fp16.pth of Versatile Diffusion",
    ),
    _Sign("converted", ("image.data_blocks.",), "flows that are already converted", "use the folder as a backbone"),
    _Sign(
        "converted", ("to_posterior.weight",), "an Optimus that is already converted", "use the folder as a backbone"
    ),
    _Sign("optimus", ("encoder.embeddings.word_embeddings.", "decoder.transformer."), "the text autoencoder Optimus"),
    _Sign("autokl", ("encoder.down.", "decoder.up."), "the image autoencoder"),
    _Sign(
        "autokl-diffusers", ("encoder.down_blocks.", "decoder.up_blocks."), "the image autoencoder (diffusers format)"
    ),
    _Sign("clip", ("text_model.", "vision_model."), "CLIP"),
    _Sign("clip-text", ("text_model.",), "only the text half of CLIP", _CLIP_REMEDY),
    _Sign("clip-vision", ("vision_model.",), "only the vision half of CLIP", _CLIP_REMEDY),
    _Sign("clip-openai", ("visual.",), "CLIP in OpenAI's own layout", _CLIP_REMEDY),
    _Sign("image-unet", ("conv_in.", "down_blocks."), "a UNet in the diffusers format", _FOLDER_REMEDY),
    _Sign("bert", ("bert.",), "a BERT alone", "get optimus-vae.pth of Versatile Diffusion"),
    _Sign("bert", ("embeddings.word_embeddings.",), "a BERT alone", "get optimus-vae.pth of Versatile Diffusion"),
    _Sign("gpt2", ("wte.",), "a GPT-2 alone", "get optimus-vae.pth of Versatile Diffusion"),
    _Sign("gpt2", ("transformer.wte.",), "a GPT-2 alone", "get optimus-vae.pth of Versatile Diffusion"),
)

_ACCEPTED: dict[Role, tuple[Kind, ...]] = {
    "flows": ("flows", "flows-deprecated"),
    "autokl": ("autokl", "autokl-diffusers"),
    "optimus": ("optimus",),
    "clip": ("clip",),
}

WANTED: dict[Role, str] = {
    "flows": "the flows (vd-four-flow-v1-0.pth, -fp16.pth or -fp16-deprecated.pth)",
    "autokl": "the image autoencoder (kl-f8.pth)",
    "optimus": "the text autoencoder (optimus-vae.pth)",
    "clip": "CLIP (model.safetensors or pytorch_model.bin of openai/clip-vit-large-patch14)",
}
"""What each role of a file of weights expects, in words."""


def recognise(weights: Mapping[str, Tensor]) -> Kind:
    """Tell what a state dict is by its keys.

    Parameters
    ----------
    weights : mapping of str to Tensor

    Returns
    -------
    str
        One of `Kind`.
    """
    sign = _sign(weights)
    return "unknown" if sign is None else sign.kind


def _sign(weights: Mapping[str, Tensor]) -> _Sign | None:
    for sign in _SIGNS:
        if all(any(key.startswith(start) for key in weights) for start in sign.starts):
            return sign
    return None


def check_role(path: Path, weights: Mapping[str, Tensor], role: Role) -> Kind:
    """Refuse a file that is of another kind than its role says.

    Parameters
    ----------
    path : Path
        For the message.
    weights : mapping of str to Tensor
    role : str
        ``flows``, ``autokl``, ``optimus`` or ``clip``.

    Returns
    -------
    str
        The kind, one of those that fit the role.

    Raises
    ------
    InputError
        Naming what the file is, and what to do.
    """
    sign = _sign(weights)
    kind: Kind = "unknown" if sign is None else sign.kind
    if kind in _ACCEPTED[role]:
        return kind
    if sign is None:
        first = min(weights)
        found, remedy = (
            f"the weights of another model ({len(weights)} keys, such as {first})",
            "give the published file",
        )
    else:
        home = next((other for other, kinds in _ACCEPTED.items() if kind in kinds), None)
        found, remedy = sign.what, f"give it as {home!r}" if home else sign.remedy
    raise InputError(f"{path}: holds {found}, expected {WANTED[role]}: {remedy}")
