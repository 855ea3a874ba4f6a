"""The audit of a run folder: artefact ``audit.json``, which the report shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.sources import caption_source, nsd_root, read_stimuli, scan_files, stimulus_files
from unibrain.pipeline.stages import kept_settings
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Stage, StageResult, run_stage

if TYPE_CHECKING:
    from unibrain.audit import Material
    from unibrain.audit.material import SessionBetas


def audit(run: RunFolder, settings: Settings | None = None, *, betas: bool = True) -> StageResult:
    """Audit the prepared subject of a run.

    Parameters
    ----------
    run : RunFolder
    settings : Settings, optional
        By default those that the run folder holds.
    betas : bool
        Whether to read the betas of all sessions again.

    Returns
    -------
    StageResult
        Read the artefact with `unibrain.audit.load_audit`.

    Raises
    ------
    InputError
        If no subject is prepared, its file is damaged, or another run works in the folder. Scans, pictures and captions
        that are missing or damaged are findings.
    """
    settings = kept_settings(run) if settings is None else settings
    if not run.artefact("subject").is_file():
        raise InputError(
            f"{run.root}: no subject is prepared here. Run `unibrain prepare {run.root}` first, or audit a tree in "
            "NSD's layout with --root."
        )
    names, outside = stimulus_files(run, settings)
    if settings.own is None:
        more_names, more_outside = scan_files(run, settings)
        names, outside = (*more_names, *names), {**more_outside, **outside}
    latents = ("latents",) * run.artefact("latents").exists()
    inputs = tuple(dict.fromkeys(("subject", *names, *latents)))
    # What is not there is a finding, and no reason to stop.
    outside = {name: path for name, path in outside.items() if path.exists()}

    def work() -> None:
        from unibrain.audit import examine, save_audit

        save_audit(run.artefact("audit"), examine(material(run, settings), betas))

    chosen = {"betas": betas, **caption_source(settings)}
    return run_stage(run, Stage("audit", chosen, inputs, ("audit",), work, outside))


def material(run: RunFolder, settings: Settings) -> "Material":
    """What there is to audit in a run folder with a prepared subject."""
    from unibrain.audit import Material
    from unibrain.audit.material import NsdTree, custom_betas
    from unibrain.scans import load_subject
    from unibrain.scans.custom_table import read_table
    from unibrain.scans.foreign import split_dataset
    from unibrain.scans.nsd_layout import NsdLayout

    subject = load_subject(run.artefact("subject"))
    found = Material.of_subject(subject, str(run.root), f"run `unibrain extract {run.root}`, and audit again")
    if run.artefact("latents").exists():
        found = found.with_latents(run.artefact("latents"))
    if settings.own is None:
        section = settings.prepare
        layout = NsdLayout(nsd_root(run, settings), section.subject, section.beta_version)
        tree = NsdTree(layout, section.mask, section.file_format)
        found = tree.beside(found, tuple(int(session) for session in subject.preparation.get("sessions", ())))
        if settings.extract.captions_from == "coco":
            return found
        return replace(found, captions=lambda: read_stimuli(run, settings, subject).captions_by_id)
    stimuli, custom = read_stimuli(run, settings, subject), settings.own
    found = replace(found, pictures=stimuli.read_pictures, captions=lambda: stimuli.captions_by_id)
    table, (scans, dataset) = Path(str(custom.table)), split_dataset(str(custom.scans))
    if not (table.is_file() and scans.is_file()):
        # A run may be looked at where the files that it was imported from are not.
        return found

    def betas() -> "Iterator[SessionBetas]":
        trials = read_table(table, custom.scan_base, custom.test_share, custom.split_seed)
        return custom_betas(trials, scans, None if custom.mask is None else Path(custom.mask), dataset)

    return replace(found, betas=betas)
