"""Training the four flows on latents and contexts that were computed beforehand."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.contexts import CONTEXTS, FlowData
from training.loop import Recipe, train, training_dtype
from training.scenes import SceneSet, covered
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.sampling import alphas_cumprod
from unibrain.demo import BACKGROUNDS, load_catalogue

CAPTIONS_PER_PICTURE = 4
"""Text latents per image latent in a step: they cost little."""
TEXT_WEIGHT, WHERE_WEIGHT, SAID_WEIGHT = 0.5, 0.15, 0.1
PATCHES = 4
"""Rows of patches of which the image flow has to tell what is there."""
DROP_CONTEXT = 0.1
PREDICTED_CONTEXT = 0.65
MOST_GAIN = 1.3
"""Predicted contexts are drawn out from their mean by up to this factor, as rescaling does it."""


class Telling(nn.Module):
    """Linear maps that tell from the flows' states what is on the picture and where; only used in training.

    They pull the flows to read from contexts what is shown before they can paint or write it. They look at what comes
    into the second block behind the middle.

    Parameters
    ----------
    flows : FourFlows
    """

    def __init__(self, flows: FourFlows) -> None:
        super().__init__()
        config, objects = flows.config, len(load_catalogue())
        self.where = nn.Linear(config.model_channels, objects + 1)
        self.said = nn.Linear(config.model_channels * config.second_dim, objects + len(BACKGROUNDS))
        self._seen: dict[str, Tensor] = {}
        joins = [place for place, step in enumerate(flows.plan.steps) if step.action == "join"]
        index = flows.plan.steps[joins[1] + 1].index
        for kind in ("image", "text"):
            block: Any = getattr(flows, kind).data_blocks[index]
            block[0].register_forward_pre_hook(self._keeper(kind, config.model_channels))

    def _keeper(self, kind: str, channels: int) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._seen[kind] = inputs[0][:, :channels]  # the rest is what was saved on the way down

        return keep

    def where_error(self, objects: Tensor, shares: Tensor) -> Tensor:
        """Cross-entropy of what fills each patch: shares (B, 2, patches) of the objects (B, 2), -1 for none."""
        state = self._seen["image"]
        pooled: Tensor = functional.avg_pool2d(state, state.shape[2] // PATCHES).flatten(2).transpose(1, 2)
        found: Tensor = self.where(pooled).float().log_softmax(-1)
        index = objects.clamp(min=0)[:, :, None, None].expand(-1, -1, found.shape[1], 1)
        of_objects = found[:, None].expand(-1, 2, -1, -1).gather(3, index)[..., 0]
        rest = (1 - shares.sum(1)).clamp(min=0)
        return -((of_objects * shares).sum(1) + found[..., -1] * rest).mean()

    def said_error(self, objects: Tensor, backgrounds: Tensor) -> Tensor:
        """Cross-entropies of the objects (B, 2), -1 for none, and of the background (B,)."""
        found: Tensor = self.said(self._seen["text"].flatten(1)).float()
        there, of_objects = (objects >= 0).float(), found[:, : -len(BACKGROUNDS)].log_softmax(-1)
        missed = -(of_objects.gather(1, objects.clamp(min=0)) * there).sum(1) / there.sum(1)
        return missed.mean() + functional.cross_entropy(found[:, -len(BACKGROUNDS) :], backgrounds)


def train_flows(
    config: BackboneConfig,
    data: FlowData,
    scenes: SceneSet,
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
    networks = nn.ModuleDict({"flows": flows, "telling": Telling(flows)})
    objects, backgrounds = (torch.from_numpy(rows).to(device) for rows in (scenes.objects, scenes.backgrounds))
    shares = torch.from_numpy(covered(scenes, PATCHES)).flatten(2).to(device)
    levels = alphas_cumprod(config.schedule).to(device)
    exact = {name: value.to(device) for name, value in data.exact.items()}
    empty = {name: value.to(device) for name, value in data.empty.items()}
    means = {name: exact[name].float().mean(0) for name in CONTEXTS}
    predicted = [{name: value.to(device) for name, value in brain.items()} for brain in data.predicted]
    count, dtype = len(exact["z_image"]), training_dtype(device)

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
                prepared.append(network.prepare(name, context.to(dtype), part))
        return prepared

    def error(network: Any, x0: Tensor, prepared: list[PreparedContext], generator: torch.Generator) -> Tensor:
        timesteps = torch.randint(len(levels), (len(x0),), generator=generator, device=device)
        alpha = levels[timesteps].view(-1, *[1] * (x0.ndim - 1))
        noise = torch.randn(x0.shape, generator=generator, device=device)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        found = network(x.to(dtype), timesteps, prepared).float()
        return functional.mse_loss(found, velocity)

    def loss(networks: Any, generator: torch.Generator) -> dict[str, Tensor]:
        network, telling = networks["flows"], networks["telling"]

        def drawn(below: int, size: int, first: int = 0) -> Tensor:
            return torch.randint(first, below, (size,), generator=generator, device=device)

        rows = drawn(count, recipe.batch_size, data.first)
        image = error(network, exact["z_image"][rows].float(), contexts(network, rows, generator), generator)
        where = telling.where_error(objects[rows], shares[rows])
        rows = drawn(count, CAPTIONS_PER_PICTURE * recipe.batch_size, data.first)
        captions = exact["z_text"][rows, drawn(exact["z_text"].shape[1], len(rows))].float()
        text = error(network, captions, contexts(network, rows, generator), generator)
        said = telling.said_error(objects[rows], backgrounds[rows])
        total = image + TEXT_WEIGHT * text + WHERE_WEIGHT * where + SAID_WEIGHT * said
        return {"loss": total, "image": image, "text": text, "where": where, "said": said}

    train(networks, loss, recipe, folder, "flows", device)
    return flows


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
