"""Is this installation the one whose results were checked? Fingerprints of the libraries, machine, weights and data."""

from typing import TYPE_CHECKING, Any

from unibrain.doctor.diagnosis import Diagnosis, Finding, Section, Status

if TYPE_CHECKING:
    from unibrain.doctor.examination import examine

__all__ = ["Diagnosis", "Finding", "Section", "Status", "examine"]


def __getattr__(name: str) -> Any:
    # What a diagnosis looks like is light; examining needs NumPy and more.
    if name == "examine":
        from unibrain.doctor.examination import examine

        return examine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
