"""`Findings`: what an experiment found, as a table, files and a page."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.pipeline.stages import STATE
from unibrain.workspace.files import atomic_folder, write_bytes, write_json, write_text

if TYPE_CHECKING:
    from unibrain.evaluation import Scores
    from unibrain.evaluation.published import Row
    from unibrain.reconstruction import Decoded

_FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One number of an experiment: a metric under a setting.

    Attributes
    ----------
    setting : str
        The row of the table, such as ``"without C_I"``.
    metric : str
        Its key, such as ``"ssim"``.
    value : float or None
    low, high : float or None
        95 % interval of the value over images.
    images : int
        How many it is of.
    against : str
        The setting that it is compared with; empty if with none.
    difference, difference_low, difference_high : float or None
        Value less that of `against`, on the same images, and its paired interval.
    """

    setting: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    images: int = 0
    against: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        low, high = self.difference_low, self.difference_high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Column:
    """A metric of the table: its title, which kind of item it is about, and which direction is better."""

    name: str
    title: str
    short: str
    kind: str
    higher_is_better: bool = True


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of pictures with captions, under a label; one item for each of the shown images."""

    label: str
    pictures: NDArray[np.uint8] | None
    captions: Sequence[str] | None = None

    @classmethod
    def of(cls, label: str, decoded: "Decoded", rows: NDArray[np.int64]) -> "Strip":
        """Some rows of what was decoded."""
        chosen = decoded.rows(rows)
        return cls(label, chosen.pictures, chosen.captions)

    def items(self) -> list[tuple[NDArray[np.uint8] | None, str]]:
        """Picture and caption of each."""
        count = len(self.captions or () if self.pictures is None else self.pictures)
        pictures = [None] * count if self.pictures is None else self.pictures
        return list(zip(pictures, self.captions or [""] * count, strict=True))


@dataclass(frozen=True, eq=False)
class Findings:
    """What an experiment found.

    Attributes
    ----------
    name, title : str
        Its command, and its heading.
    question : str
        What it asks, in a sentence or two.
    columns : tuple of Column
    cells : tuple of Cell
        The table, row by row.
    simulated : bool
        Shown wherever the numbers are.
    about : mapping
        Run, images, settings; JSON-ready.
    answer : str
        What was found, from the numbers; may be empty.
    strips : tuple of Strip
        Pictures to look at; all of the same images.
    figures : mapping of str to bytes
        Heading to an SVG.
    published : mapping of str to tuple of Row
        Title to rows of tables of the paper, beside a run on real scans.
    notes : tuple of str
    files : mapping of str to bytes
        Name to content of further files beside the page.
    variant : str
        Tells several of one experiment on a run apart, such as transfers to several subjects.
    """

    name: str
    title: str
    question: str
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    simulated: bool
    about: Mapping[str, Any]
    answer: str = ""
    strips: tuple[Strip, ...] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    published: "Mapping[str, tuple[Row, ...]]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    variant: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder that it is written to."""
        return "-".join([self.name, *re.findall(r"[A-Za-z0-9]+", self.variant)])

    @property
    def settings(self) -> tuple[str, ...]:
        """Rows of the table, in order."""
        return tuple(dict.fromkeys(cell.setting for cell in self.cells))

    def _repr_html_(self) -> str:
        """For notebooks: the table, the figures and the pictures of the page."""
        from unibrain.experiments.page import notebook_view

        return notebook_view(self)

    def cell(self, setting: str, metric: str) -> Cell | None:
        """One number, if it is there."""
        found = (cell for cell in self.cells if (cell.setting, cell.metric) == (setting, metric))
        return next(found, None)

    def rows(self, columns: Sequence[Column]) -> list[tuple[str, list[Cell | None]]]:
        """Settings that have a number in one of these columns, each with its cell in all of them."""
        table = [(setting, [self.cell(setting, column.name) for column in columns]) for setting in self.settings]
        return [(setting, cells) for setting, cells in table if any(cells)]

    def drawn(self, figures: Mapping[str, bytes]) -> "Findings":
        """The same with figures."""
        return replace(self, figures=figures)

    def kinds(self) -> dict[str, tuple[Column, ...]]:
        """Kind of item to the columns that are about it; the page has a table for each."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.kind, []).append(column)
        return {kind: tuple(columns) for kind, columns in found.items()}


def cells_of(setting: str, scores: "Scores", against: "tuple[str, Scores] | None" = None) -> tuple[Cell, ...]:
    """The scores of one setting as a row of the table, with paired differences to another one, if it is another."""
    found, others = [], {}
    if against is not None and against[0] != setting:
        others = {row.name: row.per_image for row in against[1].scores if row.value is not None}
    for score in scores.scores:
        low, high = score.interval or (None, None)
        own, other = Cell(setting, score.name, score.value, low, high, score.images), others.get(score.name, ())
        if against is not None and score.value is not None and len(other) == len(score.per_image):
            pairs = [pair for pair in zip(score.per_image, other, strict=True) if None not in pair]
            if len(pairs) > 1:
                own = compared(own, against[0], *np.array(pairs, dtype=np.float64).T)
        found.append(own)
    return tuple(found)


def compared(cell: Cell, against: str, values: NDArray[Any], others: NDArray[Any]) -> Cell:
    """A cell with the paired difference of its values to those of another setting."""
    from unibrain.evaluation.statistics import paired_interval

    interval, difference = paired_interval(values, others), float(np.mean(values - others))
    return replace(
        cell, against=against, difference=difference, difference_low=interval.low, difference_high=interval.high
    )


def columns_of(scores: "Scores") -> tuple[Column, ...]:
    """The metrics of some scores, as columns."""
    return tuple(
        Column(score.name, score.title, score.short, score.kind, score.higher_is_better) for score in scores.scores
    )


def as_text(findings: Findings) -> str:
    """The table for the terminal: settings down, metrics across; a star where the difference leaves out zero."""
    lines = ["SIMULATED SCANS: no human was scanned for these numbers.", ""] if findings.simulated else []
    width = max([20, *map(len, findings.settings)])
    for columns in findings.kinds().values():
        wide = [max(8, len(column.short) + 3) for column in columns]
        arrows = [f"{column.short} {'+' if column.higher_is_better else '-'}" for column in columns]
        lines.append(" " * width + "".join(f"{text:>{size}}" for text, size in zip(arrows, wide, strict=True)))
        for setting, cells in findings.rows(columns):
            texts = [
                "- " if cell is None or cell.value is None else f"{cell.value:.3f}{'*' if cell.differs else ' '}"
                for cell in cells
            ]
            shown = "".join(f"{text:>{size}}" for text, size in zip(texts, wide, strict=True))
            lines.append(f"{setting:<{width}}{shown}".rstrip())
        lines.append("")
    lines.append("+: higher is better, -: lower is better.")
    against = next((cell.against for cell in findings.cells if cell.differs), "")
    if against:
        lines.append(f"*: differs from {against}; the 95 % interval of the paired difference leaves out zero.")
    return "\n".join([*lines, *findings.notes, *([findings.answer] if findings.answer else [])])


def _as_csv(findings: Findings) -> str:
    """One line per number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Cell.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in findings.cells)
    return text.getvalue()


