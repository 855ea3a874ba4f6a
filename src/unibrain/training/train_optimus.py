"""Training the text autoencoder."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.config import OptimusConfig
from unibrain.backbone.optimus import Optimus
from unibrain.training.loop import Recipe, train

__all__ = ["train_optimus"]

KL_WEIGHT = 0.02
BAG_WEIGHT = 0.5
WORD_DROPOUT = 0.4


def train_optimus(config: OptimusConfig, bert_ids: Tensor, gpt2_ids: Tensor, recipe: Recipe, folder: Path) -> Optimus:
    """Train on captions as a variational autoencoder.

    The decoder sees a part of the words replaced by padding, so that it has to take them from the latent; and a linear
    map that is not kept reads the bag of words from the latent. Without both, the latent holds the sentence's form
    only.

    Parameters
    ----------
    config : OptimusConfig
    bert_ids : Tensor of shape (n, pieces), int64
        Padded with 0.
    gpt2_ids : Tensor of shape (n, tokens), int64
        From the begin to the end mark, padded with the padding mark.
    recipe : Recipe
    folder : Path
        For checkpoints.

    Returns
    -------
    Optimus
    """
    torch.manual_seed(recipe.seed)
    optimus = Optimus(config)
    bag = nn.Linear(config.latent_width, config.gpt2["vocab_size"])
    both = nn.ModuleDict({"optimus": optimus, "bag": bag})

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(bert_ids), (recipe.batch_size,), generator=generator)
        read, written = bert_ids[rows], gpt2_ids[rows]
        read = read[:, : int((read != 0).sum(1).max())]
        written = written[:, : int((written != optimus.pad).sum(1).max())]
        mean, log_variance = optimus.encode(read, (read != 0).long())
        z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
        seen, target = written[:, :-1].clone(), written[:, 1:]
        dropped = torch.rand(seen.shape, generator=generator) < WORD_DROPOUT
        dropped[:, 0] = False
        seen[dropped] = optimus.pad
        logits, _ = optimus.logits(z, seen)
        counts = target != optimus.pad
        error = functional.cross_entropy(logits[counts], target[counts], reduction="sum") / len(rows)
        words = bag(z).log_softmax(-1).gather(1, target)
        missed = -words[counts].sum() / len(rows)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        weight = KL_WEIGHT * min(1.0, step / 500)
        right = (logits.argmax(-1) == target)[counts].float().mean()
        total = error + weight * kl + BAG_WEIGHT * missed
        return {"loss": total, "error": error, "missed": missed, "kl": kl, "accuracy": right}

    train(both, loss, recipe, folder, "optimus")
    return optimus
