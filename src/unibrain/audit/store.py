"""``audit.json``: an audit as a file that people and programs can read."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain.audit.audit import Audit, Finding, Neighbours, Pair, RegionVoxels, SessionVoxels
from unibrain.errors import InputError
from unibrain.workspace.files import write_json

__all__ = ["audit_text", "load_audit", "save_audit"]

_FORMAT = 1


def _content(audit: Audit) -> dict[str, Any]:
    return {"format": _FORMAT, **audit.as_dict()}


def audit_text(audit: Audit) -> str:
    """Write an audit as indented JSON, as in the file."""
    return json.dumps(_content(audit), indent=1, ensure_ascii=False)


def save_audit(path: str | os.PathLike[str], audit: Audit) -> None:
    """Write an audit to a JSON file, atomically.

    Parameters
    ----------
    path : path-like
    audit : Audit

    Raises
    ------
    InputError
        If the disk is full.
    """
    write_json(path, _content(audit))


def load_audit(path: str | os.PathLike[str]) -> Audit:
    """Read what `save_audit` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If the file is not there, or is not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}")
        return _audit(content)
    except FileNotFoundError as error:
        raise InputError(f"{path}: found no such file, expected an audit: run `unibrain audit` first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: found a file that is no audit ({error}), expected what `unibrain audit` writes: audit again"
        ) from error


def _audit(content: Mapping[str, Any]) -> Audit:
    neighbours = content["neighbours"]
    if neighbours is not None:
        tuples = {name: tuple(values) for name, values in neighbours.items() if isinstance(values, list)}
        neighbours = Neighbours(**{**neighbours, **tuples, "pairs": _pairs(neighbours["pairs"])})
    regions = (
        {**region, "quartiles": None if region["quartiles"] is None else tuple(region["quartiles"])}
        for region in content["regions"]
    )
    return Audit(
        subject=str(content["subject"]),
        simulated=bool(content["simulated"]),
        source=str(content["source"]),
        split=str(content["split"]),
        findings=tuple(Finding(**finding) for finding in content["findings"]),
        sessions=tuple(SessionVoxels(**session) for session in content["sessions"]),
        regions=tuple(RegionVoxels(**region) for region in regions),
        near_duplicate=float(content["near_duplicate"]),
        pictures=_pairs(content["pictures"]),
        neighbours=neighbours,
    )


def _pairs(entries: list[dict[str, Any]]) -> tuple[Pair, ...]:
    return tuple(Pair(**entry) for entry in entries)
