"""Decoding from one region alone, and from all voxels but that region: what it has, and what only it has."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.experiments.bench import Bench
from unibrain.experiments.findings import Cell, Findings, cells_of, columns_of
from unibrain.experiments.latent_scores import (
    columns_by_latent,
    correlations_of,
    latent_cells,
    latent_columns,
    mean_cell,
)
from unibrain.experiments.page import draw_interval, interval_figure
from unibrain.plot.canvas import BLUE, GREY, ORANGE, svg_figure
from unibrain.workspace.fingerprints import digest

if TYPE_CHECKING:
    from unibrain.latents import Latents

ALL, TITLE = "all voxels", "What regions carry"
EXPLAINED = "Explained variance of latents (alone: what a region has; without it: what the others have)"
_SHOWN = 8


def alone(region: str) -> str:
    """The row of a region alone."""
    return f"{region} alone"


def without(region: str) -> str:
    """The row of all voxels but a region."""
    return f"without {region}"


def fits_needed(bench: Bench, chosen: Mapping[str, NDArray[np.bool_]]) -> int:
    """How many decoders are fitted: two for each region and, unless it is the run's own, one to all voxels."""
    return 2 * len(chosen) + (not _chosen_by_run(bench))


def _chosen_by_run(bench: Bench) -> bool:
    """Whether the run's decoder is what a fit of the regions' kind to all voxels would be."""
    return isinstance(bench.decoder.alpha, str) and bench.decoder.bands is None


def decode_regions(bench: Bench, chosen: Mapping[str, NDArray[np.bool_]]) -> Findings:
    """Fit to each region alone and to all voxels but it, decode the test images, and score them.

    All fits are ordinary ridge, with penalties that cross-validation chose in their own voxels.
    """
    train, test, true, run = bench.train, bench.test, bench.true, bench.predicted
    masks = {ALL: np.ones(train.betas.shape[1], dtype=np.bool_)}
    for name, mask in chosen.items():
        masks |= {alone(name): mask, without(name): ~mask}

    def predict(mask: NDArray[np.bool_]) -> "Latents":
        targets = bench.stored.select(train.stimulus_ids)
        decoder = bench.refit(train.betas[:, mask], targets, train.stimulus_ids, choose=True)
        found: Latents = decoder.predict(test.betas[:, mask], test.stimulus_ids)
        return found

    predicted = {
        name: run
        if mask.all() and _chosen_by_run(bench)
        else bench.remember(partial(predict, mask), "voxels", digest(mask), bench.ids)
        for name, mask in masks.items()
    }
    explained = {
        name: {latent: one.explained for latent, one in correlations_of(found, true).items()}
        for name, found in predicted.items()
    }
    others = bench.decode_all({name: (found, {}) for name, found in predicted.items() if found is not run})
    decoded = {name: bench.decoded() if found is run else others[name] for name, found in predicted.items()}
    scores = {name: bench.score(items) for name, items in decoded.items()}
    cells = list[Cell]()
    for name, found in predicted.items():
        cells += latent_cells(name, found, true, (ALL, predicted[ALL]))
        for latent, values in explained[name].items():
            cells.append(mean_cell(name, f"{latent}_explained", values, (ALL, explained[ALL][latent])))
        cells += cells_of(name, scores[name], (ALL, scores[ALL]))
    latents = list(run)
    columns = columns_by_latent(latents, "explained", "explained variance", "var.", EXPLAINED)
    notes = (
        "Alone and without: fits are ordinary ridge, with penalties chosen by cross-validation in their own voxels; "
        f"{ALL}: {'the decoder of the run' if _chosen_by_run(bench) else 'fitted anew in this way'}. What is lost "
        "without a region is what no other voxel tells; a region may tell much alone and be missed little.",
        "Explained variance is the squared correlation of all numbers of a latent over these images: up to one factor, "
        "and about the mean.",
    )
    findings = Findings(
        "regions",
        TITLE,
        "What can be decoded from one region alone, and what is lost without it?",
        (*latent_columns(latents), *columns, *columns_of(scores[ALL])),
        tuple(cells),
        bench.subject.simulated,
        {},
        _answer(cells, list(chosen), latents),
        bench.strips(decoded, _SHOWN),
        notes=notes,
    )
    figures = {"Alone, and what is lost without": unique_figure(findings, list(chosen), latents)}
    figures |= {f"{kind.title()}s from regions": interval_figure(findings, ALL, kind) for kind in bench.kinds}
    return findings.drawn(figures)


def unique_figure(findings: Findings, regions: list[str], latents: list[str]) -> bytes:
    """Explained variance of each latent from a region alone, and what is lost without it, with intervals."""
    with svg_figure(2.6 * len(latents) + 1, 0.3 * len(regions) + 1.3, "Regions") as (figure, made):
        panels = figure.subplots(1, len(latents), sharey=True, squeeze=False)[0]
        for panel, latent in zip(panels, latents, strict=True):
            whole = findings.cell(ALL, f"{latent}_explained")
            if whole is not None and whole.value is not None:
                panel.axvline(whole.value, color=GREY, linewidth=0.8, linestyle=":", label=ALL)
            for place, region in enumerate(regions):
                own = findings.cell(alone(region), f"{latent}_explained")
                lost = findings.cell(without(region), f"{latent}_explained")
                label = place == 0
                if own is not None and own.value is not None:
                    draw_interval(panel, place - 0.12, (own.low, own.value, own.high), BLUE, "alone" if label else None)
                if lost is not None and lost.difference is not None:
                    low, high = (None if end is None else -end for end in (lost.difference_high, lost.difference_low))
                    loss = (low, -lost.difference, high)
                    draw_interval(panel, place + 0.12, loss, ORANGE, "lost without it" if label else None)
            panel.set_yticks(range(len(regions)), regions)
            panel.set_ylim(len(regions) - 0.5, -0.5)
            panel.set_title(latent, fontsize=8)
            panel.set_xlabel("explained variance")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return made[0]


def _answer(cells: list[Cell], regions: list[str], latents: list[str]) -> str:
    """For each latent the region that tells most alone, and those that are missed."""
    known = {(cell.setting, cell.metric): cell for cell in cells}
    parts = []
    for latent in latents:
        metric = f"{latent}_explained"
        best = max(regions, key=lambda region: known[alone(region), metric].value or 0.0)
        missed = [region for region in regions if (known[without(region), metric].difference_high or 0.0) < 0]
        whole, own = known[ALL, metric].value or 0.0, known[alone(best), metric].value or 0.0
        lost = f"; {', '.join(missed)} cannot be left out without loss" if missed else "; no region is missed for sure"
        parts.append(f"{latent} {own:.3f} from {best} alone, {whole:.3f} from all voxels{lost}")
    return f"Explained variance: {'. '.join(parts)}."
