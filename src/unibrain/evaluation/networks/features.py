"""Loading a network with its published weights, and its features of pictures, computed in small batches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unibrain.errors import InputError
from unibrain.evaluation.networks.graphs import IMAGENET, AlexNet, EfficientNetB1, InceptionV3, ResNet50
from unibrain.evaluation.networks.weights import checked_files, metrics_home, network_row
from unibrain.weights.reading import read_weights

_AT_ONCE = 16
"""Pictures in one call of a network."""

_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Loaded:
    """A network that is ready for use; `sha256` is that of its weights, 64 hexadecimal digits."""

    name: str
    module: nn.Module
    sha256: str


def build_network(name: str) -> nn.Module:
    """The graph of a key of `NETWORKS`, without its weights."""
    if name.startswith("clip-"):
        from unibrain.evaluation.networks.clip import image_tower

        return image_tower(name)
    graphs: dict[str, Callable[[], nn.Module]] = {
        "alexnet": AlexNet,
        "inception": InceptionV3,
        "efficientnet-b1-v1": EfficientNetB1,
        "efficientnet-b1-v2": EfficientNetB1,
        "swav": ResNet50,
    }
    return graphs[name]()


CHANNELS_LAST = ("alexnet", "inception", "efficientnet-b1-v1", "efficientnet-b1-v2")
"""They are up to twice as fast so on a processor (measured); SwAV's is not."""

_DROPPED = {"inception": ("AuxLogits.",), "swav": ("projection_head.", "prototypes.")}


def load_network(name: str, folder: Path | None = None) -> Loaded:
    """Load a key of `NETWORKS` with its published weights, in float32, on the processor.

    `folder` is where the files are, `metrics_home` if left out. `UnavailableError` if one is missing, with the command
    that gets it; `InputError` if it is not the published one by size, SHA-256, keys or shapes, or would execute code.
    """
    path, sha256 = next(iter(checked_files(network_row(name), folder or metrics_home()).items()))
    kept = ("vision_model.", "visual_projection.") if name.startswith("clip-") else ("",)
    module = fill(lambda: build_network(name), path, kept=kept, dropped=_DROPPED.get(name, ()))
    if name in CHANNELS_LAST:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Loaded(name, module, sha256)


def fill(build: Callable[[], nn.Module], path: Path, kept: tuple[str, ...], dropped: tuple[str, ...] = ()) -> nn.Module:
    """Build a network of a file's weights: those whose names begin with `kept`, and not with `dropped`."""
    weights = {key.removeprefix("module."): value for key, value in read_weights(path).items()}
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        # Older files of CLIP hold the positions, which are only numbers from 0.
        if key.startswith(kept) and not (dropped and key.startswith(dropped)) and not key.endswith(".position_ids")
    }
    with torch.device("meta"):  # weights that are replaced at once need no memory
        module = build()
    own = module.state_dict()
    # Files of before 2018 do not count the batches.
    missing = sorted(key for key in own.keys() - weights.keys() if not key.endswith(".num_batches_tracked"))
    unknown = sorted(weights.keys() - own.keys())
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise InputError(
            f"{path}: {what} ({len(missing)} weights are missing, {len(unknown)} unknown). Give the published file."
        )
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise InputError(
                f"{path}: {key} has shape {tuple(value.shape)} instead of {tuple(own[key].shape)}. Give the published "
                "file."
            )
    counts = {key: torch.tensor(0) for key in own.keys() - weights.keys()}
    module.load_state_dict({**weights, **counts}, assign=True)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:  # CLIP's positions
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, torch.arange(buffer.shape[-1])[None])
    return module.eval().requires_grad_(False)


class _EnoughError(Exception):
    """All layers that were asked for are known."""


def layers(module: nn.Module, pictures: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Outputs of some submodules, by name, of normalised pictures (B, 3, s, s); nothing behind them is computed."""
    found: dict[str, Tensor] = {}
    known = dict(module.named_modules())
    wanted = dict.fromkeys(names)

    def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
        found[name] = output[0] if isinstance(output, tuple) else output
        if len(found) == len(wanted):
            raise _EnoughError

    for name in wanted:
        if name not in known:
            raise InputError(f"the network has no layer {name!r}. Give the name of one of its modules.")
    handles = [known[name].register_forward_hook(partial(keep, name)) for name in wanted]
    try:
        with torch.inference_mode():
            module(pictures)
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names}


def extract(network: Loaded, batches: Iterable[Tensor], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Features of pictures by layer, shape (n, features), flattened with channels first and not normalised.

    Batches (B, 3, s, s) are of the size that the network is to see, 0 to 1, and are looked at one at a time; they are
    normalised here, as the network wants it. `InputError` if there are none, or they are of another shape or scale, or
    there is no such layer.
    """
    mean, std, places = *IMAGENET, {name: name for name in names}
    if network.name.startswith("clip-"):
        from unibrain.evaluation.networks.clip import LAYERS

        mean, std, places = *_CLIP, {name: LAYERS.get(name, name) for name in names}
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise InputError(f"pictures of shape {tuple(batch.shape)}, {batch.dtype}. Give (B, 3, s, s), floating.")
        # Resizing may leave 0 to 1 a little; a mistaken scale does by far.
        if batch.numel() and not batch.abs().amax() <= 2:
            raise InputError(f"pictures have values up to {batch.abs().amax():g}. Give values from 0 to 1.")
        for part in batch.split(_AT_ONCE):
            outputs = layers(network.module, (part.float() - shift) / scale, list(places.values()))
            for name, place in places.items():
                parts[name].append(outputs[place].flatten(1).numpy())
    if not all(parts.values()):
        raise InputError("there are no pictures to compute features of. Give at least one.")
    return {name: np.concatenate(values) for name, values in parts.items()}
