"""`Score` and `Scores`: what metrics found, beside what chance would have found; as a table, and as ``scores.json``."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace.files import write_json

if TYPE_CHECKING:
    import pandas

_FORMAT = 2
_HEADINGS = {"picture": "Pictures", "caption": "Captions"}


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
    per_image : tuple of float
        One value per image, in the order of the decoded ones; empty if the metric has none.
    note : str
        Why there is no value, or what to know of it; may be empty.
    """

    name: str
    title: str
    kind: Literal["picture", "caption", "latent"]
    value: float | None
    control: float | None
    images: int
    higher_is_better: bool
    per_image: tuple[float, ...] = ()
    note: str = ""

    def __repr__(self) -> str:
        return f"Score({self.name} {_number(self.value)}, control {_number(self.control)}, {self.images} images)"


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
    """

    scores: tuple[Score, ...]
    stimulus_ids: tuple[int, ...]
    latent_accuracy: tuple[tuple[str, str, float], ...]
    simulated: bool

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"no score {name!r}; there are {', '.join(score.name for score in self.scores)}")

    def __repr__(self) -> str:
        found = ", ".join(f"{score.name} {_number(score.value)}" for score in self.scores)
        return f"Scores({len(self.stimulus_ids)} images{', simulated' * self.simulated}: {found})"

    def to_frame(self) -> "pandas.DataFrame":
        """One row per score, indexed by its name: title, kind, value, control, images, higher_is_better, note."""
        import pandas

        rows = [asdict(score) for score in self.scores]
        columns = ["name", "title", "kind", "value", "control", "images", "higher_is_better", "note"]
        return pandas.DataFrame(rows, columns=columns).set_index("name").astype({"value": float, "control": float})


def format_table(scores: Scores) -> str:
    """Lay out scores as text: value, shuffled control, number of images, and which direction is better.

    Returns
    -------
    str
        Lines without a closing line break. The first says so if the scans were simulated; notes stand below.

    Examples
    --------
    >>> score = Score("ssim", "SSIM", "picture", 0.41, 0.2, 120, True)
    >>> print(format_table(Scores((score,), (), (), simulated=False)))
    Pictures           score  control  images
      SSIM  (higher)   0.410    0.200     120
    <BLANKLINE>
    Control: decoded items shuffled against the images.
    """
    labels = [f"  {score.title}  ({'higher' if score.higher_is_better else 'lower'})" for score in scores.scores]
    width = max(map(len, labels), default=0)
    lines = ["SIMULATED SCANS: no human was scanned for these numbers.", ""] if scores.simulated else []
    columns = f"{'score':>8}{'control':>9}{'images':>8}"
    notes = list(dict.fromkeys(score.note for score in scores.scores if score.note))
    for kind, heading in _HEADINGS.items():
        group = [(label, score) for label, score in zip(labels, scores.scores, strict=True) if score.kind == kind]
        if group:
            lines.append(f"{heading:<{width}}{columns}".rstrip())
            columns = ""
        for label, score in group:
            mark = f" [{notes.index(score.note) + 1}]" if score.note else ""
            cells = f"{_number(score.value):>8}{_number(score.control):>9}{score.images:>8}{mark}"
            lines.append(f"{label:<{width}}{cells}")
    if scores.scores:
        chance = any(score.name.startswith("two_way") for score in scores.scores)
        about = " Two-way identification: chance is 0.5, less with ties." if chance else ""
        lines += ["", f"Control: decoded items shuffled against the images.{about}"]
    return "\n".join([*lines, *(f"[{number}] {note}" for number, note in enumerate(notes, 1))])


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
    metrics = [asdict(score) for score in scores.scores]
    accuracy = [
        {"latent": latent, "region": region, "correlation": value if math.isfinite(value) else None}
        for latent, region, value in scores.latent_accuracy
    ]
    content = {
        "format": _FORMAT,
        "simulated": scores.simulated,
        "images": len(scores.stimulus_ids),
        "seconds": seconds,
        "peak_memory_gb": peak_memory_gb,
        "metrics": {metric.pop("name"): metric | {"per_image": list(metric["per_image"])} for metric in metrics},
        "latent_accuracy": accuracy,
        "stimulus_ids": list(scores.stimulus_ids),
        "provenance": dict(provenance),
    }
    write_json(Path(path), content)


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
            tuple(Score(name, **(metric | {"per_image": tuple(metric["per_image"])})) for name, metric in metrics),
            tuple(content["stimulus_ids"]),
            tuple((latent, region, math.nan if r is None else float(r)) for latent, region, r in accuracy),
            bool(content["simulated"]),
        )
    except FileNotFoundError:
        raise InputError(f"{file}: there are no scores yet. Evaluate first.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            file, f"{file}: it cannot be read as scores ({type(error).__name__}: {error}). Evaluate again."
        ) from error
