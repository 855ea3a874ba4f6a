"""Training the three coders: image autoencoder, CLIP and text autoencoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.loop import Recipe, train, training_dtype
from training.scenes import SceneSet
from unibrain.backbone.coders import Optimus, image_context, make_autokl, make_clip, make_image_processor, text_context
from unibrain.backbone.config import AutoKLConfig, ClipConfig, OptimusConfig

KL_WEIGHT = 1e-4
SQUARED_WEIGHT = 5.0
EVENNESS = 0.6
"""Of the variances of condensed latents: 0 leaves them as they are, 1 makes all the same."""
LOG_VARIANCE = -6.0
"""Of the posterior of condensed latents, of which only the mean is used."""
READING_WEIGHT, LENGTH_WEIGHT = 4.0, 0.05
BAG_WEIGHT, BENT_WEIGHT, WORD_DROPOUT = 0.5, 20.0, 0.4
ORDER_SHARE = 0.4
"""Size of what a caption's code says of the first half of its words, beside what it says of all."""
SAMPLED_LATENTS = 0.5
"""Share of latents that flows made, when the decoder alone is trained further."""
EXACT_LATENTS, MOST_SHRINKAGE, MOST_NOISE, WRITER_NOISE = 0.3, 0.6, 1.5, 0.2
"""Share of captions' latents that are decoded as they are; how far others are drawn towards the origin at most; and
the largest noise on them, as a share of the latents' spread: first, and when the decoder alone is trained further."""
READ_PATCH = 8

Weights = dict[str, Tensor] | None


def _batches(pictures: Any, device: str) -> Callable[[Tensor], Tensor]:
    """Rows of pictures as numbers from 0 to 1, channels first; a graphics card holds all of them."""
    held = torch.from_numpy(np.array(pictures)).to(device) if device != "cpu" else None

    def batch(rows: Tensor) -> Tensor:
        some = held[rows] if held is not None else torch.from_numpy(np.array(pictures[rows.numpy()]))
        return some.permute(0, 3, 1, 2).float() / 255

    return batch


def train_autokl(
    config: AutoKLConfig, scenes: SceneSet, recipe: Recipe, folder: Path, device: str = "cpu", start: Weights = None
) -> Any:
    """Train on pictures: absolute and squared error, edges, and a light pull of the posterior towards N(0, 1)."""
    torch.manual_seed(recipe.seed)
    autokl = make_autokl(config)
    if start is not None:
        autokl.load_state_dict(start)
    pictures, dtype = _batches(scenes.pictures, device), training_dtype(device)

    def loss(network: Any, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(scenes.captions), (recipe.batch_size,), generator=generator, device=device)
        batch = pictures(rows) * 2 - 1
        posterior = network.encode(batch.to(dtype)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=device).to(dtype)
        errors = _picture_errors(network.decode(posterior.mean + posterior.std * noise).sample, batch)
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return errors | {"loss": errors["loss"] + KL_WEIGHT * kl, "kl": kl}

    return train(autokl, loss, recipe, folder, "autokl", device)


