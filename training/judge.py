"""Fitting the judge of decoded scenes (`unibrain.evaluation.scene_judge`) to rendered training scenes."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from training.scenes import SceneSet
from unibrain.demo import BACKGROUNDS, load_catalogue
from unibrain.evaluation.pictures import picture_features
from unibrain.evaluation.scene_judge import Judge
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

SCENES = 12_000
DECAY = 3e-4
BLUR, NOISE = (0.2, 1.3), 8.0
"""Deviations of a Gaussian blur, in pixels, and largest deviation of noise, of 255, on every second 500 scenes."""


def scene_features(scenes: SceneSet, folder: Path, count: int = SCENES) -> NDArray[np.float32]:
    """Features of the first scenes, computed once; what is done is kept every 500 pictures.

    Half of the pictures are a little blurred and noisy, so that the judge looks at what is there and not at how sharp
    it is.
    """
    parts = []
    for first in track(range(0, count, 500), "features of scenes", unit="batch"):
        worse = bool(first // 500 % 2)
        file = folder / f"judge-features-{scenes.split}-{'worse-' * worse}{first}.npy"
        if not file.exists():
            pictures = np.array(scenes.pictures[first : min(first + 500, count)])
            if worse:
                pictures = np.stack([_worse(picture, first + row) for row, picture in enumerate(pictures)])
            with atomic_path(file) as temporary:
                np.save(temporary, picture_features(pictures))
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)


def _worse(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A blurred and noisy copy."""
    draw = np.random.default_rng([7, seed])
    blur, noise = draw.uniform(*BLUR), draw.uniform(0, NOISE)
    copy = gaussian_filter(picture.astype(np.float32), (blur, blur, 0))
    copy += noise * draw.standard_normal(picture.shape, dtype=np.float32)
    worse: NDArray[np.uint8] = np.clip(copy + 0.5, 0, 255).astype(np.uint8)
    return worse


def fit_judge(features: NDArray[np.float32], scenes: SceneSet) -> Judge:
    """Fit two softmax regressions; a picture of two objects counts half for each."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    x = torch.from_numpy(np.hstack([(features - mean) / deviation, np.ones((len(features), 1), np.float32)]))
    present = torch.zeros((len(x), len(load_catalogue()) + 1))
    for slot in (0, 1):
        present[torch.arange(len(x)), torch.from_numpy(scenes.objects[: len(x), slot])] += 1
    present = present[:, :-1]  # -1, no second object, fell into the last column
    behind = nn.functional.one_hot(torch.from_numpy(scenes.backgrounds[: len(x)]), len(BACKGROUNDS)).float()
    objects, backgrounds = (_softmax_regression(x, labels / labels.sum(1, True)) for labels in (present, behind))
    return Judge(mean, deviation, objects, backgrounds)


def _softmax_regression(x: Tensor, shares: Tensor) -> NDArray[np.float32]:
    weights = torch.zeros((x.shape[1], shares.shape[1]), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        optimiser.zero_grad()
        total = nn.functional.cross_entropy(x @ weights, shares) + DECAY * weights[:-1].square().sum()
        total.backward()
        return total

    optimiser.step(error)
    return weights.detach().numpy()


def write_judge(judge: Judge, path: Path) -> None:
    """Write the weights in half precision, as the package holds them."""
    with atomic_path(path) as temporary:
        save_file({name: values.astype(np.float16) for name, values in vars(judge).items()}, temporary)
