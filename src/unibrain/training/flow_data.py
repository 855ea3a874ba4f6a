"""Latents and contexts of all training scenes, computed once by the frozen encoders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibrain.backbone.autokl import encode_pictures
from unibrain.backbone.clip import image_context, make_image_processor, preprocess, text_context
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.optimus import Optimus
from unibrain.training.scene_set import SceneSet
from unibrain.training.train_flows import FlowData
from unibrain.training.vocabularies import Vocabularies
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

__all__ = ["Encoders", "flow_data"]

CAPTIONS = 5


@dataclass(frozen=True)
class Encoders:
    """The trained, frozen parts.

    Attributes
    ----------
    autokl : diffusers.AutoencoderKL
    optimus : Optimus
    clip : transformers.CLIPModel
    """

    autokl: Any
    optimus: Optimus
    clip: Any


def flow_data(
    config: BackboneConfig, encoders: Encoders, vocabularies: Vocabularies, scenes: SceneSet, folder: Path
) -> tuple[FlowData, float]:
    """Encode all scenes.

    Parameters
    ----------
    config : BackboneConfig
    encoders : Encoders
    vocabularies : Vocabularies
    scenes : SceneSet
    folder : Path
        Keeps the result, in float16, for the next time.

    Returns
    -------
    data : FlowData
    scale_factor : float
        One over the deviation of the unscaled image latents; `data` has been scaled by it.
    """
    from safetensors.torch import load_file, save_file

    file = folder / "flow-data.safetensors"
    if not file.exists():
        with atomic_path(file) as temporary:
            save_file(_encode(config, encoders, vocabularies, scenes), temporary)
    stored = load_file(file)
    scale_factor = float(stored.pop("scale_factor"))
    return FlowData(**stored), scale_factor


@torch.inference_mode()
def _encode(
    config: BackboneConfig, encoders: Encoders, vocabularies: Vocabularies, scenes: SceneSet
) -> dict[str, Tensor]:
    processor = make_image_processor(config.clip)
    size, eos = config.clip.resize, config.clip.eos_token_id
    mean = torch.tensor(processor.image_mean)[None, :, None, None]
    deviation = torch.tensor(processor.image_std)[None, :, None, None]
    rows: dict[str, list[Tensor]] = {"z_image": [], "z_text": [], "c_image": [], "c_text": [], "c_text_first": []}
    batch = 100
    for first in track(range(0, len(scenes.captions), batch), "encoding scenes", unit="batch"):
        some = slice(first, first + batch)
        pixels = torch.tensor(scenes.pictures[some]).permute(0, 3, 1, 2).float() / 255
        captions = [caption for row in scenes.captions[some] for caption in row[:CAPTIONS]]
        count = len(pixels)
        rows["z_image"].append(encode_pictures(encoders.autokl, pixels, 1.0).half())
        rows["c_image"].append(image_context(encoders.clip, (pixels - mean) / deviation).half())
        text = text_context(encoders.clip, vocabularies.clip(captions), eos).unflatten(0, (count, CAPTIONS))
        rows["c_text"].append(text.mean(1).half())
        rows["c_text_first"].append(text[:, 0].half())
        ids, mask = vocabularies.bert(captions)
        rows["z_text"].append(encoders.optimus.encode(ids, mask)[0].unflatten(0, (count, CAPTIONS)).half())
    encoded = {name: torch.cat(parts) for name, parts in rows.items()}
    scale_factor = 1 / encoded["z_image"].float().std()
    encoded["z_image"] = (encoded["z_image"].float() * scale_factor).half()
    grey = torch.full((1, size, size, 3), 127, dtype=torch.uint8).numpy()
    encoded["empty_image"] = image_context(encoders.clip, preprocess(processor, grey, size))
    encoded["empty_text"] = text_context(encoders.clip, vocabularies.clip([""]), eos)
    encoded["scale_factor"] = scale_factor
    return {name: value.contiguous() for name, value in encoded.items()}
