"""Fetching the official backbone: plan, ask, download, convert."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unibrain.errors import InputError
from unibrain.weights.download import check_content, download
from unibrain.weights.hub import Hub
from unibrain.weights.into_home import Convert, convert_files, fetch_record
from unibrain.weights.manifest import MANIFEST_FILE, DtypeChoice, Manifest, Origin, Role
from unibrain.weights.plan import Plan, check_disks, make_plan
from unibrain.weights.sources import Precision, official_sources
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import folder_lock

__all__ = ["Choice", "Fetched", "fetch_official"]


@dataclass(frozen=True)
class Choice:
    """What to fetch, and what to make of it.

    Attributes
    ----------
    precision : {"fp16", "fp32"}
        Which published file of the flows.
    dtype : {"as-stored", "fp32", "bf16", "fp16"}
        Precision of the converted files.
    pictures_only : bool
        Leave out what only captions need.
    repository, revision : str, optional
        Versatile Diffusion's repository and revision, instead of the known ones.
    """

    precision: Precision = "fp16"
    dtype: DtypeChoice = "as-stored"
    pictures_only: bool = False
    repository: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What a fetch has come to.

    Attributes
    ----------
    folder : Path
        The backbone.
    state : {"converted", "was there", "declined"}
    """

    folder: Path
    state: Literal["converted", "was there", "declined"]


def _converted_bytes(plan: Plan, choice: Choice) -> int:
    # Upper bounds: the flows' file may repeat the autoencoders and CLIP, which are kept once.
    factor = 2 if choice.dtype == "fp32" and choice.precision == "fp16" else 1
    return sum(item.file.size * (factor if item.role == "flows" else 1) for item in plan.all_files)


def _done(folder: Path, record: Path, choice: Choice) -> bool:
    if not (folder / MANIFEST_FILE).is_file():
        return False
    try:
        return bool(json.loads(record.read_text(encoding="utf-8")) == asdict(choice))
    except (OSError, ValueError):
        return False


def _get(hub: Hub, plan: Plan) -> dict[Role, Path]:
    found: dict[Role, Path] = {}
    for item in plan.all_files:
        if item.cached is not None:
            check_content(item.cached, item.sha256)
            found[item.role] = item.cached
        else:
            found[item.role] = download(hub, item.repository, item.commit, item.file, item.sha256)
    return found


def _check_target(folder: Path, plan: Plan, choice: Choice, replace: bool) -> None:
    """Refuse before the download what the conversion would refuse after it."""
    if not folder.exists():
        return
    if not (folder / MANIFEST_FILE).is_file():
        raise InputError(f"{folder}: is there but holds no converted backbone, expected a free place: move it away")
    if replace:
        return
    manifest = Manifest.read(folder)
    made_of = {(source.role, Path(source.name).name, source.origin) for source in manifest.sources}
    wanted = {
        (str(item.role), Path(item.file.path).name, Origin(item.repository, item.commit)) for item in plan.all_files
    }
    if made_of != wanted or manifest.dtype != choice.dtype:
        raise InputError(
            f"{folder}: already holds a backbone made from other files or to another precision, expected a free place: "
            "add --replace to replace it"
        )


def fetch_official(
    choice: Choice,
    home: Path,
    *,
    hub: Hub | None = None,
    agree: Callable[[str], bool] = lambda plan: True,
    replace: bool = False,
    convert: Convert = convert_files,
) -> Fetched:
    """Download the official backbone and convert it into ``home/"official"``.

    A stopped fetch is continued by the next one, from the same commits and the same byte; one that was finished is not
    done again.

    Parameters
    ----------
    choice : Choice
    home : Path
        Where backbones are kept.
    hub : Hub, optional
        By default as the hub's own environment variables say.
    agree : callable
        Is given repositories, commits, licences, sizes and disks as text, and says whether to go on.
    replace : bool
        Do it even if it was done, and replace an official backbone that was made otherwise.
    convert : callable
        Replaces `unibrain.weights.convert.convert`.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If the hub refuses or cannot be reached, a disk is full, or a file is not what it should be. Nothing is left
        half-written; what was downloaded stays in the hub's cache.
    """
    hub = hub or Hub()
    folder = home / "official"
    record = fetch_record(home, "official")
    if not replace and _done(folder, record, choice):
        return Fetched(folder, "was there")
    sources = official_sources(
        choice.precision,
        pictures_only=choice.pictures_only,
        repository=choice.repository,
        revision=choice.revision,
    )
    home.mkdir(parents=True, exist_ok=True)
    with folder_lock(home):
        plan = make_plan(hub, sources, home / ".official.commits.json")
        _check_target(folder, plan, choice, replace)
        disks = check_disks(plan, hub.cache_folder, home, _converted_bytes(plan, choice))
        if not agree(f"{plan.text()}\n{disks}"):
            return Fetched(folder, "declined")
        files = _get(hub, plan)
        say(f"converting into {folder}")
        origins = {item.role: Origin(item.repository, item.commit) for item in plan.all_files}
        convert(files, folder, dtype=choice.dtype, origins=origins, replace=replace)
        if not (folder / MANIFEST_FILE).is_file():
            raise InputError(f"{folder}: conversion wrote no {MANIFEST_FILE}, expected one: run again with --replace")
        write_json(record, asdict(choice))
    return Fetched(folder, "converted")
