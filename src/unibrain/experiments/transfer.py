"""`unibrain transfer`: the decoder of one subject on the scans of another, aligned on images that both saw."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench, contents, mean_scans, open_bench, spread
from unibrain.experiments.findings import Cell, Findings, cells_of, columns_of
from unibrain.experiments.latent_scores import latent_cells, latent_columns, mean_two_way
from unibrain.pipeline import BackboneSource, RunFolder
from unibrain.plot.canvas import BLUE, GREY, ORANGE, svg_figure
from unibrain.workspace.stages import read_record

if TYPE_CHECKING:
    from unibrain.latents import Latents
    from unibrain.scans import Subject

RIDGE, PROCRUSTES = "ridge", "Procrustes"
WITHIN, UNALIGNED, ANATOMICAL, SHUFFLED = "within-subject", "unaligned", "anatomical", "shuffled alignment"
_LEAST, _POINTS, _SHOWN = 4, 6, 8


@contextmanager
def open_other(bench: Bench, run: RunFolder, images: int = 30) -> Iterator[Bench]:
    """Open the run of the subject that is to be decoded, with the backbone of `bench`."""
    if run.root.resolve() == bench.run.root.resolve():
        raise InputError(f"{run.root}: this is the run of the decoder itself. Name the run of another subject.")
    record = read_record(run, "extract")
    found = None if record is None else record.facts.get("backbone")
    if found not in (None, bench.network.fingerprint):
        raise InputError(
            f"{run.root}: it was made with another backbone ({str(found)[:12]}) than {bench.run.root} "
            f"({bench.network.fingerprint[:12]}), whose latents mean other things. Make both with one backbone."
        )
    source = BackboneSource(loaded=bench.network)
    with open_bench(run, images, source=source, budget=bench.budget) as other:
        yield other


def transfer(bench: Bench, other: Bench) -> Findings:
    """Decode another subject's scans with this subject's decoder, over the number of images that align the two.

    A ridge regression from the voxels of the other subject to those of this one is fitted on scans of images that both
    saw. Test images that this decoder was not trained on are decoded; of what both saw, all others may align, those
    first that could not be decoded anyway.

    Parameters
    ----------
    bench : Bench
        The subject whose decoder is used.
    other : Bench
        The subject who is decoded, see `open_other`; as many of its test images are decoded as it has `ids`.

    Returns
    -------
    Findings
        Rows are ways to align, with paired differences to ``"within-subject"``, the other subject's own decoder.

    Raises
    ------
    InputError
        If the backbones differ, one run alone has captions, too few images were seen by both or are unknown to the
        decoder, or it is expected to take more than the budget.
    """
    pairs, ids = _split_images(bench, other)
    other, seen = replace(other, ids=ids), replace(bench, stimuli=other.stimuli, ids=ids)
    counts = _counts(len(pairs))
    most, middle = counts[-1], counts[(len(counts) - 1) // 2]
    plain, notes = _without_fit(bench.subject, other.subject, other.test.betas)
    shown = list(dict.fromkeys([_row(RIDGE, most), _row(RIDGE, middle), *list(plain)[:1], SHUFFLED]))
    alike = (bench.sampling, bench.settings.reconstruct.seed) == (other.sampling, other.settings.reconstruct.seed)
    bench.announce((len(shown) + (not alike)) * len(ids), "transfer")

    moved = _aligned(bench, other, pairs, counts) | plain
    predicted = {WITHIN: other.predicted, **_predict(bench, moved, ids)}
    jobs = ({} if alike else {WITHIN: other.predicted}) | {name: predicted[name] for name in shown}
    decoded = ({WITHIN: other.decoded()} if alike else {}) | bench.decode_all({n: (z, {}) for n, z in jobs.items()})
    scores, true = {name: seen.score(items) for name, items in decoded.items()}, other.true
    cells, told = list[Cell](), dict[str, float]()
    for name, latents in predicted.items():
        row = latent_cells(name, latents, true, (WITHIN, predicted[WITHIN]))
        told[name] = mean_two_way(row)
        cells += row
        if name in scores:
            cells += cells_of(name, scores[name], (WITHIN, scores[WITHIN]))
    names = (bench.subject.name, other.subject.name)
    found = Findings(
        "transfer",
        "A decoder on another subject",
        f"The decoder of {names[0]} decodes scans of {names[1]}. Scans of images that both saw align the voxels of the "
        "one with those of the other: how many of them does it take, and what is lost against a decoder of one's own?",
        (*latent_columns(true), *columns_of(scores[WITHIN])),
        tuple(cells),
        bench.subject.simulated or other.subject.simulated,
        bench.about(
            **{
                "run that is decoded": str(other.run.root),
                "subject that is decoded": other.subject.name + " (simulated)" * other.subject.simulated,
                "voxels": f"{other.subject.betas.shape[1]} to {bench.subject.betas.shape[1]}",
                "test images": len(ids),
                "images for alignment": most,
            }
        ),
        _answer(told, names, most),
        other.strips(decoded, _SHOWN),
        notes=(
            f"Decoded are {len(ids)} test images of {names[1]}, spread evenly over those that the decoder of "
            f"{names[0]} was not trained on. {most} other images that both saw align the two, in a random order that "
            "is the same each time; fewer are the first of them.",
            f"{SHUFFLED}: the {most} scans of the one are paired with scans of other images of the other.",
            *notes,
        ),
        variant=names[1],
    )
    return found.drawn({"Identification of the latents": _figure(found, tuple(true), counts)})


def _split_images(bench: Bench, other: Bench) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of ids that align, in the order in which they are used, and the other subject's ids that are decoded."""
    mine, theirs = bench.run.root, other.run.root
    if bench.network.fingerprint != other.network.fingerprint:
        raise InputError(f"{theirs}: it was made with another backbone than {mine}. Make both with one backbone.")
    if set(bench.kinds) != set(other.kinds):
        without = mine if bench.stimuli.has_captions < other.stimuli.has_captions else theirs
        raise InputError(f"{without}: it has no captions, and the other run has. Give both captions, or neither.")
    pairs = shared_images(bench, other)
    if not len(pairs):
        raise InputError(
            f"{mine} and {theirs}: there is no image that both subjects saw, so nothing can align them. Choose runs on "
            "subjects of one experiment."
        )
    trained = pairs[np.isin(pairs[:, 0], bench.train.stimulus_ids), 1]
    free = np.setdiff1d(other.subject.test.stimulus_ids, trained)
    ids = spread(free, len(other.ids))
    if len(ids) < 2:
        raise InputError(
            f"{theirs}: {len(free)} of its {int(other.subject.is_test.sum())} test images were not in training of "
            f"{mine}, whose decoder has seen the others. Split both subjects alike."
        )
    held = pairs[np.isin(pairs[:, 1], ids), 0]
    left = np.random.default_rng(0).permutation(pairs[~np.isin(pairs[:, 1], ids) & ~np.isin(pairs[:, 0], held)])
    if len(left) < _LEAST:
        raise InputError(
            f"{mine} and {theirs}: both subjects saw {len(pairs)} images, and {len(left)} of them are left to align "
            f"the two when {len(ids)} are decoded. Take fewer with --images, so that {_LEAST} are left."
        )
    late = np.isin(left[:, 1], free)
    return np.concatenate([left[~late], left[late]]), ids


