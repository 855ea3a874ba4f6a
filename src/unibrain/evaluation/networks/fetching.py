"""Getting the networks of the scores: downloaded, or found on disk by their content; every file is checked."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from unibrain.errors import InputError
from unibrain.evaluation.networks.weights import NETWORKS, Network, Published, check, network_row, present
from unibrain.workspace.files import atomic_path, free_bytes, readable_bytes, require_space, sweep_partials
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import is_quiet, say
from unibrain.workspace.run_folder import folder_lock

_ON_THE_HUB = re.compile(r"hf://(?P<repository>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<file>.+)")
_ELSEWHERE = "fetch on a machine with internet and give its files to `unibrain weights import --metrics`"


def usual_names(*, with_swav: bool = False) -> list[str]:
    """The networks that are fetched: those whose licence asks for a decision only with it."""
    return [name for name, network in NETWORKS.items() if with_swav or not network.opt_in]


def fetch_networks(
    names: Sequence[str], folder: Path, agree: Callable[[str], bool] = lambda plan: True
) -> list[Path] | None:
    """Download what is not there yet of some networks; the files that were downloaded, None if `agree` declined.

    `names` are keys of `NETWORKS`. `agree` is given networks, sizes, licences and the disk as text, and says whether to
    go on; it is not asked if nothing is missing. `InputError` if the disk is too full, a server cannot be reached, or a
    file is not the published one; files that were complete by then stay.
    """
    networks = [network_row(name) for name in names]
    wanted: dict[str, Published] = {}
    for network in networks:
        for files, path in zip(network.parts, present(network, folder), strict=True):
            if path is None or not _is_sound(files, path):
                wanted[files[0].name] = files[0]
    if not wanted:
        return []
    size = sum(file.size for file in wanted.values())
    require_space(folder, size, "Free some space, or set UNIBRAIN_HOME to a larger disk.")
    lines = [line for network in networks for line in _text(network, wanted)]
    lines += dict.fromkeys(f"{network.licence}: {network.about_licence}" for network in networks)
    lines.append(f"{readable_bytes(size)} to download into {folder} ({readable_bytes(free_bytes(folder))} free).")
    if not agree("\n".join(lines)):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        sweep_partials(folder)
        return [_fetch(file, folder) for file in wanted.values()]


def _is_sound(files: Sequence[Published], path: Path) -> bool:
    try:
        check(files, path)
    except InputError:
        return False
    return True


def _text(network: Network, wanted: dict[str, Published]) -> list[str]:
    lines = [f"{network.title}, licence: {network.licence}"]
    for files in network.parts:
        state = "" if files[0].name in wanted else "  (is there)"
        lines.append(f"  {files[0].name:<40} {readable_bytes(files[0].size):>10}{state}")
    return lines


def _fetch(file: Published, folder: Path) -> Path:
    say(f"downloading {file.name} ({readable_bytes(file.size)})")
    target = folder / file.name
    with atomic_path(target) as temporary:
        try:
            if match := _ON_THE_HUB.fullmatch(file.url):
                from huggingface_hub import HfApi

                # The hub's cache shares it with `weights fetch official`, and continues what was cut off.
                cached = HfApi().hf_hub_download(match["repository"], match["file"], revision=match["commit"])
                shutil.copyfile(cached, temporary)
            else:
                from torch.hub import download_url_to_file

                download_url_to_file(file.url, str(temporary), progress=sys.stderr.isatty() and not is_quiet())
        except Exception as error:
            if isinstance(error, (ImportError, MemoryError)) or (type(error) is OSError and error.errno is not None):
                raise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(
                f"{file.url}: it could not be downloaded ({reason}). Check the connection and the proxy, then run "
                f"again, or {_ELSEWHERE}."
            ) from error
        size, found = temporary.stat().st_size, sha256_of(temporary)
        if not found.startswith(file.sha256):
            raise InputError(
                f"{file.url}: what came has {size:,} bytes and a SHA-256 that begins with {found[:16]}, and should "
                f"have {file.size:,} and {file.sha256[:16]}. Run again, or {_ELSEWHERE}."
            )
    check([file], target)
    return target


def import_networks(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Copy the published files that are on disk already, known by size and SHA-256, whatever their names.

    `paths` are files, or folders that are searched with all their subfolders, such as torch's or the hub's cache. Gives
    the files that are in their place now; `InputError` if a path is not there, a file has the name of a published one
    but not its content, or nothing is found.
    """
    published = {file.sha256: file for network in NETWORKS.values() for files in network.parts for file in files}
    found: dict[str, Path] = {}
    for path in (inner for root in paths for inner in _files(root)):
        size = path.stat().st_size
        candidates = [file for file in published.values() if file.name not in found and file.may_have(size)]
        sha256 = sha256_of(path) if candidates else ""
        if file := next((file for file in candidates if sha256.startswith(file.sha256)), None):
            found[file.name] = path
            continue
        # Only names that no other file has tell anything: every network is called model.safetensors.
        if any(path.name == file.name for file in published.values()) and path.name not in found:
            raise InputError(
                f"{path}: it has the name of a published file, but not its content: cut off, damaged, or another "
                "version. Download it again."
            )
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths))}: no published network of the scores is there, by size and SHA-256. Check "
            "the path, or run unibrain weights fetch metrics."
        )
    for name, source in found.items():
        target = folder / name
        if not (target.exists() and target.samefile(source)):
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
        check(list(published.values()), target)
    return [folder / name for name in found]


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder. Check the path.")
    inside = (Path(place, name) for place, _, names in os.walk(root) for name in sorted(names))
    return sorted(path for path in inside if path.is_file())
