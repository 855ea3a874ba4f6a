"""What was found, how bad it is, and what to do about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Diagnosis", "Finding", "Section", "Status"]

Status = Literal["ok", "note", "problem"]
"""``"note"``: works, but something is less than it could be; ``"problem"``: results cannot be relied on."""


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Attributes
    ----------
    name : str
        What was looked at.
    status : {"ok", "note", "problem"}
    found : str
        What was found.
    remedy : str
        What to do about it; empty if there is nothing to do.
    details : mapping
        JSON-ready numbers behind `found`.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Findings that belong together.

    Attributes
    ----------
    title : str
    findings : tuple of Finding
    """

    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Attributes
    ----------
    sections : tuple of Section

    Examples
    --------
    >>> bad = Finding("numpy", "problem", "not installed", "pip install numpy")
    >>> Diagnosis((Section("Libraries", (bad,)),)).healthy
    False
    """

    sections: tuple[Section, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in order."""
        return tuple(finding for section in self.sections for finding in section.findings)

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; notes do not count."""
        return all(finding.status != "problem" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready copy."""
        return {"healthy": self.healthy, **asdict(self)}