@torch.no_grad()
def condensed(weights: dict[str, Tensor], latents: Tensor, directions: int) -> dict[str, Tensor]:
    """Weights of an image autoencoder whose latents are principal components of those of a trained one, made similar.

    A trained autoencoder keeps details in directions of so little variance that they drown in the noise of diffusion,
    and leaves others empty. Here the components with the most variance are kept, each divided by its variance to the
    power `EVENNESS` / 2, and the map is taken into the convolutions on both sides of the latents. Within a picture
    nothing else changes; at its border the decoder sees slightly other values beyond it, so train the decoder further.

    Parameters
    ----------
    weights : dict of str to Tensor
        Of a `diffusers.AutoencoderKL`.
    latents : Tensor of shape (n, channels, h, w)
        Unscaled, of many pictures.
    directions : int
        Channels of the new latents, at most those of the old.

    Returns
    -------
    dict of str to Tensor
        Of an autoencoder with `directions` latent channels, whose latents have a mean of 0 and a variance of 1.
    """
    rows = latents.double().movedim(1, -1).flatten(0, -2)
    mean = rows.mean(0)
    variances, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    variances, axes = variances.flip(0)[:directions], axes.flip(1)[:, :directions]
    scale = variances ** (-EVENNESS / 2)
    scale = scale / (variances * scale.square()).mean().sqrt()
    forth, back = (axes * scale).T, axes / scale
    old = {key: value.double() for key, value in weights.items()}
    channels = len(mean)
    quant, bias = old["quant_conv.weight"][:channels, :, 0, 0], old["quant_conv.bias"][:channels]
    kernel = torch.einsum("ki,iabc->kabc", forth @ quant, old["encoder.conv_out.weight"])
    shift = forth @ (quant @ old["encoder.conv_out.bias"] + bias - mean)
    post = old["post_quant_conv.weight"][:, :, 0, 0]
    read, offset = post @ back, post @ mean + old["post_quant_conv.bias"]
    inside = torch.linalg.lstsq(read, offset[:, None]).solution[:, 0]
    reader = old["decoder.conv_in.weight"]
    left = torch.einsum("oiab,i->o", reader, offset - read @ inside)
    new = {
        "encoder.conv_out.weight": torch.cat([kernel, torch.zeros_like(kernel)]),
        "encoder.conv_out.bias": torch.cat([shift, torch.full_like(shift, LOG_VARIANCE)]),
        "quant_conv.weight": torch.eye(2 * directions)[:, :, None, None],
        "quant_conv.bias": torch.zeros(2 * directions),
        "post_quant_conv.weight": torch.eye(directions)[:, :, None, None],
        "post_quant_conv.bias": inside,
        "decoder.conv_in.weight": torch.einsum("oiab,ik->okab", reader, read),
        "decoder.conv_in.bias": old["decoder.conv_in.bias"] + left,
    }
    return {key: value.float().contiguous() for key, value in (weights | new).items()}


def train_decoder(
    autokl: Any, latents: Tensor, scenes: SceneSet, recipe: Recipe, folder: Path, device: str = "cpu"
) -> Any:
    """Train the decoder of a condensed image autoencoder further; `latents` are all scenes', unscaled, and stay."""
    torch.manual_seed(recipe.seed)
    decoder = nn.ModuleDict({"post_quant_conv": autokl.post_quant_conv, "decoder": autokl.decoder})
    decoder.requires_grad_(True)
    pictures, latents, dtype = _batches(scenes.pictures, device), latents.to(device), training_dtype(device)

    def loss(network: Any, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(latents), (recipe.batch_size,), generator=generator, device=device)
        output = network["decoder"](network["post_quant_conv"](latents[rows].to(dtype)))
        return _picture_errors(output, pictures(rows) * 2 - 1)

    return train(decoder, loss, recipe, folder, "decoder", device)


