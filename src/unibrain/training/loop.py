"""One training loop for all parts: AdamW, warm-up and cool-down, averaged weights, and checkpoints that survive."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unibrain.errors import InputError
from unibrain.training.processes import average_gradients, rank
from unibrain.workspace.files import atomic_path

__all__ = ["Recipe", "train"]


@dataclass(frozen=True)
class Recipe:
    """How one part is trained.

    Attributes
    ----------
    steps : int
        Optimiser steps in all, those before a resumption included.
    batch_size : int
    learning_rate : float
        Peak rate of AdamW.
    warmup, cooldown : int
        Steps of linear increase at the start, and of linear decrease to zero at the end.
    average : float
        Decay of the running average of the weights, which is what is kept; 0 keeps the last weights.
    weight_decay : float
    seed : int
        Every step draws from a generator seeded by this, its number and the process, so a resumed run sees the same
        draws.
    save_every : int
        Steps between checkpoints.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    cooldown: int = 0
    average: float = 0.0
    weight_decay: float = 0.01
    seed: int = 0
    save_every: int = 250

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        scale = min(1.0, (step + 1) / max(1, self.warmup))
        if self.cooldown:
            scale = min(scale, (self.steps - step) / self.cooldown)
        return self.learning_rate * max(0.0, scale)


def train(
    model: nn.Module,
    loss: Callable[[int, torch.Generator], dict[str, Tensor]],
    recipe: Recipe,
    folder: Path,
    name: str,
) -> nn.Module:
    """Train, or go on training, and return the model with its averaged weights.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place.
    loss : callable
        Takes the step and a seeded generator; returns named losses of one batch. ``"loss"`` is minimised, the rest is
        logged.
    recipe : Recipe
    folder : Path
        Holds ``<name>.state.pt`` (everything needed to go on) and ``<name>.log.jsonl``.
    name : str

    Returns
    -------
    torch.nn.Module
        `model`, in evaluation mode.

    Notes
    -----
    In several processes (see `unibrain.training.processes`) each calls this with the same arguments; losses that are
    logged are those of the first.

    Raises
    ------
    InputError
        If the checkpoint belongs to a model of another size.
    """
    from tqdm import tqdm

    state_file = folder / f"{name}.state.pt"
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    averaged = {key: value.detach().clone() for key, value in model.state_dict().items()}
    first, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        try:
            model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise InputError(
                f"{state_file}: checkpoint of another configuration, expected the present one: remove it or name "
                "another folder"
            ) from error
        optimiser.load_state_dict(state["optimiser"])
        averaged, first, seconds = state["averaged"], state["step"], state["seconds"]

    def save(step: int) -> None:
        if rank() != 0:
            return
        with atomic_path(state_file) as temporary:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "averaged": averaged,
                    "step": step,
                    "seconds": seconds + time.monotonic() - begun,
                    "recipe": asdict(recipe),
                },
                temporary,
            )

    begun = time.monotonic()
    model.train()
    sums: dict[str, float] = {}
    summed = 0
    with (folder / f"{name}.log.jsonl").open("a") as log:
        for step in tqdm(
            range(first, recipe.steps),
            initial=first,
            total=recipe.steps,
            desc=name,
            mininterval=20,
            disable=rank() != 0,
        ):
            seed = (recipe.seed * 1_000_003 + step) * 64 + rank()
            generator = torch.Generator().manual_seed(seed)
            # Dropout draws from the global generator; with a seed of its own, a resumed run drops the same.
            torch.manual_seed(-1 - seed)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step)
            losses = loss(step, generator)
            values = {key: float(value.detach()) for key, value in losses.items()}
            if not math.isfinite(values["loss"]):
                raise RuntimeError(
                    f"{name}: the loss is {values['loss']} at step {step}; the last checkpoint is intact"
                )
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            _update_average(averaged, model, recipe.average, step)
            summed += 1
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + value
            done = step + 1
            if done % 50 == 0:
                if rank() == 0:
                    so_far = round(seconds + time.monotonic() - begun, 1)
                    means = {key: round(value / summed, 5) for key, value in sums.items()}
                    log.write(json.dumps({"step": done, "seconds": so_far, **means}) + "\n")
                    log.flush()
                sums, summed = {}, 0
            if done % recipe.save_every == 0:
                save(done)
    if first < recipe.steps:
        save(recipe.steps)
    model.load_state_dict(averaged)
    return model.eval()


@torch.no_grad()
def _update_average(averaged: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    # Early on the average follows quickly, so that the random start is forgotten.
    decay = min(decay, (1 + step) / (10 + step))
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            averaged[key].lerp_(value, 1 - decay)
        else:
            averaged[key].copy_(value)
