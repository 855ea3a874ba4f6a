"""`unibrain further`: what a decoder makes of NSD-Synthetic and NSD-Imagery, further scans of the same person."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench, spread
from unibrain.experiments.findings import Cell, Findings, Strip, cells_of, columns_of
from unibrain.experiments.latent_scores import latent_cells, latent_columns, mean_two_way
from unibrain.experiments.page import interval_figure

if TYPE_CHECKING:
    from unibrain.evaluation import Scores
    from unibrain.latents import Latents
    from unibrain.reconstruction import Decoded
    from unibrain.scans import Subject

OWN = "NSD's test images"
_TITLES = {"nsd-synthetic": "NSD-Synthetic", "nsd-imagery": "NSD-Imagery"}
_SHOWN = 12


def further(
    bench: Bench, name: str, images: int = 30, *, zscore: str = "train", dialect: str | None = None
) -> Findings:
    """Decode further scans of the person of a run with the run's decoder.

    Scans are prepared with the statistics of the run's training scans, and nothing is fitted to them. Pictures and
    latents that come from pictures are scored against what was shown, or imagined; the captions that are decoded are
    shown, and have no truth to be compared with.

    Parameters
    ----------
    bench : Bench
        Of a run on NSD.
    name : {"nsd-synthetic", "nsd-imagery"}
    images : int
        How many stimuli are decoded, spread evenly over all.
    zscore : {"train", "set"}
        As in `unibrain.scans.nsd_further.read_further`.
    dialect : str, optional
        Whose definitions of the scores of pictures; by default the run's.

    Returns
    -------
    Findings
        A row for what was seen (of NSD-Imagery also for what was imagined, with paired differences), each with its
        control: decoded items shuffled against the stimuli. The last row is the run's own test images.

    Raises
    ------
    InputError
        If the run is not on NSD, a file is missing or wrong, or it is expected to take more than the budget.
    """
    from unibrain.latents import extract
    from unibrain.scans.nsd_further import SEEN, read_further
    from unibrain.stimuli.nsd import read_further_stimuli

    layout = bench.nsd
    if layout is None:
        raise InputError(f"{bench.run.root}: is a run on data of your own, and {name} are scans of NSD's subjects.")
    scans = read_further(layout, name, bench.subject, bench.settings.prepare.format, zscore)
    stimuli, dialect = read_further_stimuli(layout, name), dialect or bench.settings.evaluate.dialect
    ids = spread(reduce(np.intersect1d, [subject.stimulus_ids for subject in scans.values()]), images)
    bench.announce(len(scans) * len(ids), "further")

    true = extract(bench.network, stimuli, ids)
    predicted: dict[str, Latents] = {}
    decoded: dict[str, Decoded] = {}
    for task, subject in scans.items():
        found = bench.decoder.predict(subject.rows(subject.stimulus_ids.searchsorted(ids)).betas, ids)
        predicted[task], decoded[task] = _only(found, true), bench.decode(found)
    scores = {task: _score(replace(bench, stimuli=stimuli), items, dialect) for task, items in decoded.items()}
    cells, told = list[Cell](), dict[str, float]()
    for task in scans:
        row = latent_cells(task, predicted[task], true, (SEEN, predicted[SEEN]))
        told[task] = mean_two_way(row)
        cells += [*row, *cells_of(task, scores[task], (SEEN, scores[SEEN]))]
        cells += [
            Cell(f"{task}, shuffled", one.name, one.control, images=one.images)
            for one in scores[task].scores
            if one.control is not None
        ]
    row = latent_cells(OWN, _only(bench.predicted, true), _only(bench.true, true))
    told[OWN] = mean_two_way(row)
    cells += [*row, *cells_of(OWN, _score(bench, bench.decoded(), dialect))]
    rows = np.arange(len(ids))[:_SHOWN]
    findings = Findings(
        "further",
        f"{_TITLES[name]}, by a decoder that was fitted to NSD",
        f"{bench.subject.name} saw"
        + (" and imagined" if len(scans) > 1 else "")
        + f" the stimuli of {_TITLES[name]} in another session. The run's decoder reads these scans: does it tell "
        "apart what is unlike everything that it was fitted to?",
        (*latent_columns(true), *columns_of(scores[SEEN])),
        tuple(cells),
        bench.subject.simulated,
        bench.about(
            **{
                "set": name,
                "stimuli": f"{len(ids)} of {len(stimuli.stimulus_ids)}",
                "z-scored with": "the training scans" if zscore == "train" else "all trials of the set's own session",
                "dialect of the scores": dialect,
            }
        ),
        _answer(told),
        (Strip("stimulus", stimuli.pictures(ids[:_SHOWN])), *(Strip.of(*item, rows) for item in decoded.items())),
        notes=_notes(bench, scans, len(ids), zscore),
        variant=name if zscore == "train" else f"{name} own statistics",
    )
    return findings.drawn({"Scores beside those of NSD's own test images": interval_figure(findings, SEEN)})


def _only(latents: "Latents", names: Iterable[str]) -> "Latents":
    return replace(latents, arrays={name: latents[name] for name in names})


def _score(bench: Bench, decoded: "Decoded", dialect: str) -> "Scores":
    """Score the pictures alone: there are no captions of these stimuli."""
    from unibrain.evaluation.dialects import dialect_metrics

    metrics = {key: row for key, row in dialect_metrics(dialect).items() if row.kind == "picture"}
    return bench.score(replace(decoded, captions=None), metrics=metrics, dialect=dialect)


def _answer(told: dict[str, float]) -> str:
    tasks = [f"what was {task} with {value:.2f}" for task, value in told.items() if task != OWN]
    return (
        f"From these scans, latents identify {' and '.join(tasks)} (two-way, mean over latents of pictures; chance is "
        f"0.5), and NSD's test images with {told[OWN]:.2f}."
    )


def _notes(bench: Bench, scans: "Mapping[str, Subject]", count: int, zscore: str) -> tuple[str, ...]:
    notes = [
        f"{OWN} are {len(bench.ids)} other images, so nothing is paired with them; among fewer stimuli ({count} here) "
        "identification is easier."
    ]
    for task, subject in scans.items():
        found = subject.preparation["identified_repeats"]
        numbers = " to ".join(map(str, dict.fromkeys((subject.repeats.min(), subject.repeats.max()))))
        if found is not None:
            notes.append(
                f"What was {task}: {numbers} trials of each stimulus are averaged. Of these scans alone, one half of "
                f"the trials identifies the other with {found:.2f} (two-way, chance is 0.5). Near chance, the scans "
                "hold little, or trials and stimuli do not belong together."
            )
    if zscore == "set":
        notes.append(
            "Scans were z-scored with the mean and deviation of their own session: statistics of what is tested, which "
            "a single scan would not have."
        )
    return tuple(notes)
