"""A simulated subject, written in the file layout of the Natural Scenes Dataset: no human was scanned.

Early voxels follow image filters through receptive fields, semantic voxels follow objects and keywords, none follows
the latents that are decoded. See ``docs/simulated-subject.md``.
"""

from unibrain.simulation.settings import SimulationSettings
from unibrain.simulation.writer import simulate_nsd

__all__ = ["SimulationSettings", "simulate_nsd"]
