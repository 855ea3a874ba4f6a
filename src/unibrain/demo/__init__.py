"""The demo's world: scenes with captions, and a simulated subject who saw them. No human was scanned.

The objects are cut-outs from Microsoft's Fluent Emoji 3D (MIT) and signs drawn with DejaVu Sans Bold; see the licence
files beside the data. A subject is written in the file layout of the Natural Scenes Dataset. Everything follows from a
seed. See ``docs/scene-world.md`` and ``docs/simulated-subject.md``.
"""

from unibrain.demo.backgrounds import BACKGROUNDS
from unibrain.demo.captions import describe, vocabulary
from unibrain.demo.nsd_tree import simulate_nsd
from unibrain.demo.scenes import (
    CATEGORIES,
    Placement,
    Scene,
    SceneObject,
    Split,
    load_catalogue,
    rearranged,
    render,
    sample_scene,
    split_of,
)
from unibrain.demo.settings import SimulationSettings

__all__ = [
    "BACKGROUNDS",
    "CATEGORIES",
    "Placement",
    "Scene",
    "SceneObject",
    "SimulationSettings",
    "Split",
    "describe",
    "load_catalogue",
    "rearranged",
    "render",
    "sample_scene",
    "simulate_nsd",
    "split_of",
    "vocabulary",
]
