"""What the simulated voxels follow, and how noisy they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import convolve2d
from scipy.stats import norm

from unibrain.demo import Scene, SimulationSettings, load_catalogue, render, sample_scene, simulate_nsd
from unibrain.demo.anatomy import PICTURE_DEGREES, Anatomy, ReceptiveFields, build_anatomy
from unibrain.demo.settings import DIFFICULTIES
from unibrain.demo.voxels import (
    CYCLES,
    ORIENTATIONS,
    EarlyTuning,
    TrialNoise,
    Tuning,
    draw_tuning,
    early_responses,
    filter_maps,
    semantic_responses,
    signal,
)
from unibrain.scans import read_nsd

SCENES = 80
TRAINING = np.arange(SCENES) >= 10


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return build_anatomy((14, 16, 12), np.random.default_rng(3))


@pytest.fixture(scope="module")
def tuning(anatomy: Anatomy) -> Tuning:
    return draw_tuning(anatomy, load_catalogue(), np.random.default_rng(4))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(9, index, "train") for index in range(SCENES)]


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> np.ndarray:
    return np.stack([render(scene, 32) for scene in scenes])


@pytest.fixture(scope="module")
def responses(tuning: Tuning, scenes: list[Scene], pictures: np.ndarray) -> np.ndarray:
    return signal(tuning, pictures, scenes, TRAINING)


def relabelled(scene: Scene) -> Scene:
    """The same scene with other objects and another place, by name."""
    others = load_catalogue()
    placements = tuple(
        replace(placement, object=others[(others.index(placement.object) + 40) % len(others)])
        for placement in scene.placements
    )
    return replace(scene, placements=placements, background="beach" if scene.background != "beach" else "forest")


def test_signal_has_mean_zero_and_variance_one_over_training_images(responses: np.ndarray) -> None:
    assert np.isfinite(responses).all()
    np.testing.assert_allclose(responses[TRAINING].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(responses[TRAINING].std(axis=0), 1, atol=1e-3)


def test_early_voxels_do_not_follow_labels(
    tuning: Tuning, scenes: list[Scene], pictures: np.ndarray, responses: np.ndarray
) -> None:
    others = [relabelled(scene) if row < 5 else scene for row, scene in enumerate(scenes)]
    changed = signal(tuning, pictures, others, TRAINING)
    np.testing.assert_array_equal(changed[:, tuning.is_early], responses[:, tuning.is_early])
    assert (np.abs(changed[:5, ~tuning.is_early] - responses[:5, ~tuning.is_early]).max(axis=1) > 0.5).all()


def test_semantic_voxels_do_not_follow_pixels(
    tuning: Tuning, scenes: list[Scene], pictures: np.ndarray, responses: np.ndarray
) -> None:
    others = pictures.copy()
    others[:5] = 255 - others[:5, :, ::-1]
    changed = signal(tuning, others, scenes, TRAINING)
    np.testing.assert_array_equal(changed[:, ~tuning.is_early], responses[:, ~tuning.is_early])
    assert (np.abs(changed[:5, tuning.is_early] - responses[:5, tuning.is_early]).max(axis=1) > 0.5).all()


@pytest.mark.parametrize("region", ["faces", "bodies", "places", "words"])
def test_category_regions_prefer_their_category(
    anatomy: Anatomy, tuning: Tuning, scenes: list[Scene], responses: np.ndarray, region: str
) -> None:
    shows = np.array([any(p.object.category == region for p in scene.placements) for scene in scenes])
    contrast = responses[shows].mean(axis=0) - responses[~shows].mean(axis=0)
    assert contrast[anatomy.areas == region].mean() > 0.5
    assert abs(contrast[anatomy.areas == "ventral"].mean()) < 0.35


def test_larger_objects_answer_more(
    tuning: Tuning, anatomy: Anatomy, scenes: list[Scene], pictures: np.ndarray
) -> None:
    face = next(thing for thing in load_catalogue() if thing.category == "faces")
    at = scenes[20].placements[0]
    small, large = (replace(scenes[20], placements=(replace(at, object=face, size=size),)) for size in (0.4, 0.8))
    values = signal(tuning, pictures, [small, large, *scenes[2:]], TRAINING)[:2, anatomy.areas == "faces"].mean(axis=1)
    assert values[1] > values[0] + 0.3


def test_receptive_fields_are_where_they_should_be(anatomy: Anatomy) -> None:
    areas = anatomy.areas[anatomy.is_early]
    fields = anatomy.fields
    left = anatomy.left[anatomy.nsdgeneral][anatomy.is_early]
    assert (fields.x[left] > 0).all()
    assert (fields.x[~left] < 0).all()
    labels = anatomy.labels["prf-visualrois"][anatomy.nsdgeneral][anatomy.is_early]
    assert (fields.y[np.isin(labels, (1, 3, 5))] > 0).all()  # ventral: upper field
    assert (fields.y[np.isin(labels, (2, 4, 6))] < 0).all()
    sizes = [np.median(fields.sigma[areas == area]) for area in ("V1", "V2", "V3", "V4")]
    assert sizes == sorted(sizes)
    for area in ("V1", "V2", "V3", "V4"):
        near = fields.eccentricity[areas == area] < 1
        assert fields.sigma[areas == area][near].max() < fields.sigma[areas == area][~near].min()
    rings = anatomy.labels["prf-eccrois"][anatomy.nsdgeneral][anatomy.is_early]
    np.testing.assert_array_equal(rings, np.digitize(fields.eccentricity, (0.5, 1, 2, 4)) + 1)


def test_a_voxel_sees_only_its_receptive_field() -> None:
    x, y = 2.0, 1.5  # degrees to the right and upwards
    field = ReceptiveFields(np.array([x]), np.array([y]), np.array([0.3]))
    tuning = EarlyTuning(
        field, np.ones((1, 12), np.float32), np.array([[1.0, 0, 0]], np.float32), np.ones(1, np.float32)
    )
    pictures = np.full((3, 64, 64, 3), 90, dtype=np.uint8)
    row, column = (round((0.5 - y / PICTURE_DEGREES) * 64), round((0.5 + x / PICTURE_DEGREES) * 64))
    pictures[1, row - 2 : row + 2, column - 2 : column + 2] = 255
    pictures[2, 64 - row - 2 : 64 - row + 2, 64 - column - 2 : 64 - column + 2] = 255
    energy, luminance = early_responses(pictures, tuning)
    assert luminance[1, 0] > luminance[0, 0] + 0.1
    assert luminance[2, 0] == pytest.approx(luminance[0, 0], abs=1e-4)
    assert energy[1, 0] > 10 * energy[2, 0]


def test_filters_answer_to_their_own_frequency_and_orientation() -> None:
    """A grating drives the filter it was made for most, whatever its phase."""
    down, across = np.mgrid[:64, :64] / 64
    bank = [(cycles, number * np.pi / ORIENTATIONS) for cycles in CYCLES for number in range(ORIENTATIONS)]
    energies = []
    for phase in (0.0, 1.3):
        waves = [np.cos(2 * np.pi * c * (across * np.cos(a) + down * np.sin(a)) + phase) for c, a in bank]
        pictures = np.repeat(np.rint(128 + 90 * np.array(waves))[..., None], 3, axis=-1).astype(np.uint8)
        energies.append(filter_maps(pictures)[:12, :, 8:24, 8:24].mean(axis=(2, 3)).T)
    for energy in energies:
        gain = energy / np.repeat(np.array(CYCLES) / CYCLES[0], ORIENTATIONS)
        np.testing.assert_array_equal(gain.argmax(axis=1), np.arange(12))
    np.testing.assert_allclose(np.diag(energies[0]), np.diag(energies[1]), rtol=0.05)


def test_filter_maps_equal_a_convolution_in_space() -> None:
    """One Gabor of the bank, built in space and applied by scipy, sampled between the pixels, away from the border."""
    picture = render(sample_scene(1, 5, "train"), 64)
    sigma = 64 / (2 * np.pi * 0.35 * CYCLES[1])
    down, across = np.mgrid[-19.5:20, -19.5:20]
    envelope = np.exp(-(across**2 + down**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    gabor = envelope * np.exp(2j * np.pi * CYCLES[1] * across / 64)
    luminance = np.pad((picture / 255) @ np.array([0.299, 0.587, 0.114]), 20, mode="edge")
    luminance -= luminance[12:-12, 12:-12].mean()
    between = convolve2d(luminance, gabor, mode="valid")[1::2, 1::2]
    expected = CYCLES[1] / CYCLES[0] * np.abs(between)
    found = filter_maps(picture[None])[ORIENTATIONS, 0]
    np.testing.assert_allclose(found[8:24, 8:24], expected[8:24, 8:24], atol=1e-3 * expected.max())


def test_shared_noise_has_the_signals_covariance(responses: np.ndarray) -> None:
    train = responses[TRAINING]
    noise = TrialNoise(train, DIFFICULTIES["realistic"], np.random.default_rng(0))
    noise.private[:] = 0
    drawn = noise.draw(20_000, np.random.default_rng(1))[:, :60]
    signal_covariance = 4 * np.cov(train[:, :60], rowvar=False, ddof=0)  # scale 2, squared
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), signal_covariance, atol=0.2)


@pytest.mark.parametrize(("difficulty", "ceiling"), [("easy", 30), ("realistic", 18)])
def test_noise_ceiling_is_in_the_published_range(tmp_path: Path, difficulty: str, ceiling: float) -> None:
    """NSD's eight subjects: a median of 13 to 34 % over nsdgeneral for three repeats."""
    settings = SimulationSettings(
        difficulty=difficulty,
        training_images=400,
        test_images=20,
        sessions=3,
        grid=(12, 14, 10),
        picture_size=32,
    )
    simulate_nsd(tmp_path / "tree", settings)
    median = np.nanmedian(read_nsd(tmp_path / "tree").noise_ceiling)
    assert 13 < median < 34
    assert median == pytest.approx(ceiling, abs=3)
    assert DIFFICULTIES[difficulty].shared_scale == (1 if difficulty == "easy" else 2)


