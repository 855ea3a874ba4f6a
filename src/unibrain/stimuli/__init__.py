"""The pictures and captions that were shown, by stimulus id."""

from unibrain.stimuli.nsd import read_nsd_stimuli
from unibrain.stimuli.stimuli import Stimuli

__all__ = ["Stimuli", "read_nsd_stimuli"]
