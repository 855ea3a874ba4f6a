"""From predicted latents to pictures and captions: in batches, seeded per scan, resumable."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unibrain.backbone.config import SamplingSettings
from unibrain.backbone.protocol import SamplingError
from unibrain.errors import DamagedFileError, InputError
from unibrain.latents import LATENTS, Latents
from unibrain.reconstruction.decoded import Decoded, read_picture, write_picture
from unibrain.workspace.files import atomic_path, write_json
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import progress_bar

if TYPE_CHECKING:
    from unibrain.backbone import Backbone

PerKind: TypeAlias = float | Mapping[str, float] | None
"""One value for all kinds of items, or one for some of them; None, or what is left out: the backbone's own."""

KINDS = ("picture", "caption")
"""The order decides the seeds; other kinds follow by name."""

BATCH = 32
"""Most scans in a batch, unless it is given: a stopped run repeats no more than that."""


class StepCallback(Protocol):
    """Sees every denoising step of every batch."""

    def __call__(self, kind: str, rows: NDArray[np.int64], step: int, steps: int, latents: NDArray[np.float32]) -> None:
        """Look at the clean latents that step `step` of `steps` (from 1) predicts for the scans `rows`."""


def scan_seeds(seed: int, stimulus_ids: NDArray[np.int64], kind: str) -> NDArray[np.int64]:
    """Seed of the noise of each scan, shape (n,), int64.

    It depends on `seed`, `kind` and the image only, so that neither batches nor order change a scan's noise.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}: choose at least 0")
    if (stimulus_ids < 0).any():
        raise InputError(f"image id {stimulus_ids.min()} is negative: ids count from 0, check those of the scans")
    number = KINDS.index(kind) if kind in KINDS else len(KINDS) + int(digest(kind)[:8], 16)
    entropy = (np.random.SeedSequence((seed, number, int(i))) for i in stimulus_ids)
    # torch takes seeds as int64: the highest bit is dropped.
    return np.array([sequence.generate_state(1, np.uint64)[0] >> np.uint64(1) for sequence in entropy], dtype=np.int64)


def reconstruct(
    backbone: "Backbone",
    latents: Latents,
    *,
    kinds: Collection[str] | None = None,
    use: Collection[str] | None = None,
    image_weight: PerKind = None,
    guidance_scale: PerKind = None,
    strength: PerKind = None,
    steps: PerKind = None,
    eta: PerKind = None,
    sampler: str | Mapping[str, str] | None = None,
    guidance_end: PerKind = None,
    seed: int = 0,
    batch_size: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    callback: StepCallback | None = None,
) -> Decoded:
    """Decode a picture and a caption for every scan.

    Each flow starts from its latent (see `LATENTS`), noised part of the way, and is guided by all contexts. A flow
    without its start begins with noise; a context that is left out gives its share to the others; a start without any
    context is decoded without diffusion.

    Parameters
    ----------
    backbone : Backbone
        The frozen network.
    latents : Latents
        Predicted latents, one row per scan.
    kinds : collection of str, optional
        What to decode, ``"picture"``, ``"caption"``; everything whose start there is if left out.
    use : collection of str, optional
        Names of the latents that take part; all if left out. ``use={"z_image"}`` decodes without diffusion,
        ``use={"c_image"}`` starts from noise and is guided by the image alone.
    image_weight, guidance_scale, strength, steps, eta, guidance_end : number or mapping of str to number, optional
        How to sample (see `SamplingSettings`), for all kinds or by kind; the backbone's own if left out.
    sampler : {"ddim", "dpm++"} or mapping of str to these, optional
        The same.
    seed : int
        Seed of the noise, at least 0. Every scan has its own stream, made of it and the image's id.
    batch_size : int, optional
        Scans decoded at once, at least 1. The same batches and threads give the same bytes; others may round
        differently, by a grey level.
    cache : path-like, optional
        A folder where each item is kept as soon as its batch is decoded. Run again with the same latents, backbone,
        settings and seed, and only batches that are not whole are decoded.
    callback : callable, optional
        See `StepCallback`.

    Returns
    -------
    Decoded

    Raises
    ------
    InputError
        If there is no scan, a latent is not known or not finite, a number is out of range, or sampling leaves the range
        of numbers.

    Examples
    --------
    Everything, with the paper's mixing rate; and the layout that one latent alone gives::

        decoded = reconstruct(backbone, predicted, image_weight=0.6, strength=0.75)
        layout = reconstruct(backbone, predicted, kinds={"picture"}, use={"z_image"})
    """
    used = set(latents if use is None else use)
    if used - set(latents):
        raise InputError(f"use names {min(used - set(latents))}, and the latents are {', '.join(latents)}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: choose at least 1")
    if latents.n == 0:
        raise InputError("there is no scan to decode: check the split into training and test images")
    for name in sorted(used):
        finite = np.isfinite(latents[name]).reshape(latents.n, -1).all(axis=1)
        if not finite.all():
            raise InputError(
                f"latent {name} of image id {latents.stimulus_ids[~finite][0]} is not finite: fit and predict again"
            )
    starts = _starts(used)
    kinds = kinds_of(backbone, used, kinds)
    contexts = [name for name, row in LATENTS.items() if row.guides and name in used]
    chosen = {
        "image_weight": image_weight,
        "guidance_scale": guidance_scale,
        "strength": strength,
        "steps": steps,
        "eta": eta,
        "sampler": sampler,
        "guidance_end": guidance_end,
    }
    items: dict[str, list[Any]] = {}
    for kind in kinds:
        start = starts.get(kind)
        if start is None and not contexts:
            raise InputError(f"use leaves nothing to decode a {kind} from: name its start or a context")
        flow = _Flow(backbone, kind, start, contexts, sampling_of(backbone, kind, chosen))
        items[kind] = flow.decode(latents, scan_seeds(seed, latents.stimulus_ids, kind), batch_size, cache, callback)
    pictures, captions = items.pop("picture", None), items.pop("caption", None)
    return Decoded(
        np.array(latents.stimulus_ids),
        None if pictures is None else np.stack(pictures),
        None if captions is None else tuple(captions),
        {kind: np.stack(arrays) for kind, arrays in items.items()},
    )


def kinds_of(backbone: "Backbone", used: Collection[str], kinds: Collection[str] | None = None) -> list[str]:
    """Kinds of items that are decoded, in the backbone's order: `kinds`, or all whose start is among `used`."""
    if kinds is None:
        kinds = [kind for kind in backbone.kinds if kind in _starts(used)]
    if set(kinds) - set(backbone.kinds) or not kinds:
        raise InputError(f"kinds is {sorted(kinds)}, and {backbone.name} decodes {', '.join(backbone.kinds)}")
    return [kind for kind in backbone.kinds if kind in kinds]