def shared_images(one: Bench, other: Bench) -> NDArray[np.int64]:
    """Images that both subjects saw, shape (m, 2): the id in the one run, and in the other.

    NSD numbers its images, so only equal ids can be the same picture; a laboratory's own pictures are numbered anew in
    each run, and are found whatever their number is.
    """
    mine, theirs = (np.unique(bench.subject.stimulus_ids) for bench in (one, other))
    if one.settings.custom is None and other.settings.custom is None:
        mine = theirs = np.intersect1d(mine, theirs)
    known = dict(zip(contents(one.stimuli, mine), mine.tolist(), strict=True))
    found = dict(zip(contents(other.stimuli, theirs), theirs.tolist(), strict=True))
    pairs = [(known[content], identity) for content, identity in found.items() if content in known]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _counts(most: int) -> list[int]:
    """Numbers of alignment images: all, half of them, and so on; ascending."""
    counts = [most]
    while len(counts) < _POINTS and counts[-1] // 2 >= _LEAST:
        counts.append(counts[-1] // 2)
    return counts[::-1]


def _row(way: str, count: int) -> str:
    """The row of an alignment on so many images."""
    return f"{way}, {count} images"


def _aligned(bench: Bench, other: Bench, pairs: NDArray[np.int64], counts: list[int]) -> dict[str, NDArray[np.float32]]:
    """The other subject's scans as scans of this one, by every fit and number of images."""
    from unibrain.evaluation.evaluate import derangements

    scans, device = other.test.betas, bench.decoder.device
    mine, theirs = (mean_scans(side.subject, pairs[:, column]) for column, side in enumerate((bench, other)))
    moved = {_row(RIDGE, count): _ridge(theirs[:count], mine[:count], scans, device) for count in counts}
    moved |= {_row(PROCRUSTES, count): _procrustes(theirs[:count], mine[:count], scans) for count in counts}
    moved[SHUFFLED] = _ridge(theirs, mine[derangements(len(pairs), 1, 0)[0]], scans, device)
    return moved


def _without_fit(
    mine: "Subject", theirs: "Subject", scans: NDArray[np.float32]
) -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
    """The other subject's scans as scans of this one without shared images, where that can be; what to say of it."""
    from scipy.spatial import cKDTree

    moved = {}
    if sorted(mine.grid_shape)[1] == 1 or sorted(theirs.grid_shape)[1] == 1:
        note = "No anatomical alignment: the scans are lists of voxels, without their places."
    elif mine.grid_shape != theirs.grid_shape or any(_is_native(side) for side in (mine, theirs)):
        note = "No anatomical alignment: each subject's volume is in a space of its own, on a grid of its own."
    else:
        note = f"{ANATOMICAL}: the nearest voxel of the grid, as if both volumes were in one space."
        places = [np.column_stack(np.unravel_index(s.voxel_indices, s.grid_shape)) for s in (theirs, mine)]
        moved[ANATOMICAL] = scans[:, cKDTree(places[0]).query(places[1])[1]]
    if mine.betas.shape[1] == theirs.betas.shape[1]:
        moved[UNALIGNED] = scans
        return moved, (note,)
    return moved, (note, "No row without any alignment: the subjects differ in their number of voxels.")


def _is_native(subject: "Subject") -> bool:
    """Whether these are scans of NSD, whose volumes are in each subject's own space."""
    return "beta_version" in subject.preparation and not subject.simulated


def _ridge(
    theirs: NDArray[np.float32], mine: NDArray[np.float32], scans: NDArray[np.float32], device: str
) -> NDArray[np.float32]:
    """From voxels to voxels by ridge regression, its penalty chosen by cross-validation."""
    from unibrain.regression import BrainDecoder

    found: NDArray[np.float32] = BrainDecoder(folds=min(5, len(mine)), device=device).fit(theirs, mine).predict(scans)
    return found


def _procrustes(
    theirs: NDArray[np.float32], mine: NDArray[np.float32], scans: NDArray[np.float32]
) -> NDArray[np.float32]:
    """From voxels to voxels by the rotation of one subject's principal components onto the other's."""
    from scipy.linalg import orthogonal_procrustes

    centres = theirs.mean(axis=0), mine.mean(axis=0)
    kept = min(len(mine) - 1, mine.shape[1], theirs.shape[1])
    scores, axes = [], []
    for values, centre in zip((theirs, mine), centres, strict=True):
        left, sizes, right = np.linalg.svd(values - centre, full_matrices=False)
        scores.append(left[:, :kept] * sizes[:kept])
        axes.append(right[:kept])
    rotation, _ = orthogonal_procrustes(*scores)
    found: NDArray[np.float32] = ((scans - centres[0]) @ axes[0].T @ rotation @ axes[1] + centres[1]).astype(np.float32)
    return found


def _predict(bench: Bench, moved: Mapping[str, NDArray[np.float32]], ids: NDArray[np.int64]) -> dict[str, "Latents"]:
    """Predictions of this subject's decoder; those of all settings in one reading of its targets."""
    if bench.decoder.rescale == "test":  # each depends on the scans that it is predicted with
        return {
            name: bench.remember(partial(bench.decoder.predict, scans, ids), "transfer", scans, ids)
            for name, scans in moved.items()
        }
    scans, rows = np.concatenate(list(moved.values())), np.tile(ids, len(moved))
    found = bench.remember(partial(bench.decoder.predict, scans, rows), "transfer", scans, rows)
    n = len(ids)
    return {name: found.rows(slice(place * n, (place + 1) * n)) for place, name in enumerate(moved)}


def _answer(scores: Mapping[str, float], names: tuple[str, str], most: int) -> str:
    best, within, floor = scores[_row(RIDGE, most)], scores[WITHIN], scores[SHUFFLED]
    ways = [f"{name} {scores[name]:.2f}" for name in (ANATOMICAL, UNALIGNED) if name in scores]
    text = (
        f"Aligned on {most} images, the decoder of {names[0]} identifies the latents of {names[1]} with "
        f"{best:.2f} (two-way, mean over latents); the decoder of {names[1]} itself with {within:.2f}, an alignment on "
        f"shuffled images with {floor:.2f}"
    )
    text += f" ({', '.join(ways)})." if ways else "."
    if within - floor > 0.02:
        text += (
            f" So {(best - floor) / (within - floor):.0%} of what a decoder of one's own is above the floor is kept."
        )
    return text


def _figure(findings: Findings, latents: tuple[str, ...], counts: list[int]) -> bytes:
    """One panel per latent: identification over the number of images, between the floor and within-subject."""
    with svg_figure(2.5 * len(latents), 2.6, findings.title) as (figure, made):
        panels = figure.subplots(1, len(latents), sharey=True, squeeze=False).ravel()
        for panel, latent in zip(panels, latents, strict=True):
            metric = f"{latent}_two_way"
            for way, colour in ((RIDGE, BLUE), (PROCRUSTES, GREY)):
                cells = [findings.cell(_row(way, count), metric) for count in counts]
                values = [np.nan if cell is None else cell.value for cell in cells]
                panel.plot(counts, values, "o-", color=colour, markersize=3, label=way)
            for setting, style in ((WITHIN, "-"), (ANATOMICAL, "-."), (UNALIGNED, ":"), (SHUFFLED, "--")):
                cell = findings.cell(setting, metric)
                if cell is not None and cell.value is not None:
                    panel.axhline(cell.value, color=ORANGE, linestyle=style, linewidth=0.9, label=setting)
            panel.set_xscale("log")
            panel.set_xticks(counts, [str(count) for count in counts])
            panel.minorticks_off()
            panel.set_title(f"{latent}, two-way (higher is better)", fontsize=8)
            panel.set_xlabel("images that both saw")
        panels[0].legend(fontsize=6, frameon=False)
    return made[0]
