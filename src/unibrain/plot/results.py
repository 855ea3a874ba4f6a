"""What was decoded, how it scores, how well latents are predicted, and how near training images are."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.table import latent_title
from unibrain.plot.canvas import BLUE, GREY, ORANGE, axes_of, figure_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from unibrain.audit import Audit
    from unibrain.evaluation import Scores
    from unibrain.reconstruction import Decoded
    from unibrain.stimuli import Stimuli

_SIDE = 1.6
_WORDS = 22


@styled
def pictures(
    decoded: "Decoded",
    stimuli: "Stimuli | None" = None,
    most: int = 8,
    figure: "Figure | SubFigure | None" = None,
) -> NDArray[Any]:
    """Draw decoded pictures over their captions, below what was seen.

    Parameters
    ----------
    decoded : Decoded
    stimuli : Stimuli, optional
        What was seen; without it, there is one row.
    most : int
        How many scans are shown, the first ones.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure of pyplot.

    Returns
    -------
    ndarray of shape (rows, scans) of matplotlib Axes

    Raises
    ------
    InputError
        If there is nothing to show.
    """
    ids = decoded.stimulus_ids[: max(0, most)]
    if not len(ids):
        raise InputError("there is nothing decoded to draw. Decode at least one scan, and show at least one.")
    rows: list[tuple[str, NDArray[np.uint8] | None, list[str]]] = []
    if stimuli is not None:
        captions = [next(iter(texts), "") for texts in stimuli.captions(ids)]
        rows.append(("seen", stimuli.pictures(ids), captions))
    rows.append(("decoded", decoded.pictures, list(decoded.captions or [""] * len(decoded.stimulus_ids))))
    drawn = figure_of(figure, _SIDE * len(ids) + 0.3, (_SIDE + 0.7) * len(rows))
    axes: NDArray[Any] = drawn.subplots(len(rows), len(ids), squeeze=False)
    for panels, (label, images, texts) in zip(axes, rows, strict=True):
        for number, panel in enumerate(panels):
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
            panel.set_xlabel(_wrapped(texts[number]), fontsize=7)
            if images is not None:
                panel.imshow(images[number])
        panels[0].set_ylabel(label)
    return axes


@styled
def scores(found: "Scores", axes: "Axes | None" = None) -> "Axes":
    """Draw each score with its interval between its controls and its ceilings.

    Parameters
    ----------
    found : Scores
        Scores without a value are left out.
    axes : matplotlib Axes, optional
        Where to draw; by default those of a new figure of pyplot.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If no score has a value.
    """
    from unibrain.evaluation.controls import CONTROLS

    known = [score for score in found.scores if score.value is not None]
    if not known:
        raise InputError("no score has a value to draw. Their notes say what is missing.")
    axes = axes_of(axes, 8.4, 0.3 * len(known) + 1.2)
    styles = {
        "shuffled": ("x", GREY, "shuffled"),
        "control": ("|", ORANGE, "other controls"),
        "ceiling": ("D", GREY, "ceilings"),
    }
    points: dict[str, list[tuple[float, int]]] = {name: [] for name in styles}
    for place, score in enumerate(known):
        if score.interval is not None:
            axes.plot(score.interval, [place, place], color=BLUE, linewidth=5, alpha=0.3, solid_capstyle="butt")
        if score.control is not None:
            points["shuffled"].append((score.control, place))
        for name, other in score.beside.items():
            points[CONTROLS[name].role].append((other.value, place))
    for name, (marker, colour, label) in styles.items():
        if points[name]:
            x, y = zip(*points[name], strict=True)
            face = "none" if name == "ceiling" else colour
            axes.plot(x, y, marker, color=colour, label=label, markersize=5, markerfacecolor=face)
    values = [float(score.value) for score in known if score.value is not None]
    axes.plot(values, range(len(known)), "o", color=BLUE, label="score, 95 % interval", markersize=5)
    axes.set_yticks(range(len(known)), [f"{s.title} {'↑' if s.higher_is_better else '↓'}" for s in known])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_xlabel(f"{len(found.stimulus_ids)} images{', simulated scans' * found.simulated}")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=7)
    return axes


@styled
def accuracy(found: "Scores", axes: "Axes | None" = None) -> "Axes":
    """Draw how well each latent is predicted, from all voxels and from each region, as a table of shades.

    Parameters
    ----------
    found : Scores
        With `Scores.accuracy_by_region`.
    axes : matplotlib Axes, optional
        Where to draw; by default those of a new figure of pyplot.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If no accuracy is known.
    """
    table = found.accuracy_by_region
    if not table:
        raise InputError("these scores have no accuracy of latents. Give predicted and true latents to evaluate.")
    latents = list(dict.fromkeys(name for row in table.values() for name in row))
    values = np.array([[row.get(name, np.nan) for name in latents] for row in table.values()])
    axes = axes_of(axes, 1.1 * len(latents) + 1.4, 0.26 * len(table) + 0.8)
    most = max(0.01, float(np.nanmax(values)))
    axes.imshow(values, "Blues", vmin=0, vmax=1.4 * most, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center")
    axes.set_xticks(range(len(latents)), list(map(latent_title, latents)))
    axes.set_xticklabels([_wrapped(label.get_text(), 14) for label in axes.get_xticklabels()])
    axes.set_yticks(range(len(table)), ["all voxels" if name == "all" else name for name in table])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"correlation across {len(found.stimulus_ids)} images{', simulated' * found.simulated}", fontsize=8)
    return axes


@styled
def neighbours(audit: "Audit", axes: "Axes | None" = None) -> "Axes":
    """Draw how near the nearest training image is in meaning: of test images, and of training images among themselves.

    Parameters
    ----------
    audit : Audit
        Of a run whose latents were extracted.
    axes : matplotlib Axes, optional
        Where to draw; by default those of a new figure of pyplot.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If the audit had no latents to look at.
    """
    near = audit.neighbours
    if near is None:
        raise InputError(f"{audit.source}: this audit looked at no latents. Extract them, and audit again.")
    axes = axes_of(axes, 6.4, 2.2)
    test, train = (np.asarray(counts) / max(sum(counts), 1) for counts in (near.test_counts, near.train_counts))
    axes.stairs(test, near.edges, fill=True, color=BLUE, alpha=0.5, label=_median("test images", near.test_quantiles))
    label = _median("training images among themselves", near.train_quantiles)
    axes.stairs(train, near.edges, color=ORANGE, label=label)
    axes.set_xlabel("cosine of CLIP embeddings to the nearest training image")
    axes.set_ylabel("share of images")
    axes.legend(frameon=False)
    return axes


def _median(what: str, quantiles: tuple[float, ...]) -> str:
    return f"{what}, median {quantiles[2]:.2f}"


def _wrapped(text: str, width: int = _WORDS) -> str:
    # A dollar begins a formula in matplotlib.
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
