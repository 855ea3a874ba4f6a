"""The flattened cortex of an NSD subject: fsaverage5 from nilearn, and NSD's own transforms to the voxels."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments import Bench
from unibrain.workspace.progress import say

_HEMISPHERES = {"lh": "left", "rh": "right"}
_WIDTH = 460.0
"""Of both hemispheres, in the units of the drawing."""

_LETTERS, _GAP = 12.0, 16.0

_NOWHERE = 9000
"""From here on a coordinate in NSD's transforms says that there is none."""


def flat_map(bench: Bench) -> dict[str, Any] | None:
    """Where voxels lie on the flattened fsaverage5; None where nilearn or the subject's transforms are not there.

    The mesh is read from nilearn when it is needed, and is no part of this package. A vertex shows the voxel at its
    place in the middle of the cortex (NSD's transforms ``func1pt8-to-layerB2`` and ``white-to-fsaverage``); vertices
    outside of the run's voxels are left out.
    """
    layout = bench.nsd
    if layout is None or find_spec("nilearn") is None:
        return None
    folder = layout.root / "nsddata" / "ppdata" / layout.name / "transforms"
    files = {
        side: (folder / f"{side}.func1pt8-to-layerB2.mgz", folder / f"{side}.white-to-fsaverage.mgz")
        for side in _HEMISPHERES
    }
    if not all(path.is_file() for paths in files.values() for path in paths):
        return None
    try:
        return place_vertices(
            {side: _flat_mesh(name) for side, name in _HEMISPHERES.items()},
            {side: vertex_voxels(bench, *paths) for side, paths in files.items()},
        )
    except (InputError, OSError, ValueError) as error:
        say(f"The flattened cortex cannot be shown ({error}); slices are.")
        return None


def _flat_mesh(side: str) -> NDArray[np.float64]:
    """Vertices of a flattened hemisphere of fsaverage5, shape (vertices, 2)."""
    import nibabel
    from nilearn.datasets import fetch_surf_fsaverage

    found = nibabel.load(fetch_surf_fsaverage("fsaverage5")[f"flat_{side}"])
    return np.asarray(found.darrays[0].data, dtype=np.float64)[:, :2]  # type: ignore[attr-defined]


def vertex_voxels(bench: Bench, to_volume: Path, to_native: Path) -> NDArray[np.int64]:
    """Row of the voxel at each vertex of fsaverage (all of them; fsaverage5 has the first ones), -1 for none."""
    subject = bench.subject
    places = _volume(to_volume).reshape(-1, 3)
    native = _volume(to_native).reshape(-1).astype(np.int64) - 1
    if native.min() < 0 or native.max() >= len(places):
        raise InputError(f"{to_native}: names vertices that {to_volume.name} does not have. Download both again.")
    known = np.all(places < _NOWHERE, axis=1)
    # NSD counts coordinates from 1, at the centre of the first voxel.
    index = np.where(known[:, None], np.rint(places) - 1, -1).astype(np.int64)
    within = ((index >= 0) & (index < subject.grid_shape)).all(axis=1)
    row_of = np.full(int(np.prod(subject.grid_shape)), -1, dtype=np.int64)
    row_of[subject.voxel_indices] = np.arange(len(subject.voxel_indices))
    found = np.full(len(index), -1, dtype=np.int64)
    found[within] = row_of[np.ravel_multi_index(tuple(index[within].T), subject.grid_shape)]
    return found[native]


def _volume(path: Path) -> NDArray[np.float64]:
    import nibabel

    return np.asarray(nibabel.load(path).dataobj, dtype=np.float64)  # type: ignore[attr-defined]


def place_vertices(meshes: dict[str, NDArray[np.float64]], voxels: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Both hemispheres side by side, in the manner of `unibrain.explorer.brain.brain_map`."""
    shown = {side: mesh[voxels[side][: len(mesh)] >= 0] for side, mesh in meshes.items()}
    for side, places in shown.items():
        if not len(places):
            raise InputError(f"no voxel of this run lies on the {_HEMISPHERES[side]} hemisphere")
    scale = _WIDTH / sum(float(np.ptp(places[:, 0])) or 1.0 for places in shown.values())
    top = max(float(places[:, 1].max()) for places in shown.values())
    x, y, voxel, panels, left = list[float](), list[float](), list[int](), list[dict[str, Any]](), 0.0
    for side, places in shown.items():
        across, down = (places[:, 0] - places[:, 0].min()) * scale, (top - places[:, 1]) * scale
        panels.append({"label": f"{_HEMISPHERES[side]} hemisphere", "x": round(left, 1), "y": _LETTERS})
        x += (left + across).round(1).tolist()
        y += (_LETTERS + 8 + down).round(1).tolist()
        rows = voxels[side][: len(meshes[side])]
        voxel += rows[rows >= 0].tolist()
        left += float(across.max()) + _GAP
    size = 1.4 * float(np.sqrt(_WIDTH * (max(y) - min(y) + 1) / len(x)))
    return {
        "kind": "flat",
        "width": round(left, 1),
        "height": round(max(y) + size, 1),
        "size": round(size, 2),
        "letters": _LETTERS,
        "x": x,
        "y": y,
        "voxel": voxel,
        "panels": panels,
    }
