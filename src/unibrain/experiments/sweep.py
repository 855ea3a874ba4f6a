"""`unibrain sweep`: how settings trade pixels for meaning, and which to take, on images taken out of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.statistics import LEVEL, Interval, bootstrap_interval
from unibrain.experiments.bench import Bench
from unibrain.experiments.findings import Cell, Column, Findings, cells_of, columns_of
from unibrain.experiments.page import curve_figure
from unibrain.plot.canvas import BLUE, GREY, ORANGE, svg_figure
from unibrain.workspace.stages import read_record

if TYPE_CHECKING:
    from unibrain.backbone import SamplingSettings
    from unibrain.evaluation import Scores

Values = Mapping[str, float]
"""Option to value: what a setting has otherwise than the run."""

AS_RUN = "as run"
MIXING_RATES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
PAPER = {"picture": 0.6, "caption": 0.9}
"""The paper's image weight."""

_MOST = 1000
_SHOWN, _ROWS = 6, 12
_PIXELS = ("pixcorr", "ssim")
_HEADINGS = {"picture": "Pictures", "caption": "Captions"}
_RULE = (
    "The rule of the recommendation, for pictures and for captions by themselves: the gain of a setting is how much "
    "better than the run's own it is on each image, in standard deviations of a metric, mean over the metrics. The "
    "setting of the largest gain is recommended if the interval of its gain leaves out zero, at 95 % for all settings "
    "together (Bonferroni); else the run's own is kept."
)


def sweep_settings(options: Mapping[str, Sequence[float]], grid: bool = False) -> dict[str, Values]:
    """Name of each setting to its values: each option alone, or all combinations; `AS_RUN` is first."""
    options = {name: tuple(dict.fromkeys(values)) for name, values in options.items() if len(values)}
    many = prod(map(len, options.values())) if grid else sum(map(len, options.values()))
    if many > _MOST:
        raise InputError(f"These options make {many} settings. Choose at most {_MOST}.")
    if grid:
        chosen = [dict(zip(options, values, strict=True)) for values in product(*options.values())]
    else:
        chosen = [{name: value} for name, values in options.items() for value in values]
    return {AS_RUN: {}} | {", ".join(f"{name} {value:g}" for name, value in one.items()): one for one in chosen}


def sweep(
    bench: Bench, options: Mapping[str, Sequence[float]] | None = None, *, grid: bool = False, images: int = 30
) -> Findings:
    """Decode training images that were taken out of training with other settings, and recommend one.

    Parameters
    ----------
    bench : Bench
        Its test images take no part.
    options : mapping of str to sequence of float, optional
        Values of ``"image_weight"``, ``"strength"``, ``"guidance_scale"``, ``"steps"`` (as `unibrain.reconstruct` takes
        them), and of ``"alpha"``: factors on the fitted penalties. By default image weights from 0 to 1.
    grid : bool
        All combinations of the values, instead of each option alone with the others as the run has them.
    images : int
        How many images are taken out of training, at least 2 and at most half of them.

    Returns
    -------
    Findings
        A row for each setting, with paired differences to how the run decodes, and a recommendation in `answer`.

    Raises
    ------
    InputError
        If a value is out of range, or it is expected to take more than the bench's budget.
    """
    settings = sweep_settings(options or {"image_weight": MIXING_RATES}, grid)
    varied = list(dict.fromkeys(name for values in settings.values() for name in values))
    own = _own_sampling(bench)
    _check(bench, settings, own)
    costs = [
        np.mean([_cost(replace(usual, **_sampled(values))) / _cost(usual) for usual in own.values()])
        for values in settings.values()
    ]
    counted = "" if len(set(costs)) == 1 else ", counted at the run's own number of steps,"
    bench.announce(int(np.ceil(sum(costs) * images)), f"sweep of {len(settings)} settings{counted}")
    looks = bench.decode_all(
        {
            name: (bench.validation(images, values.get("alpha", 1.0)), _sampled(values))
            for name, values in settings.items()
        }
    )
    scores = {name: bench.score(items) for name, items in looks.items()}
    columns, told, best = list(columns_of(scores[AS_RUN])), [], [AS_RUN]
    cells: list[Cell] = []
    for name, found in scores.items():
        cells += cells_of(name, found, (AS_RUN, scores[AS_RUN]))
    for kind in bench.kinds:
        gained = gains(scores, kind)
        if not gained:
            continue
        title = "Gain over the run's own setting: standard deviations over images, mean over the metrics"
        columns.append(Column(f"gain_{kind}", title, "Gain", kind))
        for name, each in gained.items():
            interval = bootstrap_interval(each)
            cells.append(Cell(name, f"gain_{kind}", float(each.mean()), interval.low, interval.high, len(each)))
        chosen, sentence = _recommendation(bench, kind, settings, gained, own[kind], varied)
        best.append(chosen)
        told.append(sentence)
    rows = list(settings) if len(settings) <= _ROWS else list(dict.fromkeys(best))
    findings = Findings(
        "sweep",
        "How settings trade pixels for meaning",
        f"Training images that were taken out of training are decoded with other values of {', '.join(varied)}: which "
        "are better for pictures, which for captions, and what is lost for what is won?",
        tuple(columns),
        tuple(cells),
        bench.subject.simulated,
        bench.about(
            **{
                "test images": "none takes part",
                "validation images": f"{len(looks[AS_RUN].stimulus_ids)}, taken out of the training images",
                **{f"the run's sampling of {kind}s": asdict(usual) for kind, usual in own.items()},
            }
        ),
        answer=" ".join(told),
        strips=bench.strips({name: looks[name] for name in rows}, _SHOWN),
        notes=(
            "No test image takes part: the images are training images, decoded by a decoder of the same penalties that "
            "was fitted to all others. The penalties themselves were chosen with these images among the others.",
            _RULE,
            *["Strength, guidance and steps are one setting for both kinds in settings.toml."]
            * bool({"strength", "guidance_scale", "steps"} & set(varied)),
        ),
    )
    return findings.drawn(_figures(findings, settings, scores, own, () if grid and len(varied) > 1 else varied))


