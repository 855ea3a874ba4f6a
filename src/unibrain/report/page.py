"""`write_report`: the page."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.evaluation import METRICS, Score
from unibrain.evaluation.controls import CONTROLS
from unibrain.evaluation.scores import TOP
from unibrain.latents.table import latent_title
from unibrain.report.content import ReportContent
from unibrain.report.sections import (
    accuracy_table,
    audit_view,
    band_table,
    data_uri,
    latent_rows,
    penalty_view,
    setting_sections,
    templates,
)
from unibrain.workspace.files import write_text

_SAMPLE = 4
_TILES = ("two_way_picture", "two_way_caption")


def write_report(content: ReportContent, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file that needs no network and no other file, atomically; every text is escaped.

    Parameters
    ----------
    content : ReportContent
    path : path-like
        Where to; an older report there is replaced.

    Raises
    ------
    InputError
        If the disk is full.
    """
    environment = templates("report")
    environment.filters |= {"value": _value, "seconds": _seconds, "percent": _percent, "latent": latent_title}
    scores = content.scores.scores
    rank = overall_rank(scores, len(content.captions))
    cards = [_card(content, row, float(rank[row])) for row in range(len(content.captions))]
    page = environment.get_template("page.html.j2").render(
        content=content,
        sample={label: [cards[row] for row in rows] for label, rows in fair_sample(rank, _SAMPLE).items()},
        cards=sorted(cards, key=lambda card: (-card["overall"], card["id"])),
        scores=scores,
        metrics=METRICS,
        short={score.name: score.short for score in scores},
        tiles=[score for score in scores if score.name in _TILES and score.value is not None],
        sortable=[score for score in scores if score.complete],
        controls=CONTROLS,
        top=TOP,
        compared=content.scores.controls,
        compared_images=max((found.images for score in scores for found in score.beside.values()), default=0),
        latents=latent_rows(content),
        accuracy=accuracy_table(content),
        penalties=penalty_view(content.alpha_choices, content.alpha_chart),
        bands=band_table(content.bands),
        audit=audit_view(content.audit, content.audit_pictures),
        settings=list(setting_sections(content.settings)),
        total_seconds=sum(content.seconds.values()),
        with_captions=content.decoded.captions is not None and any(content.captions),
        with_pictures=content.decoded.pictures is not None,
    )
    write_text(path, page)


def _card(content: ReportContent, row: int, overall: float) -> dict[str, Any]:
    pictures, captions = content.decoded.pictures, content.decoded.captions
    return {
        "id": int(content.decoded.stimulus_ids[row]),
        "overall": overall,
        "seen": data_uri(content.seen[row]),
        "decoded": None if pictures is None else data_uri(pictures[row]),
        "captions": [caption for caption in content.captions[row] if caption],
        "caption": "" if captions is None else captions[row],
        "values": {score.name: score.per_image[row] for score in content.scores.scores if score.complete},
    }


def overall_rank(scores: Sequence[Score], images: int) -> NDArray[np.float64]:
    """Where each image stands among all, averaged over the scores; pictures and captions count alike.

    Shape (images,): 1 for an image that is best in every score, 0 for one that is worst in every score. 0.5 where there
    are no scores or no other images.
    """
    from scipy.stats import rankdata

    kinds = []
    for kind in ("picture", "caption"):
        ranks = [
            (rankdata(np.array(score.per_image, float) * (1 if score.higher_is_better else -1)) - 1) / (images - 1)
            for score in scores
            if score.kind == kind and score.complete and images > 1
        ]
        if ranks:
            kinds.append(np.mean(ranks, axis=0))
    overall: NDArray[np.float64] = np.mean(kinds, axis=0) if kinds else np.full(images, 0.5)
    return overall


def fair_sample(rank: NDArray[np.float64], count: int) -> dict[str, list[int]]:
    """Rows of the best, the median and the worst images, so that nobody is shown the best ones only.

    At most `count` of each, fewer if there are not three times as many images; with fewer than three only ``All``.
    """
    order = np.argsort(-rank, kind="stable").tolist()
    n = len(order)
    if n < 3:
        return {"All": order}
    count = min(count, n // 3)
    middle = (n - count) // 2
    return {"Best": order[:count], "Median": order[middle : middle + count], "Worst": order[n - count :]}


def _value(value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(entry) for entry in value)
    return str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NARROW NO-BREAK SPACE}%"


def _seconds(seconds: float) -> str:
    """A duration in words: ``0.4 s``, ``12 s``, ``1 min 21 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
