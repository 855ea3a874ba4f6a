"""One backbone's configuration: the sizes of its parts, and how it is best sampled.

The official model and the small one differ only here.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unibrain.errors import InputError

SAMPLERS = ("ddim", "dpm++")


@dataclass(frozen=True)
class SamplingSettings:
    """How a flow is sampled.

    Attributes
    ----------
    image_weight : float
        Share of the image context in the attention mix, 0 to 1; the text context has the rest.
    guidance_scale : float
        Classifier-free guidance; exactly 1 switches it off.
    strength : float
        Fraction of the steps that is taken when a latent is given, above 0 and below 1.
    steps : int
        Steps of a full run.
    eta : float
        Of DDIM: 0 for deterministic, 1 for ancestral noise.
    guidance_end : float
        Where guidance ends, counted as `strength` is: below this part of the diffusion the conditional prediction is
        taken as it is, which costs half as much; 0 guides every step, as in the paper. Little noise hides no content,
        and there guidance enlarges errors (Kynkaanniemi et al. 2024, arXiv 2404.07724).
    sampler : {"ddim", "dpm++"}
        DDIM, as in the paper, or DPM-Solver++ of second order, which needs fewer steps and adds no noise (eta is 0).

    Raises
    ------
    InputError
        If a value is out of its range, or strength and steps leave no step to take.
    """

    image_weight: float
    guidance_scale: float = 7.5
    strength: float = 0.75
    steps: int = 50
    eta: float = 0.0
    sampler: str = "ddim"
    guidance_end: float = 0.0

    def __post_init__(self) -> None:
        for name, fits, allowed in (
            ("sampler", self.sampler in SAMPLERS, " or ".join(SAMPLERS)),
            ("eta", self.eta == 0 or self.sampler == "ddim", f"0 for the sampler {self.sampler}"),
            ("image_weight", 0 <= self.image_weight <= 1, "0 (text context only) to 1 (image context only)"),
            ("strength", 0 < self.strength < 1, "above 0 and below 1 (to start from noise, leave the latent out)"),
            ("steps", 1 <= self.steps <= 999, "1 to 999"),
            ("eta", 0 <= self.eta <= 1, "0 to 1"),
            ("guidance_end", 0 <= self.guidance_end <= 1, "0 to 1"),
            ("guidance_scale", 0 <= self.guidance_scale < float("inf"), "0 or more"),
        ):
            if not fits:
                raise InputError(f"{name} is {getattr(self, name)}. Choose {allowed}.")
        if int(self.strength * self.steps) < 1:
            raise InputError(
                f"strength {self.strength} of {self.steps} steps is less than one step. Take more steps or a higher "
                "strength."
            )


@dataclass(frozen=True)
class FlowsConfig:
    """Sizes of the four-flow network; `second_dim` is the number of rows of the text state [B, C, second_dim, 1]."""

    image_channels: int = 4
    text_width: int = 768
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (True, True, True, False)
    heads: int = 8
    context_width: int = 768
    second_dim: int = 4

    def __post_init__(self) -> None:
        levels = len(self.channel_mult)
        if not levels or len(self.res_blocks) != levels or len(self.attention) != levels:
            raise InputError(
                f"flows: channel_mult has {levels} entries, res_blocks {len(self.res_blocks)} and attention "
                f"{len(self.attention)}, not one of each per level"
            )
        if self.channel_mult[0] != 1:
            raise InputError(f"flows: channel_mult starts with {self.channel_mult[0]}, not 1")
        if self.heads < 1 or self.model_channels < 1 or self.model_channels % 32 or self.model_channels % self.heads:
            raise InputError(
                f"flows: model_channels is {self.model_channels}, no multiple of 32 and of the {self.heads} heads"
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise schedule: beta is linear in its square root; `prediction` has the names of the schedulers of diffusers."""

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"schedule: prediction is {self.prediction!r}, not 'epsilon' or 'v_prediction'")
        if not 0 < self.beta_start <= self.beta_end < 1 or self.timesteps < 2:
            raise InputError(
                f"schedule: betas of {self.timesteps} timesteps from {self.beta_start} to {self.beta_end} do not rise "
                "between 0 and 1"
            )