def write_findings(folder: Path, findings: Findings) -> Path:
    """Write ``findings.json``, ``table.csv``, figures, ``strips.json`` (the pictures) and ``index.html`` into a folder.

    What the folder held before is replaced whole.

    Returns
    -------
    pathlib.Path
        The page.
    """
    from unibrain.experiments.page import plain_strips, render

    with atomic_folder(folder) as temporary:
        content = {
            "format": _FORMAT,
            "experiment": findings.name,
            "simulated": findings.simulated,
            "about": dict(findings.about),
            "columns": [asdict(column) for column in findings.columns],
            "cells": [asdict(cell) for cell in findings.cells],
            "title": findings.title,
            "question": findings.question,
            "answer": findings.answer,
            "notes": list(findings.notes),
        }
        write_json(temporary / "findings.json", content)
        write_json(temporary / "strips.json", plain_strips(findings.strips))
        write_text(temporary / "table.csv", _as_csv(findings))
        for number, figure in enumerate(findings.figures.values(), 1):
            write_bytes(temporary / f"figure-{number}.svg", figure)
        for name, data in findings.files.items():
            write_bytes(temporary / Path(name).name, data)
        write_text(temporary / "index.html", render(findings))
    return folder / "index.html"


def write_index(folder: Path, current: str | None) -> None:
    """Write the page that lists the experiments in a folder; those not on the state `current` of the run say so."""
    from unibrain.experiments.page import index_page

    done = [
        json.loads(path.read_bytes()) | {"name": path.parent.name} for path in sorted(folder.glob("*/findings.json"))
    ]
    for entry in done:
        entry["earlier"] = entry["about"].get(STATE) != current
    write_text(folder / "index.html", index_page(done))
