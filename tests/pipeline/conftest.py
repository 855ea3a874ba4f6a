import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import cheaply, custom_settings, toy

from unibrain.pipeline import RunFolder, run_all

PICTURES = 30


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    with cheaply():
        yield


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A laboratory's thirty pictures of 64 pixels, seen once each; voxels are noisy mixtures of their colours."""
    root, random = tmp_path_factory.mktemp("lab"), np.random.default_rng(2)
    colours = 128 + 50 * random.normal(size=(PICTURES, 3)) @ random.normal(size=(3, 192))
    coarse = colours.clip(0, 255).astype(np.uint8).reshape(PICTURES, 8, 8, 3)
    (root / "shown").mkdir()
    for number, picture in enumerate(coarse):
        Image.fromarray(picture.repeat(8, 0).repeat(8, 1)).save(root / "shown" / f"{number:02d}.png")
    features = coarse.reshape(PICTURES, -1) / 127.5 - 1
    np.save(root / "betas.npy", features @ random.normal(size=(192, 50)) + random.normal(size=(PICTURES, 50)))
    np.save(root / "early.npy", np.arange(50) < 20)
    for name, captioned in (("trials.csv", True), ("silent.csv", False)):
        with (root / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["scan_from_1", "picture", *["captions"] * captioned])
            for n in range(PICTURES):
                writer.writerow([n + 1, f"{n:02d}.png", *[f"a red car {n}|the dog {n}"] * captioned])
    return root


@pytest.fixture(scope="session")
def spoken(export: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run on custom data with captions; not to be changed."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "spoken")
    with cheaply():
        run_all(run, custom_settings(export), toy())
    return run