def batches_of(backbone: "Backbone", kind: str, scans: int, batch_size: int | None) -> list[NDArray[np.int64]]:
    """Rows of each batch: what is decoded together depends on these numbers alone."""
    size = min(batch_size or BATCH, backbone.scans_at_once(kind))
    return [np.arange(start, min(start + size, scans)) for start in range(0, scans, size)]


def _starts(used: Collection[str]) -> dict[str, str]:
    return {row.starts: name for name, row in LATENTS.items() if row.starts is not None and name in used}


def sampling_of(backbone: "Backbone", kind: str, chosen: Mapping[str, Any]) -> SamplingSettings:
    """The backbone's own way to sample a kind, with what was chosen for it, or for all kinds."""
    given: dict[str, Any] = {
        name: value.get(kind) if isinstance(value, Mapping) else value for name, value in chosen.items()
    }
    return replace(backbone.sampling(kind), **{name: value for name, value in given.items() if value is not None})


class _Flow:
    """How one kind of item is decoded: from which latents, with which settings."""

    def __init__(
        self,
        backbone: "Backbone",
        kind: str,
        start: str | None,
        contexts: list[str],
        settings: SamplingSettings,
    ) -> None:
        self.backbone, self.kind, self.start, self.contexts, self.settings = backbone, kind, start, contexts, settings

    def decode(
        self,
        latents: Latents,
        seeds: NDArray[np.int64],
        batch_size: int | None,
        cache: str | os.PathLike[str] | None,
        callback: StepCallback | None,
    ) -> list[Any]:
        batches = batches_of(self.backbone, self.kind, latents.n, batch_size)
        kept = None if cache is None else _Cache(Path(cache), self.kind, self._keys(latents, seeds))
        done = {} if kept is None else kept.read()
        # A batch is decoded whole or not at all, so that what is in it never depends on where a run was stopped.
        left = [rows for rows in batches if not all(int(row) in done for row in rows)]
        with progress_bar(len(left) * self._steps(), f"decode {self.kind}s", unit="step") as advance:
            for rows in left:

                def look(step: int, steps: int, x0: NDArray[np.float32], rows: NDArray[np.int64] = rows) -> None:
                    advance()
                    if callback is not None:
                        callback(self.kind, rows, step, steps, x0)

                try:
                    decoded = self._decode(latents.rows(rows), seeds[rows], look)
                except SamplingError as error:
                    image = latents.stimulus_ids[rows[error.row]]
                    raise InputError(f"the {self.kind} of image id {image} cannot be decoded: {error}") from error
                for row, item in zip(rows.tolist(), decoded, strict=True):
                    if kept is not None:
                        kept.write(row, item)
                    done[row] = item
        return [done[row] for row in range(latents.n)]

    def _decode(self, part: Latents, seeds: NDArray[np.int64], look: Callable[..., None]) -> list[Any]:
        start = None if self.start is None else part[self.start]
        if not self.contexts:
            assert start is not None
            return list(self.backbone.decode(self.kind, start))
        contexts = {name: part[name] for name in self.contexts}
        return list(self.backbone.sample(self.kind, start, contexts, self.settings, seeds, look))

    def _steps(self) -> int:
        if not self.contexts:
            return 1
        return self.settings.steps if self.start is None else max(1, int(self.settings.strength * self.settings.steps))

    def _keys(self, latents: Latents, seeds: NDArray[np.int64]) -> list[str]:
        """Name of each item: a digest of everything that it depends on."""
        names = ([] if self.start is None else [self.start]) + self.contexts
        common = digest(
            self.kind, self.start, names, self.backbone.fingerprint, self.backbone.precision, asdict(self.settings)
        )
        return [digest(common, int(seed), *(latents[name][row] for name in names)) for row, seed in enumerate(seeds)]


class _Cache:
    """Decoded items in a folder, one file each, so that a killed run continues at the batch."""

    def __init__(self, folder: Path, kind: str, keys: list[str]) -> None:
        suffix = {"picture": "png", "caption": "json"}.get(kind, "npy")
        self._kind, self._paths = kind, [folder / f"{key}.{suffix}" for key in keys]

    def read(self) -> dict[int, Any]:
        """The items that are there and whole, by row."""
        found = {}
        for row, path in enumerate(self._paths):
            try:
                if self._kind == "picture":
                    found[row] = read_picture(path)
                elif self._kind == "caption":
                    entry = json.loads(path.read_bytes())
                    if entry["digest"] == digest(entry["caption"]):
                        found[row] = entry["caption"]
                else:
                    found[row] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, KeyError, TypeError, RecursionError, DamagedFileError):
                # An item that cannot be read is an item that is not there: decoding it again gives the same one.
                continue
        return found

    def write(self, row: int, item: Any) -> None:
        if self._kind == "caption":
            write_json(self._paths[row], {"caption": item, "digest": digest(item)})
            return
        with atomic_path(self._paths[row]) as temporary:
            write_picture(temporary, item) if self._kind == "picture" else np.save(temporary, item, allow_pickle=False)
