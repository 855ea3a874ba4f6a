"""Fetching the official backbone from the Hugging Face hub: plan, ask, download, convert."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unibrain.errors import InputError
from unibrain.weights.conversion import another_backbone, convert, existing_backbone
from unibrain.weights.manifest import Manifest, Origin
from unibrain.weights.published import PUBLISHED_SHA256, DtypeChoice, Role, Source
from unibrain.workspace.files import existing_folder, free_bytes, readable_bytes, require_space, sweep_partials
from unibrain.workspace.progress import is_quiet, say
from unibrain.workspace.run_folder import folder_lock

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_ELSEWHERE = "fetch on a machine with internet and give its files to `unibrain weights import`"


@dataclass(frozen=True)
class Fetched:
    """What a fetch has come to: the backbone's folder, and whether it was made now."""

    folder: Path
    state: Literal["converted", "was there", "declined"]


@dataclass(frozen=True)
class _File:
    """One file to get, and where it comes from with what is known of its content."""

    path: str
    revision: str
    size: int
    cached: bool
    origin: Origin


class _RefusedError(InputError):
    """What another repository may better: no access, no such repository, no such file."""


@contextmanager
def _hub(about: str, address: str) -> Iterator[None]:
    """Turn what the hub's library raises into one sentence; keep the block to its calls."""
    from huggingface_hub import errors, is_offline_mode

    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"{about}: not the name of a repository. Give --repository as owner/name.") from error
    except errors.RevisionNotFoundError as error:
        raise _RefusedError(f"{about}: the hub at {address} knows no such revision. Check --revision.") from error
    except Exception as error:
        if isinstance(error, (ImportError, MemoryError)) or (isinstance(error, OSError) and error.errno is not None):
            raise
        if is_offline_mode():
            raise _RefusedError(
                f"{about}: not in the hub's cache, and HF_HUB_OFFLINE forbids to ask for it. Unset it, or {_ELSEWHERE}."
            ) from error
        # The library wraps most of what keeps it from a file.
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise _RefusedError(
                f"{about}: private, gated or not there (the hub at {address} answered {status}). Accept its terms on "
                "its page and set HF_TOKEN, or name another repository with --repository."
            ) from error
        reason = " ".join(str(cause).split())[:160]
        raise InputError(
            f"{about}: the hub at {address} gave no usable answer ({reason}). Check the connection, the proxy and "
            f"HF_ENDPOINT, then run again (files that are complete are kept), or {_ELSEWHERE}."
        ) from error


def _planned(api: "HfApi", source: Source) -> dict[Role, _File]:
    """Look up files under the first names, in the first repository, that has all of them."""
    refused: list[InputError] = []
    for repository in source.repositories:
        for number in range(max(map(len, source.files.values()))):
            names = {role: several[min(number, len(several) - 1)] for role, several in source.files.items()}
            try:
                return _listed(api, repository, source.revision, names)
            except _RefusedError as error:
                refused.append(error)
    raise refused[0]


def _listed(api: "HfApi", repository: str, revision: str, names: dict[Role, str]) -> dict[Role, _File]:
    from huggingface_hub import RepoFile, is_offline_mode

    found, hashes = {}, {}
    for role, name in names.items():
        with _hub(f"{repository}/{name} at {revision}", api.endpoint):
            found[role] = api.hf_hub_download(repository, name, revision=revision, dry_run=True)
    if not is_offline_mode():
        commit = next(iter(found.values())).commit_hash
        with _hub(f"{repository} at {revision}", api.endpoint):
            infos = api.get_paths_info(repository, list(names.values()), revision=commit)
        # The hub knows the SHA-256 of its large files only; names in its cache may be other hashes.
        hashes = {info.path: info.lfs.sha256 for info in infos if isinstance(info, RepoFile) and info.lfs}
    planned = {}
    for role, one in found.items():
        sha256 = PUBLISHED_SHA256.get(role) or hashes.get(names[role])
        origin = Origin(repository=repository, revision=one.commit_hash, sha256=sha256)
        planned[role] = _File(names[role], revision, one.file_size or 0, one.is_cached, origin)
    return planned


