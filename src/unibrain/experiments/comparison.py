"""`unibrain compare`: finished runs side by side, paired by image, or as subjects of one group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import contents, spread
from unibrain.experiments.findings import Cell, Column, Findings, Strip, cells_of, columns_of
from unibrain.experiments.page import interval_figure
from unibrain.pipeline import BackboneSource, RunFolder, Settings, declare, kept_settings
from unibrain.pipeline.sources import read_seen
from unibrain.workspace.files import read_json
from unibrain.workspace.stages import Chain

if TYPE_CHECKING:
    from unibrain.evaluation import Scores
    from unibrain.stimuli import Stimuli

_SHOWN, _SURE = 8, 0.05


@dataclass(frozen=True, eq=False)
class _Finished:
    """What a finished run has to compare."""

    name: str
    run: RunFolder
    settings: Settings
    subject: str
    scores: "Scores"
    provenance: Mapping[str, Any]

    @property
    def ids(self) -> NDArray[np.int64]:
        return np.array(self.scores.stimulus_ids, np.int64)

    @cached_property
    def seen(self) -> "Stimuli":
        return read_seen(self.run, self.settings)[1]


def compare(runs: Sequence[RunFolder], source: BackboneSource | None = None) -> Findings:
    """Put finished runs on the same images side by side: their scores, paired differences, and pictures.

    Parameters
    ----------
    runs : sequence of RunFolder
        At least two, all scored; the others are compared with the first.
    source : BackboneSource, optional
        By default that of their settings. It is not loaded.

    Returns
    -------
    Findings
        A row for each run, with paired differences to the first. Which of them hold when all metrics are looked at
        (Holm's correction of sign-flip p) is in the answer and in ``about``.

    Raises
    ------
    InputError
        If there are fewer than two runs, one is not up to date, or they differ in test images, dialect, backbone, or in
        whether they are simulated.
    """
    found = _read(runs, source)
    first = found[0]
    # What the test images look like, to the place of each.
    images = {run.name: {look: row for row, look in enumerate(contents(run.seen, run.ids))} for run in found}
    for run in found[1:]:
        if images[run.name].keys() != images[first.name].keys():
            alone = len(images[run.name].keys() ^ images[first.name].keys())
            raise InputError(
                f"{first.run.root} and {run.run.root}: their test images differ ({alone} are in one of them alone). "
                "Compare runs with one split, or subjects with --group."
            )
    # Every run's values in the order of the first one's images, whatever their numbers are.
    order = list(images[first.name])
    rows = {run.name: np.array([images[run.name][content] for content in order]) for run in found}
    scores = {run.name: _reordered(run.scores, rows[run.name]) for run in found}
    cells = list[Cell]()
    for run in found:
        cells += [*_latents(run), *cells_of(run.name, scores[run.name], (first.name, scores[first.name]))]
    p = corrected_p({run.name: scores[run.name] for run in found[1:]}, scores[first.name])
    findings = Findings(
        "compare",
        "Runs side by side",
        f"Do these runs differ from {first.name}? Images are compared one by one, so what is hard for all cancels.",
        _columns(found),
        tuple(cells),
        first.scores.simulated,
        _about(found)
        | {
            f"p of {run.name}, corrected": ", ".join(f"{m} {value:.3g}" for (n, m), value in p.items() if n == run.name)
            for run in found[1:]
        },
        _paired_answer(found, cells, p),
        _strips(found, rows),
        notes=(
            "p is from random flips of the sign of each image's difference, corrected by Holm's method over all "
            "metrics and runs.",
            "Intervals are over images: they say nothing of other subjects, or of other training images.",
            *_notes(found),
        ),
    )
    return findings.drawn({"Runs": interval_figure(findings, first.name)})


def group(runs: Sequence[RunFolder], source: BackboneSource | None = None) -> Findings:
    """Put finished runs on different subjects into one table, with the mean over subjects and its interval.

    Parameters
    ----------
    runs, source
        See `compare`; nothing is paired, and subjects may have seen other images.

    Returns
    -------
    Findings
        A row for each subject, and one for their mean, whose interval is over subjects.

    Raises
    ------
    InputError
        If there are fewer than two runs, one is not up to date, two are of one subject, or they differ in dialect,
        backbone, or in whether they are simulated.
    """
    from unibrain.evaluation.published import published_rows, published_tables
    from unibrain.evaluation.statistics import over_subjects

    found = _read(runs, source)
    known: dict[tuple[Any, ...], _Finished] = {}
    for run in found:
        simulated, custom = run.settings.simulate, run.settings.custom
        person = (run.subject, simulated and simulated.seed, custom and custom.scans)
        if person in known:
            raise InputError(
                f"{known[person].run.root} and {run.run.root}: both are of {run.subject}, which counts once. Leave one "
                "out, or compare them without --group."
            )
        known[person] = run
    cells = [cell for run in found for cell in (*_latents(run), *cells_of(run.name, run.scores))]
    columns, mean = _columns(found), f"mean of {len(found)} subjects"
    for column in columns:
        values = [cell.value for cell in cells if cell.metric == column.name and cell.value is not None]
        if len(values) == len(found):
            value, interval = over_subjects(values)
            cells.append(Cell(mean, column.name, value, interval.low, interval.high, len(values)))
    told = [cell for cell in cells if cell.setting == mean]
    short = {column.name: column.short for column in columns}
    findings = Findings(
        "compare",
        f"{len(found)} subjects",
        "What do these subjects have in common? Each is decoded by its own decoder; the mean is over subjects.",
        columns,
        tuple(cells),
        found[0].scores.simulated,
        _about(found),
        f"Mean of {len(found)} subjects (95 % interval over subjects): "
        + ", ".join(f"{short[cell.metric]} {cell.value:.3f} ({cell.low:.3f} to {cell.high:.3f})" for cell in told)
        + ".",
        published={} if found[0].scores.simulated else {published_tables()["unibrain"]: published_rows("unibrain")},
        notes=(
            f"The interval of the mean is over {len(found)} subjects (Student's t): how it would vary with others. "
            "With few subjects it is wide. Those of single subjects are over their images.",
            *_notes(found),
        ),
    )
    return findings.drawn({"Subjects": interval_figure(findings, mean)})


def _read(runs: Sequence[RunFolder], source: BackboneSource | None) -> list[_Finished]:
    """Open runs that can be compared."""
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run cannot be compared. Name at least two run folders.")
    places = [run.root.resolve() for run in runs]
    twice = next((run for run, place in zip(runs, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"{twice.root}: this run is named twice. Name different run folders.")
    short = [place.name for place in places]
    names = short if len(set(short)) == len(short) else [str(run.root) for run in runs]
    found = [_open(run, name, source) for run, name in zip(runs, names, strict=True)]
    first = _alike(found[0])
    for run in found[1:]:
        for what, other in _alike(run).items():
            if first[what] != other:
                raise InputError(
                    f"{found[0].run.root} and {run.run.root}: they differ in {what} ({first[what]}, {other}), so their "
                    "scores do not mean the same. Compare runs that agree in it."
                )
    return found


def _alike(run: _Finished) -> dict[str, Any]:
    """What runs must have in common to be compared."""
    return {
        "dialect": run.settings.evaluate.dialect,
        "backbone": run.provenance["backbone"]["fingerprint"][:12],
        "whether scans are simulated": run.scores.simulated,
    }


def _open(run: RunFolder, name: str, source: BackboneSource | None) -> _Finished:
    from unibrain.evaluation import load_scores

    if not run.begun:
        raise InputError(f"{run.root}: there is no run in this folder. Check the path.")
    settings = kept_settings(run)
    with run.lock():
        Chain(run, declare(run, settings, source)).require("evaluate")
        path = run.artefact("scores")
        subject = str(read_json(run.artefact("split"))["subject"])
        return _Finished(name, run, settings, subject, load_scores(path), read_json(path)["provenance"])


def _reordered(scores: "Scores", rows: NDArray[np.int64]) -> "Scores":
    found = [
        replace(score, per_image=tuple(score.per_image[row] for row in rows) if score.per_image else ())
        for score in scores.scores
    ]
    ids = tuple(scores.stimulus_ids[row] for row in rows)
    return replace(scores, scores=tuple(found), stimulus_ids=ids)


def corrected_p(others: "Mapping[str, Scores]", first: "Scores") -> dict[tuple[str, str], float]:
    """The p of the difference to `first`, by name and metric, corrected for all of them that are looked at (Holm)."""
    from unibrain.evaluation.statistics import holm, paired_difference

    raw, known = {}, {score.name: score.per_image for score in first.scores}
    for name, scores in others.items():
        for score in scores.scores:
            pairs = zip(score.per_image, known.get(score.name, ()), strict=False)
            if sum(None not in pair for pair in pairs) > 1:
                raw[name, score.name] = paired_difference(score.per_image, known[score.name]).p
    corrected = holm({" ".join(key): p for key, p in raw.items()})
    return {key: corrected[" ".join(key)] for key in raw}


def _latents(run: _Finished) -> tuple[Cell, ...]:
    """Identification of the latents among the test images."""
    return tuple(
        Cell(run.name, f"{one.latent}_two_way", one.two_way, images=one.pool)
        for one in run.scores.latent_identification
        if one.among == "test"
    )


def _columns(found: Sequence[_Finished]) -> tuple[Column, ...]:
    """Metrics of all runs; one that a run lacks is shown for the others."""
    columns: dict[str, Column] = {}
    for run in found:
        for one in run.scores.latent_identification:
            name = f"{one.latent}_two_way"
            columns.setdefault(
                name, Column(name, f"{one.latent}: two-way identification", f"{one.latent} 2-way", "latent")
            )
        for column in columns_of(run.scores):
            columns.setdefault(column.name, column)
    return tuple(columns.values())


def _about(found: Sequence[_Finished]) -> dict[str, str]:
    about = {run.name: f"{run.run.root}: {run.subject}, {len(run.ids)} test images" for run in found}
    alike = _alike(found[0])
    return about | {"dialect of the scores": alike["dialect"], "backbone": alike["backbone"]}


def _notes(found: Sequence[_Finished]) -> tuple[str, ...]:
    """What else differs between the runs."""
    plain = [_flat(run.settings) for run in found]
    notes = [
        f"{key}: {', '.join(str(settings.get(key)) for settings in plain)}."
        for key in sorted(set().union(*plain))
        if len({str(settings.get(key)) for settings in plain}) > 1
    ]
    splits = {run.provenance["split"]["sha256"] for run in found}
    if len(splits) > 1:
        notes.append("The runs were not trained and tested on the very same images (their splits differ).")
    head = ["Settings in which the runs differ, in their order:"] if notes else ["The runs have the same settings."]
    return (*head, *notes)


def _flat(settings: Settings) -> dict[str, Any]:
    sections = settings.model_dump(exclude_none=True, exclude={"report"})
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


def _strips(found: Sequence[_Finished], rows: Mapping[str, NDArray[np.int64]]) -> tuple[Strip, ...]:
    from unibrain.reconstruction import load_decoded

    first = found[0]
    shown = spread(np.arange(len(first.ids)), _SHOWN)
    ids, seen = first.ids[shown], first.seen
    strips = [Strip("seen", seen.pictures(ids), [texts[0] if texts else "" for texts in seen.captions(ids)])]
    for run in found:
        strips.append(Strip.of(run.name, load_decoded(run.run.artefact("decoded")), rows[run.name][shown]))
    return tuple(strips)


def _paired_answer(found: Sequence[_Finished], cells: Sequence[Cell], p: Mapping[tuple[str, str], float]) -> str:
    higher = {column.name: column.higher_is_better for column in _columns(found)}
    sentences = []
    for run in found[1:]:
        better: dict[bool, list[str]] = {True: [], False: []}
        for cell in cells:
            sure = p.get((run.name, cell.metric), 1.0) < _SURE
            if cell.setting == run.name and cell.difference is not None and sure:
                words = f"{cell.metric} ({cell.difference:+.3f})"
                better[(cell.difference > 0) == higher[cell.metric]].append(words)
        parts = [
            f"{word} in {', '.join(better[side])}"
            for side, word in ((True, "better"), (False, "worse"))
            if better[side]
        ]
        text = " and ".join(parts) if parts else "neither better nor worse in any score"
        sentences.append(f"{run.name} is {text} than {found[0].name}, corrected for all that was looked at.")
    return " ".join(sentences)
