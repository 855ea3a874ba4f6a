"""The scene world: pictures of one or two objects on a procedural background, with captions.

The objects are cut-outs from Microsoft's Fluent Emoji 3D (MIT) and signs drawn with DejaVu Sans Bold;
see the licence files beside the data. Everything is deterministic from a seed.
"""

from unibrain.stimuli.scenes.backgrounds import BACKGROUNDS
from unibrain.stimuli.scenes.captions import describe, vocabulary
from unibrain.stimuli.scenes.catalogue import CATEGORIES, SceneObject, load_catalogue
from unibrain.stimuli.scenes.render import render
from unibrain.stimuli.scenes.scene import Placement, Scene, Split, sample_scene, split_of

__all__ = [
    "BACKGROUNDS",
    "CATEGORIES",
    "Placement",
    "Scene",
    "SceneObject",
    "Split",
    "describe",
    "load_catalogue",
    "render",
    "sample_scene",
    "split_of",
    "vocabulary",
]
