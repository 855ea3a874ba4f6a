"""The page of an experiment, and its figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unibrain.plot.canvas import BLUE, GREY, ORANGE, svg_figure
from unibrain.report.sections import data_uri, svg_uri, templates
from unibrain.workspace import notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unibrain.experiments.findings import Column, Findings, Strip


def render(findings: "Findings") -> str:
    """The HTML of the page; it needs no other file, and every text in it is escaped."""
    strips = plain_strips(findings.strips)
    figures = {heading: svg_uri(figure) for heading, figure in findings.figures.items()}
    headings = {"picture": "Pictures", "caption": "Captions", "latent": "Latents"}
    return _filled("experiment.html.j2", findings=findings, strips=strips, figures=figures, headings=headings)


def plain_strips(strips: "Sequence[Strip]") -> list[dict[str, Any]]:
    """Rows of pictures as data URIs, each with its caption."""
    return [
        {
            "label": strip.label,
            "items": [
                {"picture": None if picture is None else data_uri(picture), "caption": caption}
                for picture, caption in strip.items()
            ],
        }
        for strip in strips
    ]


def notebook_view(findings: "Findings") -> str:
    """The table, the figures and the pictures as HTML for a notebook."""
    parts = [notebook.paragraph(findings.title, bold=True), notebook.simulated_note(findings.simulated)]
    for columns in findings.kinds().values():
        rows = [
            (name, *("-" if c is None or c.value is None else f"{c.value:.3f}{'*' * c.differs}" for c in cells))
            for name, cells in findings.rows(columns)
        ]
        headings = (f"{column.short} {'↑' if column.higher_is_better else '↓'}" for column in columns)
        parts.append(notebook.table(("", *headings), rows))
    against = next((cell.against for cell in findings.cells if cell.differs), "")
    if against:
        parts.append(notebook.paragraph(f"*: differs from {against}; the interval of the difference leaves out zero."))
    parts.append(notebook.paragraph(findings.answer) if findings.answer else "")
    for heading, figure in findings.figures.items():
        parts.append(notebook.paragraph(heading, bold=True))
        parts.append(f'<img src="{svg_uri(figure)}" alt="" style="max-width:100%;background:white">')
    for strip in findings.strips:
        parts += [notebook.paragraph(strip.label, bold=True), notebook.pictures(strip.items())]
    return "".join(parts)


def interval_figure(findings: "Findings", reference: str | None = None, kind: str | None = None) -> bytes:
    """One panel per metric, one line per setting: value and interval, and a vertical line at `reference`."""
    columns = [column for column in findings.columns if kind in (None, column.kind)]
    settings = [name for name, _ in findings.rows(columns)]

    def draw(panel: "Axes", column: "Column") -> None:
        for place, setting in enumerate(settings):
            cell = findings.cell(setting, column.name)
            if cell is None or cell.value is None:
                continue
            colour = BLUE if setting == reference else ORANGE if cell.differs else GREY
            draw_interval(panel, place, (cell.low, cell.value, cell.high), colour)
            if setting == reference:
                panel.axvline(cell.value, color=BLUE, linewidth=0.6)
        panel.set_yticks(range(len(settings)), settings)
        panel.set_ylim(len(settings) - 0.5, -0.5)

    return _panels(columns, findings.title, (2.3, 0.22 * len(settings) + 0.7), "y", draw)


def draw_interval(
    panel: "Axes", place: float, values: tuple[float | None, float, float | None], colour: str, label: str | None = None
) -> None:
    """A value between the ends of its interval, if it has one, on a line of a panel."""
    low, value, high = values
    if low is not None and high is not None:
        panel.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.4)
    panel.plot(value, place, "o", color=colour, markersize=4, label=label)


def curve_figure(
    findings: "Findings",
    curves: Mapping[str, Mapping[str, float]],
    label: str,
    marked: Sequence[float] = (),
    log: bool = False,
) -> bytes:
    """One panel per metric: its value and interval over a number that each setting of a curve has.

    There are up to three curves, by name; a ceiling is dashed, and without intervals. `marked` numbers stand out.
    """
    columns = [c for c in findings.columns if any(findings.cell(s, c.name) for x in curves.values() for s in x)]
    whole = all(isinstance(at, int) for x in curves.values() for at in x.values())

    def draw(panel: Any, column: "Column") -> None:
        for colour, (name, x) in zip((BLUE, ORANGE, GREY), curves.items(), strict=False):
            ceiling = "ceiling" in name
            cells = [(at, findings.cell(setting, column.name)) for at, setting in sorted((x[s], s) for s in x)]
            known = [(at, cell) for at, cell in cells if cell is not None and cell.value is not None]
            line = {"color": colour, "linestyle": "--" if ceiling else "-", "label": name}
            panel.plot([at for at, _ in known], [cell.value for _, cell in known], marker="o", markersize=3, **line)
            bands = [(at, cell.low, cell.high) for at, cell in known if cell.low is not None and cell.high is not None]
            if bands and not ceiling:
                panel.fill_between(*zip(*bands, strict=True), color=colour, alpha=0.15, linewidth=0)
        for at in marked:
            panel.axvline(at, color=ORANGE, linewidth=0.8, linestyle="--")
        if log:
            panel.set_xscale("symlog", linthresh=1)
        elif whole:
            panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_xlabel(label)

    return _panels(columns, findings.title, (2.4, 1.9), "x", draw, legend=len(curves) > 1)


def _panels(
    columns: "Sequence[Column]",
    title: str,
    size: tuple[float, float],
    shared: str,
    draw: "Callable[[Axes, Column], None]",
    legend: bool = False,
) -> bytes:
    """A panel of this size for each metric, at most four in a row, with the axis x or y `shared`."""
    across = min(4, max(1, len(columns)))
    down = -(-len(columns) // across)
    # On a shared y axis stand the names of settings, left of all panels.
    width, height = size[0] * across + (shared == "y"), size[1] * down + 0.4 * legend
    with svg_figure(width, height, title) as (figure, made):
        panels = figure.subplots(down, across, sharex=shared == "x", sharey=shared == "y", squeeze=False).ravel()
        for panel in panels[len(columns) :]:
            panel.set_axis_off()
        for panel, column in zip(panels, columns, strict=False):
            draw(panel, column)
            panel.set_title(_heading(column), fontsize=8)
        if legend:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return made[0]


def _heading(column: "Column") -> str:
    """The title of a panel; a long one in two lines, so that it does not reach into the next panel."""
    words = f"({'higher' if column.higher_is_better else 'lower'} is better)"
    return f"{column.short}\n{words}" if len(column.short) > 16 else f"{column.short} {words}"


def index_page(entries: Sequence[Mapping[str, Any]]) -> str:
    """The page that lists what experiments were done on a run."""
    return _filled("index.html.j2", entries=entries)


def _filled(template: str, **values: Any) -> str:
    """A template of the experiments, with the style of the report; every text in it is escaped."""
    return templates("experiments", "report").get_template(template).render(values)
