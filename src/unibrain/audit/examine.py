"""Every check of an audit, one after the other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unibrain.audit import image_checks, scan_checks
from unibrain.audit.audit import Audit, Neighbours, Pair
from unibrain.audit.findings import Finding
from unibrain.audit.material import Images, Material, NsdTree
from unibrain.errors import DamagedFile, InputError
from unibrain.scans.noise_ceiling import read_noise_ceiling
from unibrain.scans.nsd_design import read_design
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import read_regions

_SILENT = "a voxel without a response in a session holds nothing to decode there"


def examine(material: Material, betas: bool = True) -> Audit:
    """Audit a subject; a file that cannot be read is a finding.

    Betas are read session by session, pictures in blocks; beside the prepared subject this takes some 200 MB for a
    subject of NSD.

    Parameters
    ----------
    material : Material
    betas : bool
        Whether to read the betas of all sessions again (about as long as preparing takes).

    Returns
    -------
    Audit
    """
    images, findings = material.images, list[Finding]()
    if material.sessions is not None:
        with _noted(findings, "sessions"):
            findings.append(scan_checks.check_sessions(material.sessions()))
    looked = scan_checks.Looked()
    with _noted(findings, "voxels in sessions"):
        if material.betas is not None and betas:
            looked = scan_checks.look_at(material.betas())
        findings += _about_betas(looked, material.betas is not None, betas)
    if material.matrix is not None:
        findings.append(scan_checks.check_matrix(material.matrix, material.is_test))
    findings += [scan_checks.check_repeats(images), image_checks.check_ids(images)]
    if material.coco_ids is not None:
        with _noted(findings, "overlap by COCO id"):
            findings.append(image_checks.check_coco_ids(images, material.coco_ids()))
    pairs: tuple[Pair, ...] = ()
    if material.pictures is not None:
        with _noted(findings, "identical pictures"):
            small = image_checks.small_pictures(material.pictures, images.ids)
            about_pictures, pairs = image_checks.check_pictures(images, small)
            findings += about_pictures
    if material.captions is not None:
        with _noted(findings, "captions"):
            findings += image_checks.check_captions(images, material.captions())
    findings += scan_checks.check_regions(material.regions, material.noise_ceiling)
    neighbours: Neighbours | None = None
    with _noted(findings, "overlap in meaning"):
        if material.embeddings is not None and len(images.test_ids) and len(images.train_ids) > 1:
            neighbours = image_checks.neighbours_of(images, material.embeddings())
        findings.append(image_checks.check_meaning(neighbours, material.how_to_embed))
    about = (material.subject, material.simulated, material.source, material.split)
    return Audit(*about, tuple(findings), looked.sessions, image_checks.NEAR_DUPLICATE, pairs, neighbours)


@contextmanager
def _noted(findings: list[Finding], title: str) -> Iterator[None]:
    try:
        yield
    except DamagedFile:
        raise  # what a stage wrote has to be written again, not audited
    except InputError as error:
        why = "what cannot be read can be neither checked nor decoded"
        findings.append(Finding("problem", title, str(error), "see what was found, then audit again", why))


def _about_betas(looked: scan_checks.Looked, known: bool, wanted: bool) -> list[Finding]:
    title = "voxels in sessions"
    if not known:
        return [Finding("note", title, "not known: only the prepared matrix is there, without sessions", "", _SILENT)]
    if not wanted:
        return [Finding("note", title, "not looked at (--no-betas)", "audit again without --no-betas", _SILENT)]
    if not (looked.sessions or looked.unreadable):
        return [Finding("problem", title, "no betas are there", "fetch them with `unibrain nsd fetch`", _SILENT)]
    return [
        scan_checks.check_voxels(looked),
        scan_checks.check_zscores(looked.sessions),
        scan_checks.check_scans(looked),
    ]


def audit_nsd(
    root: str | os.PathLike[str],
    subject: int = 1,
    *,
    mask: str = "nsdgeneral",
    regions: str = "default",
    beta_version: str = "betas_fithrf_GLMdenoise_RR",
    file_format: str = "auto",
    betas: bool = True,
) -> Audit:
    """Audit one subject of a tree in NSD's layout, before it is prepared.

    Images are those of the sessions whose betas are there, or, if none are, of all that were run.

    Parameters
    ----------
    root : path-like
    subject : int
        1 to 8.
    mask, regions, beta_version, file_format : str
        As in `unibrain.scans.PrepareSettings`.
    betas : bool
        As in `examine`.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If the folder, the design, the mask or a region cannot be read.
    """
    layout = NsdLayout(Path(root), subject, beta_version)
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: no such folder. Name the one that holds nsddata.")
    tree = NsdTree(layout, mask, file_format)
    present = [session for session in tree.sessions().present if session in tree.design.sessions]
    design = read_design(layout, present) if present else tree.design
    material = Material(
        layout.name,
        str(layout.root),
        layout.marker.is_file(),
        "",
        Images.of(design.stimulus_ids, design.is_shared),
        read_regions(layout, tree.mask, regions),
        read_noise_ceiling(layout, tree.mask),
    )
    return examine(tree.beside(material), betas)
