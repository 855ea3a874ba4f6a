"""Training the four flows on latents and contexts that were computed beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.contexts import CONTEXTS, FlowData
from training.loop import Recipe, train
from training.scenes import SceneSet, covered
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows, PreparedContext, repeated
from unibrain.backbone.sampling import alphas_cumprod
from unibrain.demo import BACKGROUNDS, load_catalogue

CONTEXTS_PER_PICTURE, CAPTIONS_PER_CONTEXT = 4, 2
"""In a step, contexts for each image latent, and text latents for each of them: text latents cost little."""
TEXT_WEIGHT, WHERE_WEIGHT, SAID_WEIGHT = 0.7, 0.15, 0.1
DROP_CONTEXT = 0.1
PREDICTED_CONTEXT = 0.7
MOST_GAIN = 1.8
"""Predicted contexts are drawn out from their mean by up to this factor, seldom by much, as rescaling does it."""
BOTH = 0.8
"""Share of the steps that mix both contexts; the others take one of them."""
PATCHES = 4
"""Rows of patches of which the middle of the image flow has to tell what is there."""
MIDDLE, IN_MIDDLE = (200, 800), 0.6
"""Timesteps at which it is decided what is shown, and the share of samples that are drawn from them alone."""


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
    demo's subject nor its scenes take part. `start` holds weights of the same sizes.
    """
    torch.manual_seed(recipe.seed)
    flows = FourFlows(config.flows)
    if start is not None:
        flows.load_state_dict(start)
    else:
        _strengthen_contexts(flows, data)
    networks = nn.ModuleDict({"flows": flows, "telling": Telling(flows)})
    levels = alphas_cumprod(config.schedule).to(device)
    exact = {name: value.to(device) for name, value in data.exact.items()}
    empty = {name: value.to(device) for name, value in data.empty.items()}
    means = {name: exact[name].float().mean(0) for name in CONTEXTS}
    predicted = [{name: value.to(device) for name, value in brain.items()} for brain in data.predicted]
    objects, backgrounds = (torch.from_numpy(rows).to(device) for rows in (scenes.objects, scenes.backgrounds))
    shares = torch.from_numpy(covered(scenes, PATCHES)).flatten(2).to(device)
    count = len(exact["z_image"])

    def loss(networks: Any, generator: torch.Generator) -> dict[str, Tensor]:
        network, telling = networks["flows"], networks["telling"]

        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        def contexts(rows: Tensor, names: tuple[str, ...]) -> list[PreparedContext]:
            kept = random(len(rows), 1, 1) >= DROP_CONTEXT
            # What a scan gets wrong, it gets wrong in both contexts.
            brain = (random(len(rows)) * len(predicted) / PREDICTED_CONTEXT).long()
            gain = 1 + (MOST_GAIN - 1) * random(len(rows), 1, 1).square()
            prepared = []
            for name in names:
                context = exact[name][rows].float()
                for number, guesses in enumerate(predicted):
                    chosen = brain == number
                    guess = guesses[name][rows[chosen]].float()
                    context[chosen] = means[name] + gain[chosen] * (guess - means[name])
                context = torch.where(kept, context, empty[name].float())
                prepared.append(network.prepare(name, context.bfloat16()))
            return prepared

        def error(x0: Tensor, prepared: list[PreparedContext]) -> Tensor:
            timesteps = _timesteps(random(len(x0)), len(levels), generator)
            alpha = levels[timesteps].view(-1, *[1] * (x0.ndim - 1))
            noise = torch.randn(x0.shape, generator=generator, device=device)
            x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
            velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
            return functional.mse_loss(network(x.bfloat16(), timesteps, prepared).float(), velocity)

        rows = torch.randint(
            data.first, count, (CONTEXTS_PER_PICTURE * recipe.batch_size,), generator=generator, device=device
        )
        draw, for_image, for_text = random(3).tolist()
        names = CONTEXTS if draw < BOTH else CONTEXTS[:1] if draw < (1 + BOTH) / 2 else CONTEXTS[1:]
        prepared = contexts(rows, names)
        some = rows[: recipe.batch_size]
        of_pictures = _shared([_rows(context, recipe.batch_size) for context in prepared], 0.45 + 0.3 * for_image)
        image = error(exact["z_image"][some].float(), of_pictures)
        where = telling.where_error(objects[some], shares[some])
        which = random(exact["z_text"].shape[1], len(rows)).argsort(0)[:CAPTIONS_PER_CONTEXT]
        captions = exact["z_text"][rows, which].float().flatten(0, 1)
        text = error(captions, _shared([_copies(context) for context in prepared], 0.2 + 0.7 * for_text))
        copies = (CAPTIONS_PER_CONTEXT, 1)
        said = telling.said_error(objects[rows].repeat(copies), backgrounds[rows].repeat(copies[0]))
        total = image + TEXT_WEIGHT * text + WHERE_WEIGHT * where + SAID_WEIGHT * said
        return {"loss": total, "image": image, "text": text, "where": where, "said": said}

    train(networks, loss, recipe, folder, "flows", device)
    return flows


def _timesteps(uniform: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps of a batch, evenly spread over it, most of them from the middle."""
    size, (low, high) = len(uniform), MIDDLE
    place = (torch.arange(size, device=uniform.device) + uniform) / size
    place = place[torch.randperm(size, generator=generator, device=uniform.device)]
    middle = low + place / IN_MIDDLE * (high - low)
    anywhere = (place - IN_MIDDLE) / (1 - IN_MIDDLE) * count
    return torch.where(place < IN_MIDDLE, middle, anywhere).long().clamp(0, count - 1)


def _shared(prepared: list[PreparedContext], image_weight: float) -> list[PreparedContext]:
    """Two contexts by the weight of the first; a single one as it is."""
    if len(prepared) == 1:
        return prepared
    return [
        replace(context, share=share) for context, share in zip(prepared, (image_weight, 1 - image_weight), strict=True)
    ]


def _rows(context: PreparedContext, count: int) -> PreparedContext:
    """The first rows of a context."""
    kept = tuple(tuple((keys[:count], values[:count]) for keys, values in pairs) for pairs in context.keys_values)
    return PreparedContext(context.name, kept)


def _copies(context: PreparedContext) -> PreparedContext:
    """One copy of a context for each caption."""
    copies = tuple(
        tuple((repeated(keys, CAPTIONS_PER_CONTEXT), repeated(values, CAPTIONS_PER_CONTEXT)) for keys, values in pairs)
        for pairs in context.keys_values
    )
    return PreparedContext(context.name, copies)


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
