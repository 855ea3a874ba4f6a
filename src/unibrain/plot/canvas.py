"""What all figures share: colours, a style, a place to be drawn on, and SVG for pages."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

P = ParamSpec("P")
T = TypeVar("T")

BLUE, ORANGE, RED, GREY = "#3a4fc4", "#d0622b", "#a8442a", "#5d626d"
STYLE: Any = {
    # Text stays text: it can be read aloud, searched and copied, and the file is a tenth as large.
    "svg.fonttype": "none",
    # Without it, names inside the file are random, and the same figure is another file each time.
    "svg.hashsalt": "unibrain",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in the style of all figures, whatever the process has set."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import rcParams

        # `rc_context` would take back all that changes meanwhile, such as that pyplot, imported for the first figure of
        # a notebook, became interactive: no later figure would be shown.
        before = {name: rcParams[name] for name in STYLE}
        rcParams.update(STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            rcParams.update(before)

    return drawn


def figure_of(figure: "Figure | SubFigure | None", width: float, height: float) -> "Figure | SubFigure":
    """The figure that was given, in this size (inches); pyplot's own new one if none was given."""
    if figure is None:
        from matplotlib import pyplot

        return pyplot.figure(figsize=(width, height), layout="constrained")
    from matplotlib.figure import Figure

    if isinstance(figure, Figure):
        figure.set_size_inches(width, height)
    return figure


def axes_of(axes: "Axes | None", width: float, height: float) -> "Axes":
    """The axes that were given, or those of a new figure of this size."""
    return figure_of(None, width, height).subplots() if axes is None else axes


@contextmanager
def svg_figure(width: float, height: float, title: str) -> "Iterator[tuple[Figure, list[bytes]]]":
    """A figure without pyplot: nothing of the process's state is touched, and no display is needed.

    When the block ends, its SVG is the one entry of the list.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    made: list[bytes] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, made
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        made.append(buffer.getvalue())
