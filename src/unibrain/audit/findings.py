"""`Finding`: one row of an audit or of `unibrain doctor`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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
    >>> worst([Finding("ok", "sessions", "10 of 10"), Finding("note", "repeats", "2 images shown once")])
    'note'
    """

    level: Level
    title: str
    what: str
    advice: str = ""
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of some findings; ``"ok"`` without any."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


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
    level: Level = max((level for level, _, _ in real), key=LEVELS.index, default="ok")
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
