"""Growth of our time with images, voxels and targets, beside the model 2 * m * n * t / rate."""

from pathlib import Path
from typing import Any

TITLES = {"images": "training images n", "targets": "targets t", "voxels": "voxels p"}


def draw_growth(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel each for images, targets and voxels.

    Parameters
    ----------
    rows : list of dict
        ``varied`` (a key of `TITLES`), ``size``, ``stream`` and ``kernel`` in seconds, and ``model``, the seconds of
        2 * m * n * t operations at the measured rate.
    path : pathlib.Path
        The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (varied, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        chosen = [row for row in rows if row["varied"] == varied]
        x = [row["size"] for row in chosen]
        axis.plot(x, [row["model"] for row in chosen], "--", color="0.5", label="2·m·n·t / product rate")
        axis.plot(x, [row["stream"] for row in chosen], "o-", color="#1b6ca8", label="stream all targets")
        axis.plot(x, [row["kernel"] for row in chosen], "s-", color="#c8553d", label="kernel, factor, operator")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(x, [f"{size:,}" for size in x])
        axis.minorticks_off()
        axis.set_xlabel(title)
        axis.set_ylabel("seconds")
    axis.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
