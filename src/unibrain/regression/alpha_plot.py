"""How alphas were chosen, as a figure: explained variance and correlation of images left out, against alpha.

Written as SVG by hand: a plotting library takes seconds of every fit and every report to load and to lay it out. Text
stays text: it can be read aloud, searched and copied.
"""

import textwrap
from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.latents import LATENTS
from unibrain.regression.penalties import AlphaChoice

_LINE, _BEST, _EDGE, _QUIET = "#3a4fc4", "#d0622b", "#a8442a", "#5d626d"

# In pixels: where the first panel begins, what lies between the left edges of two, and their size.
_LEFT, _TOP, _STEP, _WIDE, _HIGH, _GAP = 90, 46, 290, 225, 150, 30


def alpha_figure(choices: Mapping[str, AlphaChoice]) -> bytes:
    """Draw the curves that alphas were chosen from.

    One column per latent; explained variance above, correlation below. With several groups (tokens or targets): their
    median, the range of the middle 80 %, and that of all. Dashed lines mark the alphas that were chosen, the darker the
    more groups chose them. Groups that do not vary are left out.

    Parameters
    ----------
    choices : mapping of str to AlphaChoice
        Latent to choice, at least one.

    Returns
    -------
    bytes
        An SVG picture in UTF-8; the same for the same choices.

    Raises
    ------
    InputError
        If there is no choice to draw.
    """
    if not choices:
        raise InputError("There are no curves of alphas to draw. Choose alpha by cross-validation.")
    width, height = _STEP * len(choices) + _LEFT, _TOP + 2 * (_HIGH + _GAP) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><title>Choice of alpha</title><rect width="100%" height="100%" '
        f'fill="white"/>'
    ]
    for row, words in enumerate(("explained variance (R²)", "correlation")):
        middle = _TOP + row * (_HIGH + _GAP) + _HIGH / 2
        for line, text in enumerate((words, "of images left out")):
            place = f"translate({14 + 15 * line} {middle:g}) rotate(-90)"
            parts.append(f'<text transform="{place}" text-anchor="middle">{text}</text>')
    for column, (name, choice) in enumerate(choices.items()):
        left, colour = _LEFT + column * _STEP, _EDGE if choice.edge_warning else "black"
        title = LATENTS[name].title if name in LATENTS else name
        parts += [_text(left, 18 + 15 * line, text, colour) for line, text in enumerate((title, _best(choice)))]
        for row, curves in enumerate((choice.r2, choice.correlation)):
            parts += _panel(left, _TOP + row * (_HIGH + _GAP), choice, np.asarray(curves, dtype=np.float64))
        below = ["alpha", *textwrap.wrap(choice.edge_warning, 34)]
        bottom = _TOP + 2 * _HIGH + _GAP + 34
        parts += [
            _text(left + _WIDE / 2, bottom + 14 * line, text, colour, "middle") for line, text in enumerate(below)
        ]
    return ("\n".join([*parts, "</svg>"]) + "\n").encode()


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'


def _panel(left: float, top: float, choice: AlphaChoice, curves: NDArray[np.float64]) -> list[str]:
    """Axes, curves, and the alphas that were chosen."""
    shown = curves[choice.varies]
    powers = np.log10(choice.alphas)
    first, last = powers[0] - 0.18, powers[-1] + 0.18

    def across(values: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(left + (np.asarray(values) - first) / (last - first) * _WIDE)

    parts = [f'<path d="M{left} {top}v{_HIGH}h{_WIDE}" fill="none" stroke="{_QUIET}"/>']
    for power in range(int(np.ceil(first)), int(np.floor(last)) + 1):
        x = float(across(power))
        parts.append(f'<path d="M{x:.1f} {top + _HIGH}v4" stroke="{_QUIET}"/>')
        parts.append(_text(x, top + _HIGH + 17, f"1e{power}", _QUIET, "middle"))
    if not len(shown):
        return [*parts, _text(left + _WIDE / 2, top + _HIGH / 2, "nothing varies", _QUIET, "middle")]
    # Tiny alphas may do arbitrarily badly: what matters is near and above the best.
    top_value = float(shown.max())
    low = max(float(shown.min()), -max(top_value, 0.02)) - 0.02
    high = top_value + max(0.02, 0.08 * top_value)

    def down(values: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(top + (high - np.clip(values, low, high)) / (high - low) * _HIGH)

    for value in _ticks(low, high):
        y = float(down(value))
        parts.append(f'<path d="M{left} {y:.1f}h-4" stroke="{_QUIET}"/>')
        parts.append(_text(left - 7, y + 4, f"{value:.4g}", _QUIET, "end"))
        if value == 0:
            parts.append(f'<path d="M{left} {y:.1f}h{_WIDE}" stroke="{_QUIET}" stroke-width="0.6"/>')
    places = across(powers)

    def points(values: NDArray[np.float64], along: NDArray[np.float64] = places) -> str:
        return " ".join(f"{one:.1f},{other:.1f}" for one, other in zip(along, down(values), strict=True))

    if len(shown) > 1:
        inner = np.percentile(shown, [10, 90], axis=0)
        for lower, upper, opacity in ((shown.min(axis=0), shown.max(axis=0), 0.12), (*inner, 0.25)):
            outline = f"{points(lower)} {points(upper[::-1], places[::-1])}"
            parts.append(f'<polygon points="{outline}" fill="{_LINE}" fill-opacity="{opacity}"/>')
    middle = np.median(shown, axis=0)
    parts.append(f'<polyline points="{points(middle)}" fill="none" stroke="{_LINE}" stroke-width="1.6"/>')
    parts += [
        f'<circle cx="{one:.1f}" cy="{other:.1f}" r="2.4" fill="{_LINE}"/>'
        for one, other in zip(places, down(middle), strict=True)
    ]
    steps, counts = np.unique(choice.best_step[choice.varies], return_counts=True)
    for step, count in zip(steps, counts, strict=True):
        strength = 0.15 + 0.85 * count / counts.max()
        parts.append(
            f'<path d="M{places[step]:.1f} {top}v{_HIGH}" stroke="{_BEST}" stroke-dasharray="5 3" '
            f'stroke-opacity="{strength:.2f}"/>'
        )
    return parts


def _ticks(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two, at most six."""
    size = 10.0 ** np.floor(np.log10((high - low) / 5))
    step = next(size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= 6)
    ticks: NDArray[np.float64] = step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
    return ticks


def _best(choice: AlphaChoice) -> str:
    best = choice.best[choice.varies]
    if not len(best):
        return "nothing varies"
    if best.min() == best.max():
        return f"best alpha {best[0]:.3g}"
    return f"alpha {best.min():.3g} to {best.max():.3g}, median {np.median(best):.3g}"
