"""The audit for the page: its table, the plot of nearest neighbours, and pictures side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.report.pictures import data_uri

if TYPE_CHECKING:
    from unibrain.audit import Audit, Neighbours, Pair

__all__ = ["audit_view", "shown_pairs"]

_PAIRS = 6
_WIDTH, _HEIGHT, _MARGIN = 760, 220, 34


def shown_pairs(audit: "Audit") -> tuple["Pair", ...]:
    """Pairs of test and training image whose pictures the page shows: most alike as pictures, then in meaning."""
    meaning = audit.neighbours.pairs if audit.neighbours is not None else ()
    return (*audit.pictures[:_PAIRS], *meaning[:_PAIRS])


def audit_view(audit: "Audit | None", pictures: Mapping[int, NDArray[np.uint8]]) -> dict[str, Any] | None:
    """What the page shows of an audit.

    Parameters
    ----------
    audit : Audit or None
    pictures : mapping of int to ndarray of shape (height, width, 3), uint8
        By stimulus id; a pair that lacks one is not shown.

    Returns
    -------
    dict or None
        ``audit``; ``alike`` and ``meaning``, pairs with their pictures as data URIs; ``plot``, or None without latents.
    """
    if audit is None:
        return None
    meaning = audit.neighbours.pairs if audit.neighbours is not None else ()
    return {
        "audit": audit,
        "alike": _twins(audit.pictures, pictures, audit.near_duplicate),
        "meaning": _twins(meaning, pictures, None),
        "plot": None if audit.neighbours is None else _plot(audit.neighbours),
    }


def _twins(
    pairs: tuple["Pair", ...], pictures: Mapping[int, NDArray[np.uint8]], threshold: float | None
) -> list[dict[str, Any]]:
    return [
        {
            "pair": pair,
            "test": data_uri(pictures[pair.test_id]),
            "train": data_uri(pictures[pair.train_id]),
            "close": threshold is not None and pair.similarity >= threshold,
        }
        for pair in pairs[:_PAIRS]
        if pair.test_id in pictures and pair.train_id in pictures
    ]


def _plot(neighbours: "Neighbours") -> dict[str, Any]:
    """Two histograms as shapes of an SVG: bars for test images, a line of steps for training images, both as shares."""
    edges = np.asarray(neighbours.edges)
    shares = {
        side: np.asarray(counts) / max(sum(counts), 1)
        for side, counts in (("test", neighbours.test_counts), ("train", neighbours.train_counts))
    }
    highest = max(float(share.max()) for share in shares.values()) or 1.0
    floor = _HEIGHT - _MARGIN
    x = _MARGIN + (edges - edges[0]) / (edges[-1] - edges[0]) * (_WIDTH - 2 * _MARGIN)
    heights = {side: share / highest * (floor - 12) for side, share in shares.items()}
    bars = [
        (round(float(left), 1), round(float(floor - height), 1), round(float(right - left), 1), round(float(height), 1))
        for left, right, height in zip(x[:-1], x[1:], heights["test"], strict=True)
        if height
    ]
    steps = [f"M{x[0]:.1f} {floor}"]
    for right, height in zip(x[1:], heights["train"], strict=True):
        steps.append(f"V{floor - height:.1f}H{right:.1f}")
    ticks = np.linspace(edges[0], edges[-1], 5)
    places = np.linspace(x[0], x[-1], 5)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "floor": floor,
        "bars": bars,
        "steps": "".join([*steps, f"V{floor}"]),
        "ticks": [(round(float(place), 1), f"{value:.2f}") for place, value in zip(places, ticks, strict=True)],
        "test_median": neighbours.test_quantiles[2],
        "train_median": neighbours.train_quantiles[2],
    }
