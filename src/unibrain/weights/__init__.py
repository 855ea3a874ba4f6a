"""The published weights: fetched or found on disk, converted once into a backbone folder, listed and verified."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibrain.weights.conversion import convert, import_backbone, verify
    from unibrain.weights.fetch import fetch_official
    from unibrain.weights.manifest import Manifest, kept_backbones
    from unibrain.weights.published import find_files, official_sources

__all__ = [
    "Manifest",
    "convert",
    "fetch_official",
    "find_files",
    "import_backbone",
    "kept_backbones",
    "official_sources",
    "verify",
]

# Reading weights brings in PyTorch, and manifests pydantic, so everything waits until it is asked for.
_HOMES = {
    "Manifest": "manifest",
    "convert": "conversion",
    "fetch_official": "fetch",
    "find_files": "published",
    "import_backbone": "conversion",
    "kept_backbones": "manifest",
    "official_sources": "published",
    "verify": "conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
