"""The four graphs against torchvision's: stored values everywhere, and live where torchvision imports.

`python tests/evaluation/networks/test_graphs.py`, where torchvision imports, computes the stored values anew.
"""

import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unibrain.evaluation.networks import graphs
from unibrain.evaluation.networks.features import layers
from unibrain.evaluation.networks.graphs import AlexNet, EfficientNetB1, InceptionV3, ResNet50

STORED = Path(__file__).parent / "torchvision-0.28.npz"
SIDE = 117  # odd, so that sizes are rounded on the way
KEPT = 150
GRAPHS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "alexnet": (AlexNet, ("features.4", "features.5", "features.11", "features.12", "classifier.5")),
    "inception": (InceptionV3, ("maxpool2", "Mixed_5b", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c", "avgpool")),
    "efficientnet": (EfficientNetB1, ("features.0", "features.1", "features.4", "features.7", "avgpool")),
    "resnet": (ResNet50, ("maxpool", "layer1", "layer2", "layer3", "avgpool")),
}


def weight(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A weight of a network by its name alone; batch norms are as those of a trained network, not of a new one."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    values = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
    if len(shape) > 1:
        return (values - 0.5) * np.float32(np.sqrt(24 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return values + np.float32(0.5)
    if name.endswith("weight"):
        # Below 1 in the mean: with values that grow from block to block, gates would magnify rounding errors.
        return values * np.float32(0.5) + np.float32(0.3)
    return (values - 0.5) * np.float32(0.4)


def filled(network: nn.Module) -> nn.Module:
    """A network with the weights of `weight`."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict({name: torch.from_numpy(weight(name, shape)) for name, shape in shapes.items()})
    return network.eval()


def graph(name: str) -> nn.Module:
    with torch.device("meta"):
        network = GRAPHS[name][0]()
    return filled(network.to_empty(device="cpu"))


def pictures(side: int = SIDE) -> Tensor:
    values = np.random.default_rng(7).standard_normal((2, 3, side, side), np.float32)
    return torch.from_numpy(values)


def some(values: Tensor) -> NDArray[np.float32]:
    flat = values.numpy().ravel()
    return flat[np.linspace(0, len(flat) - 1, KEPT).astype(int)]


def assert_same(found: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5 * float(np.abs(reference).mean()))


@pytest.fixture(scope="module")
def stored() -> Mapping[str, NDArray[np.float32]]:
    return dict(np.load(STORED))


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_are_those_of_torchvision(name: str, stored: Mapping[str, NDArray[np.float32]]) -> None:
    found = layers(graph(name), pictures(), GRAPHS[name][1])
    for layer, values in found.items():
        reference = stored[f"{name} {layer}"]
        assert float(reference.std()) > 1e-3
        assert_same(some(values), reference)


def test_inceptions_input_and_epsilon_count(
    stored: Mapping[str, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = graph("inception")
    right = some(layers(network, pictures(), ["maxpool2"])["maxpool2"])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    other_epsilon = some(layers(network, pictures(), ["maxpool2"])["maxpool2"])
    assert np.abs(other_epsilon - right).max() > 1e-4 * right.max()
    monkeypatch.setattr(graphs, "IMAGENET", ((0.5,) * 3, (0.5,) * 3))  # which is mapped to itself
    without = some(layers(graph("inception"), pictures(), ["maxpool2"])["maxpool2"])
    assert np.abs(without - right).max() > 0.01 * right.max()
    assert_same(without, stored["inception without transform_input"])


def test_what_is_asked_for_is_all_that_is_computed() -> None:
    network = graph("efficientnet")
    seen = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    wanted = ["features.1", "features.0.1", "features.1"]
    found = layers(network, pictures(), wanted)
    assert list(found) == wanted[:2]
    assert {name.split(".")[1] for name in seen} == {"0", "1"}
    # Below what SiLU leaves, so it did not work in place.
    assert found["features.0.1"].min() < -0.3


def torchvision_graph(name: str, **options: Any) -> nn.Module:
    from torchvision import models  # type: ignore[import-not-found,import-untyped,unused-ignore]

    if name == "inception":
        options = {"transform_input": True, "init_weights": False, **options}
    made = {"efficientnet": "efficientnet_b1", "inception": "inception_v3", "resnet": "resnet50"}.get(name, name)
    return filled(getattr(models, made)(**options))


if find_spec("torchvision"):  # there is no build of it for every machine

    @pytest.mark.parametrize(
        ("name", "side"), [*((name, 224) for name in GRAPHS), ("inception", 299), ("alexnet", 256)]
    )
    def test_layers_are_those_of_torchvision_as_it_is_installed(name: str, side: int) -> None:
        found = layers(graph(name), pictures(side), GRAPHS[name][1])
        reference = layers(torchvision_graph(name), pictures(side), GRAPHS[name][1])
        for layer, values in reference.items():
            assert_same(found[layer].numpy(), values.numpy())

    @pytest.mark.parametrize(
        ("name", "dropped"), [("alexnet", ()), ("inception", ("AuxLogits.",)), ("resnet", ("fc.",))]
    )
    def test_weights_have_the_names_of_torchvision(name: str, dropped: tuple[str, ...]) -> None:
        theirs = torchvision_graph(name).state_dict()
        kept = {key: value.shape for key, value in theirs.items() if not (dropped and key.startswith(dropped))}
        assert {key: value.shape for key, value in graph(name).state_dict().items()} == kept


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = {
        f"{name} {layer}": some(found)
        for name, (_, names) in GRAPHS.items()
        for layer, found in layers(torchvision_graph(name), pictures(), names).items()
    }
    bare = torchvision_graph("inception", transform_input=False)
    values["inception without transform_input"] = some(layers(bare, pictures(), ["maxpool2"])["maxpool2"])
    np.savez_compressed(STORED, **values)  # type: ignore[arg-type]
