"""The whole object with a tiny random backbone: shapes, seeds, batches, contexts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unibrain.backbone import SamplingError, SamplingSettings, VersatileDiffusion
from unibrain.backbone.coders import make_image_processor, preprocess
from unibrain.backbone.config import ClipConfig
from unibrain.backbone.folder import folder_fingerprint
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

    @property
    def contexts(self) -> dict[str, np.ndarray]:
        return {"c_image": self.c_image, "c_text": self.c_text}

    def rolled(self, name: str) -> "Encoded":
        """One latent of another scan in each row."""
        return dataclasses.replace(self, **{name: np.roll(getattr(self, name), 1, axis=0)})


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
    config = dataclasses.replace(backbone.config, **changes)
    return VersatileDiffusion(config, backbone.parts, backbone.folder, backbone.fingerprint, backbone.dtype, batch_size)


def pictures_of(backbone: VersatileDiffusion, encoded: Encoded, use: Any = None, **changes: Any) -> Any:
    settings = dataclasses.replace(backbone.sampling("picture"), **changes)
    contexts = {name: rows for name, rows in encoded.contexts.items() if use is None or name in use}
    return backbone.sample("picture", encoded.z_image, contexts, settings, SEEDS)


def captions_of(backbone: VersatileDiffusion, encoded: Encoded, **changes: Any) -> Any:
    settings = dataclasses.replace(backbone.sampling("caption"), **changes)
    return backbone.sample("caption", encoded.z_text, encoded.contexts, settings, SEEDS)


def off(found: Any, expected: Any) -> int:
    """Largest difference in grey levels."""
    return int(abs(np.asarray(found).astype(int) - expected).max())


def test_what_it_says_of_itself(tiny: VersatileDiffusion, tiny_folder: Any, tiny_config: Any, encoded: Encoded) -> None:
    assert (tiny.name, tiny.config) == ("tiny", tiny_config)
    assert tiny.fingerprint == folder_fingerprint(tiny_folder)
    assert (tiny.sampling("picture"), tiny.sampling("caption")) == (tiny_config.image, tiny_config.text)
    assert repr(tiny) == "VersatileDiffusion('tiny', fp32 on cpu)"
    expected = {"z_image": (4, 8, 8), "z_text": (16,), "c_image": (5, 16), "c_text": (20, 16)}
    for name, shape in expected.items():
        values = getattr(encoded, name)
        assert (values.shape, values.dtype) == ((COUNT, *shape), np.float32), name
        assert np.isfinite(values).all(), name
    assert tiny.decode("picture", encoded.z_image).shape == encoded.pictures.shape
    assert len(tiny.decode("caption", encoded.z_text)) == COUNT


# Radford et al., arXiv 2103.00020: mean and deviation of the training pictures.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize(
    ("height", "width", "resize", "image_size", "sizes"),
    [
        (20, 31, 24, 16, (24, 16)),
        (24, 24, 24, 16, (16,)),
        (12, 12, 16, 16, (16,)),
        (16, 16, 16, 16, ()),
        (60, 48, 32, 40, (32, 40)),
    ],
)
def test_pixels_for_clip_are_those_of_pillow_and_numpy(
    height: int, width: int, resize: int, image_size: int, sizes: tuple[int, ...]
) -> None:
    drawn = np.random.default_rng(4).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    drawn[2] = 127
    processor = make_image_processor(ClipConfig(vision={"image_size": image_size}, resize=resize))
    found = preprocess(processor, drawn, resize).numpy()
    assert found.dtype == np.float32
    expected = []
    for image in map(Image.fromarray, drawn):
        for size in sizes:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        expected.append(((np.asarray(image, dtype=np.float64) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5, rtol=0)
    np.testing.assert_allclose(found[2, :, 0, 0], [0.0617, 0.1539, 0.3257], atol=1e-4)


def test_embeddings_are_the_unit_rows_of_the_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    pictures, captions = tiny.embed("picture", encoded.pictures), tiny.embed("caption", encoded.captions)
    np.testing.assert_array_equal(pictures, encoded.c_image[:, 0])
    # The end of a sentence is found by its norm.
    norms = np.linalg.norm(encoded.c_text, axis=2)
    ends = [int(np.flatnonzero(np.isclose(row, 1, atol=1e-5))[0]) for row in norms]
    assert all(end >= len(text.split()) + 1 for end, text in zip(ends, encoded.captions, strict=True))
    np.testing.assert_allclose(captions, encoded.c_text[np.arange(COUNT), ends], atol=1e-6)


def test_encoders_and_decoders_do_not_depend_on_the_batch_beyond_rounding(
    tiny: VersatileDiffusion, encoded: Encoded
) -> None:
    other = like(tiny, 2)
    assert other.scans_at_once("picture") == 2
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
    assert off(other.decode("picture", encoded.z_image), tiny.decode("picture", encoded.z_image)) <= 1


@pytest.mark.parametrize(("eta", "noise"), [(0.0, False), (1.0, True)])
def test_samples_do_not_depend_on_batch_or_order_beyond_rounding(
    tiny: VersatileDiffusion, encoded: Encoded, eta: float, noise: bool
) -> None:
    settings = {kind: dataclasses.replace(tiny.sampling(kind), eta=eta) for kind in tiny.kinds}

    def sampled(backbone: VersatileDiffusion, kind: str, rows: Any) -> Any:
        start = None if noise else {"picture": encoded.z_image, "caption": encoded.z_text}[kind][rows]
        contexts = {name: values[rows] for name, values in encoded.contexts.items()}
        return backbone.sample(kind, start, contexts, settings[kind], SEEDS[rows])

    every, turned, rest = slice(None), slice(None, None, -1), slice(3, None)
    whole, words = sampled(tiny, "picture", every), sampled(tiny, "caption", every)
    np.testing.assert_array_equal(sampled(tiny, "picture", every), whole)
    # A difference of 1e-4 may fall on the boundary between two of the 256 levels.
    for size in (1, 3):
        assert off(sampled(like(tiny, size), "picture", every), whole) <= 1
        # In a random network two words may be equally probable.
        others = sampled(like(tiny, size), "caption", every)
        assert sum(map(str.__eq__, others, words)) >= COUNT - 1
    assert off(sampled(tiny, "picture", turned)[turned], whole) <= 1
    assert off(sampled(tiny, "picture", rest), whole[rest]) <= 1


def test_out_of_memory_inside_sampling_changes_nothing(
    tiny: VersatileDiffusion, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captions_of(tiny, encoded)
    forward, sizes = tiny.flows.forward, []

    def limited(x: Any, timesteps: Any, contexts: Any) -> Any:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x, timesteps, contexts)

    monkeypatch.setattr(tiny.flows, "forward", limited)
    one = like(tiny, 64)
    assert captions_of(one, encoded) == expected
    assert sizes[:2] == [5, 2], "rows that fit are one batch"
    assert one.scans_at_once("caption") == 2


def test_samples_depend_on_seeds_latents_and_both_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    expected = pictures_of(tiny, encoded)
    seeds = np.array([40, 41, 42, 43, 99])
    other = tiny.sample("picture", encoded.z_image, encoded.contexts, tiny.sampling("picture"), seeds)
    assert (other != expected).any(axis=(1, 2, 3)).tolist() == [False] * 4 + [True]
    for name in ("z_image", "c_image", "c_text"):
        assert (pictures_of(tiny, encoded.rolled(name)) != expected).any(), name
    for name, weight in (("c_text", 1.0), ("c_image", 0.0)):
        found = pictures_of(tiny, encoded.rolled(name), image_weight=weight)
        np.testing.assert_array_equal(found, pictures_of(tiny, encoded, image_weight=weight))


def test_absent_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    for name, weight in (("c_image", 1.0), ("c_text", 0.0)):
        expected = pictures_of(tiny, encoded, image_weight=weight)
        for given in (0.0, 0.3, 1.0):
            found = pictures_of(tiny, encoded, use=[name], image_weight=given)
            np.testing.assert_array_equal(found, expected, "the other has all of the share")
    empty = {name: rows.numpy().repeat(COUNT, axis=0) for name, rows in tiny.unconditional_contexts().items()}
    settings = dataclasses.replace(tiny.sampling("picture"), guidance_scale=1.0)
    expected = tiny.sample("picture", encoded.z_image, empty, settings, SEEDS)
    for scale in (0.0, 1.0, 7.5):
        assert off(pictures_of(tiny, encoded, use=[], guidance_scale=scale), expected) <= 1, "they guide alone"


def test_the_callback_sees_where_every_step_leads(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    seen: list[tuple[int, int, np.ndarray]] = []
    inputs = (encoded.z_image, encoded.contexts, tiny.sampling("picture"), SEEDS)
    found = like(tiny, 3).sample("picture", *inputs, lambda *state: seen.append(state))
    assert [(step, steps, len(x0)) for step, steps, x0 in seen] == [
        (step, 3, rows) for rows in (3, 2) for step in (1, 2, 3)
    ]
    # The last step leads almost to its x0 (the schedule's first level is not quite clean).
    last = np.concatenate([x0 for step, steps, x0 in seen if step == steps])
    assert np.abs(tiny.decode("picture", last).astype(int) - found).mean() < 3


@pytest.mark.parametrize("kind", ["picture", "caption"])
def test_what_leaves_the_range_of_numbers_stops_and_names_the_row(
    tiny: VersatileDiffusion, encoded: Encoded, kind: str
) -> None:
    start = {"picture": encoded.z_image, "caption": encoded.z_text}[kind].copy()
    extreme = dataclasses.replace(tiny.sampling(kind), guidance_scale=1e30)
    with pytest.raises(SamplingError, match=rf"the {kind} of row 0 .*guidance_scale than 1e\+30") as caught:
        tiny.sample(kind, start, encoded.contexts, extreme, SEEDS)
    assert isinstance(caught.value, InputError)
    start[3].flat[1] = np.nan
    for call in (
        lambda: like(tiny, 2).sample(kind, start, encoded.contexts, tiny.sampling(kind), SEEDS),
        lambda: like(tiny, 2).decode(kind, start),
    ):
        with pytest.raises(SamplingError, match="row 3") as caught:
            call()
        assert caught.value.row == 3


def test_unconditional_contexts(tiny: VersatileDiffusion, encoded: Encoded) -> None:
    for kind, level in (("grey", 127), ("black", 0)):
        contexts = like(tiny, unconditional_image=kind).unconditional_contexts()
        even = np.full((1, 24, 24, 3), level, dtype=np.uint8)
        np.testing.assert_array_equal(contexts["c_image"].numpy(), tiny.encode("c_image", even))
        np.testing.assert_array_equal(contexts["c_text"].numpy(), tiny.encode("c_text", [""]))
    zeros = like(tiny, unconditional_image="zeros").unconditional_contexts()["c_image"]
    assert torch.equal(zeros, torch.zeros(1, 5, 16))
    black = like(tiny, unconditional_image="black")
    for scale, matters in ((4.0, True), (1.0, False)):
        pair = (pictures_of(one, encoded, guidance_scale=scale) for one in (black, tiny))
        assert bool(off(*pair)) == matters


def test_contexts_and_timesteps_are_projected_once(
    tiny: VersatileDiffusion, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = like(tiny, 3)
    rows: list[tuple[str, int]] = []
    prepare = tiny.flows.prepare

    def watch(name: str, context: torch.Tensor, share: float = 1.0) -> Any:
        rows.append((name, len(context)))
        return prepare(name, context, share)

    monkeypatch.setattr(tiny.flows, "prepare", watch)
    embedded: list[int] = []
    embed_time = tiny.flows.embed_time

    def watch_time(timesteps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        embedded.append(len(timesteps))
        return embed_time(timesteps, dtype)

    monkeypatch.setattr(tiny.flows, "embed_time", watch_time)
    for _ in range(2):
        pictures_of(one, encoded)
        captions_of(one, encoded)
    once = [entry for entry in rows if entry[1] == 1]
    assert sorted(once) == [("c_image", 1), ("c_text", 1)]
    # Two batches, two flows, two runs, two contexts; nothing per step.
    assert len(rows) - len(once) == 16
    assert embedded == [3] * 8, "the timesteps of a batch are embedded at once"


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda b, e, s: b.sample("picture", np.zeros((5, 4, 7, 8)), e.contexts, s, SEEDS), "(5, 4, 7, 8)"),
        (lambda b, e, s: b.sample("picture", None, {"c_image": e.c_image[..., :8]}, s, SEEDS), "(5, 5, 8)"),
        (lambda b, e, s: b.sample("picture", None, {"c_depth": e.c_image}, s, SEEDS), "c_depth"),
        (lambda b, e, s: b.sample("caption", e.z_text[:4], e.contexts, s, SEEDS), "[4, 5]"),
        (lambda b, e, s: b.sample("caption", None, {}, s, SEEDS[:0]), "[0]"),
        (lambda b, e, s: b.decode("picture", e.z_text), "(5, 16)"),
        (lambda b, e, s: b.decode("caption", np.zeros((0, 16))), "[0]"),
        (lambda b, e, s: b.encode("z_text", []), "nothing"),
        (lambda b, e, s: b.encode("c_text", "a dog"), "list of strings"),
        (lambda b, e, s: b.encode("c_text", ["a dog", 3]), "list of strings"),
        (lambda b, e, s: b.encode("c_image", np.full((1, 16, 16, 3), 0.5)), "float64"),
        (lambda b, e, s: b.encode("z_image", np.zeros((16, 16, 3), dtype=np.uint8)), "(16, 16, 3)"),
        (lambda b, e, s: b.encode("z_image", np.zeros((1, 3, 16, 16), dtype=np.uint8)), "(1, 3, 16, 16)"),
    ],
)
def test_wrong_inputs_are_named(tiny: VersatileDiffusion, encoded: Encoded, call: Any, names: str) -> None:
    with pytest.raises(InputError) as caught:
        call(tiny, encoded, SamplingSettings(0.5, steps=5))
    assert names in str(caught.value)
