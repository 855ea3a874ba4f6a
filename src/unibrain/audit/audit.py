"""`Finding` and `Audit`: what was found out about scans, pictures and captions before anything is decoded."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace.files import write_json

Level = Literal["ok", "note", "problem"]
"""``"note"``: worth knowing when numbers are read; ``"problem"``: numbers cannot be trusted before it is settled."""

LEVELS: tuple[Level, ...] = get_args(Level)
_LISTED = 5


@dataclass(frozen=True)
class Finding:
    """What was looked at, how bad it is, and what to do.

    Attributes
    ----------
    level : {"ok", "note", "problem"}
    title : str
        What was looked at.
    what : str
        What was found.
    advice : str
        What to do; empty if there is nothing to do.
    why : str
        Why it matters.
    details : mapping
        JSON-ready numbers behind `what`.

    Examples
    --------
    >>> found = [Finding("ok", "sessions", "10 of 10"), Finding("note", "repeats", "2 images shown once")]
    >>> worst(finding.level for finding in found)
    'note'
    """

    level: Level
    title: str
    what: str
    advice: str = ""
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; ``"ok"`` without any."""
    return max(levels, key=LEVELS.index, default="ok")


def judge(
    title: str,
    lead: str,
    faults: Iterable[tuple[object, Level, str, str]],
    fine: str,
    why: str,
    details: Mapping[str, Any],
) -> Finding:
    """One finding of several possible faults.

    `faults` are (whether it is so, its level, what to say, what to do). `lead` stands before what they say, `fine` in
    their place if there is none.
    """
    real = [(level, what, advice) for there, level, what, advice in faults if there]
    level = worst(level for level, _, _ in real)
    what = "; ".join(filter(None, (lead, *([what for _, what, _ in real] or [fine]))))
    return Finding(level, title, what, "; ".join(advice for _, _, advice in real if advice), why, details)


def count(number: int, item: str) -> str:
    """Write a number with its noun, as in ``1,200 images``."""
    return f"{number:,} {item}{'' if number == 1 else 's'}"


def some(entries: Iterable[object]) -> str:
    """Write the first few entries, as in ``0, 1, 2, 3, 4 and 2 more``."""
    texts = [str(entry) for entry in entries]
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")


@dataclass(frozen=True)
class SessionSummary:
    """What the betas of one session (1-based) are like inside the mask.

    Of all voxels some are 0 in all trials (outside the scanned slab), some hold another constant, some NaN or an
    infinite value; over the others, `mean` and `deviation` are medians of their mean and standard deviation over
    trials, in the unit of the file. `empty_scans` are trials (1-based) in which every voxel is 0.
    """

    session: int
    trials: int
    training: int
    voxels: int
    zero: int
    constant: int
    non_finite: int
    mean: float
    deviation: float
    empty_scans: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Ids of a test image and of the training image that is most like it; `similarity` is -1 to 1."""

    test_id: int
    train_id: int
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """How near the nearest training image is by the cosine of CLIP picture embeddings, most alike first.

    Quantiles (0.05, 0.25, 0.5, 0.75, 0.95) and histograms are those of test images and, to compare, of training images
    with their nearest other training image. `share_as_near` is the share of test images whose nearest training image
    is at least as near as that of the median training image.
    """

    pairs: tuple[Pair, ...]
    test_quantiles: tuple[float, ...]
    train_quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    test_counts: tuple[int, ...]
    train_counts: tuple[int, ...]
    share_as_near: float


@dataclass(frozen=True)
class Audit:
    """Everything that was found out about a subject.

    Attributes
    ----------
    subject : str
        For example ``"subj01"``.
    simulated : bool
    source : str
        What was looked at: a run folder, or a tree in NSD's layout.
    split : str
        `unibrain.scans.split_hash` of the prepared subject; empty for a tree that is not prepared.
    findings : tuple of Finding
    sessions : tuple of SessionSummary
    near_duplicate : float
        From this likeness of two pictures on they count as near duplicates.
    pictures : tuple of Pair
        The test pictures that are most like a training picture (see `unibrain.audit.image_checks`), most alike first.
    neighbours : Neighbours or None
        None if the latents are not there.
    """

    subject: str
    simulated: bool
    source: str
    split: str
    findings: tuple[Finding, ...]
    sessions: tuple[SessionSummary, ...] = ()
    near_duplicate: float = 1.0
    pictures: tuple[Pair, ...] = ()
    neighbours: Neighbours | None = None

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return worst(finding.level for finding in self.findings)

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    def finding(self, title: str) -> Finding:
        """The finding of a title; `KeyError` if there is none."""
        return {finding.title: finding for finding in self.findings}[title]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready copy, with the worst level as ``level``."""
        return {"level": self.level, **asdict(self)}


def save_audit(path: str | os.PathLike[str], audit: Audit) -> None:
    """Write an audit to a JSON file, atomically; `InputError` if the disk is full."""
    write_json(path, audit.as_dict())


def load_audit(path: str | os.PathLike[str]) -> Audit:
    """Read what `save_audit` wrote.

    Raises
    ------
    InputError
        If the file is not there.
    DamagedFileError
        If it is not such a file.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Run `unibrain audit` first.") from error
    try:
        return TypeAdapter(Audit).validate_json(content)
    except ValidationError as error:
        raise DamagedFileError(
            Path(path), f"{path}: this is not what `unibrain audit` writes. Run it again."
        ) from error
