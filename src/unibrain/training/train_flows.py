"""Training the four flows on latents and contexts that were computed beforehand."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.sampling import alphas_cumprod
from unibrain.training.blurred_contexts import blurred_contexts
from unibrain.training.loop import Recipe, train
from unibrain.training.processes import processes

__all__ = ["FlowData", "train_flows"]

TEXT_BATCHES = 3
"""Text latents per image latent in a step: they cost little."""
DROP_CONTEXT = 0.1
BLURRED_CONTEXT = 0.7
LEAST_NOISE, MOST_NOISE = 0.004, 0.1
"""Range of the blurring, drawn evenly on a logarithmic scale (see `BlurredContexts.draw`)."""
PARTNERS = 4
FIRST_CAPTION_ONLY = 0.2


@dataclass(frozen=True)
class FlowData:
    """What the flows are trained on; n scenes.

    Attributes
    ----------
    z_image : Tensor of shape (n, channels, h, w)
        Scaled image latents.
    z_text : Tensor of shape (n, captions, width)
        Text latents of all captions.
    c_image : Tensor of shape (n, image tokens, width)
    c_text : Tensor of shape (n, text tokens, width)
        Mean over the captions.
    c_text_first : Tensor of shape (n, text tokens, width)
        Of the first caption alone.
    empty_image, empty_text : Tensor of shape (1, tokens, width)
        Unconditional contexts.
    """

    z_image: Tensor
    z_text: Tensor
    c_image: Tensor
    c_text: Tensor
    c_text_first: Tensor
    empty_image: Tensor
    empty_text: Tensor


def train_flows(
    config: BackboneConfig, data: FlowData, recipe: Recipe, folder: Path, start: dict[str, Tensor] | None = None
) -> FourFlows:
    """Train image and text flows together.

    Parameters
    ----------
    config : BackboneConfig
    data : FlowData
        May be stored in float16.
    recipe : Recipe
    folder : Path
        For checkpoints.
    start : dict of str to Tensor, optional
        Weights to start from, where there is no checkpoint yet.

    Returns
    -------
    FourFlows

    Notes
    -----
    Each step draws one mix of contexts (both with a random weight, or one of them), leaves the contexts of a tenth of
    the samples out, and blurs those of most others (`unibrain.training.blurred_contexts`): contexts predicted from
    noisy scans are blurred, and a network that has only met exact ones paints their errors. No scan, simulated or
    real, takes part.
    """
    torch.manual_seed(recipe.seed)
    flows = FourFlows(config.flows)
    if start is not None:
        flows.load_state_dict(start)
    else:
        _strengthen_contexts(flows, data)
    levels = alphas_cumprod(config.schedule)
    batch = recipe.batch_size // processes()
    blurs = {"image": blurred_contexts(data.c_image), "text": blurred_contexts(data.c_text)}

    def contexts(rows: Tensor, generator: torch.Generator) -> list[PreparedContext]:
        draw, share = torch.rand(2, generator=generator).tolist()
        weight = 0.2 + 0.75 * share if draw < 0.7 else float(draw < 0.85)
        kept = torch.rand((len(rows), 1, 1), generator=generator) >= DROP_CONTEXT
        exact = torch.rand((len(rows), 1, 1), generator=generator) >= BLURRED_CONTEXT
        noise = LEAST_NOISE * (MOST_NOISE / LEAST_NOISE) ** torch.rand((2, len(rows), 1), generator=generator)
        # The same for both contexts: what a scan gets wrong, it gets wrong in both.
        partners = torch.randint(len(data.z_image), (len(rows), PARTNERS), generator=generator)
        shares = torch.randn((len(rows), PARTNERS), generator=generator) / PARTNERS**0.5

        prepared = []
        if weight > 0:
            c = torch.where(exact, data.c_image[rows].float(), blurs["image"].draw(rows, noise[0], partners, shares))
            prepared.append(flows.prepare("c_image", torch.where(kept, c, data.empty_image), weight))
        if weight < 1:
            first = torch.rand((len(rows), 1, 1), generator=generator) < FIRST_CAPTION_ONLY
            c = torch.where(first, data.c_text_first[rows].float(), data.c_text[rows].float())
            c = torch.where(exact, c, blurs["text"].draw(rows, noise[1], partners, shares))
            prepared.append(flows.prepare("c_text", torch.where(kept, c, data.empty_text), 1 - weight))
        return prepared

    def error(x0: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        # The least noisy timesteps teach little, and nearly pure noise is rarely visited.
        wide = torch.randint(0, len(levels), (len(x0),), generator=generator)
        middle = torch.randint(len(levels) // 5, len(levels) * 9 // 10, (len(x0),), generator=generator)
        timesteps = torch.where(torch.rand(len(x0), generator=generator) < 0.3, wide, middle)
        alpha = levels[timesteps].view(-1, *[1] * (x0.ndim - 1))
        noise = torch.randn(x0.shape, generator=generator)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        target = velocity if config.schedule.prediction == "v_prediction" else noise
        return functional.mse_loss(flows(x, timesteps, contexts(rows, generator)), target)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(data.z_image), (batch,), generator=generator)
        image = error(data.z_image[rows].float(), rows, generator)
        rows = torch.randint(len(data.z_text), (TEXT_BATCHES * batch,), generator=generator)
        which = torch.randint(data.z_text.shape[1], (len(rows),), generator=generator)
        text = error(data.z_text[rows, which].float(), rows, generator)
        return {"loss": image + 0.5 * text, "image": image, "text": text}

    trained = train(flows, loss, recipe, folder, "flows")
    assert isinstance(trained, FourFlows)
    return trained


@torch.no_grad()
def _strengthen_contexts(flows: FourFlows, data: FlowData) -> None:
    """Scale the first projections of the contexts to entries of size one.

    Context tokens have norms of about one, so their entries are small; with the usual start they would hardly be heard
    for thousands of steps.
    """
    for name, tokens in (("image", data.c_image), ("text", data.c_text)):
        size = tokens[:2000].float().square().mean().sqrt()
        for key, weight in flows.get_submodule(name).named_parameters():
            if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.div_(size)
