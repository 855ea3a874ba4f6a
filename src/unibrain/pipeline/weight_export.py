"""Ridge weights of a run's decoder, written to a file."""

import re
from collections.abc import Sequence
from pathlib import Path

from unibrain.errors import InputError
from unibrain.workspace.run_folder import RunFolder

__all__ = ["write_weights"]


def write_weights(
    run: RunFolder, latent: str, path: Path, targets: str = ":", regions: Sequence[str] | None = None
) -> tuple[int, int]:
    """Write the weights of some dimensions of a latent, and some voxels.

    Parameters
    ----------
    run : RunFolder
        With a fitted decoder.
    latent : str
    path : pathlib.Path
        An ``.npy`` file.
    targets : str
        ``"start:stop"`` in the flattened latent; either may be left out.
    regions : sequence of str, optional
        Regions whose voxels are written, in the order of the subject's voxels; all voxels by default.

    Returns
    -------
    tuple of int
        Number of voxels and of dimensions.

    Raises
    ------
    InputError
        If nothing is fitted, or a name or range is wrong.
    """
    from unibrain.regression import BrainDecoder, export_weights
    from unibrain.scans import load_subject

    found = re.fullmatch(r"(\d*):(\d*)", targets)
    if found is None:
        raise InputError(f"targets is {targets!r}, expected start:stop, such as 0:768: correct it")
    start, stop = (int(text) if text else None for text in found.groups())
    decoder = BrainDecoder.load(run.artefact("decoder") / "decoder.safetensors")
    masks = None
    if regions is not None:
        known = load_subject(run.artefact("subject")).regions
        absent = [name for name in regions if name not in known]
        if absent:
            raise InputError(
                f"{run.artefact('subject')} has no region {absent[0]}, expected some of {', '.join(sorted(known))}: "
                "choose among them"
            )
        masks = {name: known[name] for name in regions}
    weights = export_weights(decoder, latent, slice(start, stop), regions=masks, path=path)
    return weights.shape[0], weights.shape[1]