def gains(scores: "Mapping[str, Scores]", kind: str) -> dict[str, NDArray[np.float64]]:
    """How much better than `AS_RUN` each setting is on each image: deviations, mean over the metrics of a kind.

    A deviation is that of a metric's values over images and settings. Metrics that are not about an image are left out
    for that image, and images that no metric is about altogether.
    """
    tables = []
    for score in scores[AS_RUN].scores:
        if score.kind != kind or not score.per_image:
            continue
        values = np.array([found[score.name].per_image for found in scores.values()], dtype=np.float64)
        deviation = np.nanstd(values)
        if deviation > 0:
            tables.append((values - values[0]) / (deviation if score.higher_is_better else -deviation))
    if not tables:
        return {}
    known = ~np.isnan(tables).all(axis=(0, 1))
    mean = np.nanmean(np.array(tables)[:, :, known], axis=0)
    return dict(zip(scores, mean, strict=True))


def recommend(gained: Mapping[str, NDArray[np.float64]]) -> tuple[str, str, Interval]:
    """The recommended setting, the one of the largest gain, and the interval of that gain: 95 % for all together."""
    others = {name: values for name, values in gained.items() if values.any()}
    if not others:
        return AS_RUN, AS_RUN, Interval(0.0, 0.0)
    largest = max(others, key=lambda name: float(others[name].mean()))
    interval = bootstrap_interval(others[largest], level=1 - (1 - LEVEL) / len(others))
    return largest if interval.low > 0 else AS_RUN, largest, interval


def _recommendation(
    bench: Bench,
    kind: str,
    settings: Mapping[str, Values],
    gained: Mapping[str, NDArray[np.float64]],
    own: "SamplingSettings",
    varied: Sequence[str],
) -> tuple[str, str]:
    """The recommended setting of a kind, and what is said of it."""
    chosen, largest, certain = recommend(gained)
    if chosen != AS_RUN:
        found = f"{chosen}: better than the run's own by {gained[chosen].mean():.2f} standard deviations ({certain})."
    elif largest == AS_RUN:
        found = "the run's own setting is kept; no other decodes anything else."
    else:
        found = (
            f"the run's own setting is kept; the largest gain is that of {largest}, {gained[largest].mean():+.2f} "
            f"standard deviations ({certain}), which is no clear one."
        )
    values: dict[str, Any] = {**asdict(own), "alpha": 1.0, **settings[chosen]}
    lines = []
    for name in varied:
        if name == "alpha":
            lines.append(_penalty_line(bench, values["alpha"]))
        else:
            key = f"image_weight_{kind}s" if name == "image_weight" else name
            lines.append(f"{key} = {values[name]:g} in [reconstruct]")
    return chosen, f"{_HEADINGS[kind]}: {found} In settings.toml: {'; '.join(lines)}."