def test_semantic_fields_bind_meaning_and_place(anatomy: Anatomy, scenes: list[Scene], pictures: np.ndarray) -> None:
    """With receptive fields a semantic voxel answers to an object by how much of its own field the object fills."""
    tuning = draw_tuning(anatomy, load_catalogue(), np.random.default_rng(4), semantic_fields=True)
    fields = tuning.semantic.fields
    left = anatomy.left[anatomy.nsdgeneral][~anatomy.is_early]
    assert (fields.x[left] > 0).all()
    assert (fields.x[~left] < 0).all()
    at = scenes[20].placements[0]
    places = [replace(scenes[20], placements=(replace(at, x=x, size=0.5),)) for x in (0.25, 0.75)]
    values = signal(tuning, pictures, [*places, *scenes[2:]], TRAINING)[:2, ~tuning.is_early]
    assert np.abs(values[0] - values[1]).mean() > 0.2
    # Of the noise-free answer to one object, what a voxel likes is a factor, and the share of its field another.
    likes = tuning.semantic.weights["objects"][[thing.name for thing in load_catalogue()].index(at.object.name)]
    right = replace(at, x=0.75, y=0.5, size=0.5)
    halves = [
        norm.cdf(np.array([[-0.25], [0.25]]) * PICTURE_DEGREES + centre, position, fields.sigma)
        for centre, position in ((0.25 * PICTURE_DEGREES, fields.x), (0, fields.y))
    ]
    expected = likes * (halves[0][1] - halves[0][0]) * (halves[1][1] - halves[1][0])
    found = semantic_responses([replace(scenes[20], placements=(right,))], tuning.semantic, load_catalogue())
    np.testing.assert_allclose(found["objects"][0], expected, atol=1e-5)


def test_without_fields_place_changes_nothing(
    tuning: Tuning, scenes: list[Scene], pictures: np.ndarray, responses: np.ndarray
) -> None:
    moved = [replace(s, placements=tuple(replace(p, x=1 - p.x) for p in s.placements)) for s in scenes]
    changed = signal(tuning, pictures, moved, TRAINING)
    np.testing.assert_array_equal(changed[:, ~tuning.is_early], responses[:, ~tuning.is_early])
