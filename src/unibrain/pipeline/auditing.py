"""The audit of a run folder, or of a tree in NSD's layout before anything is prepared."""

from collections.abc import Iterator, Mapping
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
    from unibrain.audit import Audit, Material
    from unibrain.audit.material import SessionBetas
    from unibrain.pipeline.own_section import OwnSection

__all__ = ["audit", "audit_tree"]


def audit(
    run: RunFolder, settings: Settings | None = None, *, betas: bool = True, near_duplicate: float | None = None
) -> StageResult:
    """Audit the prepared subject of a run: artefact ``audit.json``, which the report shows.

    Parameters
    ----------
    run : RunFolder
    settings : Settings, optional
        By default those that the run folder holds.
    betas : bool
        Whether to read the betas of all sessions again, to count voxels without a response.
    near_duplicate : float, optional
        From this likeness on two pictures are near duplicates; by default `unibrain.audit.NEAR_DUPLICATE`.

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
            f"{run.artefact('subject')} is not there, expected a prepared subject: run `unibrain prepare {run.root}` "
            "first, or audit a tree in NSD's layout with --root"
        )
    from unibrain.audit import NEAR_DUPLICATE

    threshold = NEAR_DUPLICATE if near_duplicate is None else near_duplicate
    chosen = {"betas": betas, "near_duplicate": threshold, **caption_source(settings)}
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

        save_audit(run.artefact("audit"), examine(_material(run, settings), threshold, betas))

    return run_stage(run, Stage("audit", chosen, inputs, ("audit",), work, outside))


def audit_tree(
    root: Path,
    subject: int = 1,
    *,
    mask: str = "nsdgeneral",
    regions: str = "default",
    beta_version: str = "betas_fithrf_GLMdenoise_RR",
    file_format: str = "auto",
    betas: bool = True,
    near_duplicate: float | None = None,
) -> "Audit":
    """Audit one subject of a tree in NSD's layout, before it is prepared.

    Parameters
    ----------
    root : pathlib.Path
    subject : int
        1 to 8.
    mask, regions, beta_version, file_format : str
        As in `unibrain.scans.PrepareSettings`.
    betas, near_duplicate
        As in `audit`.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If the folder, the design, the mask or a region cannot be read.
    """
    from unibrain.audit import NEAR_DUPLICATE, NsdMaterial, examine, material_of_tree
    from unibrain.scans.nsd_layout import NsdLayout

    tree = NsdMaterial(NsdLayout(root, subject, beta_version), mask, file_format)
    threshold = NEAR_DUPLICATE if near_duplicate is None else near_duplicate
    return examine(material_of_tree(tree, regions), threshold, betas)


def _material(run: RunFolder, settings: Settings) -> "Material":
    from unibrain.audit import NsdMaterial, clip_embeddings, material_of_subject
    from unibrain.scans import load_subject
    from unibrain.scans.nsd_layout import NsdLayout

    subject = load_subject(run.artefact("subject"))
    material = material_of_subject(subject, str(run.root))
    ids = material.images.ids
    if run.artefact("latents").exists():
        material = replace(material, embeddings=lambda: clip_embeddings(run.artefact("latents"), ids))
    else:
        material = replace(material, how_to_embed=f"run `unibrain extract {run.root}`, and audit again")
    if settings.own is not None:
        return _with_own(material, run, settings, settings.own)
    section = settings.prepare
    layout = NsdLayout(nsd_root(run, settings), section.subject, section.beta_version)
    tree = NsdMaterial(layout, section.mask, section.file_format)
    used = tuple(int(session) for session in subject.preparation.get("sessions", ()))

    def captions() -> Mapping[int, tuple[str, ...]]:
        try:
            return read_stimuli(run, settings, subject).captions_by_id
        except InputError:
            # It stops at the first image without a caption; all of them are to be told.
            if settings.extract.captions_from != "coco":
                raise
            found = tree.captions(ids)
            if all(found.get(int(identity)) for identity in ids):
                raise
            return found

    return replace(
        material,
        sessions=lambda: tree.sessions(used),
        betas=tree.betas,
        pictures=tree.pictures,
        captions=captions,
        coco_ids=lambda: tree.coco_ids(ids),
    )


def _with_own(material: "Material", run: RunFolder, settings: Settings, section: "OwnSection") -> "Material":
    from unibrain.audit import own_betas
    from unibrain.scans.custom_table import read_table
    from unibrain.scans.foreign import split_dataset

    assert material.subject is not None
    stimuli = read_stimuli(run, settings, material.subject)
    material = replace(material, pictures=stimuli.read_pictures, captions=lambda: stimuli.captions_by_id)
    table, (scans, dataset) = Path(str(section.table)), split_dataset(str(section.scans))
    if not (table.is_file() and scans.is_file()):
        # A run may be looked at where the files that it was imported from are not.
        return material
    mask = None if section.mask is None else Path(section.mask)

    def betas() -> "Iterator[SessionBetas]":
        trials = read_table(table, section.scan_base, section.test_share, section.split_seed)
        return own_betas(trials, scans, mask, dataset)

    return replace(material, betas=betas)
