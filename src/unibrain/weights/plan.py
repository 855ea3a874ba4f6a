"""What a fetch will do, before it does it: which files of which commits, how large, and whether the disks hold them."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.hub import Hub, HubError, Listing, RemoteFile
from unibrain.weights.manifest import Role
from unibrain.weights.sources import Source, Wanted
from unibrain.workspace.files import write_json

__all__ = ["Plan", "PlannedFile", "check_disks", "gigabytes", "kept_commits", "make_plan"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class PlannedFile:
    """One file to get.

    Attributes
    ----------
    role : str
    repository, commit : str
    file : RemoteFile
    sha256 : str or None
        What its content must be, where that is known from elsewhere.
    cached : Path or None
        Where the hub's cache has it already.
    """

    role: Role
    repository: str
    commit: str
    file: RemoteFile
    sha256: str | None
    cached: Path | None


@dataclass(frozen=True)
class Plan:
    """All files of a fetch, with the sources that they come from (same order)."""

    sources: tuple[Source, ...]
    files: tuple[tuple[PlannedFile, ...], ...]

    @property
    def all_files(self) -> tuple[PlannedFile, ...]:
        """The files of all sources."""
        return tuple(file for files in self.files for file in files)

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(planned.file.size for planned in self.all_files)

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files that the cache does not have."""
        return sum(planned.file.size for planned in self.all_files if planned.cached is None)

    def text(self) -> str:
        """Lay it out: repositories, commits, licences, files and sizes."""
        lines = []
        for source, files in zip(self.sources, self.files, strict=True):
            first = files[0]
            lines.append(f"{source.title}: {first.repository} at {first.commit[:12]}, licence {source.licence}")
            for planned in files:
                held = "" if planned.cached is None else "  (in the cache)"
                lines.append(f"  {planned.file.path:<50} {gigabytes(planned.file.size):>10}{held}")
        lines.append(f"Together {gigabytes(self.total_bytes)}, of which {gigabytes(self.missing_bytes)} to download.")
        return "\n".join(lines)


def gigabytes(size: int) -> str:
    """Write a number of bytes for people (GB = 10**9 bytes)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"


def kept_commits(record: Path) -> dict[str, str]:
    """Read which commits earlier fetches have resolved: ``repository@revision`` to commit."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        commits = kept["commits"]
        return {str(key): value for key, value in commits.items() if _COMMIT.fullmatch(value)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{record}: not readable as the list of commits that earlier fetches have used: delete it and run again"
        ) from None


def _find(wanted: Wanted, folder: str, listing: Listing) -> RemoteFile | None:
    for name in wanted.names:
        exact = f"{folder}/{name}" if folder else name
        elsewhere = sorted((path for path in listing.files if path.rsplit("/", 1)[-1] == name), key=len)
        for path in (exact, *elsewhere):
            if path in listing.files:
                return listing.files[path]
    return None


def _from_cache(hub: Hub, source: Source, repository: str, revision: str) -> tuple[PlannedFile, ...] | None:
    planned = []
    for wanted in source.files:
        folder = f"{source.folder}/" if source.folder else ""
        paths = [f"{folder}{name}" for name in wanted.names]
        found = next(((path, held) for path in paths if (held := hub.cached(repository, path, revision))), None)
        if found is None:
            return None
        path, held = found
        commit = held.parents[path.count("/")].name
        file = RemoteFile(path, held.stat().st_size, None)
        planned.append(PlannedFile(wanted.role, repository, commit, file, wanted.sha256, held))
    return tuple(planned)


def _ask(hub: Hub, source: Source, repository: str, revision: str) -> tuple[PlannedFile, ...]:
    listing = hub.listing(repository, revision)
    planned = []
    for wanted in source.files:
        file = _find(wanted, source.folder, listing)
        if file is None:
            where = f"{repository} at {listing.commit[:12]}"
            raise HubError(
                f"{where}: the hub has no {wanted.names[0]} there, expected it in {source.folder or 'the top folder'}: "
                "name another repository with --repository, or another --revision",
                404,
            )
        held = hub.cached(repository, file.path, listing.commit)
        planned.append(PlannedFile(wanted.role, repository, listing.commit, file, wanted.sha256, held))
    return tuple(planned)


def _resolve(hub: Hub, source: Source, commits: dict[str, str]) -> tuple[PlannedFile, ...]:
    refused: list[HubError] = []
    candidates = []
    for repository in source.repositories:
        key = f"{repository}@{source.revision or 'main'}"
        # A branch that was named by hand is asked again; the default one stays at the commit that was taken first.
        kept = commits.get(key) if source.revision is None or hub.offline else None
        candidates.append((repository, key, kept or source.revision or "main"))
    # What a fetch has begun is continued from the same place.
    candidates.sort(key=lambda candidate: source.revision is None and candidate[1] not in commits)
    for repository, _, revision in candidates:
        if _COMMIT.fullmatch(revision) or hub.offline:
            planned = _from_cache(hub, source, repository, revision)
            if planned is not None:
                return planned
    if hub.offline:
        raise HubError(
            f"{' and '.join(source.repositories)}: not complete in the cache {hub.cache_folder}, and HF_HUB_OFFLINE "
            "forbids to download: unset HF_HUB_OFFLINE, or fetch on a machine with internet and take its files to "
            "`unibrain weights import`"
        )
    for repository, key, revision in candidates:
        try:
            planned = _ask(hub, source, repository, revision)
        except HubError as error:
            refused.append(error)
            if error.status not in (401, 403, 404):
                break
        else:
            commits[key] = planned[0].commit
            return planned
    # A refusal hides a token that would help, so it says more than "not found"; no answer at all says most.
    order = {None: 0, 401: 1, 403: 1, 404: 2}
    raise min(refused, key=lambda error: order.get(error.status, 0))


def make_plan(hub: Hub, sources: Sequence[Source], record: Path) -> Plan:
    """Find all files on the hub, or in its cache where their commit is known.

    Parameters
    ----------
    hub : Hub
    sources : sequence of Source
    record : Path
        File that keeps the commits, so that a repeated or continued fetch uses the same ones. Written.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If a repository or file is not there, the hub refuses or cannot be reached.
    """
    commits = kept_commits(record)
    before = dict(commits)
    files = tuple(_resolve(hub, source, commits) for source in sources)
    if commits != before:
        write_json(record, {"commits": commits})
    return Plan(tuple(sources), files)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def check_disks(plan: Plan, cache: Path, home: Path, converted: int) -> str:
    """Check that there is room for the download and for what is made of it.

    Parameters
    ----------
    plan : Plan
    cache, home : Path
        Where downloads and converted backbones go.
    converted : int
        Bytes of the converted backbone, at most.

    Returns
    -------
    str
        What is needed and free.

    Raises
    ------
    InputError
        If it does not fit.
    """
    needs = [(_existing(cache), plan.missing_bytes, "HF_HOME"), (_existing(home), converted, "UNIBRAIN_HOME")]
    same = needs[0][0].stat().st_dev == needs[1][0].stat().st_dev
    lines = []
    for folder, needed, variable in needs:
        free = shutil.disk_usage(folder).free
        here = needs[0][1] + needs[1][1] if same else needed
        if here > free:
            what = "the download and the converted backbone need" if same else "this needs"
            raise InputError(
                f"{folder}: {gigabytes(free)} are free on this disk, {what} {gigabytes(here)}: free some space, or set "
                f"{variable} to a folder on a larger disk"
            )
        lines.append(f"{gigabytes(needed)} into {folder} ({gigabytes(free)} free)")
    return "Disk: " + ", ".join(lines) + "."
