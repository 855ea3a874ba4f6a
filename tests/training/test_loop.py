"""The training loop: it can be stopped anywhere, averages what it should, and refuses what does not fit."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training import loop
from training.loop import Recipe, train, training_dtype
from unibrain.errors import InputError

RECIPE = Recipe(
    steps=13,
    batch_size=4,
    learning_rate=0.05,
    warmup=3,
    cooldown=5,
    average=0.6,
    weight_decay=0.1,
    seed=7,
    save_every=0,
)
TARGET = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])


def make_model(width: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    # Dropout draws from the global generator.
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 2))


class Loss:
    """Squared error of a linear map; can stop the training, and writes down the losses."""

    def __init__(self, stop_at: int = -1, wrong_at: int = -1) -> None:
        self.stop_at, self.wrong_at = stop_at, wrong_at
        self.values: list[float] = []

    def __call__(self, network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert next(network.parameters()).dtype == training_dtype("cpu")
        if len(self.values) == self.stop_at:
            raise KeyboardInterrupt
        x = torch.randn(RECIPE.batch_size, 3, generator=generator)
        loss = (network(x.to(training_dtype("cpu"))).float() - x @ TARGET.T).square().mean()
        if len(self.values) == self.wrong_at:
            loss = loss * float("nan")
        self.values.append(float(loss.detach()))
        return {"loss": loss, "double": 2 * loss}


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "toy.state.pt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("matrix_rate", [0.0, 0.02])
@pytest.mark.parametrize("stops", [[5], [6, 3], [4, 8]])
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path, stops: list[int], matrix_rate: float) -> None:
    recipe = replace(RECIPE, matrix_rate=matrix_rate)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = train(make_model(), Loss(), recipe, whole, "toy")
    for stop in stops:
        torch.manual_seed(stop)  # whatever the process did before
        with pytest.raises(KeyboardInterrupt):
            train(make_model(), Loss(stop), recipe, parts, "toy")
    found = train(make_model(), Loss(), recipe, parts, "toy")
    assert same(dict(found.state_dict()), dict(expected.state_dict()))
    for entry in ("model", "averaged", "optimisers", "step", "recipe"):
        assert same(state(parts)[entry], state(whole)[entry]), entry


def test_parts_of_a_step_are_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # bfloat16 would round each part's gradients.
    monkeypatch.setattr(loop, "training_dtype", lambda _: torch.float32)

    def error(network: nn.Module, seed: int) -> dict[str, Tensor]:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        return {"loss": (network(x) - x @ TARGET.T).square().mean()}

    def whole(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        both = [error(network, 2 * generator.initial_seed() + part)["loss"] for part in (0, 1)]
        return {"loss": (both[0] + both[1]) / 2}

    found = []
    for parts, loss in ((1, whole), (2, lambda network, generator: error(network, generator.initial_seed()))):
        folder = tmp_path / str(parts)
        folder.mkdir()
        recipe = replace(RECIPE, parts=parts, matrix_rate=0.02)
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
        found.append(train(network, loss, recipe, folder, "toy"))
        assert json.loads((folder / "toy.log.jsonl").read_text())["step"] == RECIPE.steps
    for one, other in zip(*(network.state_dict().values() for network in found), strict=True):
        torch.testing.assert_close(one, other)


def test_a_finished_run_is_only_loaded(tmp_path: Path) -> None:
    expected = train(make_model(), Loss(), RECIPE, tmp_path, "toy").state_dict()
    content = (tmp_path / "toy.state.pt").read_bytes()
    loss = Loss()
    found = train(make_model(), loss, RECIPE, tmp_path, "toy")
    assert loss.values == []
    assert not found.training
    assert next(found.parameters()).dtype == torch.float32
    assert same(dict(found.state_dict()), dict(expected))
    assert (tmp_path / "toy.state.pt").read_bytes() == content


def test_averaged_weights(tmp_path: Path) -> None:
    trajectory = [{key: value.numpy().copy() for key, value in make_model().state_dict().items()}]
    for steps in range(1, RECIPE.steps):
        with pytest.raises(KeyboardInterrupt):
            train(make_model(), Loss(1), RECIPE, tmp_path, "toy")
        assert state(tmp_path)["step"] == steps
        trajectory.append({key: value.numpy() for key, value in state(tmp_path)["model"].items()})
    found = train(make_model(), Loss(), RECIPE, tmp_path, "toy").state_dict()
    trajectory.append({key: value.numpy() for key, value in state(tmp_path)["model"].items()})
    for key, value in found.items():
        average = trajectory[0][key].astype(np.float64)
        for step, weights in enumerate(trajectory[1:]):
            decay = min(RECIPE.average, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weights[key]
        np.testing.assert_allclose(value.numpy(), average, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("matrix_rate", [0.0, 0.2])
def test_it_learns(tmp_path: Path, matrix_rate: float) -> None:
    recipe = Recipe(steps=120, batch_size=4, learning_rate=0.05, warmup=5, cooldown=60, average=0.9, weight_decay=0)
    recipe = replace(recipe, matrix_rate=matrix_rate)
    loss = Loss()
    train(nn.Linear(3, 2), loss, recipe, tmp_path, "toy")
    assert np.mean(loss.values[-10:]) < 0.02 * np.mean(loss.values[:10])


def test_learning_rate(tmp_path: Path) -> None:
    recipe = Recipe(steps=100, batch_size=1, learning_rate=0.5, warmup=10, cooldown=20)
    scales = np.array([recipe.scale(step) for step in range(100)])
    np.testing.assert_allclose(scales, np.interp(np.arange(100), [-1, 9, 80, 100], [0, 1, 1, 0]), atol=1e-12)
    assert recipe.scale(100) == recipe.scale(1000) == 0
    train(make_model(), Loss(), replace(RECIPE, matrix_rate=0.02), tmp_path, "toy")
    rates = [optimiser["param_groups"][0]["lr"] for optimiser in state(tmp_path)["optimisers"]]
    assert rates == pytest.approx([0.01, 0.004])  # of biases, and of matrices


def test_checkpoint_of_another_size(tmp_path: Path) -> None:
    train(make_model(), Loss(), RECIPE, tmp_path, "toy")
    with pytest.raises(InputError, match=r"toy\.state\.pt"):
        train(make_model(width=7), Loss(), RECIPE, tmp_path, "toy")


def test_a_loss_that_is_no_number_stops_before_it_does_harm(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before step 7"):
        train(make_model(), Loss(wrong_at=6), RECIPE, tmp_path, "toy")
    assert state(tmp_path)["step"] == 6
    assert all(bool(value.isfinite().all()) for value in state(tmp_path)["model"].values())


def test_log_holds_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    recipe = replace(RECIPE, steps=20)
    first, second = Loss(stop_at=15), Loss()
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), first, recipe, tmp_path, "toy")
    train(make_model(), second, recipe, tmp_path, "toy")
    lines = [json.loads(line) for line in (tmp_path / "toy.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0]["loss"] == pytest.approx(np.mean(first.values[:10]), abs=1e-5)
    # Resumed at 15: the mean is over what this process has seen.
    assert lines[1]["loss"] == pytest.approx(np.mean(second.values), abs=1e-5)
    assert lines[1]["double"] == pytest.approx(2 * lines[1]["loss"], abs=2e-5)
    assert all(math.isfinite(line["seconds"]) for line in lines)


def test_plain_attention_is_attention() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, tokens, 8, generator=draw) for tokens in (5, 7, 7))
    expected = nn.functional.scaled_dot_product_attention(query, key, value)
    with loop.PlainAttention():
        found = nn.functional.scaled_dot_product_attention(query, key, value)
    assert not torch.equal(found, expected)  # it took another way
    torch.testing.assert_close(found, expected)
