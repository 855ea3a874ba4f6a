"""The `Subject`: what the decoder needs to know of one person's scans."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """One subject's prepared scans: one row per image, repeats averaged, z-scored with training statistics.

    Attributes
    ----------
    name : str
        For example ``"subj01"``.
    betas : ndarray of shape (images, voxels), float32
        Response of every voxel to every image, z-scored with the mean and deviation (ddof 1) of the training images.
    stimulus_ids : ndarray of shape (images,), int64
        0-based ids of the images (NSD's 73k ids), unique.
    is_test : ndarray of shape (images,), bool
        True for the images that are held out.
    repeats : ndarray of shape (images,), int64
        How many trials were averaged, at least 1.
    voxel_indices : ndarray of shape (voxels,), int64
        Position of each voxel in the flattened grid (C order of the NIfTI's X, Y, Z).
    grid_shape : tuple of int
        X, Y, Z of the volume.
    regions : mapping of str to ndarray of shape (voxels,), bool
        Region name (for example ``"V1"``, ``"faces"``) to its voxels; a voxel may be in several or none.
    noise_ceiling : ndarray of shape (voxels,), float32
        Explainable variance of the average of three repeats, in percent (0 to 100); NaN where it is not known.
    simulated : bool
        True if no human was scanned. Shown wherever numbers of this subject appear.
    """

    name: str
    betas: NDArray[np.float32]
    stimulus_ids: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    repeats: NDArray[np.int64]
    voxel_indices: NDArray[np.int64]
    grid_shape: tuple[int, int, int]
    regions: Mapping[str, NDArray[np.bool_]]
    noise_ceiling: NDArray[np.float32]
    simulated: bool

    def __post_init__(self) -> None:
        if self.betas.ndim != 2:
            raise InputError(f"{self.name}: betas have shape {self.betas.shape}, expected (images, voxels)")
        images, voxels = self.betas.shape
        self._expect_length(("stimulus_ids", "is_test", "repeats"), images, "image")
        self._expect_length(("voxel_indices", "noise_ceiling"), voxels, "voxel")
        for region, mask in self.regions.items():
            if mask.shape != (voxels,) or mask.dtype != np.bool_:
                raise InputError(
                    f"{self.name}: region {region} is {mask.dtype} of shape {mask.shape}, "
                    f"expected bool of shape ({voxels},)"
                )
        if not np.isfinite(self.betas).all():
            raise InputError(
                f"{self.name}: the betas hold NaN or infinite values, expected finite ones: "
                "exclude those voxels before preparing"
            )
        if len(np.unique(self.stimulus_ids)) != images:
            raise InputError(
                f"{self.name}: an image id appears twice, expected one row per image: "
                "average the repeats, and keep test images out of training"
            )

    def _expect_length(self, fields: tuple[str, ...], length: int, item: str) -> None:
        for field in fields:
            shape = getattr(self, field).shape
            if shape != (length,):
                raise InputError(f"{self.name}: {field} has shape {shape}, expected ({length},), one entry per {item}")

    @property
    def train(self) -> "Subject":
        """The training images only."""
        return self.select(~self.is_test)

    @property
    def test(self) -> "Subject":
        """The held-out images only."""
        return self.select(self.is_test)

    def select(self, images: NDArray[np.bool_] | NDArray[np.int64]) -> "Subject":
        """Keep some images.

        Parameters
        ----------
        images : ndarray
            Mask of shape (images,) or row numbers.

        Returns
        -------
        Subject
        """
        return replace(
            self,
            betas=self.betas[images],
            stimulus_ids=self.stimulus_ids[images],
            is_test=self.is_test[images],
            repeats=self.repeats[images],
        )
