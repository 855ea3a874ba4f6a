"""One training loop for all parts: AdamW, warm-up and cool-down, averaged weights, and checkpoints that survive."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
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

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        scale = min(1.0, (step + 1) / max(1, self.warmup))
        if self.cooldown:
            scale = min(scale, (self.steps - step) / self.cooldown)
        return self.learning_rate * max(0.0, scale)


LOG_EVERY = 50

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
    optimiser = torch.optim.AdamW(
        list(exact.values()),
        lr=recipe.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    if state:
        optimiser.load_state_dict(state["optimiser"])
    model.to(training_dtype(device)).train()
    narrow: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
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
                    "optimiser": optimiser.state_dict(),
                    "averaged": whole(averaged),
                    "step": step,
                    "seconds": seconds + time.monotonic() - begun,
                    "recipe": asdict(recipe),
                },
                temporary,
            )

    def attention() -> AbstractContextManager[None]:
        """On a processor, attention as plain products: the backward pass of the fused one takes half of the time."""
        return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()

    sums: dict[str, Tensor] = {}
    summed = 0
    with (folder / f"{name}.log.jsonl").open("a") as log:
        for step in tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc=name, mininterval=20):
            seed = recipe.seed * 1_000_003 + step
            # Dropout draws from the global generator; with a seed of its own, a resumed run drops the same.
            torch.manual_seed(-1 - seed)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step)
            with attention():
                losses = loss(model, torch.Generator(device).manual_seed(seed))
                losses["loss"].backward()
            for parameter, weight in zip(narrow, exact.values(), strict=True):
                weight.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
            nn.utils.clip_grad_norm_(exact.values(), 1.0)
            optimiser.step()
            with torch.no_grad():
                torch._foreach_copy_(narrow, list(exact.values()))
                decay = min(recipe.average, (1 + step) / (10 + step))  # early on the random start is soon forgotten
                torch._foreach_lerp_(list(averaged.values()), list(exact.values()), 1 - decay)
            for key, value in losses.items():
                sums[key] = sums.get(key, torch.zeros((), device=device)) + value.detach().float()
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
