"""The image networks of published scores, in plain PyTorch, with their published weights; see `NETWORKS`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibrain.evaluation.networks.clip import ClipEmbedder
    from unibrain.evaluation.networks.features import Loaded, extract, layers, load_network, stream
    from unibrain.evaluation.networks.weights import NETWORKS, Network, metrics_home

__all__ = [
    "NETWORKS",
    "ClipEmbedder",
    "Loaded",
    "Network",
    "extract",
    "layers",
    "load_network",
    "metrics_home",
    "stream",
]

# Only the table and the files can do without PyTorch, so the rest waits until it is asked for.
_TORCHLESS = ("NETWORKS", "Network", "metrics_home")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "weights" if name in _TORCHLESS else "clip" if name == "ClipEmbedder" else "features"
    return getattr(import_module(f"{__name__}.{home}"), name)
