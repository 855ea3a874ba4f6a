"""Comparing fingerprints with the record, and naming the library that moved."""

import math
import warnings
from collections.abc import Mapping, Sequence

from unibrain.doctor.diagnosis import Finding, Section
from unibrain.doctor.fingerprint import Fingerprint, difference
from unibrain.doctor.probe import Bench, Probe
from unibrain.doctor.recorded import Record, backbone_files, installed_versions

__all__ = ["compare", "suspects"]

_NO_VERSION = (
    "no library has another version than recorded, so UniBrain's own code, a changed file of a library or the "
    "processor's arithmetic is behind it: install unibrain and these libraries again"
)


def suspects(leans_on: Sequence[str], recorded: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Libraries whose version is another than when it was recorded, the most likely culprit first.

    Parameters
    ----------
    leans_on : sequence of str
        Libraries of a fingerprint, in the order of likelihood.
    recorded, now : mapping of str to str
        Versions.

    Returns
    -------
    tuple of str
    """
    return tuple(name for name in leans_on if recorded.get(name) != now.get(name))


def _said(apart: float) -> str:
    return "another result" if math.isinf(apart) else f"off by {apart:.1e} of its size"


class _Comparison:
    """One pass over all probes; remembers which of them moved, for those that build on them."""

    def __init__(self, bench: Bench, record: Record) -> None:
        self.bench, self.record = bench, record
        self.versions = installed_versions()
        self.files = backbone_files(bench.folder)
        self.moved: dict[str, str] = {}

    def finding(self, probe: Probe) -> Finding:
        details: dict[str, object] = {
            "what": probe.what,
            "libraries": {
                name: {"recorded": self.record.libraries.get(name, "unknown"), "now": self.versions[name]}
                for name in probe.leans_on
            },
        }
        entry = self.record.entries.get(probe.name)
        if entry is None:
            remedy = "install unibrain again, or record it with python -m unibrain.doctor.record"
            return Finding(probe.name, "problem", "not recorded", remedy, details)
        other = [name for name in probe.reads if self.files.get(name) != self.record.files.get(name)]
        if other:
            found = f"not compared: {' and '.join(other)} of the small backbone are not those recorded"
            return Finding(probe.name, "note", found, "see small backbone above", details)
        details["allowed"] = entry.tolerance
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                now = probe.compute(self.bench)
        except Exception as error:  # whatever a library raises nowadays is what has to be told
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return self._moved(probe, f"cannot be computed ({said})", details)
        return self._judged(probe, entry.fingerprint, now, entry.tolerance, details)

    def _judged(
        self, probe: Probe, stored: Fingerprint, now: Fingerprint, tolerance: float, details: dict[str, object]
    ) -> Finding:
        apart = difference(now, stored)
        # JSON has no infinity.
        details["difference"] = None if math.isinf(apart) else apart
        if not apart <= tolerance:
            details |= {"recorded": stored.as_dict(), "now": now.as_dict()}
            allowed = f", allowed are {tolerance:.0e}" if tolerance and not math.isinf(apart) else ""
            return self._moved(probe, f"{_said(apart)}{allowed}", details)
        return Finding(probe.name, "ok", f"{probe.what}{self._within(apart, tolerance)}", "", details)

    @staticmethod
    def _within(apart: float, tolerance: float) -> str:
        return f": off by {apart:.0e}, allowed are {tolerance:.0e}" if apart else ": equal"

    def _moved(self, probe: Probe, found: str, details: dict[str, object]) -> Finding:
        self.moved[probe.name] = probe.leans_on[0]
        below = [name for name in probe.builds_on if name in self.moved]
        changed = suspects(probe.leans_on, self.record.libraries, self.versions)
        if below:
            remedy = f"it builds on {' and '.join(below)}, which moved too: look there first"
        elif changed:
            named = [f"{name} {self.record.libraries.get(name)} -> {self.versions[name]}" for name in changed]
            pins = " ".join(f'"{name}=={self.record.libraries.get(name)}"' for name in changed)
            remedy = f"moved: {', '.join(named)}; go back with pip install {pins}"
        else:
            remedy = f"leans on {', '.join(probe.leans_on)}; {_NO_VERSION}"
        details |= {"suspects": list(changed), "follows_from": below}
        return Finding(probe.name, "problem", f"{probe.what}: {found}", remedy, details)

    def weights(self) -> Finding:
        names = sorted(set(self.files) | set(self.record.files))
        other = [name for name in names if self.files.get(name) != self.record.files.get(name)]
        details = {"recorded": self.record.weights, "files": other, "folder": str(self.bench.folder)}
        if not other:
            return Finding("small backbone", "ok", f"files as recorded ({self.record.weights[:12]})", "", details)
        missing = [name for name in other if name not in self.files]
        what = f"{', '.join(missing)} missing" if missing else f"{', '.join(other)} not as recorded"
        return Finding(
            "small backbone",
            "problem",
            f"{self.bench.folder}: {what}",
            "install unibrain again; after a training of your own run python -m unibrain.doctor.record",
            details,
        )


def compare(probes: Sequence[Probe], bench: Bench, record: Record) -> Section:
    """Recompute every fingerprint.

    Parameters
    ----------
    probes : sequence of Probe
        What others build on comes first.
    bench : Bench
    record : Record

    Returns
    -------
    Section
        A finding on the backbone's files, which tells changed weights apart from a moved library, and one per probe.
    """
    comparison = _Comparison(bench, record)
    findings = [comparison.weights(), *(comparison.finding(probe) for probe in probes)]
    return Section("Fingerprints", tuple(findings))
