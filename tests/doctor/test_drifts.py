"""What a library could do differently, done on purpose: every drift has to be seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from torch import nn

from unibrain.audit import Finding
from unibrain.backbone import coders, sampling
from unibrain.doctor import fingerprints
from unibrain.doctor.fingerprints import Bench, Record

Patch = pytest.MonkeyPatch
Change = Callable[[Patch, Bench], None]
Check = Callable[..., dict[str, Finding]]

PICTURES = ("clip-preprocessing-official", "clip-preprocessing-resized", "clip-preprocessing-small")
PIXELS = (*PICTURES, "clip-preprocessing-grey")
FLOWS = tuple(f"flow-{latent}-from-{context}" for latent in ("image", "text") for context in ("image", "text"))
CLIP = ("clip-picture-contexts", "clip-caption-contexts")
AUTOKL = ("autokl-encode", "autokl-decode")


def processor(**changed: Any) -> Change:
    def change(patch: Patch, bench: Bench) -> None:
        make = coders.make_image_processor

        def made(config: Any) -> Any:
            processor = make(config)
            for name, value in changed.items():
                assert getattr(processor, name) != value
                setattr(processor, name, value)
            return processor

        patch.setattr(coders, "make_image_processor", made)

    return change


def floats_rescaled_again(patch: Patch, bench: Bench) -> None:
    # What blurred published pipelines: pictures that are floats already, divided by 255 once more.
    def preprocess(processor: Any, pictures: Any, resize: int) -> torch.Tensor:
        images = [np.asarray(Image.fromarray(p).resize((resize, resize), 3), np.float32) / 255 for p in pictures]
        return processor(images=images, return_tensors="pt")["pixel_values"].float()

    patch.setattr(coders, "preprocess", preprocess)


def resized_by_torch(patch: Patch, bench: Bench) -> None:
    def preprocess(processor: Any, pictures: Any, resize: int) -> torch.Tensor:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        for size in (resize, processor.crop_size["height"]):
            pixels = nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
        mean, deviation = (torch.tensor(row)[:, None, None] for row in (processor.image_mean, processor.image_std))
        return (pixels.round().clamp(0, 255) / 255 - mean) / deviation

    patch.setattr(coders, "preprocess", preprocess)


def wrapped(where: Any, name: str, **changed: Any) -> Change:
    def change(patch: Patch, bench: Bench) -> None:
        make = getattr(where, name)

        def made(*given: Any, **options: Any) -> Any:
            assert {key: options.get(key) for key in changed} != changed
            return make(*given, **{**options, **changed})

        patch.setattr(where, name, made)

    return change


def clip_keeps_case(patch: Patch, bench: Bench) -> None:
    before = tokenizers.normalizers.Sequence
    patch.setattr(tokenizers.normalizers, "Sequence", lambda steps: before(steps[:-1]))


def layers(module: Any, kind: type) -> list[Any]:
    found = [layer for layer in module.modules() if isinstance(layer, kind)]
    assert found
    return found


def eps(part: str, kind: type, value: float) -> Change:
    def change(patch: Patch, bench: Bench) -> None:
        for layer in layers(getattr(bench.backbone, part), kind):
            patch.setattr(layer, "eps", value)

    return change


def rough_products(part: str) -> Change:
    def rough(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            bias = None if layer.bias is None else layer.bias.bfloat16()
            return nn.functional.linear(x.bfloat16(), layer.weight.bfloat16(), bias).float()

        return forward

    def change(patch: Patch, bench: Bench) -> None:
        for layer in layers(getattr(bench.backbone, part), nn.Linear):
            patch.setattr(layer, "forward", rough(layer))

    return change


def reads_padding(patch: Patch, bench: Bench) -> None:
    before = bench.backbone.optimus.encode
    patch.setattr(bench.backbone.optimus, "encode", lambda ids, mask: before(ids, torch.ones_like(mask)))


def positions_off_by_one(patch: Patch, bench: Bench) -> None:
    # As if the memory did not count: the begin token would stand at position 0.
    embedding = bench.backbone.optimus.gpt2.transformer.wpe
    before = type(embedding).forward
    patch.setattr(embedding, "forward", lambda ids: before(embedding, ids - 1))


def unscaled(patch: Patch, bench: Bench) -> None:
    for name in ("encode_pictures", "decode_latents"):
        before = getattr(coders, name)
        patch.setattr(coders, name, lambda kl, x, scale, before=before: before(kl, x, 1.1 * scale))


def padded_evenly(patch: Patch, bench: Bench) -> None:
    # Stable Diffusion's autoencoder pads right and below only before it halves a picture.
    from diffusers.models.downsampling import Downsample2D

    def forward(self: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1)

    assert layers(bench.backbone.autokl.encoder, Downsample2D)
    patch.setattr(Downsample2D, "forward", forward)


def sine_first(patch: Patch, bench: Bench) -> None:
    first = bench.backbone.flows.image.time_embed[0]
    swapped = first.weight.detach().roll(first.in_features // 2, dims=1)
    patch.setattr(first, "forward", lambda x: nn.functional.linear(x, swapped, first.bias))


def linear_betas(patch: Patch, bench: Bench) -> None:
    def betas(config: Any) -> np.ndarray:
        return np.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=np.float64)

    patch.setattr(sampling, "make_betas", betas)


DRIFTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "bilinear": (processor(resample=2), PICTURES),
    "floats rescaled again": (floats_rescaled_again, PIXELS),
    "resized in floats with antialiasing": (resized_by_torch, PICTURES),
    "CLIP keeps case": (clip_keeps_case, ("tokens-clip",)),
    "BERT strips accents": (wrapped(tokenizers.normalizers, "BertNormalizer", strip_accents=True), ("tokens-bert",)),
    "CLIP: eps of layer norms a tenth": (eps("clip", nn.LayerNorm, 1e-6), CLIP[1:]),
    "CLIP: bf16": (rough_products("clip"), CLIP),
    "AutoKL: scale": (unscaled, AUTOKL),
    "AutoKL: padding": (padded_evenly, AUTOKL[:1]),
    "Optimus: padding is read": (reads_padding, ("optimus-encode",)),
    "Optimus: positions": (positions_off_by_one, ("optimus-decode",)),
    "flows: sine before cosine": (sine_first, FLOWS),
    "betas linear themselves": (linear_betas, ("ddim-schedule",)),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_is_seen(check: Check, bench: Bench, monkeypatch: Patch, name: str) -> None:
    change, concerned = DRIFTS[name]
    change(monkeypatch, bench)
    found = check(*concerned)
    assert {probe: found[probe].level for probe in concerned} == dict.fromkeys(concerned, "problem")


def test_fingerprints_are_back_after_all_this(check: Check) -> None:
    names = sorted({name for _, names in DRIFTS.values() for name in names})
    assert [finding.what for finding in check(*names).values() if finding.level != "ok"] == []


def versions(patch: Patch, record: Record, **changed: str) -> None:
    patch.setattr(fingerprints, "installed", lambda: {**record.libraries, **changed})


def test_the_library_that_moved_is_named(check: Check, bench: Bench, record: Record, monkeypatch: Patch) -> None:
    processor(resample=2)(monkeypatch, bench)
    versions(monkeypatch, record, transformers="9.1.0", torch="9.2")
    found = check("clip-preprocessing-small", "autokl-decode")
    before, moved = record.libraries["transformers"], found["clip-preprocessing-small"]
    assert moved.details["suspects"] == ["transformers"]  # not torch, which it does not use
    assert f'pip install "transformers=={before}"' in moved.advice
    assert moved.details["apart"] > moved.details["allowed"]
    assert found["autokl-decode"].level == "ok"  # a new version alone is no drift
    assert f"transformers {before} -> 9.1.0" in found["libraries"].what
    versions(monkeypatch, record)
    moved = check("clip-preprocessing-small")["clip-preprocessing-small"]
    assert (moved.level, moved.details["suspects"]) == ("problem", [])
    assert "no version of transformers, pillow, numpy changed" in moved.advice


def test_a_library_that_fails_is_a_moved_one(check: Check, record: Record, monkeypatch: Patch) -> None:
    def broken(config: Any) -> Any:
        raise TypeError("CLIPImageProcessor got an unexpected\nkeyword 'resample'")

    monkeypatch.setattr(coders, "make_image_processor", broken)
    versions(monkeypatch, record, transformers="9.1.0")
    moved = check("clip-preprocessing-small")["clip-preprocessing-small"]
    assert moved.level == "problem"
    assert "TypeError: CLIPImageProcessor got an unexpected keyword 'resample'" in moved.what
    assert moved.details["suspects"] == ["transformers"]
