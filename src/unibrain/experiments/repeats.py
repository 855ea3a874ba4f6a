"""`unibrain repeats`: what more scans of an image give, and what more samples of a scan give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation import Score, Scores
from unibrain.evaluation.statistics import bootstrap_interval, over_samples, share_interval
from unibrain.experiments.bench import Bench, spread
from unibrain.experiments.findings import Cell, Findings, cells_of, columns_of
from unibrain.experiments.page import curve_figure
from unibrain.experiments.trials import Trials, equally_repeated, read_trials
from unibrain.reconstruction import Decoded

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.latents import Latents

AS_RUN = "as run"
AGREEING, MEAN, CEILING = "best by agreement", "mean", "best by the truth (ceiling)"
"""What is made of several samples."""
AGREES = {"picture": "c_image", "caption": "c_text"}
"""Kind of item to the latent that a sample is encoded into, to be compared with what was predicted from the scan."""

_SHOWN = 6


def repeats(bench: Bench, samples: int = 4) -> Findings:
    """Decode single trials and averages of some, and several samples of each scan.

    Parameters
    ----------
    bench : Bench
        Images that were scanned equally often take part, spread evenly over all such test images.
    samples : int
        Seeds per scan, the run's own among them, at least 1.

    Returns
    -------
    Findings
        Rows for each repeat alone, for means over fewer repeats than the run has, and for several samples: their mean
        score, the one that agrees best with the predicted latents, and, as a ceiling, the one that scores best. All
        with paired differences to what the run decoded.

    Raises
    ------
    InputError
        If there is nothing to do, or it is expected to take more than the bench's budget.
    """
    if samples < 1:
        raise InputError(f"--samples is {samples}. Give at least 1, the run's own.")
    lacking = lacks_trials(bench)
    if lacking and samples == 1:
        raise InputError(f"There is nothing to compare: {lacking} Ask for several samples with --samples.")
    most, ids = (1, bench.subject.test.stimulus_ids) if lacking else equally_repeated(bench)
    bench = replace(bench, ids=spread(ids, len(bench.ids)))
    bench.announce(len(bench.ids) * (most * (most - 1) + samples - 1), "repeats")
    own = bench.decoded()
    looks, scores = {AS_RUN: own}, {AS_RUN: bench.score(own)}
    averaged: dict[str, int] = {}

    trials = cache(lambda: read_trials(bench, bench.ids))
    means = {chosen: predicted_from(bench, trials, chosen) for n in range(1, most) for chosen in windows(n, most)}
    seeds = {f"sample {n}": bench.settings.reconstruct.seed + n for n in range(1, samples)}
    predicted = bench.predicted
    decoded = bench.decode_all(
        {str(chosen): (some, {}) for chosen, some in means.items()}
        | {name: (predicted, {"seed": seed}) for name, seed in seeds.items()}
    )
    for number in range(1, most):
        found = []
        for chosen in windows(number, most):
            items = decoded[str(chosen)]
            found.append(bench.score(items))
            if number == 1:
                looks[f"repeat {chosen[0] + 1} alone"] = items
                scores[f"repeat {chosen[0] + 1} alone"] = found[-1]
        name = f"{number} repeat{'s' * (number > 1)}"
        averaged[name], scores[name] = number, together(found, lambda table, _: table.mean(axis=1))
    averaged[AS_RUN] = most

    drawn = [own, *(decoded[name] for name in seeds)]
    agreed = [agreement(bench.network, items, predicted) for items in drawn]
    each = [scores[AS_RUN], *(bench.score(items) for items in drawn[1:])]
    curves = {name: {AS_RUN: 1} for name in (AGREEING, MEAN, CEILING)}
    for number in range(2, samples + 1):
        best = best_of(drawn[:number], agreed[:number])
        rows = {name: f"{name} of {number} samples" for name in curves}
        scores[rows[MEAN]] = together(each[:number], lambda table, _: table.mean(axis=1))
        scores[rows[AGREEING]] = bench.score(best)
        scores[rows[CEILING]] = together(
            each[:number], lambda table, up: table.max(axis=1) if up else table.min(axis=1)
        )
        for name, row in rows.items():
            curves[name][row] = number
        looks[f"sample {number}"] = drawn[number - 1]
        looks[rows[AGREEING]] = best
    cells = [cell for name, some in scores.items() for cell in cells_of(name, some, (AS_RUN, scores[AS_RUN]))]
    # Of what is chosen among samples, only the choice among all.
    shown = {name: items for name, items in looks.items() if name[:4] != "best" or f"of {samples} " in name}
    findings = Findings(
        "repeats",
        "What more scans and more samples give",
        "Each repeat of an image is decoded alone, and means of several; and each scan is decoded with several seeds. "
        "How do scores grow with repeats and samples, and can the best sample be told without a look at the truth?",
        columns_of(scores[AS_RUN]),
        (*cells, *(_deviations(each) if samples > 1 else ())),
        bench.subject.simulated,
        bench.about(**{"repeats of an image": "not read" if lacking else most, "samples of a scan": samples}),
        strips=bench.strips(shown, _SHOWN),
        notes=_notes(lacking, most, samples, bench.subject.simulated),
    )
    figures = {}
    if most > 1:
        figures["Scores over the number of repeats"] = curve_figure(findings, {"": averaged}, "repeats averaged")
    if samples > 1:
        figures["Scores over the number of samples"] = curve_figure(findings, curves, "samples")
    return replace(findings, figures=figures, answer=_answer(findings, scores[AS_RUN], averaged, curves))


def lacks_trials(bench: Bench) -> str:
    """Why single trials cannot be decoded, in a sentence; empty if they can."""
    if bench.settings.custom is not None:
        return "single trials are read from NSD's layout only, and this run is on data of your own."
    if equally_repeated(bench)[0] < 2:
        return "no two test images of this run were scanned equally often and more than once, so there are no repeats."
    return ""


def windows(number: int, most: int) -> list[tuple[int, ...]]:
    """Choices of `number` of `most` repeats in which each takes part equally often; for two of three, all pairs."""
    return [tuple(sorted((start + step) % most for step in range(number))) for start in range(most)]


def predicted_from(bench: Bench, trials: Callable[[], Trials], chosen: Sequence[int]) -> "Latents":
    """Latents predicted from the mean of some repeats of each image."""
    return bench.remember(
        lambda: bench.decoder.predict(trials().average(chosen), bench.ids), "repeats", list(chosen), bench.ids
    )


def agreement(network: "Backbone", decoded: Decoded, predicted: "Latents") -> dict[str, NDArray[np.float64]]:
    """How each decoded item, encoded again, correlates with what the scan predicted, by kind; shape (n,).

    What was seen takes no part in it.
    """
    items: Mapping[str, Any] = {"picture": decoded.pictures, "caption": decoded.captions}
    found = {}
    for kind, latent in AGREES.items():
        if items[kind] is not None and latent in predicted:
            again = network.encode(latent, items[kind])
            a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (again, predicted[latent]))
            a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (a, b))
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            found[kind] = np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), -1.0), where=norms > 0)
    return found


def best_of(samples: Sequence[Decoded], agreed: Sequence[Mapping[str, NDArray[np.float64]]]) -> Decoded:
    """Of several samples of each scan the one that agrees best, chosen for each kind by itself; the first of equals."""
    ids = samples[0].stimulus_ids
    rows = {kind: np.argmax([one[kind] for one in agreed], axis=0) for kind in agreed[0]}
    first = np.zeros(len(ids), dtype=np.int64)
    pictures = None
    if samples[0].pictures is not None:
        chosen = rows.get("picture", first)
        pictures = np.stack([samples[one].pictures[row] for row, one in enumerate(chosen)])
    captions = None
    if samples[0].captions is not None:
        chosen = rows.get("caption", first)
        captions = tuple(samples[one].captions[row] for row, one in enumerate(chosen))
    return Decoded(ids, pictures, captions)


def together(found: Sequence[Scores], take: Callable[[NDArray[np.float64], bool], NDArray[np.float64]]) -> Scores:
    """Several scores of the same images as one, whose values are made by `take` of a table (images, scores)."""
    merged = []
    for score in found[0].scores:
        known, table = _table(score, found)
        if not len(table):
            merged.append(replace(score, value=None, interval=None, per_image=(), p=None, control=None))
            continue
        values = take(table, score.higher_is_better)
        each = np.full(len(known), np.nan)
        each[known] = values
        interval = (share_interval(values) or bootstrap_interval(values)) if len(values) > 1 else None
        merged.append(
            replace(
                score,
                value=float(values.mean()),
                interval=None if interval is None else (interval.low, interval.high),
                per_image=tuple(None if np.isnan(value) else float(value) for value in each),
                p=None,
                control=None,
            )
        )
    return replace(found[0], scores=tuple(merged))


def _table(score: Score, found: Sequence[Scores]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which images a metric is about, and its values for them, shape (images, scores)."""
    table = np.array([one[score.name].per_image for one in found], dtype=np.float64).T
    known = np.asarray(np.isfinite(table).all(axis=1))
    return known, table[known]


