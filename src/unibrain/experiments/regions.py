"""`unibrain regions`: what regions carry: active in a synthetic scan, decoded from alone and left out, and as a map."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench
from unibrain.experiments.brain_map import MAPPED, map_bytes, map_figure, voxel_contributions
from unibrain.experiments.findings import Cell, Findings, Strip
from unibrain.experiments.latent_scores import columns_by_latent
from unibrain.experiments.region_decoding import TITLE, decode_regions, fits_needed
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import say
from unibrain.workspace.stages import read_record

if TYPE_CHECKING:
    from unibrain.latents import Latents

NOTHING = "no region active"
_MOVED = "Activated: how far each latent moves (1: as far as a scan of a test image moves it)"
_SEEN_NOTHING = 0
"""Image id of all synthetic scans: they get the same noise, so that nothing but the region tells their items apart."""


def regions(
    bench: Bench,
    names: Sequence[str] = (),
    masks: Mapping[str, Path] | None = None,
    *,
    value: float = 2.0,
    seeds: int = 3,
    decode: bool = False,
    contributions: bool = False,
) -> Findings:
    """Decode synthetic scans in which one region is active; on request, decode from regions alone and without them.

    In a synthetic scan the region's voxels are `value` deviations above their mean over the training scans, all others
    at their mean. Each is predicted and decoded by itself, and all with the same noise for the same seed: what comes
    out depends on the region, the value and the seed, not on what else is decoded.

    Parameters
    ----------
    bench : Bench
    names : sequence of str
        Regions of the subject, and unions such as ``"V2+V3"``; of a run on NSD's files also labels of its label volumes
        (``"prf-eccrois:ecc1"``, see `unibrain.scans.nsd_regions`). Without any, and without `masks`, all regions of the
        subject that have voxels.
    masks : mapping of str to pathlib.Path, optional
        Further regions: name to a file with one value per voxel of the run (``.npy``, ``.csv``, ``.tsv``) or a volume
        on the grid of the scans (``.npy``, NIfTI); above 0 is inside.
    value : float
        In deviations over the training scans.
    seeds : int
        Items of each synthetic scan, at least 1: the run's seed, and those after it.
    decode : bool
        Also decode the test images from each region alone, and from all voxels but the region.
    contributions : bool
        Also map what each voxel contributes to each latent.

    Returns
    -------
    Findings
        With a NIfTI volume for each latent among its files, if they were mapped.

    Raises
    ------
    InputError
        If a region is not known or has no voxel, a mask does not fit, a number is out of range, or it is expected to
        take more than the budget.
    """
    if seeds < 1 or not np.isfinite(value):
        raise InputError(f"--seeds is {seeds} and --value {value:g}. Give at least one seed, and a finite value.")
    chosen = choose_regions(bench, names, masks or {})
    if decode:
        whole = [name for name, mask in chosen.items() if mask.all()]
        if whole:
            raise InputError(f"{whole[0]} has all voxels of this run: nothing is left to decode without it.")
    fits = fits_needed(bench, chosen) if decode else 0
    bench.announce(seeds * (len(chosen) + 1) + fits * len(bench.ids), "regions")
    fitted = read_record(bench.run, "fit")
    if fits and fitted is not None:
        minutes = fits * fitted.provenance.seconds / 60
        say(f"regions: fits {fits} decoders, about {minutes:.1f} min at the speed of this run, less what is kept")
    latents = activate(bench, chosen, value)
    cells, strips = list(_moved(bench, latents)), list(_strips(bench, latents, seeds))
    columns = columns_by_latent(bench.predicted, "moved", "size of the shift", "moved", _MOVED)
    answers, figures, files = [_answer(cells, value)], dict[str, bytes](), dict[str, bytes]()
    questions = ["What is decoded when one region alone is active?"]
    notes = [
        f"Activated: the region's voxels are at {value:g} deviations, all others at their mean. A large region "
        "moves more than a small one. The same noise belongs to a seed in all rows, so the first row shows what is "
        "decoded when no region is active.",
        "Nobody saw anything in these scans: they show what the decoder makes of a region, which need not be what the "
        "region does in a brain.",
    ]
    if decode:
        found = decode_regions(bench, chosen)
        cells += found.cells
        columns += found.columns
        strips += found.strips
        notes += found.notes
        answers.append(found.answer)
        questions.append(found.question)
    if contributions:
        questions.append("Which voxels does each latent come from?")
        maps = {name: voxel_contributions(bench.decoder, name) for name in bench.predicted}
        columns += columns_by_latent(maps, "contribution", "mean contribution", "map", MAPPED)
        for region, mask in chosen.items():
            cells += [Cell(region, f"{n}_contribution", float(m[mask].mean() / m.mean())) for n, m in maps.items()]
        figures["What each voxel contributes to each latent, in slices"] = map_figure(bench.subject, maps, chosen)
        placed, affine = volume_affine(bench)
        files = {f"contribution-{n}.nii.gz": map_bytes(bench.subject, m, affine) for n, m in maps.items()}
        notes.append(
            "A voxel's contribution is the size of its weights (root of the mean square over a latent's dimensions) "
            "times its deviation over the training scans: how far it moves the prediction. The weights of correlated "
            f"voxels share what they have in common. The volumes beside this page {placed}."
        )
    findings = Findings(
        "regions",
        TITLE,
        " ".join(questions),
        tuple(columns),
        tuple(cells),
        bench.subject.simulated,
        bench.about(
            voxels=", ".join(f"{name} {int(mask.sum())}" for name, mask in chosen.items()),
            **{"voxels in all": bench.subject.betas.shape[1], "value of active voxels": value, "seeds": seeds},
        ),
        " ".join(answers),
        tuple(strips),
        notes=tuple(notes),
        files=files,
    )
    return findings.drawn({**figures, **found.figures} if decode else figures)


def choose_regions(bench: Bench, names: Sequence[str], masks: Mapping[str, Path]) -> dict[str, NDArray[np.bool_]]:
    """Name of each region to its voxels, bool of shape (voxels,): see `regions`."""
    subject = bench.subject
    if not names and not masks:
        names = [name for name, mask in subject.regions.items() if mask.any()]
        if not names:
            raise InputError(f"{subject.name}: this run has no region with voxels. Give one by --mask NAME=FILE.")
    found = {name: _voxels(bench, name) for name in names}
    twice = [name for name in masks if name in found or name == NOTHING]
    if twice:
        raise InputError(f"--mask {twice[0]}: there is a region of this name. Choose another one.")
    if masks:
        from unibrain.scans.custom_scans import Mask, read_regions

        inside = np.zeros(int(np.prod(subject.grid_shape)), dtype=np.bool_)
        inside[subject.voxel_indices] = True
        grid = Mask(Path("the scans of this run"), inside.reshape(subject.grid_shape), None)
        found |= read_regions(masks, len(subject.voxel_indices), grid)
    return found


def _voxels(bench: Bench, name: str) -> NDArray[np.bool_]:
    from unibrain.scans.nsd_regions import UNION

    known = bench.subject.regions
    if name in known:
        mask = known[name]
    else:
        parts = [known[part] if part in known else _from_volumes(bench, part) for part in UNION.split(name)]
        mask = np.logical_or.reduce(parts)
    if not mask.any():
        raise InputError(
            f"Region {name} has none of the {mask.size} voxels of this run. Name another, or prepare the scans with a "
            "larger mask."
        )
    return np.asarray(mask)


def _from_volumes(bench: Bench, name: str) -> NDArray[np.bool_]:
    """A region that was not prepared, from NSD's label volumes."""
    from unibrain.scans.nsd_regions import Grid, RegionReader

    subject, why, layout = bench.subject, "", bench.nsd
    if layout is not None and name:
        try:
            found = RegionReader(layout, Grid(subject.grid_shape, "the scans of this run")).voxels(name)
            return found.ravel()[subject.voxel_indices]
        except InputError as error:
            why = f" {error}"
    raise InputError(
        f"{name!r} is no region of this run, which has {', '.join(subject.regions) or 'none'}. Name some, joined "
        f"by +, or give --mask NAME=FILE.{why}"
    )


