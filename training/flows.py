"""Training the four flows on latents and contexts that were computed beforehand."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.contexts import CONTEXTS, FlowData
from training.loop import Recipe, train
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows, PreparedContext, repeated
from unibrain.backbone.sampling import alphas_cumprod

CAPTIONS_PER_STEP = 4
"""Text latents per image latent in a step."""
DROP_CONTEXT = 0.1
PREDICTED_CONTEXT = 0.65
MOST_GAIN = 1.3
"""Predicted contexts are drawn out from their mean by up to this factor, as rescaling does it."""


def train_flows(
    config: BackboneConfig,
    data: FlowData,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
    start: dict[str, Tensor] | None = None,
) -> FourFlows:
    """Train image and text flows together.

    Each step draws one mix of contexts (both with a random weight, or one of them), leaves the contexts of a tenth of
    the samples out, and takes those of most others from ridge regressions of simulated subjects (see
    `training.contexts`): a network that has only met exact contexts paints the errors of predicted ones. Neither the
    demo's subject nor its scenes take part.
    """
    torch.manual_seed(recipe.seed)
    flows = FourFlows(config.flows)
    if start is not None:
        flows.load_state_dict(start)
    else:
        _strengthen_contexts(flows, data)
    levels = alphas_cumprod(config.schedule).to(device)
    exact = {name: value.to(device) for name, value in data.exact.items()}
    empty = {name: value.to(device) for name, value in data.empty.items()}
    means = {name: exact[name].float().mean(0) for name in CONTEXTS}
    predicted = [{name: value.to(device) for name, value in brain.items()} for brain in data.predicted]
    count = len(exact["z_image"])

    def contexts(network: Any, rows: Tensor, generator: torch.Generator) -> list[PreparedContext]:
        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        draw, share = random(2).tolist()
        weight = 0.4 + 0.55 * share if draw < 0.75 else float(draw < 0.875)
        kept = random(len(rows), 1, 1) >= DROP_CONTEXT
        # What a scan gets wrong, it gets wrong in both contexts.
        brain = (random(len(rows)) * len(predicted) / PREDICTED_CONTEXT).long()
        gain = 1 + (MOST_GAIN - 1) * random(len(rows), 1, 1)
        prepared = []
        for name, part in zip(CONTEXTS, (weight, 1 - weight), strict=True):
            if part > 0:
                context = exact[name][rows].float()
                for number, guesses in enumerate(predicted):
                    chosen = brain == number
                    guess = guesses[name][rows[chosen]].float()
                    context[chosen] = means[name] + gain[chosen] * (guess - means[name])
                context = torch.where(kept, context, empty[name].float())
                prepared.append(network.prepare(name, context.bfloat16(), part))
        return prepared

    def error(network: Any, x0: Tensor, prepared: list[PreparedContext], generator: torch.Generator) -> Tensor:
        timesteps = torch.randint(len(levels), (len(x0),), generator=generator, device=device)
        alpha = levels[timesteps].view(-1, *[1] * (x0.ndim - 1))
        noise = torch.randn(x0.shape, generator=generator, device=device)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        found = network(x.bfloat16(), timesteps, prepared).float()
        return functional.mse_loss(found, velocity)

    def loss(network: Any, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(data.first, count, (recipe.batch_size,), generator=generator, device=device)
        prepared = contexts(network, rows, generator)
        image = error(network, exact["z_image"][rows].float(), prepared, generator)
        # Text latents cost little once the contexts are projected, so each context serves several captions.
        which = torch.rand((exact["z_text"].shape[1], len(rows)), generator=generator, device=device).argsort(0)
        captions = exact["z_text"][rows, which[:CAPTIONS_PER_STEP]].float().flatten(0, 1)
        text = error(network, captions, [_repeated(context) for context in prepared], generator)
        return {"loss": image + 0.5 * text, "image": image, "text": text}

    trained = train(flows, loss, recipe, folder, "flows", device)
    assert isinstance(trained, FourFlows)
    return trained


def _repeated(context: PreparedContext) -> PreparedContext:
    """One copy of a context for each caption."""
    copies = tuple(
        tuple((repeated(keys, CAPTIONS_PER_STEP), repeated(values, CAPTIONS_PER_STEP)) for keys, values in pairs)
        for pairs in context.keys_values
    )
    return PreparedContext(context.name, copies, context.share)


@torch.no_grad()
def _strengthen_contexts(flows: FourFlows, data: FlowData) -> None:
    """Scale the first projections of the contexts to entries of size one.

    Context tokens have norms of about one, so their entries are small; with the usual start they would hardly be heard
    for thousands of steps.
    """
    for network, name in ((flows.image, "c_image"), (flows.text, "c_text")):
        size = data.exact[name][:2000].float().square().mean().sqrt()
        for key, weight in network.named_parameters():
            if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.div_(size)