def _deviations(each: Sequence[Scores]) -> list[Cell]:
    """Standard deviation of each score within and between scans: square roots of what `over_samples` says."""
    cells = []
    for place, what in enumerate(("samples of a scan", "scans")):
        for score in each[0].scores:
            _, table = _table(score, each)
            if len(table) > 1:
                value = float(np.sqrt(over_samples(table)[place]))
                cells.append(Cell(f"deviation between {what}", score.name, value, images=len(table)))
    return cells


def _notes(lacking: str, most: int, samples: int, simulated: bool) -> tuple[str, ...]:
    notes = []
    if lacking:
        notes.append(f"Repeats were left out: {lacking}")
    else:
        notes.append(
            f"Images of {most} repeats take part. Scores of fewer repeats are means over choices of repeats in which "
            "each takes part equally often."
            + " The first repeat was seen fresh and later ones were not, so repeats differ in more than noise."
            * (not simulated)
        )
    if samples > 1:
        notes += [
            "The sample that agrees best is that whose CLIP-Image tokens (of captions: CLIP-Text tokens), encoded from "
            "what was decoded, correlate best with those that were predicted from the scan. The truth takes no part.",
            "Best by the truth takes the best sample of each image, for each metric by itself. It is no result but a "
            "ceiling: no choice among these samples scores better by a metric that looks at one item at a time.",
            "The deviation between scans is that of their mean score, less what few samples add to it.",
        ]
    return tuple(notes)


def _answer(
    findings: Findings, own: Scores, averaged: Mapping[str, int], curves: Mapping[str, Mapping[str, int]]
) -> str:
    told = []
    for kind, columns in findings.kinds().items():
        names = [score.name for score in own.scores if score.kind == kind and score.direction]
        column = next((column for column in columns if column.name in names), columns[0])

        def value(row: str, name: str = column.name) -> str:
            cell = findings.cell(row, name)
            if cell is None or cell.value is None:
                return "-"
            return f"{cell.value:.3f}" + (" (differs)" if cell.differs else "")

        parts = []
        if len(averaged) > 1:
            rows = (f"{value(row)} from {number}" for row, number in averaged.items())
            parts.append(f"{', '.join(rows)} repeats averaged")
        samples = max(curves[MEAN].values())
        if samples > 1:
            agreeing, mean, ceiling = (value([*rows][-1]) for rows in curves.values())
            parts.append(
                f"of {samples} samples {mean} on average, {agreeing} for the one that agrees best with the scan, and "
                f"{ceiling} at most"
            )
        told.append(f"{column.title} ({kind}s): {'; '.join(parts)}.")
    return " ".join(told)
