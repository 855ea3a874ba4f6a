"""Numbers and names of the labels in NSD's label volumes."""

import logging
from collections.abc import Mapping
from pathlib import Path

from unibrain.errors import InputError
from unibrain.scans.nsd.files import whole_file
from unibrain.scans.nsd.layout import SAFE_NAME, NsdLayout

__all__ = [
    "ATLAS_LABELS",
    "STANDARD_LABELS",
    "VOLUME_ORDER",
    "label_names",
    "present_volumes",
    "read_label_table",
    "warn_presumed",
]

_log = logging.getLogger(__name__)

STANDARD_LABELS: Mapping[str, Mapping[int, str]] = {
    "nsdgeneral": {1: "nsdgeneral"},
    "prf-visualrois": {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"},
    "prf-eccrois": {1: "ecc0pt5", 2: "ecc1", 3: "ecc2", 4: "ecc4", 5: "ecc4+"},
    "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"},
    "floc-words": {1: "OWFA", 2: "VWFA-1", 3: "VWFA-2", 4: "mfs-words", 5: "mTL-words"},
    "floc-places": {1: "OPA", 2: "PPA", 3: "RSC"},
    "floc-bodies": {1: "EBA", 2: "FBA-1", 3: "FBA-2", 4: "mTL-bodies"},
}
"""As NSD's manual lists them, used where a tree has no label tables."""

_KASTNER_CONFIRMED = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
_KASTNER_PRESUMED = (
    *("VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1", "V3B", "V3A"),
    *("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF"),
)

ATLAS_LABELS: Mapping[str, Mapping[int, str]] = {
    "streams": dict(
        enumerate(("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"), 1)
    ),
    "Kastner2015": dict(enumerate((*_KASTNER_CONFIRMED, *_KASTNER_PRESUMED), 1)),
}
"""Likewise for atlases. Of Kastner2015 only 1 to 7 are known to be so; 8 to 25 follow the atlas' usual order (Wang et
al. 2015), which the number of labels fits, and using them without a label table is warned about."""

VOLUME_ORDER = (*STANDARD_LABELS, *ATLAS_LABELS, "HCP_MMP1")
"""A label that is named without its volume is looked for in this order, then in the other volumes by name."""


def read_label_table(path: Path) -> dict[int, str]:
    """Read a FreeSurfer label table: one ``<number> <name>`` per line, some with a trailing tab.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict of int to str
        With 0, ``Unknown``.

    Raises
    ------
    InputError
        If a line is something else, or a number or a name appears twice.
    """
    labels: dict[int, str] = {}
    with whole_file(path, "text"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not words[0].isdigit() or int(words[0]) in labels or words[1] in labels.values():
            raise InputError(
                f"{path}: found {line.strip()!r} in line {number}, expected a new number and a new name: "
                "download it again"
            )
        labels[int(words[0])] = words[1]
    return labels


def label_names(layout: NsdLayout, volume: str) -> tuple[dict[int, str], str]:
    """Find the names of a label volume's numbers.

    Parameters
    ----------
    layout : NsdLayout
    volume : str

    Returns
    -------
    names : dict of int to str
        Numbers from 1 up; empty if nothing is known of the volume.
    origin : str
        Where the names come from.

    Raises
    ------
    InputError
        If a label table is damaged.
    """
    for path in layout.label_tables(volume):
        if path.is_file():
            return {number: name for number, name in read_label_table(path).items() if number > 0}, str(path)
    names = {**STANDARD_LABELS, **ATLAS_LABELS}.get(volume, {})
    return dict(names), "the standard labels"


def warn_presumed(layout: NsdLayout, volume: str, numbers: list[int], origin: str) -> None:
    """Warn if numbers of a volume are named as presumed only (see `ATLAS_LABELS`)."""
    if (
        volume == "Kastner2015"
        and origin == "the standard labels"
        and max(numbers, default=0) > len(_KASTNER_CONFIRMED)
    ):
        _log.warning(
            "%s: found no such label table, labels 8 to 25 of Kastner2015 are named in the atlas' usual order, "
            "which is not confirmed for NSD",
            layout.label_tables(volume)[1],
        )


def present_volumes(layout: NsdLayout) -> list[str]:
    """Name the label volumes (of both hemispheres together) that are there, in `VOLUME_ORDER`."""
    folder, suffix = layout.volumes / "roi", ".nii.gz"
    if not folder.is_dir():
        return []
    found = {path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix)}
    found = {name for name in found if SAFE_NAME.fullmatch(name) and not name.startswith(("lh.", "rh."))}
    return [name for name in VOLUME_ORDER if name in found] + sorted(found - set(VOLUME_ORDER))
