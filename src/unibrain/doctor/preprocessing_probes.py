"""Probes without weights: CLIP's preprocessing of pictures, and the noise schedule."""

import numpy as np

from unibrain.backbone import clip as clip_part
from unibrain.backbone.config import ClipConfig, ScheduleConfig
from unibrain.backbone.schedule import ddim_steps
from unibrain.doctor.fingerprint import Fingerprint, of_array
from unibrain.doctor.patterns import fixed_picture
from unibrain.doctor.probe import Bench, Probe

__all__ = ["PREPROCESSING", "SCHEDULE"]

_SMALL = ClipConfig(vision={"image_size": 64}, resize=96)
_OFFICIAL = ClipConfig()


def _preprocessed(config: ClipConfig, height: int, width: int) -> Fingerprint:
    picture = fixed_picture(height, width)[None]
    return of_array(clip_part.preprocess(clip_part.make_image_processor(config), picture, config.resize).numpy())


def _grey(_: Bench) -> Fingerprint:
    grey = np.full((1, 512, 512, 3), 127, dtype=np.uint8)
    return of_array(clip_part.preprocess(clip_part.make_image_processor(_OFFICIAL), grey, 512).numpy())


def _levels(_: Bench) -> Fingerprint:
    steps = ddim_steps(ScheduleConfig(), 50)
    levels = of_array(np.stack([steps.alphas.numpy(), steps.alphas_prev.numpy(), steps.sigmas.numpy()]))
    return Fingerprint({**levels.exact, "timesteps": steps.timesteps.tolist()}, levels.numbers, levels.scale)


# Pillow resizes 8-bit pictures in whole numbers, so every machine gives the same pixels; what is left is the rounding
# of one subtraction and one division. A pixel that is one level off moves by 0.015.
_PIXELS = 1e-4
_LIBRARIES = ("transformers", "pillow", "numpy")

PREPROCESSING = (
    Probe(
        "clip-preprocessing-official",
        "CLIP preprocessing of a 512 x 512 picture to 224, as for the official model",
        _LIBRARIES,
        lambda _: _preprocessed(_OFFICIAL, 512, 512),
        _PIXELS,
    ),
    Probe(
        "clip-preprocessing-resized",
        "the same for a picture of 425 x 640, brought to 512 x 512 first",
        _LIBRARIES,
        lambda _: _preprocessed(_OFFICIAL, 425, 640),
        _PIXELS,
    ),
    Probe(
        "clip-preprocessing-small",
        "CLIP preprocessing of a tall 120 x 90 picture to 64",
        _LIBRARIES,
        lambda _: _preprocessed(_SMALL, 120, 90),
        _PIXELS,
    ),
    Probe(
        "clip-preprocessing-grey",
        "the grey picture of the unconditional context",
        _LIBRARIES,
        _grey,
        _PIXELS,
    ),
)

SCHEDULE = (Probe("ddim-schedule", "timesteps and noise levels of 50 DDIM steps", ("numpy", "torch"), _levels, 1e-6),)
