from importlib import import_module
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity as skimage_ssim

from unibrain.errors import InputError
from unibrain.evaluation import METRICS, evaluate
from unibrain.evaluation.dialects import (
    DIALECTS,
    check_images,
    dialect_metrics,
    in_all_dialects,
    network_inputs,
    pixel_pictures,
)
from unibrain.evaluation.identification import correlations, identify
from unibrain.evaluation.networks import features as networks
from unibrain.pipeline import EvaluateSection
from unibrain.reconstruction import Decoded
from unibrain.stimuli import Stimuli

SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


@pytest.fixture(autouse=True)
def _few_shuffles(monkeypatch):
    monkeypatch.setattr(import_module("unibrain.evaluation.evaluate"), "_SHUFFLES", 1)


@pytest.fixture(scope="module")
def pair():
    """Four smooth pictures of 425 x 425, and noisy ones of 512 x 512."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (4, 9, 9, 3)).astype(np.uint8)
    seen = np.stack([np.asarray(Image.fromarray(c).resize((425, 425), Image.Resampling.BICUBIC)) for c in coarse])
    decoded = np.stack([np.asarray(Image.fromarray(c).resize((512, 512), Image.Resampling.BICUBIC)) for c in coarse])
    decoded = np.clip(decoded + random.normal(0, 40, decoded.shape), 0, 255).astype(np.uint8)
    return seen, decoded


@pytest.fixture(scope="module")
def results(pair):
    seen, decoded = pair
    ids = np.arange(len(seen))
    return Decoded(ids, decoded), Stimuli(ids, {}, lambda asked: seen[asked], "pictures", has_captions=False)


def pil(pictures, side):
    return [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC)) / 255 for p in pictures]


def tensor(pictures, *sides, antialias):
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    for side in sides:
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=antialias)
    return list(x.permute(0, 2, 3, 1).numpy())


def ssim_of_columns(a, b):
    """One-dimensional SSIM of every column, as scikit-image 0.17 computed a grey picture with multichannel=True."""
    x, y = rgb2gray(a), rgb2gray(b)

    def smooth(values):
        return gaussian_filter1d(values, 1.5, axis=0, truncate=3.5)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    value = (2 * mean_x * mean_y + 1e-4) * (2 * both + 9e-4)
    value /= (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    return value[5:-5].mean()


PATHS = {
    "brain-diffuser": lambda x: pil(x, 425),
    "mindeye": lambda x: tensor(x, 256, 425, antialias=False),
    "mindeye-aa": lambda x: tensor(x, 256, 425, antialias=True),
    "nsd-imagery": lambda x: tensor(x, 512, antialias=False),
}


@pytest.mark.parametrize("name", PATHS)
def test_pixel_metrics_follow_their_scripts(pair, results, name):
    seen, decoded = (PATHS[name](side) for side in pair)
    metrics = {key: dialect_metrics(name)[key] for key in ("pixcorr", "ssim")}
    scores = evaluate(*results, None, simulated=False, metrics=metrics, dialect=name)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(seen, decoded, strict=True)]
    np.testing.assert_allclose(scores["pixcorr"].per_image, correlation, atol=1e-5)
    if name == "brain-diffuser":
        similar = [ssim_of_columns(a, b) for a, b in zip(seen, decoded, strict=True)]
    else:
        similar = [skimage_ssim(rgb2gray(b), rgb2gray(a), **SSIM) for a, b in zip(seen, decoded, strict=True)]
    np.testing.assert_allclose(scores["ssim"].per_image, similar, atol=1e-5)
    assert {score.dialect for score in scores.scores} == {name}
    assert all(score.image_path and score.versions["scikit-image"] for score in scores.scores)


def test_what_a_bottleneck_without_antialias_does():
    random = np.random.default_rng(1)
    large, middle = (random.integers(0, 256, (1, side, side, 3)).astype(np.uint8) for side in (768, 512))
    rows = DIALECTS["mindeye"]
    inputs = [next(network_inputs(rows, "clip-vit-l-14", x)) for x in (large, middle)]
    picked = torch.from_numpy(large[:, 1::3, 1::3]).permute(0, 3, 1, 2).float() / 255
    averaged = torch.from_numpy(middle.reshape(1, 256, 2, 256, 2, 3).mean((2, 4))).permute(0, 3, 1, 2).float() / 255
    for found, expected in zip(inputs, (picked, averaged), strict=True):
        shrunk = torch.nn.functional.interpolate(expected, (224, 224), mode="bilinear")
        torch.testing.assert_close(found, shrunk, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DIALECTS)
def test_networks_get_squares_from_0_to_1(pair, name):
    dialect = DIALECTS[name]
    assert {network for network, _ in dialect.layers.values()} == set(dialect.sides)
    for network, side in dialect.sides.items():
        (batch,) = network_inputs(dialect, network, pair[1])
        assert batch.shape == (4, 3, side, side)
        assert batch.dtype == torch.float32
        assert 0 <= batch.min() <= batch.max() <= 1
        assert len(batch.unique()) > 50


def test_takagi_cuts_the_middle_out():
    wide = np.zeros((1, 300, 600, 3), np.uint8)
    wide[:, :, 200:400] = 255
    (batch,) = network_inputs(DIALECTS["takagi"], "alexnet", wide)
    assert batch[0, 0, 150, [60, 150, 240]].tolist() == [1, 1, 1]
    assert batch[0, 0, 150, [10, 290]].tolist() == [0, 0]


class FakeNetworks:
    """Stand-ins for published networks: each gives the colours of a small version of the picture."""

    def load_network(self, name):
        return SimpleNamespace(name=name, sha256=name)

    def extract(self, loaded, batches, layers):
        rows = torch.cat([torch.nn.functional.adaptive_avg_pool2d(batch, 4).flatten(1) for batch in batches])
        return {layer: rows.numpy() for layer in layers}


@pytest.fixture
def with_networks(monkeypatch):
    fake = FakeNetworks()
    monkeypatch.setattr(networks, "load_network", fake.load_network)
    monkeypatch.setattr(networks, "extract", fake.extract)
    return fake


@pytest.mark.parametrize("name", DIALECTS)
def test_network_scores_follow_the_dialect(pair, results, with_networks, name):
    dialect, (seen, decoded) = DIALECTS[name], pair
    metrics = {key: dialect_metrics(name)[key] for key in dialect.layers}
    scores = evaluate(*results, None, simulated=False, dialect=name, metrics=metrics)
    for key, (network, layer) in dialect.layers.items():
        a, b = (
            with_networks.extract(None, network_inputs(dialect, network, side), [layer])[layer]
            for side in (seen, decoded)
        )
        similarity = np.corrcoef(a, b)[:4, 4:]
        np.testing.assert_allclose(correlations(a, b), similarity, atol=1e-5)
        score = scores[key]
        if key in ("effnet", "swav"):
            np.testing.assert_allclose(score.per_image, 1 - similarity.diagonal(), atol=1e-5)
            assert not score.higher_is_better
        else:
            minus = 1 / 3 if name == "nsd-imagery" else 0
            assert score.value == pytest.approx(identify(similarity, dialect.direction).mean() - minus)
            assert score.direction == ("image->recons" if name == "takagi" else "recon->images")


def test_standard_leaves_out_networks_that_are_not_there(results, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not {"alexnet2", "clip"} & {score.name for score in evaluate(*results, None, simulated=False).scores}
    missing = evaluate(*results, None, simulated=False, dialect="mindeye")["clip"]
    assert missing.value is None
    assert "unibrain weights fetch metrics" in missing.note


def test_all_dialects_on_the_same_pictures(results):
    lines = in_all_dialects(*results).splitlines()
    assert lines[0].split() == list(DIALECTS)
    values = {line.split()[0]: line.split()[1:] for line in lines[1:3]}
    assert list(values) == ["PixCorr", "SSIM"]
    assert len(set(values["SSIM"][:5])) == 5
    assert values["SSIM"][-1] == "-"


@pytest.mark.parametrize(
    ("name", "images", "said"), [("mindeye", 12, "982 or 1000"), ("mindeye", 982, ""), ("standard", 12, "")]
)
def test_numbers_of_images(name, images, said):
    found = check_images(name, images)
    assert said in found
    assert bool(found) == bool(said)


def test_unknown_dialect():
    with pytest.raises(InputError, match=r"'mind-eye'.*mindeye-aa"):
        dialect_metrics("mind-eye")


def test_captions_are_scored_in_every_dialect():
    captions = [name for name, row in METRICS.items() if row.kind == "caption"]
    for name in DIALECTS:
        assert set(captions) <= set(dialect_metrics(name))


def test_uint8_in_pixels_of_pillow(pair):
    assert pixel_pictures(DIALECTS["brain-diffuser"], pair[1]).dtype == np.uint8


def test_settings_know_every_dialect():
    assert set(get_args(EvaluateSection.model_fields["dialect"].annotation)) == set(DIALECTS)


def test_an_undefined_distance_is_not_a_perfect_one(results, monkeypatch):
    monkeypatch.setattr(networks, "load_network", lambda name: SimpleNamespace(sha256=name))
    monkeypatch.setattr(networks, "extract", lambda loaded, batches, layers: {layers[0]: np.ones((4, 8), np.float32)})
    metrics = {"effnet": dialect_metrics("mindeye")["effnet"]}
    score = evaluate(*results, None, simulated=False, dialect="mindeye", metrics=metrics)["effnet"]
    assert (score.value, score.control) == (1, 1)
    assert "counted as 1: 4" in score.note
