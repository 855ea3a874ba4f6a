"""Loading a network with its published weights, and its features of pictures, streamed in small batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unibrain.errors import InputError
from unibrain.evaluation.networks.weights import Network, check, checked_files, command_for, metrics_home, network_row
from unibrain.weights.reading import read_weights

_AT_ONCE = 16
"""Pictures in one call of a network."""

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Loaded:
    """A network that is ready for use; `sha256` is that of its weights, 64 hexadecimal digits."""

    network: Network
    module: nn.Module
    sha256: str


def build_network(name: str) -> nn.Module:
    """The graph of a key of `NETWORKS`, without its weights."""
    if name.startswith("clip-"):
        from unibrain.evaluation.networks.clip import image_tower

        return image_tower(name)
    from unibrain.evaluation.networks.alexnet import AlexNet
    from unibrain.evaluation.networks.efficientnet import EfficientNetB1
    from unibrain.evaluation.networks.inception import InceptionV3
    from unibrain.evaluation.networks.resnet import ResNet50

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

_KEPT = {
    "clip-vit-l-14": ("vision_model.", "visual_projection."),
    "clip-vit-b-32": ("vision_model.", "visual_projection."),
}
_DROPPED = {"inception": ("AuxLogits.",), "swav": ("projection_head.", "prototypes.")}


def load_network(name: str, folder: Path | None = None) -> Loaded:
    """Load a network with its published weights, in float32, on the processor.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    folder : pathlib.Path, optional
        Where the files are; `metrics_home` if left out.

    Returns
    -------
    Loaded

    Raises
    ------
    UnavailableError
        If a file is missing; the message names the command that gets it.
    InputError
        If the file is not the published one by size, SHA-256, keys or shapes, or reading it would execute code.
    """
    network = network_row(name)
    path = checked_files(network, folder or metrics_home())[0]
    module = fill(lambda: build_network(name), path, kept=_KEPT.get(name, ("",)), dropped=_DROPPED.get(name, ()))
    if name in CHANNELS_LAST:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    published = next(file for file in network.parts[0] if file.name == path.name)
    return Loaded(network, module, check(published, path, command_for(network)))


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
    """Compute the output of some layers, and nothing behind the last of them.

    Parameters
    ----------
    module : torch.nn.Module
    pictures : Tensor of shape (B, 3, s, s), float32
        Normalised.
    names : sequence of str
        Names of submodules.

    Returns
    -------
    dict of str to Tensor
        In the order of `names`, of the layers' own shapes.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output
            if len(found) == len(set(names)):
                raise _EnoughError

        return hook

    known = dict(module.named_modules())
    for name in names:
        if name not in known:
            raise InputError(f"the network has no layer {name!r}. Give the name of one of its modules.")
    handles = [known[name].register_forward_hook(keep(name)) for name in dict.fromkeys(names)]
    try:
        with torch.inference_mode():
            module(pictures)
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names}


def stream(
    network: Loaded, batches: Iterable[Tensor], layer_names: Sequence[str]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Compute features batch by batch, for those who do not want all of them in memory; see `extract`."""
    places = _places(network.network, layer_names)
    mean, std = _CLIP if network.network.name.startswith("clip-") else _IMAGENET
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise InputError(f"pictures of shape {tuple(batch.shape)}, {batch.dtype}. Give (B, 3, s, s), floating.")
        # Resizing may leave 0 to 1 a little; a mistaken scale does by far.
        if batch.numel() and not batch.abs().amax() <= 2:
            raise InputError(f"pictures have values up to {batch.abs().amax():g}. Give values from 0 to 1.")
        for part in batch.split(_AT_ONCE):
            outputs = layers(network.module, (part.float() - shift) / scale, list(places.values()))
            yield {name: outputs[place].flatten(1).numpy() for name, place in places.items()}


def _places(network: Network, names: Sequence[str]) -> dict[str, str]:
    """Layers by their usual names to submodules."""
    if not network.name.startswith("clip-"):
        return {name: name for name in names}
    from unibrain.evaluation.networks.clip import LAYERS

    return {name: LAYERS.get(name, name) for name in names}


def extract(network: Loaded, batches: Iterable[Tensor], layers: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Compute features of pictures, which are seen one batch at a time.

    Parameters
    ----------
    network : Loaded
    batches : iterable of Tensor of shape (B, 3, s, s), floating
        Pictures of the size that the network is to see, 0 to 1; they are normalised here, as the network wants it.
    layers : sequence of str
        Such as those of ``network.network.layers``.

    Returns
    -------
    dict of str to ndarray of shape (n, features), float32
        Flattened, channels first; not normalised.

    Raises
    ------
    InputError
        If there are no pictures, or they are of another shape or scale, or there is no such layer.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    for found in stream(network, batches, layers):
        for name, values in found.items():
            parts[name].append(values)
    if not all(parts.values()):
        raise InputError("there are no pictures to compute features of. Give at least one.")
    return {name: _joined(values) for name, values in parts.items()}


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put parts below each other, letting go of each: a first layer's features of 982 pictures are half a gigabyte."""
    whole = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole
