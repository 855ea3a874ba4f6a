"""Probes of the networks, on the small backbone's weights in fp32."""

import numpy as np
import torch

from unibrain.backbone import autokl as autokl_part
from unibrain.backbone.flows import ContextKind
from unibrain.backbone.sampler import sample_ddim
from unibrain.backbone.schedule import DDIMSteps, ddim_steps
from unibrain.backbone.tokenization import Gpt2Tokens
from unibrain.doctor.fingerprint import Fingerprint, of_array
from unibrain.doctor.patterns import CAPTIONS, fixed_numbers, fixed_picture
from unibrain.doctor.probe import FP32, Bench, Probe

__all__ = ["AUTOENCODERS", "CONTEXTS", "FLOWS"]

_INDEX = 30
"""The one of 50 DDIM steps that is taken: timestep 601, where a flow has half of the work to do."""


def _picture_contexts(bench: Bench) -> Fingerprint:
    return of_array(bench.backbone.encode("c_image", fixed_picture(120, 90)[None]))


def _caption_contexts(bench: Bench) -> Fingerprint:
    return of_array(bench.backbone.encode("c_text", [*CAPTIONS, ""]))


def _encoded_picture(bench: Bench) -> Fingerprint:
    side = bench.backbone.config.autokl.image_size
    return of_array(bench.backbone.encode("z_image", fixed_picture(side, side)[None]))


def _decoded_picture(bench: Bench) -> Fingerprint:
    # Before it is rounded to 8 bits: there, rounding would hide small changes and double others.
    config = bench.backbone.config.autokl
    latents = fixed_numbers((1, config.latent_channels, config.latent_size, config.latent_size), 2)
    with torch.inference_mode():
        decoded = autokl_part.decode_latents(bench.backbone.autokl, torch.from_numpy(latents), config.scale_factor)
    return of_array(decoded.numpy())


def _encoded_captions(bench: Bench) -> Fingerprint:
    return of_array(bench.backbone.encode("z_text", CAPTIONS))


def _decoded_captions(bench: Bench) -> Fingerprint:
    # The words alone would hide a small change: the most probable one mostly stays the most probable.
    backbone = bench.backbone
    latents = backbone.encode("z_text", CAPTIONS)
    words = backbone.decode("caption", latents)
    gpt2 = Gpt2Tokens(bench.folder / "gpt2-vocab.json", bench.folder / "gpt2-merges.txt")
    tokens = torch.tensor([gpt2.ids(CAPTIONS[0])])
    with torch.inference_mode():
        logits, _ = backbone.optimus.logits(torch.from_numpy(latents[:1]), tokens)
    numbers = of_array(logits.numpy())
    return Fingerprint({**numbers.exact, "captions": words}, numbers.numbers, numbers.scale)


def _step(bench: Bench, latent: ContextKind, context: ContextKind) -> Fingerprint:
    config, flows = bench.backbone.config, bench.backbone.flows
    side = config.autokl.latent_size
    shape = (config.autokl.latent_channels, side, side) if latent == "image" else (config.optimus.latent_width,)
    # Rows of a context have a norm of about 1, as CLIP's have.
    width = config.flows.context_width
    rows = torch.from_numpy(fixed_numbers((2, 17, width), 3) / np.float32(width) ** 0.5)
    steps = ddim_steps(config.schedule, 50)
    here = slice(_INDEX, _INDEX + 1)
    one = DDIMSteps(steps.timesteps[here], steps.alphas[here], steps.alphas_prev[here], steps.sigmas[here])
    with torch.inference_mode():
        prepared = flows.prepare(context, rows)
        noisy = torch.from_numpy(fixed_numbers((2, *shape), 4)).double()

        def model(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            # The network is in fp32; around it float64, or the rounding of the latent would be most of what is seen.
            predicted: torch.Tensor = flows(x.float(), timesteps, [prepared])
            return predicted.double()

        after = sample_ddim(model, noisy, one, 1, config.schedule.prediction)
    # What the step changed: the latent itself is known, and would only hide how far the network is off.
    return of_array((after - noisy).numpy())


_CLIP = ("config.json", "clip.safetensors")
_OPTIMUS = ("config.json", "optimus.safetensors", "bert-vocab.txt")

CONTEXTS = (
    Probe(
        "clip-picture-contexts",
        "CLIP contexts of a fixed picture",
        ("transformers", "torch", "pillow"),
        _picture_contexts,
        FP32,
        _CLIP,
        ("clip-preprocessing-small",),
    ),
    Probe(
        "clip-caption-contexts",
        "CLIP contexts of fixed sentences",
        ("transformers", "torch", "tokenizers"),
        _caption_contexts,
        FP32,
        (*_CLIP, "clip-vocab.json", "clip-merges.txt"),
        ("tokens-clip",),
    ),
)

AUTOENCODERS = (
    Probe(
        "autokl-encode",
        "AutoKL's latent of a fixed picture",
        ("diffusers", "torch"),
        _encoded_picture,
        FP32,
        ("config.json", "autokl.safetensors"),
    ),
    Probe(
        "autokl-decode",
        "AutoKL's picture of a fixed latent",
        ("diffusers", "torch"),
        _decoded_picture,
        FP32,
        ("config.json", "autokl.safetensors"),
    ),
    Probe(
        "optimus-encode",
        "Optimus' latents of fixed sentences",
        ("transformers", "torch", "tokenizers"),
        _encoded_captions,
        FP32,
        _OPTIMUS,
        ("tokens-bert",),
    ),
    Probe(
        "optimus-decode",
        "Optimus' sentences of these latents, greedily, and its logits",
        ("transformers", "torch", "tokenizers"),
        _decoded_captions,
        FP32,
        (*_OPTIMUS, "gpt2-vocab.json", "gpt2-merges.txt"),
        ("optimus-encode", "tokens-gpt2"),
    ),
)


def _flow(latent: ContextKind, context: ContextKind) -> Probe:
    named = {"image": "an image", "text": "a text"}
    return Probe(
        f"flow-{latent}-from-{context}",
        f"one step of {named[latent]} latent under {named[context]} context",
        ("torch",),
        lambda bench: _step(bench, latent, context),
        FP32,
        ("config.json", "flows.safetensors"),
        ("ddim-schedule",),
    )


FLOWS = (_flow("image", "image"), _flow("image", "text"), _flow("text", "image"), _flow("text", "text"))
