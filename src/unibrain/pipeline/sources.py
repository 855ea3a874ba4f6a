"""What the stages of a run read: scans, pictures and captions, wherever its settings say that they lie."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.pipeline.settings import CustomSection, Settings
from unibrain.workspace.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unibrain.scans import PrepareSettings, Subject
    from unibrain.scans.custom import ListedScans
    from unibrain.scans.nsd_layout import NsdLayout
    from unibrain.stimuli import Stimuli

ENCODED = ".encoded"
"""Folder beside the run folders of several subjects: what was encoded for all of them."""


def read_seen(run: RunFolder, settings: Settings, more: Iterable[int] = ()) -> "tuple[Subject, Stimuli]":
    """The subject of a run, and pictures (read when asked for) and captions of its images, and of `more` images."""
    import numpy as np

    found = Sources(run, settings)
    subject = found.subject()
    ids = np.union1d(subject.stimulus_ids, np.fromiter(more, np.int64))
    return subject, found.stimuli(ids)


class Sources:
    """Where a run reads from.

    Raises
    ------
    InputError
        If the settings name no scans.
    """

    def __init__(self, run: RunFolder, settings: Settings) -> None:
        self.run, self.settings, self.path = run, settings, run.artefact
        if settings.custom is not None:
            _check_complete(run, settings.custom)
        elif settings.simulate is None and settings.prepare.root is None:
            raise InputError(
                f"{run.root}: no scans are named. Run `unibrain prepare {run.root} --root FOLDER` (NSD's folder), "
                f"`unibrain import {run.root}` (your own data) or `unibrain simulate {run.root}` first."
            )

    def layout(self) -> "NsdLayout":
        """Where NSD's files lie, real or simulated."""
        from unibrain.scans.nsd_layout import NsdLayout

        root = self.settings.prepare.root
        section, home = self.settings.prepare, self.path("nsd") if root is None else Path(root)
        return NsdLayout(home, section.subject, section.beta_version)

    def wanted(self) -> "PrepareSettings":
        """Settings of `prepare` as the reader of NSD's files takes them."""
        from unibrain.scans import PrepareSettings

        section = self.settings.prepare
        names = ("mask", "beta_version", "protocol", "average", "zscore", "regions", "noise_ceiling")
        chosen = {name: getattr(section, name) for name in names}
        return PrepareSettings(sessions=section.session_numbers(), file_format=section.format, **chosen)

    def scan_files(self) -> tuple[tuple[str, ...], dict[str, Path]]:
        """Inputs in the run folder, and outside of it, of a stage that reads NSD's scans."""
        return (("nsd",), {}) if self.settings.simulate is not None else ((), self.layout().files_read())

    def stimulus_files(self) -> tuple[tuple[str, ...], dict[str, Path]]:
        """Inputs in the run folder, and outside of it, of a stage that reads pictures and captions."""
        from unibrain.stimuli.nsd import caption_files

        if self.settings.custom is not None:
            return ("stimuli",), {}
        section, layout = self.settings.extract, self.layout()
        files = {"NSD's pictures": layout.stimuli, "the table of pictures": layout.stim_info}
        if section.captions_from == "coco":
            files |= {f"the captions {split}": layout.captions(split) for split in ("train2017", "val2017")}
        else:
            files["the captions"] = caption_files(layout, section.captions_from, section.captions_file)
        if self.settings.simulate is None:
            return (), files
        return ("nsd",), {name: path for name, path in files.items() if not path.is_relative_to(layout.root)}

    def design_file(self) -> dict[str, Path]:
        """The file, outside the run folder, that says which images all subjects see."""
        real = self.settings.custom is None and self.settings.simulate is None
        return {"NSD's experiment design": self.layout().expdesign} if real else {}

    def shown_to_all(self) -> "NDArray[np.int64]":
        """Images that all subjects of a dataset see; none of a laboratory's own."""
        import numpy as np

        from unibrain.scans.nsd_design import read_expdesign

        if self.settings.custom is not None:
            return np.empty(0, dtype=np.int64)
        return read_expdesign(self.layout().expdesign).sharedix - 1

    @property
    def encoded_for_all(self) -> Path:
        """Where runs of several subjects keep what they share of encoded images, while they last."""
        return self.run.root.parent / ENCODED

    def caption_source(self) -> dict[str, Any]:
        """What of the settings of `extract` decides which captions an image has, for stages after it."""
        section = self.settings.extract
        return {} if self.settings.custom is not None else {"captions_from": section.captions_from}

    def stimuli(self, ids: "NDArray[np.int64]") -> "Stimuli":
        """Pictures (read when asked for) and captions of some images."""
        from unibrain.stimuli import read_custom_stimuli, read_nsd_stimuli

        if self.settings.custom is not None:
            return read_custom_stimuli(self.path("stimuli"), ids)
        section = self.settings.extract
        return read_nsd_stimuli(self.layout().root, ids, section.captions_from, section.captions_file)

    def subject(self) -> "Subject":
        """The prepared scans."""
        from unibrain.scans import load_subject

        return load_subject(self.path("subject"))


def _check_complete(run: RunFolder, section: CustomSection) -> None:
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
    from unibrain.scans.custom_scans import split_dataset
    from unibrain.scans.published_split import split_file

    if section.bids is not None:
        files = {"the subject's folder": Path(section.bids) / str(section.label())}
    else:
        files = {"the scans": split_dataset(str(section.scans))[0], "the table": Path(str(section.table))}
    files |= {} if section.mask is None else {"the mask": Path(section.mask)}
    files |= {} if section.captions is None else {"the captions": Path(section.captions)}
    if section.split is not None:
        with suppress(InputError):  # who looks at a run need not have the package of the split
            files["the split"] = split_file(section.split, section.label())
    return files


def find_custom(section: CustomSection) -> "ListedScans":
    """Read the table of a laboratory's own scans, and find the files of scans that it lists."""
    from unibrain.scans import read_bids, read_picture_split, read_table
    from unibrain.scans.custom import ListedScans
    from unibrain.scans.custom_scans import split_dataset

    split = None if section.split is None else read_picture_split(section.split, section.label())
    captions = None if section.captions is None else Path(section.captions)
    mask, drawn = None if section.mask is None else Path(section.mask), (section.test_share, section.split_seed)
    if section.bids is not None:
        found = read_bids(section.bids, str(section.label()), section.betas, *drawn, split=split, captions=captions)
        return found if mask is None else replace(found, mask=mask)
    scans, dataset = split_dataset(str(section.scans))
    table = read_table(Path(str(section.table)), section.scan_base, *drawn, split=split, captions=captions)
    return ListedScans(table, (scans,), mask, dataset)
