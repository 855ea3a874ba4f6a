"""The whole object with a tiny random backbone: shapes, seeds, batches, contexts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from unibrain.backbone import SamplingSettings, VersatileDiffusion
from unibrain.backbone.storage import folder_fingerprint
from unibrain.errors import InputError

COUNT = 5
SEEDS = np.arange(COUNT, dtype=np.int64) + 40


@dataclasses.dataclass(frozen=True)
class Encoded:
    pictures: np.ndarray
    captions: list[str]
    z_image: np.ndarray
    z_text: np.ndarray
    c_image: np.ndarray
    c_text: np.ndarray


@pytest.fixture(scope="module")
def encoded(tiny: VersatileDiffusion, captions: tuple[str, ...]) -> Encoded:
    pictures = np.random.default_rng(6).integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)
    chosen = list(captions[:COUNT])
    return Encoded(
        pictures,
        chosen,
        tiny.encode("z_image", pictures),
        tiny.encode("z_text", chosen),
        tiny.encode("c_image", pictures),
        tiny.encode("c_text", chosen),
    )


def like(backbone: VersatileDiffusion, batch_size: int | None = None, **changes: Any) -> VersatileDiffusion:
    """The same networks under another configuration or batch size."""
    return VersatileDiffusion(
        dataclasses.replace(backbone.config, **changes),
        backbone.parts,
        backbone.tokenizers,
        backbone.fingerprint,
        backbone.dtype,
        batch_size,
    )


def sample_pictures(backbone: VersatileDiffusion, encoded: Encoded, **changes: Any) -> np.ndarray:
    settings = dataclasses.replace(backbone.sampling("picture"), **changes)
    return backbone.sample("picture", encoded.z_image, encoded.c_image, encoded.c_text, settings, SEEDS)


def sample_captions(backbone: VersatileDiffusion, encoded: Encoded, **changes: Any) -> list[str]:
    settings = dataclasses.replace(backbone.sampling("caption"), **changes)
    return backbone.sample("caption", encoded.z_text, encoded.c_image, encoded.c_text, settings, SEEDS)


def test_what_it_says_of_itself(tiny: VersatileDiffusion, tiny_folder: Any, tiny_config: Any) -> None:
    assert tiny.name == "tiny"
    assert tiny.config == tiny_config
    assert tiny.fingerprint == folder_fingerprint(tiny_folder)
    assert len(tiny.fingerprint) == 64
    assert tiny.sampling("picture") == tiny_config.image
    assert tiny.sampling("caption") == tiny_config.text
    parts = (tiny.flows, tiny.autokl, tiny.optimus, tiny.clip)
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in parts)


def test_shapes_and_types(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    expected = {"z_image": (4, 8, 8), "z_text": (16,), "c_image": (5, 16), "c_text": (12, 16)}
    for name, shape in expected.items():
        values = getattr(encoded, name)
        assert values.shape == (COUNT, *shape), name
        assert values.dtype == np.float32, name
        assert np.isfinite(values).all(), name
    decoded = tiny.decode("picture", encoded.z_image)
    assert decoded.shape == encoded.pictures.shape
    assert decoded.dtype == np.uint8
    sentences = tiny.decode("caption", encoded.z_text)
    assert len(sentences) == COUNT
    assert all(type(sentence) is str for sentence in sentences)


def test_pictures_of_another_size_are_resized(tiny: VersatileDiffusion) -> None:
    large = np.random.default_rng(1).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    assert tiny.encode("z_image", large).shape == (2, 4, 8, 8)
    flat = np.full((1, 40, 30, 3), 200, dtype=np.uint8)
    same = np.full((1, 16, 16, 3), 200, dtype=np.uint8)
    np.testing.assert_allclose(tiny.encode("z_image", flat), tiny.encode("z_image", same), atol=1e-5)


def test_embeddings_are_the_unit_rows_of_the_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    pictures, captions = tiny.embed("picture", encoded.pictures), tiny.embed("caption", encoded.captions)
    for embeddings in (pictures, captions):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(pictures, encoded.c_image[:, 0])
    lengths = [len(caption.split()) + 1 for caption in encoded.captions]
    # All words of these captions are single tokens, except for those that occur once: find the end by its norm.
    norms = np.linalg.norm(encoded.c_text, axis=2)
    ends = [int(np.flatnonzero(np.isclose(row, 1, atol=1e-5))[0]) for row in norms]
    assert all(end >= length for end, length in zip(ends, lengths, strict=True))
    np.testing.assert_allclose(captions, encoded.c_text[np.arange(COUNT), ends], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_encoders_and_decoders_do_not_depend_on_the_batch(
    tiny: VersatileDiffusion, encoded: Encoded, batch_size: int
) -> None:
    other = like(tiny, batch_size)
    pairs = (
        (other.encode("z_image", encoded.pictures), encoded.z_image),
        (other.encode("z_text", encoded.captions), encoded.z_text),
        (other.encode("c_image", encoded.pictures), encoded.c_image),
        (other.encode("c_text", encoded.captions), encoded.c_text),
        (other.embed("caption", encoded.captions), tiny.embed("caption", encoded.captions)),
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert other.decode("caption", encoded.z_text) == tiny.decode("caption", encoded.z_text)
    levels = other.decode("picture", encoded.z_image).astype(int) - tiny.decode("picture", encoded.z_image)
    assert abs(levels).max() <= 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_do_not_depend_on_the_batch(tiny: VersatileDiffusion, encoded: Encoded, eta: float) -> None:
    whole, captions = sample_pictures(tiny, encoded, eta=eta), sample_captions(tiny, encoded, eta=eta)
    single = like(tiny, 2)
    # A difference of 1e-4 may fall on the boundary between two of the 256 levels.
    assert abs(sample_pictures(single, encoded, eta=eta).astype(int) - whole).max() <= 1
    assert sample_captions(single, encoded, eta=eta) == captions
    turned = slice(None, None, -1)
    settings = dataclasses.replace(tiny.sampling("picture"), eta=eta)
    other_order = tiny.sample("picture", 
        encoded.z_image[turned], encoded.c_image[turned], encoded.c_text[turned], settings, SEEDS[turned]
    )
    assert abs(other_order[turned].astype(int) - whole).max() <= 1


def test_seeds_decide(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    first = sample_pictures(tiny, encoded)
    np.testing.assert_array_equal(first, sample_pictures(tiny, encoded))
    inputs = (encoded.z_image, encoded.c_image, encoded.c_text, tiny.sampling("picture"))
    other = tiny.sample("picture", *inputs, np.array([40, 41, 42, 43, 99]))
    assert (other[:4] == first[:4]).all()
    assert (other[4] != first[4]).any()
    assert sample_captions(tiny, encoded) == sample_captions(tiny, encoded)


def test_samples_depend_on_latents_and_on_both_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    expected = sample_pictures(tiny, encoded)
    for name in ("z_image", "c_image", "c_text"):
        changed = dataclasses.replace(encoded, **{name: np.roll(getattr(encoded, name), 1, axis=0)})
        assert (sample_pictures(tiny, changed) != expected).any(), name
    for name, weight in (("c_text", 1.0), ("c_image", 0.0)):
        changed = dataclasses.replace(encoded, **{name: np.roll(getattr(encoded, name), 1, axis=0)})
        np.testing.assert_array_equal(
            sample_pictures(tiny, changed, image_weight=weight), sample_pictures(tiny, encoded, image_weight=weight)
        )


def test_without_a_latent_the_whole_schedule_is_run(
    tiny: VersatileDiffusion, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited: list[int] = []
    forward = tiny.flows.forward

    def watch(x: Any, timesteps: Any, contexts: Any, choices: Any = None) -> Any:
        visited.append(int(timesteps[0]))
        return forward(x, timesteps, contexts, choices)

    monkeypatch.setattr(tiny.flows, "forward", watch)
    contexts = (encoded.c_image, encoded.c_text)
    from_noise = tiny.sample("picture", None, *contexts, tiny.sampling("picture"), SEEDS)
    assert visited == [801, 601, 401, 201, 1]
    visited.clear()
    from_latent = sample_pictures(tiny, encoded)
    assert visited == [401, 201, 1]
    assert from_noise.shape == from_latent.shape
    assert (from_noise != from_latent).any()
    assert len(tiny.sample("caption", None, *contexts, tiny.sampling("caption"), SEEDS)) == COUNT


def test_unconditional_image_contexts(tiny: VersatileDiffusion) -> None:
    for kind, level in (("grey", 127), ("black", 0)):
        contexts = like(tiny, unconditional_image=kind).unconditional_contexts()
        even = np.full((1, 24, 24, 3), level, dtype=np.uint8)
        np.testing.assert_array_equal(contexts["image"].numpy(), tiny.encode("c_image", even))
        np.testing.assert_array_equal(contexts["text"].numpy(), tiny.encode("c_text", [""]))
    zeros = like(tiny, unconditional_image="zeros").unconditional_contexts()["image"]
    assert torch.equal(zeros, torch.zeros(1, 5, 16))


def test_unconditional_context_matters_only_under_guidance(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    black = like(tiny, unconditional_image="black")
    assert (
        sample_pictures(black, encoded, guidance_scale=4.0) != sample_pictures(tiny, encoded, guidance_scale=4.0)
    ).any()
    np.testing.assert_array_equal(
        sample_pictures(black, encoded, guidance_scale=1.0), sample_pictures(tiny, encoded, guidance_scale=1.0)
    )


def test_wrong_inputs_are_named(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    settings = SamplingSettings(0.5, steps=5)
    contexts = (encoded.c_image, encoded.c_text)
    with pytest.raises(InputError, match=r"latents have shape \(5, 4, 7, 8\), expected \(n, 4, 8, 8\).*tiny"):
        tiny.sample("picture", np.zeros((5, 4, 7, 8), np.float32), *contexts, settings, SEEDS)
    with pytest.raises(InputError, match=r"latents have shape \(5, 4, 8, 8\), expected \(n, 16\)"):
        tiny.sample("caption", encoded.z_image, *contexts, settings, SEEDS)
    with pytest.raises(InputError, match=r"expected \(n, tokens, 16\)"):
        tiny.sample("picture", None, encoded.c_image[..., :8], encoded.c_text, settings, SEEDS)
    with pytest.raises(InputError, match=r"of \[4, 5\] scans"):
        tiny.sample("caption", encoded.z_text[:4], *contexts, settings, SEEDS)
    with pytest.raises(InputError, match="expected one item or more"):
        tiny.encode("z_text", [])
    with pytest.raises(InputError, match="expected one item or more"):
        tiny.decode("caption", np.zeros((0, 16), np.float32))
