"""The published weights: fetched or found on disk, converted once into a backbone folder, listed and verified."""

from typing import TYPE_CHECKING, Any

from unibrain.weights.published import official_sources

if TYPE_CHECKING:
    from unibrain.weights.conversion import verify

__all__ = ["official_sources", "verify"]


def __getattr__(name: str) -> Any:
    if name != "verify":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unibrain.weights.conversion import verify  # brings in PyTorch, so it waits until it is asked for

    return verify
