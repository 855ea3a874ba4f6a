"""Two settings, or two runs, side by side: the same scans, paired differences."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.experiments import Cell, Findings, Strip, compare
from unibrain.experiments.bench import spread
from unibrain.experiments.comparison import corrected_p
from unibrain.experiments.findings import cells_of, columns_of
from unibrain.experiments.page import plain_strips
from unibrain.explorer.items import Choice
from unibrain.explorer.session import Session

if TYPE_CHECKING:
    from unibrain.explorer.worker import Job

IMAGES = (2, 200)
"""Fewest and most test images that settings are compared on."""

_SURE = 0.05


def compare_settings(session: Session, choices: Mapping[str, Choice], images: int, job: "Job") -> Findings:
    """Decode the same test scans in two ways, score both, and pair them by image.

    Parameters
    ----------
    session : Session
    choices : mapping of str to Choice
        Name to how scans are decoded; the second is compared with the first.
    images : int
        How many test images, spread evenly over all of them.
    job : Job
        Whoever watches it sees how far it is.

    Raises
    ------
    InputError
        If there are too few or too many images, or the two decode nothing in common.
    """
    if not IMAGES[0] <= images <= IMAGES[1]:
        raise InputError(f"{images} images are to be compared. Choose from {IMAGES[0]} to {IMAGES[1]}.")
    first, second = choices
    kinds = set(choices[first].sampling) & set(choices[second].sampling)
    if not kinds:
        raise InputError(f"{first} and {second} decode no kind of item in common. Switch latents on.")
    bench = replace(session.bench, ids=spread(session.ids, images))
    predicted, decoded = session.predicted.select(bench.ids).read(), {}
    for name, choice in choices.items():

        def watch(kind: str, rows: Any, step: int, steps: int, latents: Any, name: str = name) -> None:
            job.show({"of": name, "kind": kind, "step": step, "steps": steps, "scans": len(bench.ids)})

        decoded[name] = bench.decode(predicted, callback=watch, **(choice.options() | {"kinds": kinds}))
    scores = {}
    for name, items in decoded.items():
        job.show({"of": name, "kind": "scores"})
        scores[name] = bench.score(items)
    cells = (*cells_of(first, scores[first]), *cells_of(second, scores[second], (first, scores[first])))
    p = corrected_p({second: scores[second]}, scores[first])
    found = [cell for cell in cells if cell.setting == second and p.get((second, cell.metric), 1.0) < _SURE]
    told = ", ".join(f"{cell.metric} ({cell.difference:+.3f})" for cell in found)
    strips = [bench.seen(bench.ids), *(Strip(name, one.pictures, one.captions) for name, one in decoded.items())]
    return Findings(
        "compare",
        "Settings side by side",
        f"Does {second} differ from {first}? Images are compared one by one, so what is hard for both cancels.",
        columns_of(scores[first]),
        cells,
        bench.subject.simulated,
        bench.about(**{name: asdict(choice) for name, choice in choices.items()}),
        f"{second} differs from {first} in {told}, corrected for all metrics that were looked at."
        if found
        else f"{second} differs from {first} in no score for sure.",
        tuple(strips),
        notes=(
            "These are test images: a setting that is chosen by them looks better than it is. `unibrain sweep` looks "
            "for settings on images that were taken out of training.",
            f"Of {len(bench.ids)} of the {len(session.ids)} test images. With so few, only large differences are sure.",
        ),
    )


def compare_with(session: Session, name: str) -> Findings:
    """The run beside another one that was named when the explorer was started."""
    if name not in session.others:
        raise InputError(
            f"{name[:80]!r} is no run that was named. Start `unibrain explore {session.bench.run.root} --beside OTHER`."
        )
    return compare([session.bench.run, session.others[name]], session.source)


def plain(findings: Findings) -> dict[str, Any]:
    """Findings for the page: tables by kind, pictures as data URIs."""
    return {
        "title": findings.title,
        "question": findings.question,
        "answer": findings.answer,
        "simulated": findings.simulated,
        "notes": list(findings.notes),
        "settings": list(findings.settings),
        "kinds": {kind: [asdict(column) for column in columns] for kind, columns in findings.kinds().items()},
        "cells": [_cell(cell) for cell in findings.cells],
        "strips": plain_strips(findings.strips),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return asdict(cell) | {"differs": cell.differs}
