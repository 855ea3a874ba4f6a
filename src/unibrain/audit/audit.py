"""`Audit`: what was found out about a subject's scans, pictures and captions before anything is decoded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from unibrain.errors import InputError

__all__ = ["LEVELS", "Audit", "Finding", "Level", "Neighbours", "Pair", "RegionVoxels", "SessionVoxels"]

Level = Literal["ok", "note", "problem"]
"""``"note"``: worth knowing when numbers are read; ``"problem"``: numbers cannot be trusted before it is settled."""

LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """One row of an audit.

    Attributes
    ----------
    name : str
        What was looked at.
    level : {"ok", "note", "problem"}
    found : str
    why : str
        Why it matters.
    remedy : str
        What to do; empty if there is nothing to do.
    numbers : mapping
        JSON-ready numbers behind `found`.
    """

    name: str
    level: Level
    found: str
    why: str
    remedy: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionVoxels:
    """Voxels of the mask without a response in one session.

    Attributes
    ----------
    session : int
        1-based.
    trials, voxels : int
    zero : int
        Voxels that are 0 in all trials: outside the scanned slab.
    constant : int
        Voxels that hold another value in all trials.
    non_finite : int
        Voxels with NaN or an infinite value in some trial.
    """

    session: int
    trials: int
    voxels: int
    zero: int
    constant: int
    non_finite: int


@dataclass(frozen=True)
class RegionVoxels:
    """One region (or ``"all"``) and its noise ceiling.

    Attributes
    ----------
    region : str
    voxels : int
    known : int
        Voxels whose noise ceiling is known.
    quartiles : tuple of float, or None
        Lower quartile, median and upper quartile of the noise ceiling over the known voxels, in percent of variance of
        an average of three trials; None without such voxels.
    """

    region: str
    voxels: int
    known: int
    quartiles: tuple[float, float, float] | None


@dataclass(frozen=True)
class Pair:
    """A test image and the training image that is most like it.

    Attributes
    ----------
    test_id, train_id : int
        0-based stimulus ids.
    similarity : float
        -1 to 1.
    """

    test_id: int
    train_id: int
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """How near the nearest training image is, for test images and, to compare, for training images themselves.

    Attributes
    ----------
    pairs : tuple of Pair
        Every test image with its nearest training image by the cosine of CLIP picture embeddings, most alike first.
    test_quantiles, train_quantiles : tuple of float
        Quantiles 0.05, 0.25, 0.5, 0.75 and 0.95 of that cosine, over test images, and over training images with their
        nearest other training image.
    edges : tuple of float
        Edges of the bins of the two histograms, ascending.
    test_counts, train_counts : tuple of int
        One fewer than `edges`.
    share_as_near : float
        Share of test images whose nearest training image is at least as near as that of the median training image.
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
    sessions : tuple of SessionVoxels
    regions : tuple of RegionVoxels
    near_duplicate : float
        From this likeness of two pictures on they count as near duplicates.
    pictures : tuple of Pair
        The test pictures that are most like a training picture (see `unibrain.audit.likeness`), most alike first.
    neighbours : Neighbours or None
        None if the latents are not there.

    Raises
    ------
    InputError
        If there is no finding, or a level is none of those named.

    Examples
    --------
    >>> finding = Finding("repeats", "note", "2 images once", "noisier averages")
    >>> Audit("subj01", False, "my-run", "", (finding,)).level
    'note'
    """

    subject: str
    simulated: bool
    source: str
    split: str
    findings: tuple[Finding, ...]
    sessions: tuple[SessionVoxels, ...] = ()
    regions: tuple[RegionVoxels, ...] = ()
    near_duplicate: float = 1.0
    pictures: tuple[Pair, ...] = ()
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        wrong = [finding.level for finding in self.findings if finding.level not in LEVELS]
        if wrong or not self.findings:
            raise InputError(
                f"{self.source}: found {f'the level {wrong[0]!r}' if wrong else 'no finding'} in the audit, expected "
                f"findings of the levels {', '.join(LEVELS)}: audit again"
            )

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    def finding(self, name: str) -> Finding:
        """The finding of a name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no finding {name!r}; there are {', '.join(finding.name for finding in self.findings)}")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready copy, with the worst level as ``level``."""
        return {"level": self.level, **asdict(self)}
