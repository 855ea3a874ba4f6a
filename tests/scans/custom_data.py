"""A small set of a laboratory's own files, simulated: pictures, a table, and scans in every format."""

import csv
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

GRID = (4, 3, 5)
PICTURES = tuple(f"p{number:02d}.png" for number in range(8))


@dataclass
class CustomData:
    """Twelve scans of eight pictures, the last four pictures twice; 30 of 60 voxels are inside the mask."""

    root: Path
    volumes: np.ndarray
    mask: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        return self.volumes[self.mask].T

    @property
    def table(self) -> Path:
        return self.root / "trials.csv"

    @property
    def scans(self) -> Path:
        return self.root / "betas.npy"

    @property
    def mask_file(self) -> Path:
        return self.root / "mask.nii.gz"

    @property
    def pictures(self) -> Path:
        return self.root / "shown"

    def rows(self) -> list[dict[str, str]]:
        with self.table.open(newline="") as file:
            return list(csv.DictReader(file))

    def write_rows(self, rows: list[dict[str, str]], path: Path | None = None) -> None:
        with (path or self.table).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path and path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)

    def save_nifti(self, path: Path, volume: np.ndarray, shift: float = 0) -> Path:
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[0, 3] = shift
        nibabel.save(nibabel.Nifti1Image(volume, affine), path)
        return path


def make_custom_data(root: Path) -> CustomData:
    random = np.random.default_rng(5)
    (root / "shown").mkdir(parents=True)
    for name in PICTURES:
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / "shown" / name)
    mask = np.zeros(GRID, dtype=bool)
    mask.reshape(-1)[random.permutation(60)[:30]] = True
    shown = [*range(8), *range(4, 8)]
    volumes = random.normal(size=(*GRID, len(shown))).astype(np.float32)
    data = CustomData(root, volumes, mask)
    np.save(data.scans, data.matrix)
    data.save_nifti(data.mask_file, mask.astype(np.int16))
    data.write_rows(
        [
            {
                "scan_from_0": str(scan),
                "picture": PICTURES[picture],
                "captions": f"a thing {picture}|  something  like {picture} ",
                "session": "monday" if scan < 8 else "tuesday",
                "split": "test" if picture in (1, 5) else "train",
            }
            for scan, picture in enumerate(shown)
        ]
    )
    return data