def _text(source: Source, files: dict[Role, _File]) -> list[str]:
    origin = next(iter(files.values())).origin
    lines = [f"{source.title}: {origin.repository} at {origin.revision[:12]}, licence {source.licence}"]
    for file in files.values():
        lines.append(f"  {file.path:<50} {readable_bytes(file.size):>10}{'  (in the cache)' * file.cached}")
    return lines


def _is_made_of(manifest: Manifest, sources: Sequence[Source]) -> bool:
    made = {source.role: source for source in manifest.sources}
    wanted = {role: (source, names) for source in sources for role, names in source.files.items()}
    return made.keys() == wanted.keys() and all(
        (origin := made[role].origin) is not None
        and origin.repository in source.repositories
        and source.revision in ("main", origin.revision)
        and made[role].name in [Path(name).name for name in names]
        for role, (source, names) in wanted.items()
    )


def fetch_official(
    sources: Sequence[Source],
    home: Path,
    *,
    dtype: DtypeChoice = "as-stored",
    agree: Callable[[str], bool] = lambda plan: True,
    replace: bool = False,
) -> Fetched:
    """Download the official backbone and convert it into ``home/"official"``.

    `agree` is given repositories, commits, licences, sizes and disks as text, and says whether to go on. A finished
    fetch is not done again, and an official backbone that was made otherwise is kept, unless `replace` is set.

    Files that an earlier fetch has downloaded are taken from the hub's cache. The hub, its cache and the token are
    those of its own environment variables. Nothing is ever left half-written.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if is_quiet():
        disable_progress_bars()
    api, store, folder = HfApi(), Path(constants.HF_HUB_CACHE), home / "official"
    existing = existing_backbone(folder)
    if existing is not None and not replace:
        if existing.dtype == dtype and _is_made_of(existing, sources):
            return Fetched(folder, "was there")
        raise another_backbone(folder)
    home.mkdir(parents=True, exist_ok=True)
    with folder_lock(home):
        sweep_partials(home)
        lines: list[str] = []
        planned: dict[Role, _File] = {}
        for source in sources:
            files = _planned(api, source)
            lines += _text(source, files)
            planned |= files
        lines += _disks(planned, dtype, home, store)
        if not agree("\n".join(lines)):
            return Fetched(folder, "declined")
        paths = {}
        for role, file in planned.items():
            repository = file.origin.repository
            # By the branch, not by its commit: only so the cache notes which commit it was, for a fetch offline.
            with _hub(f"{repository}/{file.path}", api.endpoint):
                paths[role] = Path(api.hf_hub_download(repository, file.path, revision=file.revision))
        say(f"converting into {folder}")
        origins = {role: file.origin for role, file in planned.items()}
        convert(paths, folder, dtype=dtype, origins=origins, replace=replace)
    return Fetched(folder, "converted")


def _disks(planned: dict[Role, _File], dtype: DtypeChoice, home: Path, store: Path) -> list[str]:
    """Say what goes where, after a check that it fits."""
    download = sum(file.size for file in planned.values() if not file.cached)
    # An upper bound: the flows' file may repeat other parts, which are kept once.
    wider = 2 if dtype == "fp32" and "fp16" in planned["flows"].path else 1
    converted = sum(file.size * (wider if role == "flows" else 1) for role, file in planned.items())
    if existing_folder(store).stat().st_dev == existing_folder(home).stat().st_dev:
        require_space(home, download + converted, "Free some space, or set HF_HOME and UNIBRAIN_HOME to larger disks.")
    require_space(store, download, "Free some space, or set HF_HOME to a larger disk.")
    require_space(home, converted, "Free some space, or set UNIBRAIN_HOME to a larger disk.")
    whole = sum(file.size for file in planned.values())
    return [
        f"Together {readable_bytes(whole)}, of which {readable_bytes(download)} to download.",
        f"Disk: {readable_bytes(download)} into {store} ({readable_bytes(free_bytes(store))} free), "
        f"{readable_bytes(converted)} into {home} ({readable_bytes(free_bytes(home))} free).",
    ]
