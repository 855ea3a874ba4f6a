"""Is this installation the one whose results were checked? Fingerprints of the libraries, and what the machine has."""

from unibrain.doctor.examine import examine

__all__ = ["examine"]
