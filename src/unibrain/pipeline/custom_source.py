"""Where a run on a laboratory's own data has its scans and their table from, by its settings."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.pipeline.settings import CustomSection
from unibrain.workspace.run_folder import RunFolder

if TYPE_CHECKING:
    from unibrain.scans.custom import ListedScans


def check_complete(run: RunFolder, section: CustomSection) -> None:
    """Refuse settings that name too little, or scans in two ways."""
    for key in ("scans", "table") if section.bids is not None else ():
        if getattr(section, key) is not None:
            raise InputError(f"{run.root}: --{key} and --bids are both given, and --bids finds them. Leave one out.")
    needed = ("bids", "subject", "pictures") if section.bids is not None else ("scans", "pictures", "table")
    for key in needed:
        if getattr(section, key) is None:
            raise InputError(f"{run.root}: no {key} named. Run `unibrain import {run.root} --{key} ...`.")


def custom_files(section: CustomSection) -> dict[str, Path]:
    """The files and folders that a laboratory's own scans and their table are read from, by what they are."""
    from unibrain.scans.bids import subject_label
    from unibrain.scans.custom_scans import split_dataset
    from unibrain.scans.published_split import split_file

    subject = None if section.subject is None else subject_label(section.subject)
    if section.bids is not None:
        files = {"the subject's folder": Path(section.bids) / str(subject)}
    else:
        files = {"the scans": split_dataset(str(section.scans))[0], "the table": Path(str(section.table))}
    files |= {} if section.mask is None else {"the mask": Path(section.mask)}
    files |= {} if section.captions is None else {"the captions": Path(section.captions)}
    if section.split is not None:
        with suppress(InputError):  # who looks at a run need not have the package of the split
            files["the split"] = split_file(section.split, subject)
    return files


def find_custom(section: CustomSection) -> "ListedScans":
    """Read the table of a laboratory's own scans, and find the files of scans that it lists."""
    from unibrain.scans import read_bids, read_picture_split, read_table
    from unibrain.scans.bids import subject_label
    from unibrain.scans.custom import ListedScans
    from unibrain.scans.custom_scans import split_dataset

    subject = None if section.subject is None else subject_label(section.subject)
    split = None if section.split is None else read_picture_split(section.split, subject)
    captions = None if section.captions is None else Path(section.captions)
    mask, drawn = None if section.mask is None else Path(section.mask), (section.test_share, section.split_seed)
    if section.bids is not None:
        found = read_bids(section.bids, str(subject), section.betas, *drawn, split=split, captions=captions)
        return found if mask is None else replace(found, mask=mask)
    scans, dataset = split_dataset(str(section.scans))
    table = read_table(Path(str(section.table)), section.scan_base, *drawn, split=split, captions=captions)
    return ListedScans(table, (scans,), mask, dataset)
