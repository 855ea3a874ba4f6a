"""Write the page."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unibrain.evaluation.scores import Score, Scores
from unibrain.latents.latents import LATENT_NAMES, LATENT_TITLES
from unibrain.regression.accuracy import SAMPLED_TARGETS
from unibrain.report.audit_view import audit_view
from unibrain.report.content import ReportContent
from unibrain.report.explanations import EXPLANATIONS, Explanation, limits_of
from unibrain.report.penalties import band_table, penalty_chart
from unibrain.report.pictures import data_uri
from unibrain.report.ranking import fair_sample, overall_rank
from unibrain.workspace.files import write_text

__all__ = ["render_report", "write_report"]

_SAMPLE = 4


def write_report(path: str | os.PathLike[str], content: ReportContent) -> None:
    """Write the report as one HTML file that needs no network and no other file, atomically.

    Parameters
    ----------
    path : path-like
        Where to; an older report there is replaced.
    content : ReportContent

    Raises
    ------
    InputError
        If the disk is full.
    """
    write_text(path, render_report(content))


def render_report(content: ReportContent) -> str:
    """The HTML of the report; every text in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unibrain.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": _value, "seconds": _seconds, "percent": _percent}
    rank = overall_rank(content.scores.scores, len(content.captions))
    cards = [_card(content, row, float(rank[row])) for row in range(len(content.captions))]
    sample = {label: [cards[row] for row in rows] for label, rows in fair_sample(rank, _SAMPLE).items()}
    return environment.get_template("page.html.j2").render(
        content=content,
        sample=sample,
        cards=sorted(cards, key=lambda card: (-card["overall"], card["id"])),
        scores=[_row(score) for score in content.scores.scores],
        tiles=[_row(score) for score in content.scores.scores if score.name.startswith("two_way") and score.value],
        sortable=[_row(score) for score in content.scores.scores if score.per_image],
        accuracy=_accuracy(content.scores),
        sampled_targets=f"{SAMPLED_TARGETS:,}",
        penalties=penalty_chart(content.alpha_choices),
        bands=band_table(content.bands),
        audit=audit_view(content.audit, content.audit_pictures),
        latent_titles=LATENT_TITLES,
        settings=list(_sections(content.settings)),
        total_seconds=sum(content.seconds.values()),
        limits=(*content.limits, *limits_of(len(cards), content.simulated)),
    )


def _card(content: ReportContent, row: int, overall: float) -> dict[str, Any]:
    return {
        "id": int(content.decoded.stimulus_ids[row]),
        "overall": overall,
        "seen": data_uri(content.seen[row]),
        "decoded": data_uri(content.decoded.pictures[row]),
        "captions": [caption for caption in content.captions[row] if caption],
        "caption": content.decoded.captions[row],
        "values": {score.name: score.per_image[row] for score in content.scores.scores if score.per_image},
    }


def _row(score: Score) -> dict[str, Any]:
    return {"score": score, "words": EXPLANATIONS.get(score.name, Explanation(score.title, "", ""))}


def _accuracy(scores: Scores) -> dict[str, Any]:
    """Prediction accuracy as a table: regions down, latents across; None where a cell is not known."""
    known = {(latent, region): value for latent, region, value in scores.latent_accuracy if math.isfinite(value)}
    present = {latent for latent, _, _ in scores.latent_accuracy}
    # In order of appearance, all voxels first.
    regions = sorted(
        dict.fromkeys(region for _, region, _ in scores.latent_accuracy), key=lambda region: region != "all"
    )
    return {
        "latents": [name for name in LATENT_NAMES if name in present],
        "rows": [(region, {name: known.get((name, region)) for name in LATENT_NAMES}) for region in regions],
        "largest": max([0.01, *known.values()]),
    }


def _sections(settings: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
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
