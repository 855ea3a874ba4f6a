"""All probes, each a row: preprocessing, tokens, noise levels, and the networks on the small backbone's weights.

``python -m unibrain.doctor.probes`` records their fingerprints as they are now: to be run when the small backbone's
weights or a probe changed, or when a moved result was looked into and found right.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain.backbone import coders
from unibrain.backbone.config import ClipConfig, ScheduleConfig
from unibrain.backbone.folder import backbone_folder
from unibrain.backbone.sampling import ddim_steps
from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.doctor.fingerprints import RECORD, Bench, Fingerprint, Probe, mixed, of_array, take_record, write_record
from unibrain.workspace.progress import limit_threads, say

PIXELS = 1e-4
"""Pillow resizes 8-bit pictures in whole numbers, so every machine gives the same pixels; what is left is the rounding
of one subtraction and one division. A pixel that is one level off moves by 0.015."""
FP32 = 2e-4
"""Threads, BLAS and kernels round differently, by 1e-6 of a network's output or less; an epsilon of CLIP's layer norms
that is ten times as large moves it by 1e-3."""
FLOWS = 2e-3
"""The small backbone's flows read small differences between tokens, and count rounding up: weights that are off by 1e-6
move their output by 7e-4."""

SENTENCES = (
    "A red bus drives past two sleeping dogs.",
    "The  CAT's bowl isn't near 12 café tables -- it's gone!",
    "",
    "Naïve façades, 漢字 and ½ of an emoji 🙂 stay\twhole",
    "a dog and a cat and a bird and a horse and a cow and a bear and a panda and a monkey and a tree on the beach",
)
"""Case, accents, digits, contractions, runs of blanks, other scripts, nothing, and more than a tokenizer keeps."""
CAPTIONS = (
    "a picture of an exit sign on a green field",
    "A dinosaur next to a green letter k in the snow",
    "a sunflower beside a brown horse under a sunset sky",
)
"""Sentences of the scene world, which the small backbone was trained on."""

_OFFICIAL, _SMALL = ClipConfig(), ClipConfig(vision={"image_size": 64}, resize=96)
_TIMESTEP = 601
"""Where a flow has half of the work to do."""


def fixed_numbers(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Numbers that look like noise, evenly spread between -1.73 and 1.73."""
    steps = (mixed(int(np.prod(shape)), seed) >> np.uint32(8)).astype(np.float64) / 2**24
    return ((steps - 0.5) * 12**0.5).reshape(shape).astype(np.float32)


