"""Training the four flows on latents and contexts that were computed beforehand."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.contexts import CONTEXTS, FlowData
from training.loop import Recipe, train, training_dtype
from training.scenes import SceneSet, covered
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.sampling import alphas_cumprod, denoise, guided_model
from unibrain.demo import BACKGROUNDS, load_catalogue
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

CAPTIONS_PER_PICTURE = 2
"""Text latents per image latent in a step: they cost little."""
TEXT_WEIGHT, WHERE_WEIGHT, SAID_WEIGHT = 0.5, 0.15, 0.1
PATCHES = 4
"""Rows of patches of which the image flow has to tell what is there."""
EVEN = 1e-4
"""Variances below this share of the mean one are not brought to the size of the others."""
DROP_CONTEXT = 0.1
SAMPLED_SCENES = 6000
"""Scenes of which texts are sampled for Optimus' decoder, for each simulated subject."""
PREDICTED_CONTEXT = 0.5
PREDICTED_START, START_NOISE = 0.75, (0.6, 0.8)
"""Share of the samples with predicted contexts whose latents are on the way from a predicted start, and the timesteps,
as shares, that such a way begins at: those of strength .75 with few and with many steps."""
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
        for told in (self.where, self.said):  # so that nothing is pulled before there is something to tell
            nn.init.zeros_(told.weight)
        self._seen: dict[str, Tensor] = {}
        joins = [place for place, step in enumerate(flows.plan.steps) if step.action == "join"]
        index = flows.plan.steps[joins[1] + 1].index
        for kind in ("image", "text"):
            block: Any = getattr(flows, kind).data_blocks[index]
            # A partial, not a closure: copies of this module then look at copies of the flows.
            block[0].register_forward_pre_hook(partial(self._keep, kind, config.model_channels))

    def _keep(self, kind: str, channels: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen[kind] = inputs[0][:, :channels]  # the rest is what was saved on the way down

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


def evening_maps(folder: Path, data: FlowData | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """For each context, the mean of its tokens and a symmetric map that gives all directions about the same variance.

    Most of what tells one object from another lies in directions with less than a hundredth of the mean variance, which
    training on the tokens themselves hardly finds. The flows are trained on evened tokens; `turned` makes weights
    for the tokens themselves of what comes out. Kept in the folder, as weights that were trained with it need it.
    """
    file = folder / "evening.safetensors"
    if data is not None and not file.exists():
        found = {}
        for name in CONTEXTS:
            parts = [data.exact[name], *(brain[name] for brain in data.predicted)]
            tokens = torch.cat([part[-2000:] for part in parts]).flatten(0, 1).double()
            values, vectors = torch.linalg.eigh(torch.cov(tokens.T))
            found[f"{name}.mean"] = tokens.mean(0).float()
            found[f"{name}.map"] = (vectors / (values + EVEN * values.mean()).sqrt() @ vectors.T).float()
        with atomic_path(file) as temporary:
            save_file(found, temporary)
    stored = load_file(file)
    return {name: (stored[f"{name}.mean"], stored[f"{name}.map"]) for name in CONTEXTS}


def turned(weights: dict[str, Tensor], maps: dict[str, tuple[Tensor, Tensor]], back: bool = False) -> dict[str, Tensor]:
    """Weights that do on evened tokens what these do on the tokens themselves; the other way if `back`."""
    found = dict(weights)
    for flow, name in zip(("image", "text"), CONTEXTS, strict=True):
        mean, even = (part.double() for part in maps[name])
        change = even if back else torch.linalg.inv(even)
        for key in weights:
            if key.startswith(f"{flow}.") and key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                found[key] = (weights[key].double() @ change).float()
            if key.startswith(f"{flow}.") and key.endswith("attn2.to_v.weight"):
                # The same for all tokens, so attention passes it on; in keys it would change nothing.
                output = key.removesuffix("to_v.weight") + "to_out.0."
                offset = weights[f"{output}weight"].double() @ (found if back else weights)[key].double() @ mean
                found[f"{output}bias"] = (weights[f"{output}bias"] + (-offset if back else offset)).float()
    return found


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
    `training.contexts`): a network that has only met exact contexts paints the errors of predicted ones. Of most of
    these the latents are on the way from a predicted start, as they are when a scan is decoded. Neither the demo's
    subject nor its scenes take part.

    The image flow's contexts are of another picture with the same content, whose objects are in other places, as
    models that make variations of a picture learn it: contexts then say what is there, and the latent says where.
    """
    torch.manual_seed(recipe.seed)
    flows, maps = FourFlows(config.flows), evening_maps(folder, data)
    if start is not None:
        flows.load_state_dict(turned(start, maps))
    networks = nn.ModuleDict({"flows": flows, "telling": Telling(flows)})
    objects, backgrounds = (torch.from_numpy(rows).to(device) for rows in (scenes.objects, scenes.backgrounds))
    shares = torch.from_numpy(covered(scenes, PATCHES)).flatten(2).to(device)
    levels = alphas_cumprod(config.schedule).to(device)
    exact = {name: value.to(device) for name, value in data.exact.items()}
    empty = {name: value.to(device) for name, value in data.empty.items()}
    means = {name: exact[name].float().mean(0) for name in CONTEXTS}
    evening = {name: (mean.to(device), even.to(device)) for name, (mean, even) in maps.items()}
    predicted = [{name: value.to(device) for name, value in brain.items()} for brain in data.predicted]
    moved = {name: value.to(device) for name, value in data.moved.items()}
    predicted_moved = [{name: value.to(device) for name, value in brain.items()} for brain in data.predicted_moved]
    count, dtype = len(exact["z_image"]), training_dtype(device)

    def contexts(
        network: Any, rows: Tensor, brain: Tensor, elsewhere: bool, generator: torch.Generator
    ) -> list[PreparedContext]:
        true, guessed = (moved, predicted_moved) if elsewhere else (exact, predicted)

        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        draw, share = random(2).tolist()
        weight = 0.4 + 0.55 * share if draw < 0.75 else float(draw < 0.875)
        kept = random(len(rows), 1, 1) >= DROP_CONTEXT
        gain = 1 + (MOST_GAIN - 1) * random(len(rows), 1, 1)
        prepared = []
        for name, part in zip(CONTEXTS, (weight, 1 - weight), strict=True):
            if part > 0:
                context = true[name][rows].float()
                for number, guesses in enumerate(guessed):
                    chosen = brain == number
                    guess = guesses[name][rows[chosen]].float()
                    context[chosen] = means[name] + gain[chosen] * (guess - means[name])
                context = torch.where(kept, context, empty[name].float())
                mean, even = evening[name]
                context = (context - mean) @ even
                prepared.append(network.prepare(name, context.to(dtype), part))
        return prepared

    def error(
        network: Any,
        x0: Tensor,
        start: Tensor,
        prepared: list[PreparedContext],
        generator: torch.Generator,
    ) -> Tensor:
        # Normal logits: most timesteps in the middle, where pictures and sentences are decided.
        drawn = torch.randn(len(x0), generator=generator, device=device).sigmoid()
        timesteps = (drawn * len(levels)).long().clamp(max=len(levels) - 1)
        from_least, to_most = START_NOISE
        share = torch.rand(len(x0), generator=generator, device=device)
        first = levels[((from_least + (to_most - from_least) * share) * len(levels)).long()]
        alpha, first = (level.view(-1, *[1] * (x0.ndim - 1)) for level in (levels[timesteps], first))
        added = torch.randn(x0.shape, generator=generator, device=device)
        # What is left of the start when ancestral sampling (eta 1) from it has x0 in view all the time.
        left = torch.where(alpha >= first, first / alpha * (1 - alpha) / (1 - first), 0.0)
        x = alpha.sqrt() * (x0 + left * (start - x0)) + (1 - alpha).sqrt() * added
        velocity = (alpha.sqrt() * x - x0) / (1 - alpha).sqrt()
        found = network(x.to(dtype), timesteps, prepared).float()
        return functional.mse_loss(found, velocity)

    def loss(networks: Any, generator: torch.Generator) -> dict[str, Tensor]:
        network, telling = networks["flows"], networks["telling"]

        def drawn(below: int, size: int, first: int = 0) -> Tensor:
            return torch.randint(first, below, (size,), generator=generator, device=device)

        def begun(name: str, x0: Tensor, rows: Tensor, brain: Tensor) -> Tensor:
            """Where sampling starts: a subject's predictions, or the latents themselves."""
            start, own = x0.clone(), torch.rand(len(rows), generator=generator, device=device) < PREDICTED_START
            for number, guesses in enumerate(predicted):
                chosen = own & (brain == number)
                start[chosen] = guesses[name][rows[chosen]].float().view_as(x0[chosen])
            return start

        def subjects(size: int) -> Tensor:
            """Whose scans each sample is from; what a scan gets wrong, it gets wrong in start and contexts."""
            drawn = torch.rand(size, generator=generator, device=device)
            return (drawn * len(predicted) / PREDICTED_CONTEXT).long()

        rows, brain = drawn(count, recipe.batch_size, data.first), subjects(recipe.batch_size)
        x0 = exact["z_image"][rows].float()
        start, prepared = begun("z_image", x0, rows, brain), contexts(network, rows, brain, True, generator)
        image = error(network, x0, start, prepared, generator)
        where = telling.where_error(objects[rows], shares[rows])
        rows = drawn(count, CAPTIONS_PER_PICTURE * recipe.batch_size, data.first)
        brain, x0 = subjects(len(rows)), exact["z_text"][rows, drawn(exact["z_text"].shape[1], len(rows))].float()
        start, prepared = begun("z_text", x0, rows, brain), contexts(network, rows, brain, False, generator)
        text = error(network, x0, start, prepared, generator)
        said = telling.said_error(objects[rows], backgrounds[rows])
        total = image + TEXT_WEIGHT * text + WHERE_WEIGHT * where + SAID_WEIGHT * said
        return {"loss": total, "image": image, "text": text, "where": where, "said": said}

    train(networks, loss, recipe, folder, "flows", device)
    flows.load_state_dict(turned(flows.state_dict(), maps, back=True))
    return flows


@torch.inference_mode()
def sampled_texts(flows: FourFlows, config: BackboneConfig, data: FlowData, device: str = "cpu") -> Tensor:
    """What the flows make of predicted latents, as is decoded later: (subjects, scenes from `first` on, width)."""
    settings, found = config.text, []
    ended = settings.guidance_end * config.schedule.timesteps
    empty = {name: data.empty[name].float().to(device) for name in CONTEXTS}
    weight, scale, flows = settings.image_weight, settings.guidance_scale, flows.eval().to(device)
    some = torch.arange(data.first, len(data.exact["z_text"]))[:SAMPLED_SCENES].split(200)
    for brain in data.predicted:
        for rows in track(some, "sampling texts"):
            contexts = {name: brain[name][rows].float().to(device) for name in CONTEXTS}
            make = partial(guided_model, flows, contexts, empty, weight, scale, guided_from=ended)
            start, seeds = brain["z_text"][rows, 0].float().numpy(), rows.numpy().astype(np.int64)
            sampled = denoise(make, config.schedule, settings, start, start.shape[1:], seeds, torch.device(device))
            found.append(torch.from_numpy(sampled))
    return torch.cat(found).view(len(data.predicted), -1, config.optimus.latent_width)