def volume_affine(bench: Bench) -> tuple[str, NDArray[np.float64]]:
    """How volumes of this run lie in space, in words and as an affine."""
    from unibrain.scans.foreign import open_nifti

    layout, custom = bench.nsd, bench.settings.custom
    files = [Path(custom.mask)] if custom is not None and custom.mask is not None else []
    files += [] if layout is None else [layout.roi("nsdgeneral"), layout.brainmask]
    for file in files:
        if file.name.endswith((".nii", ".nii.gz")) and file.is_file():
            return f"lie where {file.name} does", open_nifti(file, "a volume").affine
    return "have voxels for millimetres, since no file of the scans tells where they lie", np.eye(4)


def activate(bench: Bench, chosen: Mapping[str, NDArray[np.bool_]], value: float) -> "dict[str, Latents]":
    """What the run's decoder predicts from synthetic scans, by region; `NOTHING` is first.

    Scans are predicted one by one: a product of several would round with their number.
    """
    betas = bench.train.betas
    mean, deviation = betas.mean(axis=0, dtype=np.float64), betas.std(axis=0, ddof=1, dtype=np.float64)
    found = {}
    for name, mask in {NOTHING: np.zeros(len(mean), dtype=np.bool_), **chosen}.items():
        scan = (mean + value * deviation * mask).astype(np.float32)
        make = partial(bench.decoder.predict, scan, [_SEEN_NOTHING])
        found[name] = bench.remember(make, "activated", digest(mask), float(value))
    return found


