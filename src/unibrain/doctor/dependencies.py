"""Versions of all dependencies against the ranges that the installed package asks for."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from unibrain.doctor.diagnosis import Finding, Section

__all__ = ["dependencies", "judge"]

_PURPOSES = {
    "demo": "scores from EfficientNet-lite0's features",
    "test": "running the tests",
}


def judge(line: str) -> Finding:
    """Compare one requirement with what is installed.

    Parameters
    ----------
    line : str
        As in a package's metadata, for example ``"numpy>=1.26"``.

    Returns
    -------
    Finding
    """
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        details = {"range": str(requirement.specifier), "version": None}
        return Finding(requirement.name, "problem", "not installed", f'pip install "{wanted}"', details)
    details = {"range": str(requirement.specifier), "version": found}
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, "ok", f"{found} (range {requirement.specifier})", "", details)
    said = f"{found} is outside of the range {requirement.specifier} that was run"
    return Finding(requirement.name, "problem", said, f'pip install "{wanted}"', details)


def _extra(name: str, lines: Sequence[str]) -> Finding:
    findings = [judge(line) for line in lines]
    lacking = [finding for finding in findings if finding.status != "ok"]
    details = {finding.name: dict(finding.details) for finding in findings}
    title = f"extra {name}"
    purpose = _PURPOSES.get(name, "optional")
    if not lacking:
        return Finding(title, "ok", f"{len(findings)} packages as asked for ({purpose})", "", details)
    said = "; ".join(f"{finding.name}: {finding.found}" for finding in lacking)
    remedy = f'for {purpose}: pip install "unibrain[{name}]"'
    return Finding(title, "note", said, remedy, details)


def dependencies(distribution: str = "unibrain") -> Section:
    """Look at every dependency of an installed distribution.

    Parameters
    ----------
    distribution : str

    Returns
    -------
    Section
        A finding per dependency, and one per extra.
    """
    title = "Dependencies"
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        said = f"{distribution} runs from its source without being installed, so its ranges are not known"
        return Section(title, (Finding(distribution, "note", said, "pip install -e . in the clone"),))
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Section(title, (Finding("packaging", "problem", "not installed", "pip install packaging"),))
    core: list[str] = []
    extras: dict[str, list[str]] = {name: [] for name in _PURPOSES}
    for line in lines:
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": ""}):
            core.append(line)
        for name, wanted in extras.items():
            if marker is not None and not marker.evaluate({"extra": ""}) and marker.evaluate({"extra": name}):
                wanted.append(line)
    findings = [judge(line) for line in core]
    return Section(title, (*findings, *(_extra(name, wanted) for name, wanted in extras.items() if wanted)))
