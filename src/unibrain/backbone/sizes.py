"""Sizes of the backbone's parts; the official model and the small one differ only here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unibrain.errors import InputError

__all__ = ["AutoKLConfig", "ClipConfig", "FlowsConfig", "OptimusConfig", "ScheduleConfig"]


@dataclass(frozen=True)
class FlowsConfig:
    """Sizes of the four-flow network.

    Attributes
    ----------
    image_channels : int
        Channels of the image latent.
    text_width : int
        Width of the text latent.
    model_channels : int
        Channels of the first level; a multiple of 32 (group normalisation).
    channel_mult : tuple of int
        Width of each level in multiples of `model_channels`; the first is 1.
    res_blocks : tuple of int
        Residual blocks per level on the way down; one more on the way up.
    attention : tuple of bool
        Which levels have context blocks.
    heads : int
        Attention heads, in every context block.
    context_width : int
        Width of the context tokens.
    second_dim : int
        Rows of the text state, [B, C, second_dim, 1].
    """

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
        if len(self.res_blocks) != levels or len(self.attention) != levels:
            raise InputError(
                f"flows: {levels} channel multiples, {len(self.res_blocks)} res_blocks and {len(self.attention)} "
                "attention entries, expected one of each per level"
            )
        if not levels:
            raise InputError("flows: channel_mult is empty, expected one multiple per level")
        if self.channel_mult[0] != 1:
            raise InputError(
                f"flows: first channel multiple is {self.channel_mult[0]}, expected 1 (the head reads model_channels)"
            )
        if self.heads < 1 or self.model_channels < 1 or self.model_channels % 32 or self.model_channels % self.heads:
            raise InputError(
                f"flows: model_channels is {self.model_channels}, expected a multiple of 32 and of the {self.heads} "
                "heads"
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise schedule: beta is linear in its square root between the two ends.

    Attributes
    ----------
    timesteps : int
        Number of training timesteps.
    beta_start, beta_end : float
        First and last beta.
    prediction : {"epsilon", "v_prediction"}
        What the network predicts; names as in the schedulers of diffusers.
    """

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"schedule: prediction is {self.prediction!r}, expected 'epsilon' or 'v_prediction'")
        if not 0 < self.beta_start <= self.beta_end < 1 or self.timesteps < 2:
            raise InputError(
                f"schedule: {self.timesteps} timesteps with betas from {self.beta_start} to {self.beta_end}, "
                "expected 2 timesteps or more and betas that rise between 0 and 1"
            )


@dataclass(frozen=True)
class AutoKLConfig:
    """Sizes of the image autoencoder (`diffusers.AutoencoderKL`).

    Attributes
    ----------
    image_size : int
        Height and width of the pictures, pixels.
    widths : tuple of int
        Channels per level; every level but the last halves the picture.
    res_blocks : int
        Residual blocks per level in the encoder; one more in the decoder.
    latent_channels : int
        Channels of the latent.
    scale_factor : float
        The latent is multiplied by it after encoding and divided by it before decoding.
    norm_groups : int
        Groups of the group normalisation.
    """

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
    """Sizes of the text autoencoder: a BERT encoder and a GPT-2 decoder around one latent vector.

    Attributes
    ----------
    latent_width : int
        Width of the text latent.
    bert, gpt2 : mapping
        Keyword arguments of `transformers.BertConfig` and `transformers.GPT2Config`.
    max_pieces : int
        Word pieces that the encoder reads; the rest of a longer sentence is cut off.
    max_length : int
        Longest decoded sequence, the begin token included.
    """

    latent_width: int = 768
    bert: Mapping[str, Any] = field(default_factory=lambda: {"vocab_size": 28996})
    gpt2: Mapping[str, Any] = field(default_factory=lambda: {"vocab_size": 50260})
    max_pieces: int = 77
    max_length: int = 30


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of CLIP.

    Attributes
    ----------
    text, vision : mapping
        Keyword arguments of `transformers.CLIPTextConfig` and `transformers.CLIPVisionConfig`.
    projection_width : int
        Width of the shared space, and so of the context tokens.
    eos_token_id : int
        The end-of-text token, also used as padding. (The published text configuration says 2, which is historical.)
    resize : int
        Pictures are first brought to this size when they are of another one.
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
