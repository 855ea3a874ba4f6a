"""Scans that nobody was scanned for: voxels that are painted, or regions that are set; what comes out, and why."""

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.explorer.items import Choice, decode_item
from unibrain.explorer.session import Session
from unibrain.explorer.surface import flat_map

if TYPE_CHECKING:
    from unibrain.explorer.worker import Job
    from unibrain.latents import Latents

MOST = 10.0
"""How far a voxel may be set from its mean, in deviations."""

_ACROSS = 6


def brain_map(session: Session) -> dict[str, Any]:
    """Where each voxel is drawn: on the flattened cortex where the subject has one, else in slices of the volume.

    Sites are squares of size `size` at x and y, one or more for a voxel; `panels` are labels, at most `letters` high.
    """
    subject = session.bench.subject
    found = flat_map(session.bench)
    return (found or _slices(subject.voxel_indices, subject.grid_shape)) | {
        "regions": [
            {"name": name, "voxels": np.flatnonzero(mask).tolist()}
            for name, mask in subject.regions.items()
            if mask.any()
        ],
        "most": MOST,
    }


def _slices(voxels: NDArray[np.int64], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Slices along the last axis side by side, from the lowest up; front is up, as in a view from above."""
    x, y, z = np.unravel_index(voxels, shape)
    levels = np.unique(z)
    wide, high = int(np.ptp(x)) + 3, int(np.ptp(y)) + 5
    across = min(_ACROSS, len(levels))
    place = np.searchsorted(levels, z)
    left, top = place % across * wide, place // across * high
    return {
        "kind": "slices",
        "width": across * wide,
        "height": -(-len(levels) // across) * high,
        "size": 1,
        "letters": 2.2,
        "x": (left + 1 + x - x.min()).tolist(),
        "y": (top + 3 + y.max() - y).tolist(),
        "voxel": list(range(len(voxels))),
        "panels": [
            {"label": f"slice {level}", "x": int(n % across * wide + 1), "y": n // across * high + 2.2}
            for n, level in enumerate(levels.tolist())
        ],
    }


def activation(
    session: Session, regions: Mapping[str, float], voxels: list[int], values: list[float]
) -> NDArray[np.float64]:
    """Deviations from the mean of each voxel: regions that are set add up, and what is painted is added to them.

    Raises
    ------
    InputError
        If a region is not known, a painted voxel is outside of the mask, or a value is out of range.
    """
    subject = session.bench.subject
    n = subject.betas.shape[1]
    found = np.zeros(n)
    for name, value in regions.items():
        if name not in subject.regions:
            raise InputError(
                f"{name[:80]!r} is no region of this run, which has {', '.join(subject.regions) or 'none'}."
            )
        found[subject.regions[name]] += _checked(value)
    if len(voxels) != len(values):
        raise InputError(f"{len(voxels)} voxels are painted with {len(values)} values. Give one for each.")
    outside = [voxel for voxel in voxels if not 0 <= voxel < n]
    if outside:
        raise InputError(
            f"voxel {outside[0]} is painted, which is outside of the mask: this run has the voxels 0 to {n - 1}."
        )
    for voxel, value in zip(voxels, values, strict=True):
        found[voxel] += _checked(value)
    return np.clip(found, -MOST, MOST)


def _checked(value: float) -> float:
    if not abs(value) <= MOST:
        raise InputError(f"a voxel is set to {value:g} deviations. Choose from -{MOST:g} to {MOST:g}.")
    return value


def decode_scan(session: Session, latents: "Latents", choice: Choice, job: "Job", label: str = "") -> dict[str, Any]:
    """All items of one scan, by kind; their steps, and each once it is whole, are shown to whoever watches the job."""

    def show(frame: dict[str, Any]) -> None:
        job.show(frame | {"of": label})

    live, items = not session.source.offload, dict[str, Any]()
    for kind in choice.sampling:
        items[kind] = decode_item(session.bench, latents, choice, kind, show, job.go_on, live)
        show({"kind": kind, "final": items[kind]["item"]})
    return items


def decode_activation(
    session: Session, active: NDArray[np.float64], choice: Choice, contributions: bool, job: "Job"
) -> dict[str, Any]:
    """What is decoded from a scan that was painted, beside one of the mean; and what each region adds.

    A region's part is what changes where its voxels are back at their mean: ``moved`` is how far each latent moves, 1
    being as far as the scan of a test image moves it from the mean.
    """
    rest = session.predict(session.scan_of(np.zeros_like(active)))
    full = session.predict(session.scan_of(active))
    found: dict[str, Any] = {
        "items": decode_scan(session, full, choice, job),
        "nothing": decode_scan(session, rest, choice, job, "nothing"),
        "moved": moved(session, full, rest),
        "parts": [],
    }
    job.show({"whole": {name: part for name, part in found.items() if name != "parts"}})
    masks = session.bench.subject.regions if contributions else {}
    for name, mask in masks.items():
        if not active[mask].any():
            continue
        job.go_on()
        without = session.predict(session.scan_of(np.where(mask, 0.0, active)))
        part = {
            "region": name,
            "voxels": int(np.count_nonzero(active[mask])),
            "moved": moved(session, full, without),
            "items": {
                kind: {"item": one["item"]}
                for kind, one in decode_scan(session, without, choice, job, f"without {name}").items()
            },
        }
        found["parts"].append(part)
        job.show({"part": part})
    return found


def moved(session: Session, one: "Latents", other: "Latents") -> dict[str, float | None]:
    """Distance of two predictions by latent; 1 is how far the scans of test images move it, in the root mean square."""
    typical = session.typical
    return {
        name: float(np.linalg.norm(one[name] - other[name])) / typical[name] if typical[name] else None for name in one
    }


def read_upload(content: bytes, voxels: int, grid: tuple[int, int, int]) -> NDArray[np.float64]:
    """One number per voxel from the bytes of an ``.npy`` file that somebody handed over; nothing in it is run.

    Raises
    ------
    InputError
        If it is no such file, or has another size than the voxels of the run or the grid of its scans.
    """
    file = io.BytesIO(content)
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, SyntaxError, RecursionError, MemoryError):
        raise InputError("this is no .npy file. Save the array with numpy.save.") from None
    fits = tuple(n for n in shape if n > 1) == (voxels,) or shape == tuple(grid)
    if not fits:
        raise InputError(
            f"the array has the shape {_words(shape)}. Give one number for each of the {voxels} voxels of this run, or "
            f"a volume of {_words(grid)}."
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"the array holds {dtype}. Give numbers.")
    data = file.read()
    count = int(np.prod(shape))
    if len(data) != count * dtype.itemsize:
        raise InputError(f"the file has {len(data)} bytes of data for {count} numbers. Save it again.")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"the array has {int((~np.isfinite(values)).sum())} values that are not finite. Leave them out."
        )
    return values if shape == tuple(grid) else values.reshape(-1)


def inside(values: NDArray[np.float64], voxel_indices: NDArray[np.int64], painted: bool) -> NDArray[np.float64]:
    """The voxels of the run, of one number per voxel or of a volume.

    Raises
    ------
    InputError
        If something is painted outside of the mask.
    """
    if values.ndim == 1:
        return values
    flat = values.ravel()
    if painted:
        outside = np.count_nonzero(flat) - np.count_nonzero(flat[voxel_indices])
        if outside:
            raise InputError(
                f"{outside} painted voxels are outside of the mask of this run. Paint among its {len(voxel_indices)} "
                "voxels only."
            )
    return flat[voxel_indices]


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of a single number"
