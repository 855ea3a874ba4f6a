"""Published scores beside a run's own, each with its source and dialect, and a warning where dialects differ."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from unibrain.errors import InputError

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


@dataclass(frozen=True)
class Row:
    """One method in a table of scores.

    `source` is the paper, or the file at a stated commit, that the values are from. `dialect_status` says how the
    dialect is known: this run's own, read in the authors' code, inferred, or not. `images` is also the pool of an
    identification, None if not known; `direction` is empty where nothing is identified; `values` are by metric, those
    that were not printed left out. `warnings` say why the values are not to be compared with the table's first row.
    """

    method: str
    subject: str
    source: str
    dialect: str
    dialect_status: Literal["own", "read", "inferred", "unknown"]
    images: int | None
    direction: str
    values: Mapping[str, float]
    status: str = ""
    note: str = ""
    warnings: tuple[str, ...] = ()
    digits: int = 3


@cache
def _content() -> dict[str, Any]:
    text = (files("unibrain.evaluation") / "data" / "published-scores.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def published_tables() -> dict[str, str]:
    """Name of each table of published scores to its title."""
    return {name: str(table["title"]) for name, table in _content()["tables"].items()}


def published_rows(table: str) -> tuple[Row, ...]:
    """Rows of one of `published_tables`, as their authors printed them."""
    found = _table(table)
    return tuple(Row(**row, digits=found["digits"]) for row in found["rows"])


def _table(name: str) -> dict[str, Any]:
    tables = _content()["tables"]
    if name not in tables:
        raise InputError(f"There is no table {name!r} of published scores. Choose one of {', '.join(tables)}.")
    table: dict[str, Any] = tables[name]
    return table


def beside(
    values: Mapping[str, float | None],
    dialect: str,
    table: str,
    *,
    images: int,
    direction: str = "recon->images",
    method: str = "this run",
    subject: str = "",
) -> tuple[Row, ...]:
    """Put a run's scores above the rows of a published table.

    `values` are by metric, all computed in one dialect; those that the table does not have are left out. The run comes
    first. Each published row that was scored in another dialect, on another number of images or in the other direction
    says so in its `Row.warnings`.
    """
    known = {name: value for name in _table(table)["metrics"] if (value := values.get(name)) is not None}
    if not known:
        raise InputError(
            f"The table {table} has {', '.join(_table(table)['metrics'])}, and none of them was scored. Choose one of "
            f"{', '.join(published_tables())}, or score these."
        )
    rows = published_rows(table)
    own = Row(method, subject, "", dialect, "own", images, direction, known, digits=rows[0].digits)
    return own, *(replace(row, warnings=_warnings(row, own)) for row in rows)


def _warnings(row: Row, own: Row) -> tuple[str, ...]:
    found = []
    if row.dialect_status == "unknown":
        found.append(f"Its dialect is not known, so its scores are not comparable with those in {own.dialect}.")
    elif row.dialect != own.dialect:
        inferred = " (inferred)" * (row.dialect_status == "inferred")
        found.append(f"Scored in the dialect {row.dialect}{inferred}, not in {own.dialect}: not comparable.")
    elif row.dialect_status == "inferred":
        found.append(f"That it was scored in the dialect {row.dialect} is inferred.")
    if row.images != own.images:
        number = "a number of images that is not known" if row.images is None else f"{row.images:,} images"
        found.append(f"Scored on {number}, not on {own.images:,}.")
    if row.direction and own.direction and row.direction != own.direction:
        there, here = (direction.replace("->", " to ") for direction in (row.direction, own.direction))
        found.append(f"Identified from {there}, not from {here}.")
    return tuple(found)


def _cells(
    rows: Sequence[Row], escape: Callable[[str], str], up: str, down: str
) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, cells of each row, and what stands below: the footnotes that the cells name, and the sources."""
    if not rows:
        raise InputError("There are no rows to lay out. Score something first.")
    labels, lower = _content()["labels"], _content()["lower_is_better"]
    present = {name for row in rows for name in row.values}
    names = [*(name for name in labels if name in present), *sorted(present - set(labels))]
    notes: list[str] = []
    cells = []
    sources: dict[str, list[str]] = {}
    for row in rows:
        said = " ".join(filter(None, [*row.warnings, row.note]))
        if said and said not in notes:
            notes.append(said)
        mark = f" [{notes.index(said) + 1}]" if said else ""
        texts = [
            row.method + mark,
            row.subject,
            "?" if row.images is None else f"{row.images:,}",
            row.dialect + "?" * (row.dialect_status == "inferred"),
            *(f"{row.values[name]:.{row.digits}f}" if name in row.values else "-" for name in names),
        ]
        cells.append(list(map(escape, texts)))
        if row.source:
            sources.setdefault(row.source, []).append(row.method)
    headings = [f"{escape(labels.get(name, name))} {down if name in lower else up}" for name in names]
    below = [f"[{number}] {escape(note)}" for number, note in enumerate(notes, 1)]
    below += [f"{escape(', '.join(methods))}: {escape(source)}." for source, methods in sources.items()]
    return ["Method", "Subject", "N", "Dialect", *headings], cells, below


def to_markdown(rows: Sequence[Row]) -> str:
    """Lay out rows as a Markdown table, with numbered notes and the sources below."""
    headings, cells, below = _cells(rows, _plain, "↑", "↓")
    table = [headings, ["---"] * 4 + ["---:"] * (len(headings) - 4), *cells]
    lines = [f"| {' | '.join(line)} |" for line in table]
    return "\n".join([*lines, "", *(f"{text}  " for text in below)]).rstrip() + "\n"


def _plain(text: str) -> str:
    """Text that cannot end a cell, begin a tag or emphasise in Markdown."""
    text = " ".join(text.split())
    for mark in "\\|*_<`":
        text = text.replace(mark, f"\\{mark}")
    return text


def to_latex(rows: Sequence[Row]) -> str:
    """Lay out rows as a LaTeX table (package booktabs), with numbered notes and the sources below."""
    headings, cells, below = _cells(rows, _escaped, r"$\uparrow$", r"$\downarrow$")
    titles, *lines = (" & ".join(row) + r" \\" for row in (headings, *cells))
    return "\n".join(
        [
            f"\\begin{{tabular}}{{llll{'r' * (len(headings) - 4)}}}",
            r"\toprule",
            titles,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            *(f"{text}\\\\" for text in below),
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(mark, mark) for mark in " ".join(text.split()))
