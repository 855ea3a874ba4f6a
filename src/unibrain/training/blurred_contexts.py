"""Contexts as a regression from noisy measurements would predict them, without any measurement.

Ridge regression keeps what has a large variance and is measured well, and draws the rest towards the mean; what it
adds is noise that itself looks like a mixture of training images' contexts, because its predictions are such mixtures.
Contexts that are blurred in this way are what the flows meet when a scan is decoded. Nothing of a brain is assumed
but one number: how noisy the measurement is, and it is drawn anew for every sample.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BlurredContexts", "blurred_contexts"]

COMPONENTS = 512
FITTED_ON = 8000
LEAKAGE = 0.1
"""Variance of the noise in components of which the measurement tells nothing, as a share of the component's own."""


@dataclass(frozen=True)
class BlurredContexts:
    """Principal components of one kind of context, and every scene's scores; n scenes, k components.

    Attributes
    ----------
    mean : Tensor of shape (tokens, width)
    axes : Tensor of shape (k, tokens * width)
    variances : Tensor of shape (k,)
    scores : Tensor of shape (n, k)
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    scores: Tensor

    def draw(self, rows: Tensor, noise: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
        """Blur the contexts of some scenes.

        Parameters
        ----------
        rows : Tensor of shape (b,), int64
            Scenes.
        noise : Tensor of shape (b, 1)
            Variance of the measurement noise of one component, as a share of the summed variance of all.
        partners : Tensor of shape (b, p), int64
            Scenes whose mixture is the noise.
        shares : Tensor of shape (b, p)
            Their weights; independent with a summed variance of one.

        Returns
        -------
        Tensor of shape (b, tokens, width)
            With the summed variance of exact contexts.
        """
        reliability = self.variances / (self.variances + noise * self.variances.sum())
        error = reliability * (1 - reliability) + LEAKAGE
        mixture = torch.einsum("bp,bpk->bk", shares, self.scores[partners])
        scores = reliability * self.scores[rows] + error.sqrt() * mixture
        kept = ((reliability.square() + error) * self.variances).sum(1, keepdim=True)
        gain = (self.variances.sum() / kept).sqrt()
        blurred: Tensor = self.mean + (gain * scores @ self.axes).unflatten(1, self.mean.shape)
        return blurred


def blurred_contexts(contexts: Tensor) -> BlurredContexts:
    """Find the principal components of contexts.

    Parameters
    ----------
    contexts : Tensor of shape (n, tokens, width)
        May be in float16.

    Returns
    -------
    BlurredContexts
    """
    some = contexts[:FITTED_ON].float()
    mean = some.mean(0)
    _, values, axes = torch.linalg.svd((some - mean).flatten(1), full_matrices=False)
    axes = axes[:COMPONENTS]
    scores = torch.cat([(part.float() - mean).flatten(1) @ axes.T for part in contexts.split(4000)])
    return BlurredContexts(mean, axes, values[:COMPONENTS].square() / len(some), scores)
