"""One training loop for all parts: AdamW or Muon, warm-up and cool-down, averaged weights, checkpoints that survive."""

import copy
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from unibrain.backbone.products import state_dtype
from unibrain.errors import InputError
from unibrain.workspace.files import atomic_path


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
        Every step draws from a generator seeded by this and its number, so a resumed run sees the same draws.
    save_every : float
        Seconds between checkpoints.
    matrix_rate : float
        Peak rate of Muon, which then trains matrices and kernels of convolutions, with steps of the same size in all
        directions of a matrix; 0 leaves them to AdamW.
    parts : int
        Batches of a step, of which each has a thread of its own: small products gain little from sharing one. Not for
        networks with dropout, whose draws would depend on which thread comes first.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    cooldown: int = 0
    average: float = 0.0
    weight_decay: float = 0.01
    seed: int = 0
    save_every: float = 120.0
    matrix_rate: float = 0.0
    parts: int = 1

    def scale(self, step: int) -> float:
        """Share of the peak rates that a step has."""
        scale = min(1.0, (step + 1) / max(1, self.warmup))
        if self.cooldown:
            scale = min(scale, (self.steps - step) / self.cooldown)
        return max(0.0, scale)


LOG_EVERY = 50


class PlainAttention(TorchFunctionMode):
    """Attention as two products and a softmax: on a processor, backward passes of PyTorch's own take twice as long."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention without masks; everything else is as it was."""
        if function is functional.scaled_dot_product_attention and len(args) == 3 and not kwargs:
            query, key, value = args
            return (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1) @ value
        return function(*args, **(kwargs or {}))


Loss = Callable[[nn.Module, torch.Generator], dict[str, Tensor]]


def training_dtype(device: str) -> torch.dtype:
    """Type that networks compute in while they are trained: bfloat16 where the device multiplies it itself."""
    return state_dtype(torch.bfloat16, torch.device(device))


