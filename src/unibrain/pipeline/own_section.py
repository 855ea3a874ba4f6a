"""Settings of `unibrain import`: where a laboratory's own scans, pictures and table are."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from unibrain.pipeline.options import Section, option

__all__ = ["OwnSection"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_REGION = r"[A-Za-z0-9][A-Za-z0-9_.:-]*=[^;]+"


@dataclass(frozen=True)
class OwnSection(Section):
    """Settings of `unibrain.pipeline.prepare` for a laboratory's own data: what `unibrain import` takes."""

    section: ClassVar[str] = "own"

    scans: str | None = option(
        None,
        "Scans x voxels as npy, csv, tsv or HDF5 (FILE:DATASET), or volumes as 4-D NIfTI or GLMsingle's betasmd.",
        path=True,
    )
    pictures: str | None = option(None, "Folder of the pictures that were shown.", path=True)
    table: str | None = option(
        None,
        "Table (csv or tsv) with the columns scan_from_0 or scan_from_1, picture, captions, session, split.",
        path=True,
    )
    mask: str | None = option(
        None, "Voxels to read of volumes, above 0 (NIfTI or npy); for a matrix, where its voxels lie.", path=True
    )
    regions: str | None = option(
        None,
        "Masks of regions, on the grid of the mask or one value per voxel.",
        path=True,
        named_paths=True,
        pattern=rf"{_REGION}(;{_REGION})*",
        example="NAME=FILE, several separated by semicolons",
    )
    scan_base: int | None = option(
        None, "What a column named scan is counted from; left out: its name says it.", low=0, high=1
    )
    test_share: float = option(
        0.1, "Without a column split: share of the pictures that is held out.", above=0, high=0.9
    )
    split_seed: int = option(0, "Seed of that draw.", low=0, high=2**32 - 1)
    average: Literal["all", "test"] = option(
        "all", "Average the repeats of all pictures, or of test pictures only: then each training scan is a row."
    )
    zscore: Literal["train", "session", "none"] = option(
        "train", "Z-score by training statistics over all sessions, or of each session, or not."
    )
    crop: Literal["centre", "pad"] = option(
        "centre", "Oblong pictures: cut out the middle square, or add grey borders."
    )
    picture_size: int | None = option(
        None,
        "Side of the stored pictures in pixels; left out: the smallest picture's, at most 512.",
        low=16,
        high=2048,
    )
    name: str = option("own", "Name of the subject.", pattern=_NAME, example="letters, digits, dots and dashes")
    simulated: bool = option(False, "The scans are simulated: every page made of them then says so.")

    def region_files(self) -> dict[str, Path]:
        """`regions` as name to file."""
        pairs = (text.split("=", 1) for text in (self.regions or "").split(";") if text)
        return {name.strip(): Path(file) for name, file in pairs}
