"""How a decoder's file refers to the latents it was fitted to, and finds them again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.latents.stored import StoredLatents, reopen_latents

__all__ = ["find_targets", "refer_to"]


def refer_to(latents: StoredLatents, decoder: Path) -> dict[str, str]:
    """Where the targets lie, seen from the decoder's file, and what they are.

    Parameters
    ----------
    latents : StoredLatents
    decoder : pathlib.Path
        The file that will refer to them.

    Returns
    -------
    dict of str to str
        ``relative`` and ``absolute`` path (or the address, twice), ``manifest_sha256`` and ``signature``.
    """
    relative = absolute = latents.folder
    if "://" not in latents.folder:
        absolute = str(Path(latents.folder).resolve())
        try:
            relative = Path(os.path.relpath(absolute, decoder.parent.resolve())).as_posix()
        except ValueError:
            # Another drive: there is no relative path.
            relative = absolute
    return {
        "relative": relative,
        "absolute": absolute,
        "manifest_sha256": latents.manifest_sha256,
        "signature": latents.signature,
    }


def find_targets(
    reference: Mapping[str, Any], decoder: Path, moved_to: str | os.PathLike[str] | None = None
) -> StoredLatents:
    """Open the targets that a decoder refers to, if they are still the same.

    Whatever is found is only read, and only if its checksums are those of the fit.

    Parameters
    ----------
    reference : mapping
        From `refer_to`.
    decoder : pathlib.Path
        The decoder's file.
    moved_to : path-like, optional
        Where they lie now.

    Returns
    -------
    StoredLatents
        All rows of the store.

    Raises
    ------
    InputError
        If they are not there, or changed since the fit.
    """
    known = str(reference["manifest_sha256"]), str(reference["signature"])
    if moved_to is not None:
        return reopen_latents(moved_to, *known)
    if "://" in reference["absolute"]:
        return reopen_latents(reference["absolute"], *known)
    beside = Path(os.path.normpath(decoder.parent / reference["relative"]))
    for place in (beside, Path(reference["absolute"])):
        if (place / "manifest.json").is_file():
            return reopen_latents(place, *known)
    raise InputError(
        f"{decoder}: its training targets are not at {beside}, expected the latents that it was fitted to: put them "
        "back, name their new folder (BrainDecoder.load(path, targets=...)), or fit again"
    )
