"""The pictures and captions that were shown, by stimulus id."""

from unibrain.stimuli.custom import read_custom_stimuli, write_custom_stimuli
from unibrain.stimuli.nsd import read_nsd_stimuli
from unibrain.stimuli.stimuli import Stimuli

__all__ = ["Stimuli", "read_custom_stimuli", "read_nsd_stimuli", "write_custom_stimuli"]
