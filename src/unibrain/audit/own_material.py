"""What there is to audit in a laboratory's own scans, as they were imported."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.material import SessionBetas
from unibrain.errors import InputError
from unibrain.scans.custom_scans import read_mask
from unibrain.scans.custom_scans import open_scans
from unibrain.scans.custom_table import CustomTable
from unibrain.workspace.progress import track

__all__ = ["own_betas"]


def own_betas(
    table: CustomTable, scans: Path, mask: Path | None = None, dataset: str | None = None
) -> Iterator[SessionBetas]:
    """Go through the sessions of own scans; without sessions in the table, all scans are one.

    Parameters
    ----------
    table : CustomTable
    scans, mask, dataset
        As in `unibrain.scans.read_custom`.

    Yields
    ------
    SessionBetas

    Raises
    ------
    InputError
        If the scans or the mask cannot be opened, or are not those of the table.
    """
    matrix = open_scans(scans, None if mask is None else read_mask(mask), dataset)
    if matrix.scans != table.rows:
        raise InputError(
            f"{scans}: found {matrix.scans} scans, expected {table.rows} as {table.path.name} lists: import them again"
        )
    for session in track(range(1, len(table.sessions) + 1), "looking at betas", unit="session"):
        try:
            betas: NDArray[np.generic] = matrix.read(table.scans[table.session == session])
        except InputError as error:
            yield session, error
        else:
            yield session, betas.T
