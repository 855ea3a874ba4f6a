"""The training loop: it can be stopped anywhere, averages what it should, and refuses what does not fit."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unibrain.errors import InputError
from unibrain.training.loop import Recipe, train

RECIPE = Recipe(
    steps=13,
    batch_size=4,
    learning_rate=0.05,
    warmup=3,
    cooldown=5,
    average=0.6,
    weight_decay=0.1,
    seed=7,
    save_every=4,
)
TARGET = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])


def make_model(width: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    # Dropout and batch normalisation: draws of the global generator, and a buffer of integers.
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 2))


class Loss:
    """Squared error of a linear map; can stop the training, and writes down the weights that it meets."""

    def __init__(self, model: nn.Module, recipe: Recipe, stop_at: int = -1, wrong_at: int = -1) -> None:
        self.model, self.recipe, self.stop_at, self.wrong_at = model, recipe, stop_at, wrong_at
        self.met: list[dict[str, np.ndarray]] = []
        self.values: list[float] = []

    def __call__(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.met.append({key: value.numpy().copy() for key, value in self.model.state_dict().items()})
        x = torch.randn(self.recipe.batch_size, 3, generator=generator)
        loss = (self.model(x) - x @ TARGET.T).square().mean()
        if step == self.wrong_at:
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


@pytest.mark.parametrize("stops", [[2], [5], [6, 9], [4, 12]])
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path, stops: list[int]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    model = make_model()
    expected = train(model, Loss(model, RECIPE), RECIPE, whole, "toy")
    for stop in stops:
        model = make_model()
        torch.manual_seed(stop)  # whatever the process did before
        with pytest.raises(KeyboardInterrupt):
            train(model, Loss(model, RECIPE, stop), RECIPE, parts, "toy")
    model = make_model()
    torch.rand(17)
    found = train(model, Loss(model, RECIPE), RECIPE, parts, "toy")
    assert same(dict(found.state_dict()), dict(expected.state_dict()))
    for entry in ("model", "averaged", "optimiser", "step", "recipe"):
        assert same(state(parts)[entry], state(whole)[entry]), entry


def test_a_finished_run_is_only_loaded(tmp_path: Path) -> None:
    model = make_model()
    expected = train(model, Loss(model, RECIPE), RECIPE, tmp_path, "toy").state_dict()
    content = (tmp_path / "toy.state.pt").read_bytes()
    again = make_model()
    loss = Loss(again, RECIPE)
    found = train(again, loss, RECIPE, tmp_path, "toy")
    assert loss.met == []
    assert not found.training
    assert same(dict(found.state_dict()), dict(expected))
    assert (tmp_path / "toy.state.pt").read_bytes() == content


def test_averaged_weights(tmp_path: Path) -> None:
    model = make_model()
    loss = Loss(model, RECIPE)
    found = train(model, loss, RECIPE, tmp_path, "toy").state_dict()
    last = {key: value.numpy() for key, value in state(tmp_path)["model"].items()}
    trajectory = [*loss.met, last]
    assert len(trajectory) == RECIPE.steps + 1
    for key, value in found.items():
        average = trajectory[0][key].astype(np.float64)
        for step, weights in enumerate(trajectory[1:]):
            decay = min(RECIPE.average, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weights[key]
        if value.is_floating_point():
            np.testing.assert_allclose(value.numpy(), average, rtol=1e-5, atol=1e-6, err_msg=key)
        else:
            assert value == last[key] == RECIPE.steps


def test_without_averaging_the_last_weights_are_kept(tmp_path: Path) -> None:
    recipe = Recipe(steps=3, batch_size=4, learning_rate=0.1)
    model = make_model()
    found = train(model, Loss(model, recipe), recipe, tmp_path, "toy")
    assert same(dict(found.state_dict()), state(tmp_path)["model"])


def test_it_learns(tmp_path: Path) -> None:
    recipe = Recipe(steps=120, batch_size=16, learning_rate=0.05, warmup=5, cooldown=60, average=0.9, weight_decay=0)
    model = nn.Linear(3, 2)
    loss = Loss(model, recipe)
    train(model, loss, recipe, tmp_path, "toy")
    assert np.mean(loss.values[-10:]) < 0.01 * np.mean(loss.values[:10])


def test_learning_rate() -> None:
    recipe = Recipe(steps=100, batch_size=1, learning_rate=0.5, warmup=10, cooldown=20)
    rates = np.array([recipe.rate(step) for step in range(100)])
    expected = 0.5 * np.interp(np.arange(100), [-1, 9, 80, 100], [0, 1, 1, 0])
    np.testing.assert_allclose(rates, expected, atol=1e-12)
    assert recipe.rate(100) == recipe.rate(1000) == 0
    constant = Recipe(steps=10, batch_size=1, learning_rate=0.5, warmup=0)
    assert [constant.rate(step) for step in range(10)] == [0.5] * 10


def test_the_optimiser_follows_the_rate(tmp_path: Path) -> None:
    model = make_model()
    train(model, Loss(model, RECIPE), RECIPE, tmp_path, "toy")
    (group,) = state(tmp_path)["optimiser"]["param_groups"]
    assert group["lr"] == RECIPE.rate(RECIPE.steps - 1) == pytest.approx(0.01)
    assert group["weight_decay"] == 0.1


def test_checkpoint_of_another_size(tmp_path: Path) -> None:
    model = make_model()
    train(model, Loss(model, RECIPE), RECIPE, tmp_path, "toy")
    other = make_model(width=7)
    with pytest.raises(InputError, match=r"toy\.state\.pt: checkpoint of another configuration"):
        train(other, Loss(other, RECIPE), RECIPE, tmp_path, "toy")


def test_a_loss_that_is_no_number_stops_before_it_does_harm(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(RuntimeError, match="the loss is nan at step 6"):
        train(model, Loss(model, RECIPE, wrong_at=6), RECIPE, tmp_path, "toy")
    assert state(tmp_path)["step"] == 4
    assert all(bool(value.isfinite().all()) for value in state(tmp_path)["model"].values())


def test_log_holds_means(tmp_path: Path) -> None:
    recipe = Recipe(steps=100, batch_size=4, learning_rate=0.01, save_every=30)
    model = make_model()
    first = Loss(model, recipe, stop_at=65)
    with pytest.raises(KeyboardInterrupt):
        train(model, first, recipe, tmp_path, "toy")
    model = make_model()
    second = Loss(model, recipe)
    train(model, second, recipe, tmp_path, "toy")
    lines = [json.loads(line) for line in (tmp_path / "toy.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100]
    assert lines[0]["loss"] == pytest.approx(np.mean(first.values[:50]), abs=1e-5)
    # Resumed at 60: the mean is over what this process has seen.
    assert lines[1]["loss"] == pytest.approx(np.mean(second.values), abs=1e-5)
    assert lines[1]["double"] == pytest.approx(2 * lines[1]["loss"], abs=2e-5)
    assert all(math.isfinite(line["seconds"]) for line in lines)
