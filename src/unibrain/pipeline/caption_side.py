"""What is switched off in a run whose pictures have no captions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from unibrain.errors import InputError
from unibrain.workspace.run_folder import RunFolder

if TYPE_CHECKING:
    from unibrain.backbone.sampler import SamplingSettings

__all__ = ["NO_CAPTIONS", "TEXT_LATENTS", "pictures_alone", "used_latents", "with_captions"]

T = TypeVar("T")

TEXT_LATENTS = ("z_text", "c_text")
"""Latents that are made of captions."""

NO_CAPTIONS = (
    "No captions were given with these pictures, so the caption side is switched off: pictures are decoded from the "
    "image latent and the CLIP-Image tokens alone, no caption is decoded, and caption scores are left out."
)


def with_captions(run: RunFolder) -> bool:
    """Whether the latents of a run were made with captions.

    Raises
    ------
    InputError
        If they are not there, or damaged.
    """
    from unibrain.latents import read_manifest

    return bool(read_manifest(run.artefact("latents")).get("choices", {}).get("captions") != "none")


def used_latents(values: Mapping[str, T], captions: bool) -> dict[str, T]:
    """What belongs to latents that are there: without captions, those of `TEXT_LATENTS` are placeholders."""
    return {name: value for name, value in values.items() if captions or name not in TEXT_LATENTS}


def pictures_alone(sampling: "SamplingSettings", chosen: float | None) -> "SamplingSettings":
    """How pictures are sampled without captions: guided by the CLIP-Image tokens alone, not by placeholders.

    Parameters
    ----------
    sampling : SamplingSettings
    chosen : float or None
        Weight of the image that the settings ask for.

    Raises
    ------
    InputError
        If they ask for another than 1.
    """
    if chosen not in (None, 1):
        raise InputError(
            f"image_weight_pictures is {chosen} and no captions were given, expected 1, since there are no CLIP-Text "
            "tokens: leave it out, or import captions"
        )
    return replace(sampling, image_weight=1.0)
