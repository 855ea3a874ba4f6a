"""`Score` and `Scores`: what metrics found, beside what chance would have found; as a table, and as ``scores.json``."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unibrain.errors import DamagedFileError, InputError
from unibrain.evaluation.controls import CONTROLS, Control
from unibrain.evaluation.metrics import METRICS
from unibrain.workspace import notebook
from unibrain.workspace.files import write_json

if TYPE_CHECKING:
    import pandas

_FORMAT = 3
_COLUMNS = (
    "name",
    "title",
    "kind",
    "value",
    "control",
    "images",
    "higher_is_better",
    "p",
    "dialect",
    "direction",
    "tokenizer",
    "references",
    "note",
)
_HEADINGS = {"picture": "Pictures", "caption": "Captions"}


@dataclass(frozen=True)
class Beside:
    """A control or ceiling beside a score: the metric on what stands in the place of the decoded items.

    `score` is the metric on the decoded items, of the very same images, and `images` how many these are.
    """

    value: float
    score: float | None
    images: int


@dataclass(frozen=True, repr=False)
class Score:
    """One metric on one set of images.

    Attributes
    ----------
    name : str
        Its key in `unibrain.evaluation.METRICS`, for example ``"two_way_picture"``.
    title : str
        For people, for example ``"Two-way identification (EfficientNet-lite0)"``.
    kind : {"picture", "caption", "latent"}
        What it is about.
    value : float or None
        The score; None if it could not be computed (then `note` says why and what to do).
    control : float or None
        The same metric with the decoded items shuffled against the images.
    images : int
        Number of images it was computed on.
    higher_is_better : bool
    per_image : tuple of float or None
        One value per image, in the order of the decoded ones; None where the metric is not about the image; empty if
        the metric has no such values.
    note : str
        Why there is no value, or what to know of it; may be empty.
    interval : (float, float) or None
        95 % interval over images, by a percentile bootstrap; None for fewer than two images.
    p : float or None
        How often chance reaches the score (the images permuted), corrected over all metrics; None if not computed.
    beside : mapping of str to Beside
        Controls and ceilings, by their names in `unibrain.evaluation.controls.CONTROLS`.
    dialect : str
        Whose definition of the metric, see `unibrain.evaluation.dialects`; of captions it may be a protocol, see
        `unibrain.evaluation.caption_protocols`.
    direction : str
        Of an identification: who is compared with all others; else empty.
    image_path : str
        How pictures got to the metric; empty for captions.
    tokenizer, references : str
        Of captions in a protocol: what split them, and which true captions of an image were used. The pool of CIDEr's
        weights and of identification is `images`.
    versions : mapping of str to str
        Libraries and weights that the value depends on.
    """

    name: str
    title: str
    kind: Literal["picture", "caption", "latent"]
    value: float | None
    control: float | None
    images: int
    higher_is_better: bool
    per_image: tuple[float | None, ...] = ()
    note: str = ""
    interval: tuple[float, float] | None = None
    p: float | None = None
    beside: Mapping[str, Beside] = field(default_factory=dict)
    dialect: str = "standard"
    direction: str = ""
    image_path: str = ""
    tokenizer: str = ""
    references: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """Its title for narrow places."""
        return METRICS[self.name].short if self.name in METRICS else self.title

    @property
    def complete(self) -> bool:
        """Whether every image has a value."""
        return bool(self.per_image) and None not in self.per_image

    @property
    def standing(self) -> float | None:
        """Where the score stands between its zero (random pictures) and the oracle: 0 to 1, None if not known."""
        zero, best = self.beside.get("random"), self.beside.get("oracle")
        if zero is None or best is None or best.score is None or best.value == zero.value:
            return None
        return (best.score - float(zero.value)) / (float(best.value) - float(zero.value))

    def __repr__(self) -> str:
        return f"Score({self.name} {_number(self.value)}, control {_number(self.control)}, {self.images} images)"


TOP = (1, 10, 50)
"""How far down the ranking of images `LatentIdentification.top` looks."""


@dataclass(frozen=True)
class LatentIdentification:
    """How often the true image of a predicted latent is told from others, before anything is drawn.

    `among` is ``"test"`` (other test images) or ``"training"`` (all training images), `pool` how many images these are,
    with the true one. Chance of `two_way` is 0.5. `top` has the share of images that are among the `TOP` most similar
    ones; chance is ``k / pool``.
    """

    latent: str
    among: str
    pool: int
    two_way: float
    top: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Scores:
    """All scores of one run, in the order in which they are shown, and how well each latent was predicted.

    Attributes
    ----------
    scores : tuple of Score
    stimulus_ids : tuple of int
        The images, in the order of every `Score.per_image`.
    latent_accuracy : tuple of (latent, region, correlation)
        Mean Pearson correlation across test images between predicted and true dimensions of a latent; region ``"all"``
        is the decoder itself, on all voxels, others are fits to the voxels of one region.
    simulated : bool
        True if the scans were simulated.
    latent_identification : tuple of LatentIdentification
        Empty if the latents were not given.
    """

    scores: tuple[Score, ...]
    stimulus_ids: tuple[int, ...]
    latent_accuracy: tuple[tuple[str, str, float], ...]
    simulated: bool
    latent_identification: tuple[LatentIdentification, ...] = ()

    @property
    def controls(self) -> list[Control]:
        """Controls and ceilings that are beside any of the scores, in the order in which they are shown."""
        return [row for name, row in CONTROLS.items() if any(name in score.beside for score in self.scores)]

    @property
    def accuracy_by_region(self) -> dict[str, dict[str, float]]:
        """Region to latent to correlation, of `latent_accuracy`; ``"all"`` is first, and unknown ones are left out."""
        regions = dict.fromkeys(region for _, region, _ in self.latent_accuracy)
        table: dict[str, dict[str, float]] = {name: {} for name in sorted(regions, key=lambda name: name != "all")}
        for latent, region, value in self.latent_accuracy:
            if math.isfinite(value):
                table[region][latent] = value
        return table

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"no score {name!r}; there are {', '.join(score.name for score in self.scores)}")

    def __repr__(self) -> str:
        found = ", ".join(f"{score.name} {_number(score.value)}" for score in self.scores)
        return f"Scores({len(self.stimulus_ids)} images{', simulated' * self.simulated}: {found})"

    def _repr_html_(self) -> str:
        """For notebooks: the table of `format_table`."""
        cells, legend = _cells(self), _legend(self)
        headings = list(next(iter(cells), {}))
        notes = list(dict.fromkeys(score.note for score in self.scores if score.note))
        rows = [
            [f"{score.title} ({'higher' if score.higher_is_better else 'lower'}){_mark(score, notes)}", *row.values()]
            for score, row in zip(self.scores, cells, strict=True)
        ]
        return "".join(
            (
                notebook.simulated_note(self.simulated),
                notebook.table((f"{len(self.stimulus_ids)} images", *headings), rows),
                *(notebook.paragraph(line) for line in (*legend, *_numbered(notes))),
            )
        )

    def to_frame(self) -> "pandas.DataFrame":
        """One row per score, indexed by its name; controls and ceilings have a column each."""
        import pandas

        rows = []
        for score in self.scores:
            low, high = score.interval or (None, None)
            row = {name: getattr(score, name) for name in _COLUMNS} | {"low": low, "high": high}
            rows.append(row | {name: found.value for name, found in score.beside.items()})
        others = [row.name for row in self.controls]
        columns = [*_COLUMNS, "low", "high", *others]
        frame = pandas.DataFrame(rows, columns=columns).set_index("name")
        return frame.astype(dict.fromkeys(("value", "control", "low", "high", "p", *others), float))


def format_table(scores: Scores) -> str:
    """Lay out scores as text: value, interval, controls, ceilings, and which direction is better.

    Returns
    -------
    str
        Lines without a closing line break. The first says so if the scans were simulated; notes stand below.

    Examples
    --------
    >>> score = Score("ssim", "SSIM", "picture", 0.41, 0.2, 120, True, interval=(0.38, 0.44))
    >>> print(format_table(Scores((score,), (), (), simulated=False)))
    Pictures           score    95 % interval  images  shuffled
      SSIM  (higher)   0.410   0.380 to 0.440     120     0.200
    <BLANKLINE>
    shuffled: decoded items shuffled against the images.
    """
    labels = [f"  {score.title}  ({'higher' if score.higher_is_better else 'lower'})" for score in scores.scores]
    width = max(map(len, labels), default=0)
    lines = ["SIMULATED SCANS: no human was scanned for these numbers.", ""] if scores.simulated else []
    cells = _cells(scores)
    wide = {"score": 8, "95 % interval": 17, "images": 8, "stands": 8}
    columns = "".join(f"{name:>{wide.get(name, 10)}}" for name in next(iter(cells), {}))
    notes = list(dict.fromkeys(score.note for score in scores.scores if score.note))
    for kind, heading in _HEADINGS.items():
        group = [line for line in zip(labels, scores.scores, cells, strict=True) if line[1].kind == kind]
        if group:
            lines.append(f"{heading:<{width}}{columns}".rstrip())
            columns = ""
        for label, score, texts in group:
            row = "".join(f"{text:>{wide.get(name, 10)}}" for name, text in texts.items())
            lines.append(f"{label:<{width}}{row}{_mark(score, notes)}")
    if scores.scores:
        lines += ["", *_legend(scores)]
    if scores.latent_identification:
        lines += [
            "",
            f"{'Latents, identified among':<34}{'images':>8}{'two-way':>10}" + "".join(f"{f'top-{k}':>8}" for k in TOP),
        ]
        for one in scores.latent_identification:
            top = "".join(f"{share:>8.3f}" for share in one.top)
            lines.append(f"  {one.latent + ', ' + one.among + ' images':<32}{one.pool:>8,}{one.two_way:>10.3f}{top}")
    return "\n".join([*lines, *_numbered(notes)])


def _cells(scores: Scores) -> list[dict[str, str]]:
    """A row for each score, column to text; all rows have the same columns."""
    stands = any(score.standing is not None for score in scores.scores)
    rows = []
    for score in scores.scores:
        interval = "-" if score.interval is None else f"{score.interval[0]:.3f} to {score.interval[1]:.3f}"
        row = {"score": _number(score.value), "95 % interval": interval, "images": str(score.images)}
        row["shuffled"] = _number(score.control)
        for other in scores.controls:
            found = score.beside.get(other.name)
            row[other.title] = _number(None if found is None else found.value)
        if stands:
            row["stands"] = "-" if score.standing is None else format(score.standing, ".0%")
        rows.append(row)
    return rows


def _legend(scores: Scores) -> list[str]:
    """What the columns of `_cells` are, a line each."""
    lines = ["shuffled: decoded items shuffled against the images."]
    for row in scores.controls:
        lines.append(f"{row.title}{' (ceiling)' if row.role == 'ceiling' else ''}: {row.explanation}")
    counts = sorted({found.images for score in scores.scores for found in score.beside.values()})
    if counts and counts[0] < len(scores.stimulus_ids):
        lines.append(f"These are of {counts[0]} of the {len(scores.stimulus_ids)} images.")
    if any(score.standing is not None for score in scores.scores):
        lines.append("stands: where the score lies between random (0 %) and oracle (100 %), on the same images.")
    if any(score.name.startswith("two_way") for score in scores.scores):
        lines.append("Two-way identification: chance is 0.5, less with ties.")
    return lines


def _mark(score: Score, notes: Sequence[str]) -> str:
    return f" [{notes.index(score.note) + 1}]" if score.note else ""


def _numbered(notes: Sequence[str]) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(notes, 1)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def save_scores(
    path: str | os.PathLike[str],
    scores: Scores,
    *,
    seconds: float,
    peak_memory_gb: float | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write ``scores.json`` atomically.

    Parameters
    ----------
    path : path-like
    scores : Scores
    seconds : float
        Wall-clock seconds of the whole run.
    peak_memory_gb : float or None
        Peak memory of the run, in gigabytes (1e9 bytes); None if it was not measured.
    provenance : mapping
        Where the numbers come from: versions, settings, fingerprints; JSON values only.
    """
    about = {"seconds": seconds, "peak_memory_gb": peak_memory_gb, "provenance": dict(provenance)}
    write_json(Path(path), _content(scores) | about)


