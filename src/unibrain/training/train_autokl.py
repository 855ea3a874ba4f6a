"""Training the image autoencoder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.config import AutoKLConfig
from unibrain.training.loop import Recipe, train
from unibrain.training.processes import processes

__all__ = ["train_autokl"]

KL_WEIGHT = 1e-4


def train_autokl(config: AutoKLConfig, pictures: NDArray[np.uint8], recipe: Recipe, folder: Path) -> Any:
    """Train on pictures: absolute and squared error, edges, and a light pull of the posterior towards N(0, 1).

    Parameters
    ----------
    config : AutoKLConfig
    pictures : ndarray of shape (n, size, size, 3), uint8
    recipe : Recipe
    folder : Path
        For checkpoints.

    Returns
    -------
    diffusers.AutoencoderKL
    """
    torch.manual_seed(recipe.seed)
    autokl = make_autokl(config).to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(pictures), (recipe.batch_size // processes(),), generator=generator).sort().values
        batch = torch.from_numpy(np.array(pictures[rows.numpy()])).permute(0, 3, 1, 2).float() / 127.5 - 1
        batch = batch.contiguous(memory_format=torch.channels_last)
        posterior = autokl.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        output = autokl.decode(posterior.mean + posterior.std * noise).sample
        absolute, squared = functional.l1_loss(output, batch), functional.mse_loss(output, batch)
        edges = sum(functional.l1_loss(output.diff(dim=axis), batch.diff(dim=axis)) for axis in (2, 3))
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        psnr = -10 * torch.log10(squared.detach() / 4)
        return {"loss": absolute + squared + edges + KL_WEIGHT * kl, "psnr": psnr, "kl": kl}

    return train(autokl, loss, recipe, folder, "autokl")
