"""`unibrain align`: how well each latent is predicted, on which images, in which part of it, and where it breaks."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench, mean_scans, spread
from unibrain.experiments.findings import Cell, Column, Findings, Strip
from unibrain.experiments.latent_scores import (
    columns_by_latent,
    correlations_of,
    latent_cells,
    latent_columns,
    mean_cell,
)
from unibrain.experiments.page import interval_figure
from unibrain.latents import Latents
from unibrain.plot.canvas import BLUE, GREY, ORANGE, svg_figure

if TYPE_CHECKING:
    from unibrain.regression import BrainDecoder

FITTED, LEFT_OUT, UNSEEN = "training, fitted", "training, left out", "unseen"
IDENTIFIED = "Identification of what is predicted for unseen images"
REGIONS = "Regions alone, beside the noise ceiling of their voxels"
_FOLDS = 5
_TOP = (1, 10, 50)
_SHOWN = 8


def align(bench: Bench) -> Findings:
    """Compare predicted with true latents, without decoding anything.

    Three sets of as many images: training images, by the decoder that was fitted to them; the same, by the same ridge
    fitted without their fold (in five folds, with the run's penalties); and unseen images.

    Parameters
    ----------
    bench : Bench

    Returns
    -------
    Findings
        The correlations of single tokens and channels are in its figures, and in ``tokens.csv``.

    Raises
    ------
    InputError
        If fewer than three images take part on either side.
    """
    train_ids = np.unique(bench.train.stimulus_ids)
    held = spread(train_ids, len(bench.ids))
    if len(held) < 3 or len(bench.ids) < 3:
        raise InputError(f"Correlation over {min(len(held), len(bench.ids))} images says nothing. Choose 3 or more.")
    true, unseen = bench.true, bench.predicted
    known = bench.stored.select(held).read()
    pairs: dict[str, tuple[Latents, Latents]] = {
        FITTED: (bench.decoder.predict(mean_scans(bench.train, held), held), known),
        LEFT_OUT: (bench.remember(lambda: left_out(bench.decoder, held, _FOLDS), "left out", held, _FOLDS), known),
        UNSEEN: (unseen, true),
    }
    latents = list(unseen)
    cells: list[Cell] = []
    for name, (found, truth) in pairs.items():
        cells += latent_cells(name, found, truth, (FITTED, pairs[FITTED][0]) if name == LEFT_OUT else None)
    identified, worst = identification(bench, unseen, true, train_ids)
    cells += identified
    cells += _regions(bench, true)
    by_set = {name: correlations_of(found, truth) for name, (found, truth) in pairs.items()}
    groups = {latent: {name: found[latent].groups for name, found in by_set.items()} for latent in latents}
    columns = [
        *latent_columns(latents),
        *columns_by_latent(latents, "top", "share of images", "", IDENTIFIED),
        *columns_by_latent(latents, "region", "mean correlation", "r", REGIONS),
        Column("noise_ceiling", "Explainable share of the mean of three repeats", "noise ceiling", REGIONS),
    ]
    ceilings = np.isfinite(bench.subject.noise_ceiling).any()
    repeats = {name: float(side.repeats.mean()) for name, side in (("training", bench.train), ("test", bench.test))}
    findings = Findings(
        "align",
        "How well each latent is predicted",
        "Predicted latents are compared with true ones: on training images, on the same when they were left out, and "
        "on unseen ones; token by token, region by region; and by which image they are taken for.",
        tuple(columns),
        tuple(cells),
        bench.subject.simulated,
        bench.about(
            **{
                "training images that were looked at": len(held),
                "repeats per scan": ", ".join(f"{name} {value:.2g}" for name, value in repeats.items()),
            }
        ),
        _answer(cells, latents),
        worst,
        notes=(
            f"{FITTED}: by the decoder that was fitted to them; {LEFT_OUT}: by the same ridge without their fifth of "
            "the training images, with the run's penalties and gains. The difference between these two is what is "
            "learnt by heart. Unseen images are others, so that their row is not paired with the rows above.",
            "Regions: fitted to their voxels alone, with the run's penalties; no intervals."
            + (
                " The noise ceiling is of voxels: the share of the variance of a mean of three repeats that the images "
                "explain. It bounds how well voxels can be predicted from images, and not how well latents can be "
                "predicted from voxels: many noisy voxels together may tell more than one, and what no voxel responds "
                "to cannot be told from any. No sound bound for a latent follows from it; `unibrain repeats` shows how "
                "scores grow as the noise of scans is averaged away."
                if ceilings
                else " The noise ceiling of the voxels is not known for these scans."
            ),
            "The pictures are the unseen images that are identified worst (mean over latents), what was decoded for "
            "them, and the test image whose true latent is most like the predicted one.",
        ),
        files={"tokens.csv": _token_table(groups)},
    )
    figures = {"Training and unseen images": interval_figure(findings, UNSEEN, "latent")}
    figures["Token by token, channel by channel"] = token_figure(groups)
    return findings.drawn(figures | {"Regions alone": interval_figure(findings, None, REGIONS)})


def left_out(decoder: "BrainDecoder", ids: NDArray[np.int64], folds: int) -> Latents:
    """What ridges of a decoder's penalties predict for training images that were not among theirs, in closed form.

    The training images are dealt to folds by the decoder's seed. Means and gains are those of the decoder itself.
    """
    from unibrain.regression.leave_out import left_out_operator, split_images
    from unibrain.regression.rescale import rescaled
    from unibrain.regression.ridge import choose_backend
    from unibrain.regression.targets import Operators, products

    groups, backend = decoder.groups_, choose_backend(decoder.device)
    held_out = split_images(groups, min(folds, len(np.unique(groups))), decoder.seed)
    rows = np.flatnonzero(np.isin(groups, ids))
    of_image = (groups[rows] == ids[:, None]).astype(np.float64)
    of_image /= of_image.sum(axis=1, keepdims=True)
    flat: dict[str, NDArray[np.float32]] = {}
    for system in decoder.systems_:
        by_alpha: dict[float, NDArray[np.float64]] = {}
        for name in system.names:
            alpha, targets = decoder.alphas_[name], decoder.targets_[name]
            for value in set(np.unique(alpha).tolist()) - set(by_alpha):
                by_alpha[value] = of_image @ left_out_operator(system.solver, held_out, value, rows)
            flat[name] = np.empty((len(ids), targets.shape[1]), np.float32)
            operators = Operators(by_alpha, alpha, targets.compute, backend)
            for block, centred, mean, _ in products(operators, targets, decoder.memory * 1e9):
                flat[name][:, block] = rescaled(centred, mean, decoder.gain_[name][block], decoder.rescale)
    shapes = decoder.targets_.shapes
    return Latents(ids, {name: flat[name].reshape(len(ids), *shapes[name]) for name in decoder.targets_})


def identification(
    bench: Bench, predicted: Latents, true: Latents, train_ids: NDArray[np.int64]
) -> tuple[list[Cell], tuple[Strip, ...]]:
    """Shares of images that are found among the first few of a pool; and those that are found worst."""
    from unibrain.evaluation.identification import correlations, latent_identification

    found = latent_identification(predicted, true, bench.stored.select(train_ids))
    cells = []
    for among in ("test", "training"):
        for k in _TOP:
            for one in found:
                if one.among == among and k < one.pool:
                    row = f"top {k} of {one.pool:,} {among} images (chance {k / one.pool:.2g})"
                    cells.append(mean_cell(row, f"{one.latent}_top", one.top(k).astype(np.float64)))
    wins = np.mean([one.two_way for one in found if one.among == "test"], axis=0)
    worst = np.argsort(wins, kind="stable")[:_SHOWN]
    ids, decoded = bench.ids[worst], bench.decoded()
    strips = [bench.seen(ids), Strip.of("decoded", decoded, worst)]
    for name in predicted:
        taken_for = np.argmax(np.nan_to_num(correlations(true[name], predicted[name][worst]), nan=-2.0), axis=0)
        strips.append(bench.seen(bench.ids[taken_for], f"taken for, by {name}"))
    return cells, tuple(strips)


def _regions(bench: Bench, true: Latents) -> list[Cell]:
    """Accuracy of each region alone, and the mean noise ceiling of its voxels; all voxels first."""
    from unibrain.regression import region_accuracy

    subject, test = bench.subject, bench.test
    masks = {"all voxels": np.ones(subject.betas.shape[1], dtype=np.bool_), **subject.regions}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    found = region_accuracy(bench.decoder, masks, test.betas, true)
    cells = [Cell(region, f"{latent}_region", value, images=true.n) for latent, region, value in found]
    for name, mask in masks.items():
        known = subject.noise_ceiling[mask]
        known = known[np.isfinite(known)]
        cells += [Cell(name, "noise_ceiling", float(known.mean()) / 100)] if len(known) else []
    return cells


def token_figure(groups: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> bytes:
    """Mean correlation of each token of the contexts and channel of the image latent, on each set of images."""
    shown = {name: rows for name, rows in groups.items() if len(rows[UNSEEN]) > 1}
    with svg_figure(7.5, 1.9 * max(1, len(shown)), "Tokens") as (figure, made):
        panels = figure.subplots(max(1, len(shown)), 1, squeeze=False)[:, 0]
        for panel, (name, rows) in zip(panels, shown.items(), strict=False):
            for (label, values), colour in zip(rows.items(), (GREY, ORANGE, BLUE), strict=True):
                panel.plot(values, color=colour, linewidth=1, marker=".", markersize=3, label=label)
            panel.axhline(0, color=GREY, linewidth=0.5)
            panel.set_title(f"{name}: correlation by {'channel' if name.startswith('z') else 'token'}", fontsize=8)
            panel.xaxis.get_major_locator().set_params(integer=True)
        if shown:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return made[0]


def _token_table(groups: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> bytes:
    """All of them, as csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["latent", "token or channel", FITTED, LEFT_OUT, UNSEEN])
    for name, rows in groups.items():
        for number, values in enumerate(zip(rows[FITTED], rows[LEFT_OUT], rows[UNSEEN], strict=True)):
            writer.writerow([name, number, *("" if np.isnan(value) else f"{value:.5f}" for value in values)])
    return text.getvalue().encode()


def _answer(cells: Sequence[Cell], latents: Sequence[str]) -> str:
    """What is learnt by heart and what carries over, and which latent is told best."""
    known = {(cell.setting, cell.metric): cell.value or 0.0 for cell in cells}
    parts = []
    for name in latents:
        fitted, held, new = (known[row, f"{name}_r"] for row in (FITTED, LEFT_OUT, UNSEEN))
        parts.append(f"{name} {fitted:.2f} / {held:.2f} / {new:.2f}")
    told = {name: known[UNSEEN, f"{name}_two_way"] for name in latents}
    best, worst = (pick(told, key=lambda name: told[name]) for pick in (max, min))
    return (
        f"Mean correlation on fitted, left out and unseen images: {', '.join(parts)}. Of the unseen ones, {best} is "
        f"told best (two-way {told[best]:.2f}) and {worst} worst ({told[worst]:.2f}), where chance is 0.50."
    )