def to_json(scores: Scores) -> str:
    """Scores as ``scores.json`` has them, without what a run adds."""
    return json.dumps(_content(scores), indent=1) + "\n"


def to_table(scores: Scores, layout: str) -> str:
    """Scores with their intervals, shuffled controls, number of images and dialect, as Markdown or LaTeX (booktabs)."""
    headings = ["Score", "Value", "95 % interval", "Shuffled", "Images", "Dialect"]
    rows = [
        [
            f"{score.title} ({'higher' if score.higher_is_better else 'lower'} is better)",
            *(row[column] for column in ("score", "95 % interval", "shuffled", "images")),
            score.dialect + f", {score.direction}" * bool(score.direction),
        ]
        for score, row in zip(scores.scores, _cells(scores), strict=True)
    ]
    note = ["Simulated scans: no human was scanned."] if scores.simulated else []
    if layout == "markdown":
        table = [headings, ["---", *["---:"] * 4, "---"], *rows]
        return "\n".join([*("| " + " | ".join(line) + " |" for line in table), *note])
    texts = [" & ".join(cell.replace("%", "\\%").replace("_", "\\_") for cell in row) for row in (headings, *rows)]
    texts = [text.replace("->", "$\\to$") + " \\\\" for text in texts]
    lines = [
        "\\begin{tabular}{lrrrrl}",
        "\\toprule",
        texts[0],
        "\\midrule",
        *texts[1:],
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join([*(f"% {text}" for text in note), *lines])


def _content(scores: Scores) -> dict[str, Any]:
    metrics = [asdict(score) for score in scores.scores]
    accuracy = [
        {"latent": latent, "region": region, "correlation": value if math.isfinite(value) else None}
        for latent, region, value in scores.latent_accuracy
    ]
    return {
        "format": _FORMAT,
        "simulated": scores.simulated,
        "images": len(scores.stimulus_ids),
        "metrics": {metric.pop("name"): metric | {"per_image": list(metric["per_image"])} for metric in metrics},
        "latent_accuracy": accuracy,
        "latent_identification": [asdict(one) for one in scores.latent_identification],
        "stimulus_ids": list(scores.stimulus_ids),
    }


def _score(name: str, stored: dict[str, Any]) -> Score:
    interval = stored["interval"]
    return Score(
        name,
        **stored
        | {
            "per_image": tuple(stored["per_image"]),
            "interval": None if interval is None else (float(interval[0]), float(interval[1])),
            "beside": {other: Beside(**values) for other, values in stored["beside"].items()},
        },
    )


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """Read what `save_scores` wrote.

    Raises
    ------
    InputError
        If the file is not there, or is not such a file.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise InputError(f"{file}: it was written by another version of unibrain. Evaluate again.")
        metrics = content["metrics"].items()
        accuracy = (
            tuple(entry[key] for key in ("latent", "region", "correlation")) for entry in content["latent_accuracy"]
        )
        return Scores(
            tuple(_score(name, metric) for name, metric in metrics),
            tuple(content["stimulus_ids"]),
            tuple((latent, region, math.nan if r is None else float(r)) for latent, region, r in accuracy),
            bool(content["simulated"]),
            tuple(
                LatentIdentification(**(one | {"top": tuple(one["top"])})) for one in content["latent_identification"]
            ),
        )
    except FileNotFoundError:
        raise InputError(f"{file}: there are no scores yet. Evaluate first.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            file, f"{file}: it cannot be read as scores ({type(error).__name__}: {error}). Evaluate again."
        ) from error
