"""Keys and shapes that a configuration asks for, known without any weights."""

from dataclasses import dataclass

import torch

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.optimus import Optimus
from unibrain.errors import InputError

__all__ = ["Expected", "expect"]


@dataclass(frozen=True)
class Expected:
    """What a complete backbone of one configuration holds.

    Attributes
    ----------
    shapes : dict of str to dict of str to tuple of int
        Shape of every key of every part.
    bert_pieces, gpt2_tokens, clip_tokens : int
        Sizes of the vocabularies, marks included.
    """

    shapes: dict[str, dict[str, tuple[int, ...]]]
    bert_pieces: int
    gpt2_tokens: int
    clip_tokens: int


def expect(config: BackboneConfig) -> Expected:
    """Build the networks on the meta device, where they take no memory, and read off their shapes.

    Parameters
    ----------
    config : BackboneConfig

    Returns
    -------
    Expected

    Raises
    ------
    InputError
        If no network of these sizes can be built.
    """
    try:
        with torch.device("meta"):
            flows, autokl = FourFlows(config.flows), make_autokl(config.autokl)
            optimus, clip = Optimus(config.optimus), make_clip(config.clip)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(
            f"configuration {config.name!r}: no network can be built of these sizes ({error}), expected those of the "
            "weights: take the config.json that belongs to them"
        ) from None
    modules = {"flows": flows, "autokl": autokl, "optimus": optimus, "clip": clip}
    return Expected(
        {part: {key: tuple(value.shape) for key, value in m.state_dict().items()} for part, m in modules.items()},
        optimus.bert.config.vocab_size,
        optimus.gpt2.config.vocab_size,
        clip.config.text_config.vocab_size,
    )
