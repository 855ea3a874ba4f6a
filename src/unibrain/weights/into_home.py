"""Converting files into the place where backbones are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from unibrain.weights.manifest import DtypeChoice, Origin, Role

__all__ = ["Convert", "convert_files", "fetch_record"]


class Convert(Protocol):
    """How files become a backbone folder; a test may put another one in its place."""

    def __call__(
        self,
        files: Mapping[Role, Path],
        target: Path,
        *,
        dtype: DtypeChoice,
        origins: Mapping[Role, Origin],
        replace: bool,
    ) -> object:
        """Write `target`, whole or not at all."""


def convert_files(
    files: Mapping[Role, Path],
    target: Path,
    *,
    dtype: DtypeChoice,
    origins: Mapping[Role, Origin],
    replace: bool,
) -> object:
    """Call `unibrain.weights.convert.convert`; only then PyTorch is needed."""
    from unibrain.weights.convert import convert

    return convert(files, target, dtype=dtype, origins=origins, replace=replace)


def fetch_record(home: Path, name: str) -> Path:
    """File that says what a finished fetch was asked for."""
    return home / f".{name}.fetched.json"
