"""What the sections of the page show: accuracy by region, penalties, the audit, settings; and pictures as data URIs."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents import LATENTS
from unibrain.latents.table import latent_title

if TYPE_CHECKING:
    from jinja2 import Environment

    from unibrain.audit.audit import Audit, Neighbours, Pair
    from unibrain.regression import AlphaChoice, BandChoice
    from unibrain.report.content import ReportContent

_LOSSLESS_SIDE = 128
_LARGEST_SIDE = 320
_PAIRS = 6
_WIDTH, _HEIGHT, _MARGIN = 760, 220, 34


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Encode a picture as WebP in a data URI: exactly up to 128 pixels a side, larger ones at most 320 a side."""
    return _uri("webp", webp(picture))


def webp(picture: NDArray[np.uint8]) -> bytes:
    """What `data_uri` encodes."""
    from PIL import Image

    image = Image.fromarray(picture)
    lossless = max(image.size) <= _LOSSLESS_SIDE
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=1)  # here, these are effort, not fidelity
    else:
        image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def svg_uri(svg: bytes) -> str:
    """An SVG picture in which no script of it runs, and none of its names meets those of the page."""
    return _uri("svg+xml", svg)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def templates(*folders: str) -> "Environment":
    """The templates in folders of the package; every text in them is escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader("unibrain", folder) for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def latent_rows(content: "ReportContent") -> list[tuple[str, str, str]]:
    """(name, title, explanation) of the latents that this run predicted."""
    known = {latent for latent, _, _ in content.scores.latent_accuracy}
    return [(row.name, row.title, row.explanation) for row in LATENTS.values() if not known or row.name in known]


def accuracy_table(content: "ReportContent") -> dict[str, Any]:
    """Prediction accuracy: regions down (all voxels first), latents across; None where a cell is not known."""
    table = content.scores.accuracy_by_region
    latents = list(dict.fromkeys(latent for latent, _, _ in content.scores.latent_accuracy))
    return {
        "latents": latents,
        "rows": [
            (region, content.regions.get(region), [known.get(name) for name in latents])
            for region, known in table.items()
        ],
        "largest": max([0.01, *(value for known in table.values() for value in known.values())]),
    }


def penalty_view(choices: Mapping[str, "AlphaChoice"], chart: bytes | None) -> dict[str, Any]:
    """The chart of all latents, if there is one; of each, what the choice of alpha looked at, a warning or nothing."""
    return {
        "chart": None if chart is None else svg_uri(chart),
        "latents": [
            {"title": latent_title(name), "words": choice.describe(), "warning": choice.edge_warning}
            for name, choice in choices.items()
        ],
    }


def band_table(choice: "BandChoice | None") -> dict[str, Any] | None:
    """Bands down, latents across: (share of the explained variance, penalty)."""
    if choice is None:
        return None
    shares, penalties = choice.shares.tolist(), choice.penalties.tolist()
    rows = [
        (band, [(share[number], penalty[number]) for share, penalty in zip(shares, penalties, strict=True)])
        for number, band in enumerate(choice.bands)
    ]
    return {
        "latents": choice.latents,
        "rows": rows,
        "total": choice.best_r2.tolist(),
        "largest": max(0.001, *(share for row in shares for share in row)),
        "candidates": len(choice.candidates),
    }


def shown_pairs(audit: "Audit") -> tuple["Pair", ...]:
    """Pairs of test and training image whose pictures the page shows: most alike as pictures, then in meaning."""
    meaning = audit.neighbours.pairs if audit.neighbours is not None else ()
    return (*audit.pictures[:_PAIRS], *meaning[:_PAIRS])


def audit_view(audit: "Audit | None", pictures: Mapping[int, NDArray[np.uint8]]) -> dict[str, Any] | None:
    """An audit for the page; `pictures` are by stimulus id, and a pair that lacks one is not shown."""
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
    pairs: Sequence["Pair"], pictures: Mapping[int, NDArray[np.uint8]], threshold: float | None
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
    test, train = (np.asarray(c) / max(sum(c), 1) for c in (neighbours.test_counts, neighbours.train_counts))
    floor = _HEIGHT - _MARGIN
    x = _MARGIN + (edges - edges[0]) / (edges[-1] - edges[0]) * (_WIDTH - 2 * _MARGIN)
    scale = (floor - 12) / (max(float(test.max()), float(train.max())) or 1.0)
    bars = [
        tuple(round(float(number), 1) for number in (left, floor - height, right - left, height))
        for left, right, height in zip(x[:-1], x[1:], test * scale, strict=True)
        if height
    ]
    steps = (f"V{floor - height:.1f}H{right:.1f}" for right, height in zip(x[1:], train * scale, strict=True))
    ticks = zip(np.linspace(x[0], x[-1], 5), np.linspace(edges[0], edges[-1], 5), strict=True)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "floor": floor,
        "bars": bars,
        "steps": "".join([f"M{x[0]:.1f} {floor}", *steps, f"V{floor}"]),
        "ticks": [(round(float(place), 1), f"{value:.2f}") for place, value in ticks],
        "test_median": neighbours.test_quantiles[2],
        "train_median": neighbours.train_quantiles[2],
    }


def setting_sections(settings: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Settings by section; deeper levels become dotted names."""
    loose = [(name, value) for name, value in settings.items() if not isinstance(value, Mapping)]
    if loose:
        yield "run", loose
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield name, list(_flat(value))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
