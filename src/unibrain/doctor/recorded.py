"""What was recorded: fingerprints, the weights they belong to, and the versions they were taken with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unibrain.doctor.fingerprint import Fingerprint
from unibrain.errors import InputError
from unibrain.workspace.files import write_text

__all__ = ["LIBRARIES", "RECORD", "Entry", "Record", "backbone_files", "installed_versions"]

RECORD = Path(__file__).parent / "data" / "fingerprints.json"
"""The record that comes with the package; ``python -m unibrain.doctor.record`` writes it."""

LIBRARIES = ("transformers", "diffusers", "tokenizers", "pillow", "torch", "numpy")
"""Libraries that a fingerprint can lean on."""


def installed_versions() -> dict[str, str]:
    """Versions of `LIBRARIES` as installed, without importing them; ``"absent"`` where one is missing.

    Without the part that names a build (``+cpu``): the same version of PyTorch is built for several devices.
    """

    def installed(name: str) -> str:
        try:
            return version(name).split("+")[0]
        except PackageNotFoundError:
            return "absent"

    return {name: installed(name) for name in LIBRARIES}


def backbone_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a backbone folder that its own fingerprint covers; files that are missing are left out.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict of str to str
    """
    from unibrain.backbone.storage import PARTS, VOCABULARY_FILES

    sums = {}
    for name in ("config.json", *(f"{part}.safetensors" for part in PARTS), *VOCABULARY_FILES):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


@dataclass(frozen=True)
class Entry:
    """One recorded result.

    Attributes
    ----------
    fingerprint : Fingerprint
    tolerance : float
        Allowed difference, in units of the fingerprint's scale.
    """

    fingerprint: Fingerprint
    tolerance: float


@dataclass(frozen=True)
class Record:
    """What was recorded in one go.

    Attributes
    ----------
    libraries : mapping of str to str
        Versions of `LIBRARIES`.
    weights : str
        Fingerprint of the small backbone's folder.
    files : mapping of str to str
        SHA-256 of its files.
    entries : mapping of str to Entry
        By the probe's name.
    """

    libraries: Mapping[str, str]
    weights: str
    files: Mapping[str, str]
    entries: Mapping[str, Entry]

    @classmethod
    def read(cls, path: Path = RECORD) -> "Record":
        """Read a record.

        Raises
        ------
        InputError
            If it is missing or damaged.
        """
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            entries = {
                name: Entry(Fingerprint.from_dict(entry), float(entry["tolerance"]))
                for name, entry in content["fingerprints"].items()
            }
            return cls(
                dict(content["libraries"]),
                str(content["weights"]["folder"]),
                dict(content["weights"]["files"]),
                entries,
            )
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file, expected the recorded fingerprints: install unibrain again"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: damaged ({type(error).__name__}: {error}), expected the recorded fingerprints: "
                "install unibrain again"
            ) from None

    def write(self, path: Path = RECORD) -> None:
        """Write a record: one line per fingerprint, so that a change can be read."""
        head = {"libraries": dict(self.libraries), "weights": {"folder": self.weights, "files": dict(self.files)}}
        lines = [
            f"  {json.dumps(name)}: "
            + json.dumps({"tolerance": entry.tolerance, **entry.fingerprint.as_dict()}, ensure_ascii=False)
            for name, entry in self.entries.items()
        ]
        text = json.dumps(head, indent=1)[:-2] + ',\n "fingerprints": {\n' + ",\n".join(lines) + "\n }\n}\n"
        write_text(path, text)
