"""The pictures and captions that were shown, by stimulus id."""

from unibrain.stimuli.nsd import read_nsd_stimuli
from unibrain.stimuli.own import read_own_stimuli, write_own_stimuli
from unibrain.stimuli.stimuli import Stimuli

__all__ = ["Stimuli", "read_nsd_stimuli", "read_own_stimuli", "write_own_stimuli"]
