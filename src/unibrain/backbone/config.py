"""One backbone's configuration: the sizes of its parts, and how it is best sampled."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unibrain.backbone.sizes import AutoKLConfig, ClipConfig, FlowsConfig, OptimusConfig, ScheduleConfig
from unibrain.errors import InputError

__all__ = [
    "OFFICIAL",
    "AutoKLConfig",
    "BackboneConfig",
    "ClipConfig",
    "FlowsConfig",
    "OptimusConfig",
    "SamplingSettings",
    "ScheduleConfig",
]


@dataclass(frozen=True)
class SamplingSettings:
    """How a flow is sampled.

    Attributes
    ----------
    image_weight : float
        Weight of the image context in the attention mix, 0 to 1; the text context has the rest.
    guidance_scale : float
        Classifier-free guidance; exactly 1 switches it off.
    strength : float
        Fraction of the steps that is taken when a latent is given, above 0 and below 1.
    steps : int
        DDIM steps of a full run.
    eta : float
        0 for deterministic DDIM, 1 for ancestral noise.
    """

    image_weight: float
    guidance_scale: float = 7.5
    strength: float = 0.75
    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.image_weight <= 1:
            raise InputError(
                f"image_weight is {self.image_weight}, expected 0 (text context only) to 1 (image context only)"
            )
        if not 0 < self.strength < 1:
            raise InputError(
                f"strength is {self.strength}, expected above 0 and below 1: to start from pure noise leave the latent "
                "out"
            )
        if not 1 <= self.steps <= 999:
            raise InputError(f"steps is {self.steps}, expected 1 to 999")
        if int(self.strength * self.steps) < 1:
            raise InputError(
                f"strength {self.strength} of {self.steps} steps is less than one step: take more steps or a higher "
                "strength"
            )
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is {self.eta}, expected 0 to 1")
        if not 0 <= self.guidance_scale < float("inf"):
            raise InputError(f"guidance_scale is {self.guidance_scale}, expected 0 or more")


@dataclass(frozen=True)
class BackboneConfig:
    """One backbone: its sizes, and the settings that suit it.

    Attributes
    ----------
    name : str
        For people.
    unconditional_image : {"grey", "black", "zeros"}
        The image context of the unconditional half: CLIP of a mid-grey picture (8-bit 127, as the older public code and
        Brain-Diffuser), CLIP of a black one (current public code, captions), or a tensor of zeros (current public code,
        pictures).
    image, text : SamplingSettings
        Recommended settings for pictures and captions.
    """

    name: str = "official"
    flows: FlowsConfig = field(default_factory=FlowsConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    autokl: AutoKLConfig = field(default_factory=AutoKLConfig)
    optimus: OptimusConfig = field(default_factory=OptimusConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    unconditional_image: Literal["grey", "black", "zeros"] = "grey"
    image: SamplingSettings = field(default_factory=lambda: SamplingSettings(image_weight=0.6))
    text: SamplingSettings = field(default_factory=lambda: SamplingSettings(image_weight=0.9))

    def __post_init__(self) -> None:
        if self.unconditional_image not in ("grey", "black", "zeros"):
            raise InputError(
                f"unconditional_image is {self.unconditional_image!r}, expected 'grey', 'black' or 'zeros'"
            )
        for what, found, expected in (
            ("image_channels", self.flows.image_channels, self.autokl.latent_channels),
            ("text_width", self.flows.text_width, self.optimus.latent_width),
            ("context_width", self.flows.context_width, self.clip.projection_width),
        ):
            if found != expected:
                raise InputError(f"flows: {what} is {found}, expected {expected} as the encoder makes them")

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, default=dict) + "\n"

    @classmethod
    def from_json(cls, path: str | Path) -> "BackboneConfig":
        """Read a configuration file.

        Raises
        ------
        InputError
            If the file is not there, is no JSON, or has other fields or values than a configuration.
        """
        try:
            config: BackboneConfig = _build(cls, json.loads(Path(path).read_text(encoding="utf-8")))
            return config
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file, expected a backbone's config.json: give the folder of a backbone"
            ) from None
        except (ValueError, TypeError, InputError) as error:
            raise InputError(
                f"{path}: not a backbone configuration ({error}): take the config.json written with the weights"
            ) from None


def _build(cls: Any, content: Any) -> Any:
    if not isinstance(content, Mapping):
        raise TypeError(f"found {json.dumps(content)[:40]}, expected the fields of {cls.__name__}")
    unknown = set(content) - {entry.name for entry in dataclasses.fields(cls)}
    if unknown:
        raise TypeError(f"unknown field {sorted(unknown)[0]}")
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        if entry.name not in content:
            continue
        value = content[entry.name]
        if dataclasses.is_dataclass(entry.type):
            value = _build(entry.type, value)
        elif isinstance(value, list):
            value = tuple(value)
        values[entry.name] = value
    return cls(**values)


OFFICIAL = BackboneConfig()
"""Sizes of the published Versatile Diffusion four-flow v1.0."""