def _strips(bench: Bench, latents: "Mapping[str, Latents]", seeds: int) -> "list[Strip]":
    """The items of each region, seeds side by side."""
    first, found = bench.settings.reconstruct.seed, []
    # One scan at a time, so that none depends on its company.
    each = {
        f"{name}, seed {number}": (predicted, {"seed": first + number})
        for name, predicted in latents.items()
        for number in range(seeds)
    }
    decoded = bench.decode_all(each)
    for name in latents:
        items = [decoded[f"{name}, seed {number}"] for number in range(seeds)]
        pictures = [item.pictures for item in items if item.pictures is not None]
        captions = [item.captions[0] for item in items if item.captions is not None]
        label = name if name == NOTHING else f"{name} active"
        found.append(Strip(label, np.concatenate(pictures) if pictures else None, captions or None))
    return found


def _moved(bench: Bench, latents: "Mapping[str, Latents]") -> list[Cell]:
    """How far each region moves each latent, beside the root mean square of what the scans of test images do."""
    typical, rest, cells = bench.predicted, latents[NOTHING], []
    for latent in typical:
        usual = float(np.linalg.norm(typical[latent] - rest[latent])) / np.sqrt(typical.n)
        for name, found in latents.items():
            size = float(np.linalg.norm(found[latent] - rest[latent]))
            if name != NOTHING:
                cells.append(Cell(name, f"{latent}_moved", size / usual if usual else None))
    return cells


def _answer(cells: Sequence[Cell], value: float) -> str:
    parts = []
    for metric in dict.fromkeys(cell.metric for cell in cells):
        known = [cell for cell in cells if cell.metric == metric and cell.value is not None]
        if known:
            most = max(known, key=lambda cell: cell.value or 0.0)
            parts.append(f"{metric.removesuffix('_moved')} {most.setting} ({most.value:.2f})")
    return (
        f"Active alone at {value:g} deviations, which region moves each latent most (1: as far as a test scan): "
        f"{', '.join(parts)}."
    )
