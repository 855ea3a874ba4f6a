"""Latents in an object store such as S3: written there once, then read by their address from any machine."""

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.latents.store import MANIFEST, filesystem_of, open_latents, read_manifest
from unibrain.latents.writer import LatentWriter
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_latents(folder: str | os.PathLike[str], address: str) -> None:
    """Copy a folder of latents to an object store, where `open_latents` opens them by their address.

    The manifest is written last, so that an address holds whole latents or none. What is stored as zarr keeps its
    checksums: a decoder that was fitted to the folder can be loaded with ``targets=address``.

    Parameters
    ----------
    folder : path-like
    address : str
        Such as ``s3://bucket/run/latents``. It needs `fsspec`, and `obstore` or another driver for that store.

    Raises
    ------
    InputError
        If there are no latents, or the store does not take them.
    """
    with _as_zarr(Path(folder)) as source:
        # Checked in full: what is copied is what was written.
        open_latents(source)
        files = sorted(path for path in source.rglob("*") if path.is_file() and path.name != MANIFEST)
        try:
            system, root = filesystem_of(address)
            for path in track([*files, source / MANIFEST], "to the object store", unit="file"):
                system.pipe_file(f"{root}/{path.relative_to(source).as_posix()}", path.read_bytes())
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"{address}: they cannot be written there ({' '.join(str(error).split())[:300]}): check the address, "
                "and that the driver for it is installed (pip install unibrain[cluster])"
            ) from error


@contextmanager
def _as_zarr(folder: Path) -> "Iterator[Path]":
    """The folder itself, or latents that are stored as npy, written as zarr beside it for the length of a block."""
    about = read_manifest(folder)
    if about["storage"] == "zarr":
        yield folder
        return
    stored = open_latents(folder)
    dtype: Any = next(array["dtype"] for name, array in about["arrays"].items() if name in stored.names)
    with TemporaryDirectory(dir=folder.parent, prefix=".zarr-") as temporary:
        target = Path(temporary, "latents")
        writer = LatentWriter(
            target,
            stored.stimulus_ids,
            about["backbone"],
            about["fingerprint"],
            about["choices"],
            storage="zarr",
            precision=dtype,
            resume=False,
        )
        writer.begin(stored.shapes)
        writer.write_rows(0, dict(stored.read().items()))
        writer.finish()
        yield target
