"""What a library could do differently, done on purpose: every drift has to be seen, and put down to the right place."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from torch import nn

from unibrain.backbone import autokl as autokl_part
from unibrain.backbone import clip as clip_part
from unibrain.backbone import schedule as schedule_part
from unibrain.backbone import tokenization
from unibrain.doctor import Finding, compare
from unibrain.doctor.probe import Bench

Patch = pytest.MonkeyPatch
PICTURES = ("clip-preprocessing-official", "clip-preprocessing-resized", "clip-preprocessing-small")
PIXELS = (*PICTURES, "clip-preprocessing-grey")


def processor_with(patch: Patch, **changed: Any) -> None:
    make = clip_part.make_image_processor

    def made(config: Any) -> Any:
        processor = make(config)
        for name, value in changed.items():
            assert getattr(processor, name) != value
            setattr(processor, name, value)
        return processor

    patch.setattr(clip_part, "make_image_processor", made)


def floats_rescaled_again(patch: Patch) -> None:
    # What blurred published pipelines: pictures that are floats already, divided by 255 once more.
    def preprocess(processor: Any, pictures: Any, resize: int) -> torch.Tensor:
        images = [np.asarray(Image.fromarray(p).resize((resize, resize), 3), np.float32) / 255 for p in pictures]
        return processor(images=images, return_tensors="pt")["pixel_values"].float()

    patch.setattr(clip_part, "preprocess", preprocess)


def other_order_of_channels(patch: Patch) -> None:
    before = clip_part.preprocess
    patch.setattr(clip_part, "preprocess", lambda p, pictures, size: before(p, pictures[..., ::-1].copy(), size))


def resized_by_torch(antialias: bool) -> Callable[[Patch], None]:
    def change(patch: Patch) -> None:
        def preprocess(processor: Any, pictures: Any, resize: int) -> torch.Tensor:
            pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
            for size in (resize, processor.crop_size["height"]):
                pixels = nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=antialias)
            mean, deviation = (torch.tensor(row)[:, None, None] for row in (processor.image_mean, processor.image_std))
            return (pixels.round().clamp(0, 255) / 255 - mean) / deviation

        patch.setattr(clip_part, "preprocess", preprocess)

    return change


def axes_swapped(patch: Patch) -> None:
    before = clip_part.preprocess
    patch.setattr(clip_part, "preprocess", lambda *given: before(*given).transpose(2, 3))


PREPROCESSING = {
    "bilinear": (lambda patch: processor_with(patch, resample=2), PICTURES),
    "lanczos": (lambda patch: processor_with(patch, resample=1), PICTURES),
    "nearest": (lambda patch: processor_with(patch, resample=0), PICTURES),
    "another mean": (lambda patch: processor_with(patch, image_mean=[0.485, 0.456, 0.406]), PIXELS),
    "another deviation": (lambda patch: processor_with(patch, image_std=[0.26862954, 0.26130258, 0.276]), PIXELS),
    "not rescaled": (lambda patch: processor_with(patch, do_rescale=False), PIXELS),
    "rescaled by 1/256": (lambda patch: processor_with(patch, rescale_factor=1 / 256), PIXELS),
    "not normalised": (lambda patch: processor_with(patch, do_normalize=False), PIXELS),
    "floats rescaled again": (floats_rescaled_again, PIXELS),
    "channels in another order": (other_order_of_channels, PICTURES),
    "resized in floats without antialiasing": (resized_by_torch(False), PICTURES),
    "resized in floats with antialiasing": (resized_by_torch(True), PICTURES),
    "axes swapped": (axes_swapped, PICTURES),
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_another_preprocessing_is_seen(check: Callable[..., dict[str, Finding]], monkeypatch: Patch, name: str) -> None:
    change, concerned = PREPROCESSING[name]
    change(monkeypatch)
    found = check(*PIXELS)
    assert [probe for probe in concerned if found[probe].status == "ok"] == []
    assert all("clip" in found[probe].details["what"].lower() or probe != PIXELS[0] for probe in concerned)


def wrapped(patch: Patch, where: Any, name: str, **changed: Any) -> None:
    make = getattr(where, name)

    def made(*given: Any, **options: Any) -> Any:
        assert {key: options.get(key) for key in changed} != changed
        return make(*given, **{**options, **changed})

    patch.setattr(where, name, made)


def keeps_case(patch: Patch) -> None:
    before = tokenizers.normalizers.Sequence
    patch.setattr(tokenizers.normalizers, "Sequence", lambda steps: before(steps[:-1]))


def bert_keeps_case(patch: Patch) -> None:
    def ids(self: Any, sentence: str) -> list[int]:
        pieces = self._tokenizer.encode(sentence, add_special_tokens=False).ids
        return [self.cls, *pieces[: self.max_pieces], self.sep]

    patch.setattr(tokenization.BertPieces, "ids", ids)


def gpt2_without_leading_space(patch: Patch) -> None:
    def ids(self: Any, sentence: str) -> list[int]:
        return [self.bos, *self._tokenizer.encode(sentence.strip()).ids, self.eos]

    patch.setattr(tokenization.Gpt2Tokens, "ids", ids)


TOKENS = {
    "CLIP keeps case": (keeps_case, ["tokens-clip"]),
    "BERT keeps case": (bert_keeps_case, ["tokens-bert"]),
    "BERT strips accents": (
        lambda patch: wrapped(patch, tokenizers.normalizers, "BertNormalizer", strip_accents=True),
        ["tokens-bert"],
    ),
    "byte level adds a space": (
        lambda patch: wrapped(patch, tokenizers.pre_tokenizers, "ByteLevel", add_prefix_space=True),
        ["tokens-clip"],
    ),
    "no end of words": (
        lambda patch: wrapped(patch, tokenizers.models, "BPE", end_of_word_suffix=""),
        ["tokens-clip"],
    ),
    "GPT-2 without a leading space": (gpt2_without_leading_space, ["tokens-gpt2"]),
}


@pytest.mark.parametrize("name", TOKENS)
def test_another_tokenization_is_seen(check: Callable[..., dict[str, Finding]], monkeypatch: Patch, name: str) -> None:
    change, concerned = TOKENS[name]
    change(monkeypatch)
    found = check("tokens-bert", "tokens-gpt2", "tokens-clip")
    assert [probe for probe in concerned if found[probe].status == "ok"] == []
    for probe in concerned:
        assert found[probe].details["libraries"].keys() == {"tokenizers"}


def layers(module: Any, kind: type) -> list[Any]:
    found = [layer for layer in module.modules() if isinstance(layer, kind)]
    assert found
    return found


def eps(part: str, kind: type, value: float) -> Callable[[Patch, Bench], None]:
    def change(patch: Patch, bench: Bench) -> None:
        for layer in layers(getattr(bench.backbone, part), kind):
            patch.setattr(layer, "eps", value)

    return change


def activation(part: str, name: str, other: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch, Bench], None]:
    def change(patch: Patch, bench: Bench) -> None:
        kinds = {type(getattr(m, name)) for m in getattr(bench.backbone, part).modules() if hasattr(m, name)}
        assert len(kinds) == 1
        patch.setattr(kinds.pop(), "forward", lambda self, x: other(x))

    return change


clip_gelu = activation("clip", "activation_fn", nn.GELU())
optimus_gelu = activation("optimus", "intermediate_act_fn", nn.GELU(approximate="tanh"))


def reads_padding(patch: Patch, bench: Bench) -> None:
    before = bench.backbone.optimus.encode
    patch.setattr(bench.backbone.optimus, "encode", lambda ids, mask: before(ids, torch.ones_like(mask)))


def positions_off_by_one(patch: Patch, bench: Bench) -> None:
    # As if the memory did not count: the begin token would stand at position 0.
    embedding = bench.backbone.optimus.gpt2.transformer.wpe
    before = type(embedding).forward
    patch.setattr(embedding, "forward", lambda ids: before(embedding, ids - 1))


def other_range_of_pictures(patch: Patch, bench: Bench) -> None:
    before = autokl_part.encode_pictures
    patch.setattr(autokl_part, "encode_pictures", lambda kl, pixels, *given: before(kl, (pixels + 1) / 2, *given))


def unscaled(patch: Patch, bench: Bench) -> None:
    for name in ("encode_pictures", "decode_latents"):
        before = getattr(autokl_part, name)
        patch.setattr(autokl_part, name, lambda kl, x, scale, before=before: before(kl, x, 1.0))


def padded_evenly(patch: Patch, bench: Bench) -> None:
    # Stable Diffusion's autoencoder pads right and below only before it halves a picture.
    from diffusers.models.downsampling import Downsample2D

    def forward(self: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1)

    assert layers(bench.backbone.autokl.encoder, Downsample2D)
    patch.setattr(Downsample2D, "forward", forward)


def rough_products(part: str) -> Callable[[Patch, Bench], None]:
    def change(patch: Patch, bench: Bench) -> None:
        for layer in layers(getattr(bench.backbone, part), nn.Linear):
            patch.setattr(layer, "forward", rough(layer))

    def rough(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            bias = None if layer.bias is None else layer.bias.bfloat16()
            return nn.functional.linear(x.bfloat16(), layer.weight.bfloat16(), bias).float()

        return forward

    return change


def sine_first(patch: Patch, bench: Bench) -> None:
    before = bench.backbone.flows.embed_time
    first = bench.backbone.flows.image.time_embed[0]
    half = first.in_features // 2
    swapped = first.weight.detach().roll(half, dims=1)
    assert callable(before)
    patch.setattr(first, "forward", lambda x: nn.functional.linear(x, swapped, first.bias))


FLOWS = [f"flow-{latent}-from-{context}" for latent in ("image", "text") for context in ("image", "text")]
CLIP = ["clip-picture-contexts", "clip-caption-contexts"]
AUTOKL = ["autokl-encode", "autokl-decode"]

NETWORKS = {
    "CLIP: eps of layer norms 10 times": (eps("clip", nn.LayerNorm, 1e-4), CLIP),
    "CLIP: eps of layer norms a tenth": (eps("clip", nn.LayerNorm, 1e-6), CLIP[1:]),
    "CLIP: GELU": (clip_gelu, CLIP),
    "CLIP: bf16": (rough_products("clip"), CLIP),
    "AutoKL: eps of group norms": (eps("autokl", nn.GroupNorm, 1e-3), AUTOKL),
    "AutoKL: range of pictures": (other_range_of_pictures, AUTOKL[:1]),
    "AutoKL: scale": (unscaled, AUTOKL),
    "AutoKL: padding": (padded_evenly, AUTOKL[:1]),
    "Optimus: eps of layer norms": (eps("optimus", nn.LayerNorm, 1e-3), ["optimus-encode"]),
    "Optimus: GELU": (optimus_gelu, ["optimus-encode"]),
    "Optimus: padding is read": (reads_padding, ["optimus-encode"]),
    "Optimus: positions": (positions_off_by_one, ["optimus-decode"]),
    "flows: eps of group norms": (eps("flows", nn.GroupNorm, 1e-3), FLOWS),
    "flows: eps of layer norms": (eps("flows", nn.LayerNorm, 1e-3), FLOWS),
    "flows: bf16": (rough_products("flows"), FLOWS),
    "flows: sine before cosine": (sine_first, FLOWS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_another_network_is_seen(
    check: Callable[..., dict[str, Finding]], bench: Bench, monkeypatch: Patch, name: str
) -> None:
    change, concerned = NETWORKS[name]
    change(monkeypatch, bench)
    found = check(*concerned)
    assert [probe for probe in concerned if found[probe].status == "ok"] == []


def linear_betas(config: Any) -> np.ndarray:
    return np.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=np.float64)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(schedule_part, "make_betas", linear_betas),
        lambda patch: patch.setattr(np, "arange", shifted(np.arange)),
    ],
    ids=["betas linear themselves", "timesteps from 0"],
)
def test_another_schedule_is_seen(
    check: Callable[..., dict[str, Finding]], monkeypatch: Patch, change: Callable[[Patch], None]
) -> None:
    change(monkeypatch)
    assert check("ddim-schedule")["ddim-schedule"].status == "problem"


def shifted(arange: Any) -> Any:
    return lambda *given, **options: arange(*given, **options) - (1 if len(given) == 3 else 0)


def test_fingerprints_are_back_after_all_this(check: Callable[..., dict[str, Finding]]) -> None:
    found = check(*PIXELS, "tokens-clip", *CLIP, *AUTOKL, "optimus-encode", "optimus-decode", "ddim-schedule", *FLOWS)
    assert [finding.found for finding in found.values() if finding.status != "ok"] == []


def versions(monkeypatch: Patch, record: Any, **changed: str) -> None:
    now = {**record.libraries, **changed}
    monkeypatch.setattr(compare, "installed_versions", lambda: now)


def test_the_library_that_moved_is_named(
    check: Callable[..., dict[str, Finding]], record: Any, monkeypatch: Patch
) -> None:
    processor_with(monkeypatch, resample=2)
    monkeypatch.setattr(clip_part, "image_context", lambda clip, pixels: pixels)
    versions(monkeypatch, record, transformers="9.1.0", torch="9.2")
    found = check("clip-preprocessing-small", "clip-picture-contexts", "autokl-decode")
    before = record.libraries["transformers"]
    moved = found["clip-preprocessing-small"]
    assert moved.status == "problem"
    assert f"moved: transformers {before} -> 9.1.0" in moved.remedy
    assert f'pip install "transformers=={before}"' in moved.remedy
    assert moved.details["suspects"] == ["transformers"]  # not torch, on which it does not lean
    assert moved.details["libraries"]["transformers"] == {"recorded": before, "now": "9.1.0"}
    assert moved.details["difference"] > moved.details["allowed"]
    follows = found["clip-picture-contexts"]
    assert follows.status == "problem"
    assert "builds on clip-preprocessing-small, which moved too" in follows.remedy
    assert follows.details["follows_from"] == ["clip-preprocessing-small"]
    assert found["autokl-decode"].status == "ok"  # a new version alone is no drift


def test_without_a_changed_version_no_library_is_blamed(
    check: Callable[..., dict[str, Finding]], record: Any, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(compare, "installed_versions", lambda: dict(record.libraries))
    processor_with(monkeypatch, resample=2)
    moved = check("clip-preprocessing-small")["clip-preprocessing-small"]
    assert "leans on transformers, pillow, numpy; no library has another version than recorded" in moved.remedy
    assert moved.details["suspects"] == []


def test_a_library_that_fails_is_a_moved_one(
    check: Callable[..., dict[str, Finding]], record: Any, monkeypatch: Patch
) -> None:
    def broken(config: Any) -> Any:
        raise TypeError("CLIPImageProcessor got an unexpected\nkeyword 'resample'")

    monkeypatch.setattr(clip_part, "make_image_processor", broken)
    versions(monkeypatch, record, transformers="9.1.0")
    moved = check("clip-preprocessing-small")["clip-preprocessing-small"]
    assert moved.status == "problem"
    assert "cannot be computed (TypeError: CLIPImageProcessor got an unexpected keyword 'resample')" in moved.found
    assert "-> 9.1.0" in moved.remedy


def test_not_a_number_is_a_drift(check: Callable[..., dict[str, Finding]], monkeypatch: Patch) -> None:
    monkeypatch.setattr(autokl_part, "encode_pictures", lambda *_: torch.full((1, 24, 8, 8), math.nan))
    moved = check("autokl-encode")["autokl-encode"]
    assert moved.status == "problem"
    assert moved.details["difference"] is None
