"""`NETWORKS`: the published weights of the networks behind published scores, where they are kept, and their check."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from unibrain.backbone.folder import backbones_home
from unibrain.errors import InputError, UnavailableError
from unibrain.workspace.files import write_json
from unibrain.workspace.fingerprints import FileState, fingerprint

COMMAND = "unibrain weights fetch metrics"

_WHOLE_HASH = 64
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Published:
    """One published file, with its name in `metrics_home`.

    What is on the Hugging Face hub has a `url` such as ``hf://owner/name@commit/file``. `sha256` is 64 hexadecimal
    digits, or their beginning, where no more is known; then `size` (bytes) is known to a percent only.
    """

    name: str
    url: str
    size: int
    sha256: str

    def may_have(self, size: int) -> bool:
        """Whether a file of this size may be it."""
        exact = len(self.sha256) == _WHOLE_HASH
        return size == self.size if exact else abs(size - self.size) < _TOLERANCE * self.size


@dataclass(frozen=True)
class Network:
    """A row of `NETWORKS`.

    `parts` is what it needs, the weights first; of each part one file, of those named here, the first of which is
    fetched. `licence` is a few words, `about_licence` a sentence; with `opt_in`, it is fetched only if asked for.
    """

    name: str
    title: str
    parts: tuple[tuple[Published, ...], ...]
    licence: str
    about_licence: str
    opt_in: bool = False


def _read_table() -> dict[str, Network]:
    content = json.loads((files("unibrain.evaluation") / "data" / "networks.json").read_text(encoding="utf-8"))
    known = {name: Published(name, **about) for name, about in content["files"].items()}
    return {
        name: Network(
            name,
            parts=tuple(tuple(known[file] for file in part) for part in about.pop("parts")),
            **about,
        )
        for name, about in content["networks"].items()
    }


NETWORKS: Mapping[str, Network] = _read_table()
"""Name to network, in the order in which they are shown."""


def metrics_home() -> Path:
    """Where the networks of the scores are kept: ``metrics``, beside the ``backbones``."""
    return backbones_home().parent / "metrics"


def network_row(name: str) -> Network:
    """A row of `NETWORKS`, or one sentence."""
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}. Choose among {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def present(network: Network, folder: Path) -> list[Path | None]:
    """The file of each part that is in a folder, unread; None where a part is missing."""
    return [
        next((folder / file.name for file in part if (folder / file.name).is_file()), None) for part in network.parts
    ]


def command_for(network: Network) -> str:
    """The command that gets a network."""
    return f"{COMMAND}{' --with-swav' * network.opt_in}"


def checked_files(network: Network, folder: Path) -> dict[Path, str]:
    """The file of each part to its SHA-256, after a check of both; `UnavailableError` if one is missing."""
    found = {}
    for part, path in zip(network.parts, present(network, folder), strict=True):
        if path is None:
            raise UnavailableError(
                f"{network.title} is not here ({folder / part[0].name} is missing): run {command_for(network)}"
            )
        found[path] = check(part, path, command_for(network))
    return found


def check(part: Sequence[Published], path: Path, command: str = COMMAND) -> str:
    """The SHA-256 of a file that is the published one of its name; `InputError` if it is not.

    A note beside it keeps that, so that it is read only once.
    """
    published = next(file for file in part if file.name == path.name)
    size = path.stat().st_size
    if not published.may_have(size):
        raise InputError(
            f"{path}: {size:,} bytes instead of {published.size:,}, so it was cut off or is another file. Remove it, "
            f"then run {command}."
        )
    note = path.with_name(f"{path.name}.checked.json")
    looked_at = fingerprint(path, _noted(note))
    assert looked_at is not None  # its size was read
    state = looked_at[""]
    found = state.sha256 or ""
    if not found.startswith(published.sha256):
        raise InputError(
            f"{path}: its SHA-256 begins with {found[:16]} instead of {published.sha256[:16]}, so it is damaged or "
            f"another file. Remove it, then run {command}."
        )
    if {"": state} != _noted(note):
        with suppress(OSError):  # a folder that is shared may not be written to
            write_json(note, asdict(state))
    return found


def _noted(note: Path) -> dict[str, FileState]:
    try:
        return {"": FileState(**json.loads(note.read_bytes()))}
    except (OSError, ValueError, TypeError):
        return {}