@dataclass(frozen=True)
class AutoKLConfig:
    """Sizes of the image autoencoder (`diffusers.AutoencoderKL`); every level but the last halves the picture."""

    image_size: int = 512
    widths: tuple[int, ...] = (128, 256, 512, 512)
    res_blocks: int = 2
    latent_channels: int = 4
    scale_factor: float = 0.18215
    norm_groups: int = 32

    @property
    def latent_size(self) -> int:
        """Height and width of the latent."""
        return self.image_size >> (len(self.widths) - 1)


@dataclass(frozen=True)
class OptimusConfig:
    """Sizes of the text autoencoder; `bert` and `gpt2` are arguments of `transformers.BertConfig` and `GPT2Config`.

    The encoder reads `max_pieces` word pieces of a sentence; `max_length` counts decoded tokens, begin token included.
    The tokens `unrepeated` are written once at most in a sentence; for the published model there are none.
    """

    latent_width: int = 768
    bert: Mapping[str, Any] = field(default_factory=lambda: {"vocab_size": 28996})
    gpt2: Mapping[str, Any] = field(default_factory=lambda: {"vocab_size": 50260})
    max_pieces: int = 77
    max_length: int = 30
    unrepeated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if "vocab_size" not in self.gpt2:
            raise InputError("gpt2: there is no vocab_size")
        words = self.gpt2["vocab_size"] - 3  # the last three are marks
        outside = [token for token in self.unrepeated if not 0 <= token < words]
        if outside:
            raise InputError(f"unrepeated: {outside[0]} is no token of a vocabulary of {words} words")


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of CLIP; `text` and `vision` are arguments of `transformers.CLIPTextConfig` and `CLIPVisionConfig`.

    `eos_token_id` is the end-of-text token, also used as padding (the published text configuration says 2, which is
    historical). Pictures are first brought to `resize` pixels when they are of another size.
    """

    text: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        }
    )
    vision: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        }
    )
    projection_width: int = 768
    eos_token_id: int = 49407
    resize: int = 512


@dataclass(frozen=True)
class BackboneConfig:
    """One backbone: its sizes, and the settings that suit it.

    Attributes
    ----------
    name : str
        For people.
    flows, schedule, autokl, optimus, clip
        Sizes of the parts, by default those of the published model.
    unconditional_image : {"grey", "black", "zeros"}
        The image context of the unconditional half: CLIP of a mid-grey picture (8-bit 127, as the older public code and
        Brain-Diffuser), CLIP of a black one (current public code, captions), or a tensor of zeros (current public code,
        pictures).
    image, text : SamplingSettings
        Recommended settings for pictures and captions.

    Raises
    ------
    InputError
        If the flows do not fit the encoders, or a value is not allowed.
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
            raise InputError(f"unconditional_image is {self.unconditional_image!r}, not 'grey', 'black' or 'zeros'")
        for what, found, encoded in (
            ("image_channels", self.flows.image_channels, self.autokl.latent_channels),
            ("text_width", self.flows.text_width, self.optimus.latent_width),
            ("context_width", self.flows.context_width, self.clip.projection_width),
        ):
            if found != encoded:
                raise InputError(f"flows: {what} is {found}, but the encoder makes {encoded}")

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, default=dict) + "\n"

    @classmethod
    def from_json(cls, path: str | Path) -> "BackboneConfig":
        """Read a configuration file.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        BackboneConfig

        Raises
        ------
        InputError
            If the file is not there, is no JSON, or has other fields or values than a configuration.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file. Give the folder of a backbone.") from None
        try:
            config: BackboneConfig = TypeAdapter(cls).validate_json(content, strict=True)
        except (ValidationError, InputError, ValueError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                reason = f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
            raise InputError(
                f"{path}: not a backbone's configuration ({reason}). Take the config.json written with the weights."
            ) from None
        return config


for _part in (SamplingSettings, FlowsConfig, ScheduleConfig, AutoKLConfig, OptimusConfig, ClipConfig, BackboneConfig):
    _part.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[union-attr]

OFFICIAL = BackboneConfig()
"""Sizes of the published Versatile Diffusion four-flow v1.0."""