def _picture_errors(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    output = output.float()
    absolute, squared = functional.l1_loss(output, target), functional.mse_loss(output, target)
    edges = sum(functional.l1_loss(output.diff(dim=axis), target.diff(dim=axis)) for axis in (2, 3))
    psnr = -10 * torch.log10(squared.detach() / 4)
    return {"loss": absolute + SQUARED_WEIGHT * squared + 0.5 * edges, "psnr": psnr}


class PictureReader(nn.Module):
    """Reads a picture back from its context tokens with one cross-attention; only used in training.

    It pulls the tokens to hold how things look, in the form in which flows read it.

    Parameters
    ----------
    context_width : int
    picture_size : int
        Pixels; a multiple of 8.
    heads : int
    """

    def __init__(self, context_width: int, picture_size: int, heads: int = 4) -> None:
        super().__init__()
        width = 192
        self.rows = picture_size // READ_PATCH
        self.queries = nn.Parameter(torch.randn(self.rows**2, width) * 0.5)
        self.attention = nn.MultiheadAttention(width, heads, kdim=context_width, vdim=context_width, batch_first=True)
        self.output = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 3 * READ_PATCH**2)
        )

    def forward(self, context: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to pictures (B, 3, size, size), values about -1 to 1."""
        queries = self.queries.expand(len(context), -1, -1)
        read = self.output(queries + self.attention(queries, context, context, need_weights=False)[0])
        return functional.pixel_shuffle(read.transpose(1, 2).unflatten(2, (self.rows, self.rows)), READ_PATCH)


def train_clip(
    config: ClipConfig,
    scenes: SceneSet,
    tokens: Tensor,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
    start: Weights = None,
) -> Any:
    """Train on pictures and captions: contrast them, keep pictures readable from the tokens, and tokens of length one.

    A picture that can be read from the tokens almost linearly is what flows can paint from them.

    Parameters
    ----------
    config : ClipConfig
    scenes : SceneSet
        Of CLIP's own picture size, so that preprocessing is only the normalisation.
    tokens : Tensor of shape (n, captions, tokens), int64
    recipe, folder, device
        See `train`.
    start : dict of str to Tensor, optional
        Weights of CLIP to start from.
    """
    torch.manual_seed(recipe.seed)
    clip = make_clip(config)
    clip.set_attn_implementation("eager")  # with few tokens it is the fastest on a processor
    if start is not None:
        clip.load_state_dict(start)
    reader = PictureReader(config.projection_width, scenes.pictures.shape[1])
    both = nn.ModuleDict({"clip": clip, "reader": reader})
    tokens = tokens.to(device)
    processor = make_image_processor(config)
    mean = torch.tensor(processor.image_mean, device=device)[:, None, None]
    deviation = torch.tensor(processor.image_std, device=device)[:, None, None]
    pictures, dtype = _batches(scenes.pictures, device), training_dtype(device)
    target = torch.arange(recipe.batch_size, device=device)

    def loss(networks: Any, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(tokens), (recipe.batch_size,), generator=generator, device=device)
        which = torch.randint(tokens.shape[1], (recipe.batch_size,), generator=generator, device=device)
        batch, ids = pictures(rows), tokens[rows, which]
        narrow = image_context(networks["clip"], ((batch - mean) / deviation).to(dtype))
        image, text = narrow.float(), text_context(networks["clip"], ids, config.eos_token_id).float()
        sentence = text[target, (ids == config.eos_token_id).int().argmax(1)]
        similarity = networks["clip"].logit_scale.float().exp().clamp(max=50) * image[:, 0] @ sentence.T
        contrast = (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)) / 2
        reading = functional.mse_loss(networks["reader"](narrow).float(), batch * 2 - 1)
        length = (image.norm(dim=-1) - 1).square().mean() + (text.norm(dim=-1) - 1).square().mean()
        total = contrast + READING_WEIGHT * reading + LENGTH_WEIGHT * length
        accuracy = (similarity.argmax(1) == target).float().mean()
        return {"loss": total, "contrast": contrast, "reading": reading, "length": length, "accuracy": accuracy}

    train(both, loss, recipe, folder, "clip", device)
    return clip


def caption_codes(ids: Tensor, config: OptimusConfig, pad: int, seed: int = 0) -> Tensor:
    """Random codes of captions that are linear in their words, the rarer the larger, with a variance of one.

    With as many numbers as here, the codes of two objects and a background hardly overlap.

    Parameters
    ----------
    ids : Tensor of shape (n, captions, tokens), int64
    config : OptimusConfig
    pad : int
        The padding mark.
    seed : int

    Returns
    -------
    Tensor of shape (n, captions, latent_width), float16
    """
    vocabulary = config.gpt2["vocab_size"]
    flat = ids.flatten(0, 1)
    half = (flat != pad).sum(1, keepdim=True) / 2
    early = torch.where(torch.arange(flat.shape[1]) < half, flat, pad)
    bags = [torch.zeros((len(flat), vocabulary)).scatter_(1, rows, 1.0) for rows in (flat, early)]
    share = bags[0].mean(0).clamp(min=1 / len(flat))
    rare = -share.log() * (torch.arange(vocabulary) != pad)
    directions = torch.randn((2, vocabulary, config.latent_width), generator=torch.Generator().manual_seed(seed))
    words, order = (rare[:, None] * part for part in directions)
    codes = bags[0] @ words + ORDER_SHARE * (bags[1] @ order)
    centred = codes - codes.mean(0)
    found: Tensor = (centred / centred.std()).half().unflatten(0, ids.shape[:2])
    return found


def train_optimus(
    config: OptimusConfig,
    bert_ids: Tensor,
    gpt2_ids: Tensor,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
    start: Weights = None,
) -> Optimus:
    """Train on the captions of scenes, so that latents near those of a caption are read as captions of the same scene.

    What regressions and flows deliver is a mean of the latents that are possible, with errors. So the decoder is given
    mixtures of the latents of captions of one scene, drawn towards the origin and with noise larger than the latents
    themselves, and has to write one of these captions, a part of whose words it does not see. And latents are pulled to
    `caption_codes`, which are linear in the words: then mixtures of latents are mixtures of content.

    Parameters
    ----------
    config : OptimusConfig
    bert_ids : Tensor of shape (n, captions, pieces), int64
        Padded with 0.
    gpt2_ids : Tensor of shape (n, captions, tokens), int64
        From the begin to the end mark, padded with the padding mark.
    recipe, folder, device
        See `train`. A batch is of scenes.
    start : dict of str to Tensor, optional
        Weights of Optimus to start from.
    """
    torch.manual_seed(recipe.seed)
    optimus = Optimus(config)
    if start is not None:
        optimus.load_state_dict(start)
    words_of = nn.Linear(config.latent_width, config.gpt2["vocab_size"])
    both_networks = nn.ModuleDict({"optimus": optimus, "words_of": words_of})
    pad, dtype = optimus.pad, training_dtype(device)
    codes = caption_codes(gpt2_ids, config, pad).to(device)
    bert_ids, gpt2_ids = bert_ids.to(device), gpt2_ids.to(device)

    def loss(networks: Any, generator: torch.Generator) -> dict[str, Tensor]:
        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        count = recipe.batch_size
        scenes = torch.randint(len(bert_ids), (count,), generator=generator, device=device)
        both = random(count, bert_ids.shape[1]).argsort(1)[:, :2]
        read, written = (ids[scenes[:, None], both] for ids in (bert_ids, gpt2_ids))
        read, written = read.flatten(0, 1), written.flatten(0, 1)
        read = read[:, : int((read != 0).sum(1).max())]
        written = written[:, : int((written != pad).sum(1).max())]
        mean = networks["optimus"].encode(read, (read != 0).long())[0].float()
        # In half of the scenes the two captions are mixed, and each is to be written as often as it is in the mixture.
        share = random(count, 1)
        shares = torch.cat([share, 1 - share], 1)
        mixed = random(count, 1) < 0.5
        mixtures = torch.where(mixed[..., None], shares[:, None], torch.eye(2, device=device))
        weight = torch.where(mixed, 2 * shares, 1.0).flatten()
        z = (mixtures @ mean.unflatten(0, (count, 2))).flatten(0, 1)
        gain, noise = 1 - MOST_SHRINKAGE * random(len(z), 1), MOST_NOISE * random(len(z), 1)
        worse = gain * z + noise * torch.randn(z.shape, generator=generator, device=device)
        z = torch.where(random(len(z), 1) < EXACT_LATENTS, z, worse).to(dtype)
        seen, target = written[:, :-1].clone(), written[:, 1:]
        dropped = random(*seen.shape) < WORD_DROPOUT
        dropped[:, 0] = False
        seen[dropped] = pad
        logits = networks["optimus"].logits(z, seen)[0].float()
        counts = target != pad
        wrong = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        error = (weight * (wrong * counts).sum(1)).mean()
        found = networks["words_of"](z).float().log_softmax(-1).gather(1, target)
        missed = -(weight * (found * counts).sum(1)).mean()
        bent = (mean - codes[scenes[:, None], both].flatten(0, 1).float()).square().mean()
        right = (logits.argmax(-1) == target)[counts].float().mean()
        total = error + BAG_WEIGHT * missed + BENT_WEIGHT * bent
        return {"loss": total, "error": error, "missed": missed, "bent": bent, "accuracy": right}

    train(both_networks, loss, recipe, folder, "optimus", device)
    return optimus


def train_writer(
    optimus: Optimus,
    exact: Tensor,
    predicted: list[Tensor],
    sampled: Tensor,
    gpt2_ids: Tensor,
    first: int,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
) -> Optimus:
    """Train the decoder of a text autoencoder further, on latents that regressions and flows make of simulated scans.

    What is decoded later is a latent of a caption, what a regression predicts, or what flows make of it; so a part of
    the latents is exact, another was sampled by the flows, and the others lie between exact and predicted ones, which
    are drawn out from their mean by up to twice. The encoder stays as it is, and so do the latents.

    Parameters
    ----------
    optimus : Optimus
    exact : Tensor of shape (n, captions, latent_width)
    predicted : list of Tensor of shape (n, 1, latent_width)
        Of several simulated subjects.
    sampled : Tensor of shape (subjects, scenes, latent_width)
        What the flows make of the predicted latents of the scenes from `first` on.
    gpt2_ids : Tensor of shape (n, captions, tokens), int64
    first : int
        The regressions know the scenes before this one.
    recipe, folder, device
        See `train`.
    """
    torch.manual_seed(recipe.seed)
    decoder = (optimus.gpt2, optimus.to_memory, optimus.to_embedding)
    optimus.requires_grad_(False)
    for part in decoder:
        part.requires_grad_(True)
    pad, dtype = optimus.pad, training_dtype(device)
    exact, sampled, gpt2_ids = exact.to(device), sampled.to(device), gpt2_ids.to(device)
    guesses = torch.stack([guess[:, 0] for guess in predicted]).to(device)
    centre = exact.float().mean((0, 1))

    def loss(network: Any, generator: torch.Generator) -> dict[str, Tensor]:
        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        def below(most: int) -> Tensor:
            return (random(recipe.batch_size) * most).long()

        by_flows = random(recipe.batch_size, 1) < SAMPLED_LATENTS
        rows = torch.where(by_flows[:, 0], below(sampled.shape[1]), below(len(exact) - first))
        # Of the other rows it is not used; they may lie beyond the sampled scenes.
        made = sampled[below(len(sampled)), rows % sampled.shape[1]].float()
        rows, which = first + rows, below(exact.shape[1])
        z, share = exact[rows, which].float(), random(len(rows), 1)
        guess = centre + (1 + random(len(rows), 1)) * (guesses[below(len(guesses)), rows].float() - centre)
        share = torch.where(random(len(rows), 1) < 0.5, share, 1.0)
        noise = WRITER_NOISE * random(len(rows), 1) * torch.randn(z.shape, generator=generator, device=device)
        worse = torch.where(by_flows, made, share * guess + (1 - share) * z + noise)
        z = torch.where(random(len(rows), 1) < EXACT_LATENTS, z, worse)
        written = gpt2_ids[rows, which]
        written = written[:, : int((written != pad).sum(1).max())]
        # It sees all words before each, else it would say one object twice.
        seen, target = written[:, :-1], written[:, 1:]
        logits, counts = network.logits(z.to(dtype), seen)[0].float(), target != pad
        error = functional.cross_entropy(logits[counts], target[counts], reduction="sum") / len(rows)
        return {"loss": error, "accuracy": (logits.argmax(-1) == target)[counts].float().mean()}

    train(optimus, loss, recipe, folder, "writer", device)
    return optimus
