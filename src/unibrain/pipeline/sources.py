"""Where a run's scans, pictures and captions come from: its own simulated subject, NSD's folder, or imported files."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.pipeline.settings import Settings
from unibrain.workspace.run_folder import RunFolder

if TYPE_CHECKING:
    from unibrain.scans.nsd_layout import NsdLayout
    from unibrain.scans.subject import Subject
    from unibrain.stimuli.stimuli import Stimuli

__all__ = ["caption_source", "nsd_root", "read_stimuli", "scan_files", "stimulus_files", "training_view"]


def nsd_root(run: RunFolder, settings: Settings) -> Path:
    """Folder in NSD's layout that the run reads.

    Raises
    ------
    InputError
        If the settings name neither a simulated subject nor a folder.
    """
    if settings.simulate is not None:
        return run.artefact("nsd")
    if settings.prepare.root is None:
        raise InputError(
            f"{run.settings} names no scans: expected root in [prepare] (NSD's folder), or a section [simulate]: "
            f"run `unibrain prepare {run.root} --root FOLDER`, `unibrain import {run.root}` for your own data, or "
            f"`unibrain simulate {run.root}` first"
        )
    return Path(settings.prepare.root)


def _layout(run: RunFolder, settings: Settings) -> "NsdLayout":
    from unibrain.scans.nsd_layout import NsdLayout

    return NsdLayout(nsd_root(run, settings), settings.prepare.subject, settings.prepare.beta_version)


def scan_files(run: RunFolder, settings: Settings) -> tuple[tuple[str, ...], dict[str, Path]]:
    """Inputs in the run folder, and outside of it, of a stage that reads scans."""
    if settings.simulate is not None:
        return ("nsd",), {}
    layout = _layout(run, settings)
    return (), {
        "the folder of the betas": layout.betas_folder,
        "NSD's design": layout.expdesign,
        "the folder of the subject's volumes": layout.volumes,
    }


def stimulus_files(run: RunFolder, settings: Settings) -> tuple[tuple[str, ...], dict[str, Path]]:
    """Inputs in the run folder, and outside of it, of a stage that reads pictures and captions."""
    if settings.own is not None:
        return ("stimuli",), {}
    from unibrain.stimuli.nsd import caption_files

    layout, section = _layout(run, settings), settings.extract
    captions = caption_files(layout, section.captions_from, section.captions_file)
    if settings.simulate is not None:
        inside = section.captions_from == "coco" or section.captions_file is None
        return ("nsd",), {} if inside else {"the curated captions": captions}
    return (), {
        "NSD's pictures": layout.stimuli,
        "NSD's table of pictures": layout.stim_info,
        "the folder of COCO's captions" if section.captions_from == "coco" else "the curated captions": captions,
    }


def caption_source(settings: Settings) -> dict[str, str]:
    """What of the settings of `extract` decides which captions an image has, for the stages after it that read them."""
    if settings.own is not None:
        return {}
    return {"captions_from": settings.extract.captions_from}


def read_stimuli(run: RunFolder, settings: Settings, subject: "Subject") -> "Stimuli":
    """Pictures (read when asked for) and captions of all images of a subject."""
    if settings.own is not None:
        from unibrain.stimuli.custom import read_custom_stimuli

        return read_custom_stimuli(run.artefact("stimuli"), subject.stimulus_ids)
    from unibrain.stimuli.nsd import read_nsd_stimuli

    section = settings.extract
    return read_nsd_stimuli(nsd_root(run, settings), subject.stimulus_ids, section.captions_from, section.captions_file)


def training_view(subject: "Subject", settings: Settings) -> "Subject":
    """The subject as the decoder is fitted to it: shuffled against the images if the settings ask for that control."""
    if not settings.fit.shuffle_scans:
        return subject
    import numpy as np

    rows = np.arange(len(subject.stimulus_ids))
    train = np.flatnonzero(~subject.is_test)
    rows[train] = np.random.default_rng(settings.fit.seed).permutation(train)
    return replace(subject, betas=subject.betas[rows])
