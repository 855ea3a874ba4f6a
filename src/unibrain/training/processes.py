"""Training in several processes at once: each takes a share of the batch, and gradients are averaged."""

import os
from collections.abc import Sequence

import torch
from torch import distributed
from torch.nn import Parameter

__all__ = ["average_gradients", "join_processes", "processes", "rank"]


def join_processes() -> None:
    """Join the group that ``torchrun`` has announced in the environment; without it there is one process."""
    if "WORLD_SIZE" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("gloo")


def processes() -> int:
    """Number of processes in the group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 writes files and shows progress."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def average_gradients(parameters: Sequence[Parameter]) -> None:
    """Replace every gradient by its mean over the processes; one that is absent counts as zero."""
    if processes() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= processes()
    for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = part.view_as(parameter)