def train(model: nn.Module, loss: Loss, recipe: Recipe, folder: Path, name: str, device: str = "cpu") -> nn.Module:
    """Train, or go on training, and return the model with its averaged weights, on the processor in float32.

    The network that is trained computes in bfloat16 where the device does it itself, several times as fast, and
    in float32 elsewhere; the weights themselves, their average and the optimiser stay in float32.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights are where training starts, unless there is a checkpoint.
    loss : callable
        Takes the network, in `training_dtype`, and a seeded generator on the device; returns named losses of one batch.
        ``"loss"`` is minimised, the rest is logged.
    recipe : Recipe
    folder : Path
        Holds ``<name>.state.pt`` (everything needed to go on) and ``<name>.log.jsonl``.
    name : str
    device : str
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        If the checkpoint belongs to a model of another size.
    """
    state_file = folder / f"{name}.state.pt"
    first, seconds, state = 0, 0.0, None
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location="cpu")
        try:
            model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise InputError(
                f"{state_file}: it is a checkpoint of another configuration. Remove it, or name another folder."
            ) from error
        first, seconds = state["step"], state["seconds"]
    model.to(device)
    still = {key: value.detach().clone() for key, value in model.state_dict().items()}
    exact = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
    averaged = {key: state["averaged"][key].to(device) if state else value.clone() for key, value in exact.items()}
    matrices = {key: weight.flatten(1) for key, weight in exact.items() if weight.ndim > 1 and recipe.matrix_rate}
    others = [weight for key, weight in exact.items() if key not in matrices]
    decay: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    optimisers: list[tuple[torch.optim.Optimizer, float]] = []
    if others:
        adam = torch.optim.AdamW(others, betas=(0.9, 0.99), fused=True, **decay)
        optimisers.append((adam, recipe.learning_rate))
    for part in range(recipe.parts if matrices else 0):
        some = list(matrices.values())[part :: recipe.parts]
        muon = torch.optim.Muon(some, adjust_lr_fn="match_rms_adamw", **decay)
        optimisers.append((muon, recipe.matrix_rate))
    if state:
        for (optimiser, _), kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
    model.to(training_dtype(device)).train()
    networks = [model, *(copy.deepcopy(model) for _ in range(1, recipe.parts))]
    for network in networks[1:]:  # the same weights, gradients of their own
        for parameter, own in zip(network.parameters(), model.parameters(), strict=True):
            parameter.data = own.data
    trained = [[p for p in network.parameters() if p.requires_grad] for network in networks]
    narrow: list[Tensor] = list(trained[0])
    begun = saved = time.monotonic()

    def whole(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights with what is tied to them, and what is not trained."""
        names = {parameter.data_ptr(): key for key, parameter in model.named_parameters()}
        return {key: weights.get(names.get(x.data_ptr(), key), still[key]) for key, x in model.state_dict().items()}

    def save(step: int) -> None:
        with atomic_path(state_file) as temporary:
            torch.save(
                {
                    "model": whole(exact),
                    "optimisers": [optimiser.state_dict() for optimiser, _ in optimisers],
                    "averaged": whole(averaged),
                    "step": step,
                    "seconds": seconds + time.monotonic() - begun,
                    "recipe": asdict(recipe),
                },
                temporary,
            )

    def gradients(part: int, seed: int) -> dict[str, Tensor]:
        """Add up the gradients of one part of a step; returns its losses."""
        with PlainAttention() if device == "cpu" else nullcontext():
            losses = loss(networks[part], torch.Generator(device).manual_seed(seed * recipe.parts + part))
            (losses["loss"] / recipe.parts).backward()
        return {key: value.detach().float() / recipe.parts for key, value in losses.items()}

    sums: dict[str, Tensor] = {}
    summed = 0
    share = max(1, torch.get_num_threads() // recipe.parts)
    with (
        (folder / f"{name}.log.jsonl").open("a") as log,
        ThreadPoolExecutor(recipe.parts, initializer=torch.set_num_threads, initargs=(share,)) as threads,
    ):
        for step in tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc=name, mininterval=20):
            seed = recipe.seed * 1_000_003 + step
            # Dropout draws from the global generator; with a seed of its own, a resumed run drops the same.
            torch.manual_seed(-1 - seed)
            for optimiser, rate in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate * recipe.scale(step)
            for losses in threads.map(gradients, range(recipe.parts), [seed] * recipe.parts):
                for key, value in losses.items():
                    sums[key] = sums.get(key, torch.zeros((), device=device)) + value
            for weight, *copies in zip(exact.values(), *trained, strict=True):
                found = [parameter.grad.float() for parameter in copies if parameter.grad is not None]
                weight.grad = torch.stack(found).sum(0) if found else None
                for parameter in copies:
                    parameter.grad = None
            nn.utils.clip_grad_norm_(exact.values(), 1.0)
            for key, matrix in matrices.items():
                gradient = exact[key].grad
                matrix.grad = None if gradient is None else gradient.flatten(1)
            list(threads.map(lambda chosen: chosen[0].step(), optimisers))
            with torch.no_grad():
                torch._foreach_copy_(narrow, list(exact.values()))
                kept = min(recipe.average, (1 + step) / (10 + step))  # early on the random start is soon forgotten
                torch._foreach_lerp_(list(averaged.values()), list(exact.values()), 1 - kept)
            done, summed = step + 1, summed + 1
            written = done % LOG_EVERY == 0 or done == recipe.steps
            late = time.monotonic() - saved >= recipe.save_every or done == recipe.steps
            if (written or late) and not math.isfinite(float(sums["loss"])):
                raise RuntimeError(
                    f"{name}: the loss left the range of numbers before step {done}; go on from the checkpoint"
                )
            if written:
                means = {key: round(float(value) / summed, 5) for key, value in sums.items()}
                so_far = round(seconds + time.monotonic() - begun, 1)
                log.write(json.dumps({"step": done, "seconds": so_far, **means}) + "\n")
                log.flush()
                sums, summed = {}, 0
            if late:
                save(done)
                saved = time.monotonic()
    final = {key: value.to("cpu", copy=True) for key, value in whole(averaged).items()}
    model.to("cpu", torch.float32).load_state_dict(final)
    return model.eval()
