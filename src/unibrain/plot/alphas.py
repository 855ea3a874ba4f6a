"""How alphas were chosen: explained variance and correlation of images left out, against alpha."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.table import latent_title
from unibrain.plot.canvas import BLUE, GREY, ORANGE, RED, figure_of, styled, svg_figure
from unibrain.regression.penalties import AlphaChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


@styled
def penalties(choices: Mapping[str, AlphaChoice], figure: "Figure | SubFigure | None" = None) -> NDArray[Any]:
    """Draw the curves that alphas were chosen from.

    One column per latent; explained variance above, correlation below. With several groups (tokens or targets): their
    median, the range of the middle 80 %, and that of all. Dashed lines mark the alphas that were chosen, the darker the
    more groups chose them. Groups that do not vary are left out.

    Parameters
    ----------
    choices : mapping of str to AlphaChoice
        Latent to choice, at least one: ``decoder.alpha_choice_``.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure of pyplot.

    Returns
    -------
    ndarray of shape (2, latents) of matplotlib Axes

    Raises
    ------
    InputError
        If there is no choice to draw.
    """
    if not choices:
        raise InputError("There are no curves of alphas to draw. Choose alpha by cross-validation.")
    drawn = figure_of(figure, 3.1 * len(choices) + 0.4, 4.8)
    axes: NDArray[Any] = drawn.subplots(2, len(choices), sharex="col", squeeze=False)
    for column, (name, choice) in enumerate(choices.items()):
        _draw(axes[0, column], choice, choice.r2)
        _draw(axes[1, column], choice, choice.correlation)
        colour = RED if choice.edge_warning else "black"
        title = f"{latent_title(name)}\n{_best(choice)}"
        axes[0, column].set_title(title, fontsize=9, loc="left", color=colour)
        axes[1, column].set_xlabel("\n".join(["alpha", *textwrap.wrap(choice.edge_warning, 36)]), color=colour)
    axes[0, 0].set_ylabel("explained variance (R²)\nof images left out")
    axes[1, 0].set_ylabel("correlation\nof images left out")
    return axes


def alpha_figure(choices: Mapping[str, AlphaChoice]) -> bytes:
    """What `penalties` draws as an SVG picture in UTF-8; the same bytes for the same choices."""
    with svg_figure(1, 1, "Choice of alpha") as (figure, made):
        penalties(choices, figure)
    return made[0]


def _draw(axis: Any, choice: AlphaChoice, curves: Any) -> None:
    shown = np.asarray(curves, dtype=np.float64)[choice.varies]
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.axhline(0.0, color=GREY, linewidth=0.6)
    if not len(shown):
        axis.text(0.5, 0.5, "nothing varies", transform=axis.transAxes, ha="center", color=GREY)
        axis.set_xlim(choice.alphas[0] / 1.5, choice.alphas[-1] * 1.5)
        return
    middle = np.median(shown, axis=0)
    if len(shown) > 1:
        axis.fill_between(choice.alphas, shown.min(axis=0), shown.max(axis=0), color=BLUE, alpha=0.12, linewidth=0)
        axis.fill_between(choice.alphas, *np.percentile(shown, [10, 90], axis=0), color=BLUE, alpha=0.25, linewidth=0)
    axis.plot(choice.alphas, middle, color=BLUE, marker="o", markersize=3)
    steps, counts = np.unique(choice.best_step[choice.varies], return_counts=True)
    for step, count in zip(steps, counts, strict=True):
        strength = 0.15 + 0.85 * count / counts.max()
        axis.axvline(choice.alphas[step], color=ORANGE, linestyle="--", linewidth=1, alpha=strength)
    # Tiny alphas may do arbitrarily badly: what matters is near and above the best.
    top = float(shown.max())
    axis.set_ylim(max(float(shown.min()), -max(top, 0.02)) - 0.02, top + max(0.02, 0.08 * top))


def _best(choice: AlphaChoice) -> str:
    best = choice.best[choice.varies]
    if not len(best):
        return "nothing varies"
    if best.min() == best.max():
        return f"best alpha {best[0]:.3g}"
    return f"alpha {best.min():.3g} to {best.max():.3g}, median {np.median(best):.3g}"