def _penalty_line(bench: Bench, factor: float) -> str:
    if factor == 1:
        return "nothing to change for alpha"
    penalties = {name: factor * value for name, value in bench.decoder.alpha_.items()}
    if len(set(penalties.values())) == 1:
        return f"alpha = {next(iter(penalties.values())):g} in [fit]"
    told = ", ".join(f"{name} {value:.3g}" for name, value in penalties.items())
    return (
        f"alpha in [fit] is one number for all latents, and these would be {told} (BrainDecoder in Python takes them)"
    )


def _own_sampling(bench: Bench) -> "dict[str, SamplingSettings]":
    """How the run samples each kind, with what the backbone itself chose."""
    from unibrain.backbone import SamplingSettings

    record = read_record(bench.run, "reconstruct")
    assert record is not None
    return {kind: SamplingSettings(**record.notes["sampling"][kind]) for kind in bench.kinds}


def _sampled(values: Values) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "alpha"}


def _cost(sampling: "SamplingSettings") -> int:
    return int(sampling.strength * sampling.steps)


def _check(bench: Bench, settings: Mapping[str, Values], own: "Mapping[str, SamplingSettings]") -> None:
    for values in settings.values():
        if "image_weight" in values and not bench.stimuli.has_captions:
            raise InputError(
                "image_weight mixes the contexts of pictures and captions, and this run has no captions. Vary "
                "strength, guidance_scale, steps or alpha."
            )
        factor = values.get("alpha", 1.0)
        if not (isfinite(factor) and factor > 0):
            raise InputError(f"alpha has the factor {factor:g}. Choose factors on the fitted penalties above 0.")
        if factor != 1 and bench.decoder.bands is not None:
            raise InputError("alpha cannot be varied: the penalties of bands are chosen together. Leave it out.")
        for usual in own.values():
            replace(usual, **_sampled(values))  # says which value is out of range


def _figures(
    findings: Findings,
    settings: Mapping[str, Values],
    scores: "Mapping[str, Scores]",
    own: "Mapping[str, SamplingSettings]",
    alone: Sequence[str],
) -> dict[str, bytes]:
    """Curves of the options that were varied `alone`, and what is lost for what is won."""
    figures = {}
    for option in alone:
        for kind in own:
            columns = tuple(column for column in findings.columns if column.kind == kind)
            usual = 1.0 if option == "alpha" else getattr(own[kind], option)
            x = {AS_RUN: usual} | {name: values[option] for name, values in settings.items() if option in values}
            paper = PAPER.get(kind) if option == "image_weight" else None
            what = f"the run's {usual:g}" if paper is None else f"the paper's {paper}"
            marked = (usual if paper is None else paper,)
            drawn = curve_figure(replace(findings, columns=columns), {"": x}, option, marked, log=option == "alpha")
            figures[f"{_HEADINGS[kind]} by {option}; the dashed line is {what}"] = drawn
    traded = trade_figure(findings, settings, scores)
    if traded:
        figures["Pixels against meaning: blue as the run has it, orange with the paper's image weight"] = traded
    return figures


def trade_figure(findings: Findings, settings: Mapping[str, Values], scores: "Mapping[str, Scores]") -> bytes | None:
    """Two-way identification of pictures over each pixel score, a point for each setting; None where there is none."""
    pictures = [column for column in findings.columns if column.kind == "picture"]
    pixels = [column for column in pictures if column.name in _PIXELS]
    identified = [score.name for score in scores[AS_RUN].scores if score.direction and score.value is not None]
    meanings = [column for column in pictures if column.name in identified]
    if not pixels or not meanings:
        return None
    meaning = next((column for column in meanings if column.name == "two_way_picture"), meanings[-1])
    one = len({name for values in settings.values() for name in values}) == 1
    with svg_figure(4.2 * len(pixels), 3.6, findings.title) as (figure, made):
        panels = figure.subplots(1, len(pixels), sharey=True, squeeze=False)[0]
        for panel, column in zip(panels, pixels, strict=True):
            for name, values in settings.items():
                across, up = findings.cell(name, column.name), findings.cell(name, meaning.name)
                if across is None or up is None or across.value is None or up.value is None:
                    continue
                paper = values.get("image_weight") == PAPER["picture"]
                colour = BLUE if name == AS_RUN else ORANGE if paper else GREY
                panel.plot(across.value, up.value, "s" if name == AS_RUN else "o", color=colour, markersize=5)
                label = f"{next(iter(values.values())):g}" if one and values else name
                label += " (paper)" * (paper and one)
                panel.annotate(label, (across.value, up.value), (4, 3), textcoords="offset points", fontsize=7)
            panel.margins(x=0.2)  # for the labels
            panel.set_xlabel(f"{column.short} (higher is better)")
        panels[0].set_ylabel(f"{meaning.short} (higher is better)")
    return made[0]