def fixed_picture(height: int, width: int) -> NDArray[np.uint8]:
    """A picture with smooth ramps, sharp edges, fine texture and three unlike channels.

    Anything that is done differently to it shows: another filter at the edges, no antialiasing in the texture, swapped
    channels or axes in the ramps.
    """
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    ramp = 255 * row // max(height - 1, 1) + 0 * column
    checks = 230 * ((7 * row // height + 5 * column // width) % 2) + 12
    texture = (mixed(height * width, 1) >> np.uint32(24)).astype(np.int64).reshape(height, width)
    wedge = np.where(3 * column * height > 2 * row * width + height * width, 200, 40)
    return np.stack([ramp, (checks + texture) // 2, (wedge + ramp * column // width) // 2], axis=-1).astype(np.uint8)


def _noise_levels(_: Bench) -> Fingerprint:
    steps = ddim_steps(ScheduleConfig(), 50)
    levels = np.stack([steps.alphas.numpy(), steps.alphas_prev.numpy(), steps.sigmas.numpy()])
    return of_array(levels, timesteps=steps.timesteps.tolist())


def _gpt2(bench: Bench) -> Gpt2Tokens:
    return Gpt2Tokens(bench.folder / "gpt2-vocab.json", bench.folder / "gpt2-merges.txt")


def _bert_tokens(bench: Bench) -> Fingerprint:
    ids, mask = BertPieces(bench.folder / "bert-vocab.txt", 24)(SENTENCES)
    return Fingerprint({"pieces": ids.tolist(), "lengths": mask.sum(dim=1).tolist()})


def _gpt2_tokens(bench: Bench) -> Fingerprint:
    rows = [_gpt2(bench).ids(sentence) for sentence in SENTENCES]
    return Fingerprint({"tokens": rows, "read_back": [_gpt2(bench).caption(row) for row in rows]})


def _clip_tokens(bench: Bench) -> Fingerprint:
    tokens = ClipTokens(bench.folder / "clip-vocab.json", bench.folder / "clip-merges.txt", 20)
    return Fingerprint({"tokens": tokens(SENTENCES).tolist()})


def _encoded_picture(bench: Bench) -> Fingerprint:
    side = bench.backbone.config.autokl.image_size
    return of_array(bench.backbone.encode("z_image", fixed_picture(side, side)[None]))


def _decoded_picture(bench: Bench) -> Fingerprint:
    # Before it is rounded to 8 bits: there, rounding would hide small changes and double others.
    config = bench.backbone.config.autokl
    latents = fixed_numbers((1, config.latent_channels, config.latent_size, config.latent_size), 2)
    with torch.inference_mode():
        pixels = coders.decode_latents(bench.backbone.autokl, torch.from_numpy(latents), config.scale_factor)
    return of_array(pixels.numpy())


def _decoded_captions(bench: Bench) -> Fingerprint:
    # The words alone would hide a small change: the most probable one mostly stays the most probable.
    latents = bench.backbone.encode("z_text", CAPTIONS)
    with torch.inference_mode():
        tokens = torch.tensor([_gpt2(bench).ids(CAPTIONS[0])])
        logits, _ = bench.backbone.optimus.logits(torch.from_numpy(latents[:1]), tokens)
    return of_array(logits.numpy(), captions=bench.backbone.decode("caption", latents))


def _flow(latent: str, context: str) -> Probe:
    def predicted(bench: Bench) -> Fingerprint:
        config, flows = bench.backbone.config, bench.backbone.flows
        side = config.autokl.latent_size
        shape = (config.autokl.latent_channels, side, side) if latent == "image" else (config.optimus.latent_width,)
        # CLIP's own tokens: the flows read differences in them that drown in those of made-up rows.
        shown = fixed_picture(120, 90)[None] if context == "image" else CAPTIONS[:1]
        rows = torch.from_numpy(bench.backbone.encode(f"c_{context}", shown))
        noisy = torch.from_numpy(fixed_numbers((2, *shape), 4))
        with torch.inference_mode():
            noise = flows(noisy, torch.full((2,), _TIMESTEP), [flows.prepare(f"c_{context}", rows)])
        return of_array(noise.numpy())

    what = f"noise that a flow finds in {latent} latents under {context} contexts"
    return Probe(f"flow-{latent}-from-{context}", what, predicted, ("torch",), FLOWS)


def _pixels(name: str, what: str, config: ClipConfig, picture: NDArray[np.uint8]) -> Probe:
    def preprocessed(_: Bench) -> Fingerprint:
        return of_array(coders.preprocess(coders.make_image_processor(config), picture[None], config.resize).numpy())

    return Probe(name, what, preprocessed, ("transformers", "pillow", "numpy"), PIXELS, weights=False)


def _encoded(name: str, what: str, latent: str, items: Any, libraries: tuple[str, ...]) -> Probe:
    return Probe(name, what, lambda bench: of_array(bench.backbone.encode(latent, items)), libraries, FP32)


_CLIP, _AUTOKL = ("transformers", "torch", "pillow"), ("diffusers", "torch")
_WORDS = ("transformers", "torch", "tokenizers")

PROBES: tuple[Probe, ...] = (
    _pixels("clip-preprocessing-official", "a 512 x 512 picture as CLIP sees it", _OFFICIAL, fixed_picture(512, 512)),
    _pixels("clip-preprocessing-resized", "an oblong picture, resized first", _OFFICIAL, fixed_picture(425, 640)),
    _pixels("clip-preprocessing-small", "a tall picture at the small size", _SMALL, fixed_picture(120, 90)),
    _pixels("clip-preprocessing-grey", "the grey picture", _OFFICIAL, np.full((512, 512, 3), 127, dtype=np.uint8)),
    Probe("ddim-schedule", "timesteps and noise levels of 50 steps", _noise_levels, ("numpy", "torch"), 1e-6, False),
    Probe("tokens-bert", "BERT's pieces of five sentences", _bert_tokens, ("tokenizers",)),
    Probe("tokens-gpt2", "GPT-2's tokens of them, and back to text", _gpt2_tokens, ("tokenizers",)),
    Probe("tokens-clip", "CLIP's tokens of them", _clip_tokens, ("tokenizers",)),
    _encoded("clip-picture-contexts", "CLIP contexts of a picture", "c_image", fixed_picture(120, 90)[None], _CLIP),
    _encoded("clip-caption-contexts", "CLIP contexts of sentences", "c_text", [*CAPTIONS, ""], _WORDS),
    Probe("autokl-encode", "AutoKL's latent of a picture", _encoded_picture, _AUTOKL, FP32),
    Probe("autokl-decode", "AutoKL's picture of a latent", _decoded_picture, _AUTOKL, FP32),
    _encoded("optimus-encode", "Optimus' latents of sentences", "z_text", CAPTIONS, _WORDS),
    Probe("optimus-decode", "Optimus' sentences and logits", _decoded_captions, _WORDS, FP32),
    _flow("image", "image"),
    _flow("image", "text"),
    _flow("text", "image"),
    _flow("text", "text"),
)

if __name__ == "__main__":
    limit_threads(1)
    write_record(take_record(PROBES, Bench(backbone_folder("small"))))
    say(f"{RECORD}: {len(PROBES)} fingerprints")
