"""All probes, in the order in which they are shown: what others build on comes first."""

from unibrain.doctor.network_probes import AUTOENCODERS, CONTEXTS, FLOWS
from unibrain.doctor.preprocessing_probes import PREPROCESSING, SCHEDULE
from unibrain.doctor.probe import Probe
from unibrain.doctor.token_probes import TOKENS

__all__ = ["PROBES"]

PROBES: tuple[Probe, ...] = (*PREPROCESSING, *TOKENS, *CONTEXTS, *AUTOENCODERS, *SCHEDULE, *FLOWS)
"""Every probe; names are unique."""
