"""Which images were trained on and which were held out, written down with a hash that stands for it."""

import hashlib
import json
import os
from typing import Any

from unibrain.scans.subject import Subject
from unibrain.workspace.atomic import write_json

__all__ = ["FORMAT", "split_hash", "split_manifest", "write_split"]

FORMAT = "unibrain-split"
VERSION = 1


def _ids(subject: Subject) -> dict[str, list[int]]:
    return {
        "train": sorted(int(i) for i in subject.stimulus_ids[~subject.is_test]),
        "test": sorted(int(i) for i in subject.stimulus_ids[subject.is_test]),
    }


def split_hash(subject: Subject) -> str:
    """Hash a subject's split.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    str
        sha256 of ``{"test":[...],"train":[...]}``: JSON without blanks of the 0-based ids of all rows, ascending. It
        says which images are on which side (and how often), nothing of the scans: subjects that saw the same images
        have the same.
    """
    return hashlib.sha256(json.dumps(_ids(subject), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def split_manifest(subject: Subject) -> dict[str, Any]:
    """Describe a subject's split.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    dict
        JSON-ready: ``format``, ``version``, ``subject``, ``simulated``, ``preparation`` (protocol, sessions and the
        other choices), ``counts`` (rows, images and trials of both sides), ``sha256`` (see `split_hash`), and the
        0-based ids of all rows as ``train`` and ``test``, ascending.
    """
    ids = _ids(subject)
    counts = {}
    for side, rows in (("train", ~subject.is_test), ("test", subject.is_test)):
        counts[f"{side}_images"] = len(set(ids[side]))
        counts[f"{side}_rows"] = len(ids[side])
        counts[f"{side}_trials"] = int(subject.repeats[rows].sum())
    return {
        "format": FORMAT,
        "version": VERSION,
        "subject": subject.name,
        "simulated": subject.simulated,
        "preparation": dict(subject.preparation),
        "counts": counts,
        "sha256": split_hash(subject),
        **ids,
    }


def write_split(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write a subject's split (see `split_manifest`) as JSON, atomically."""
    write_json(path, split_manifest(subject))
