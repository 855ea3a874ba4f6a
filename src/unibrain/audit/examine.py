"""Every check of an audit, one after the other."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.audit import image_checks, scan_checks
from unibrain.audit.audit import Audit, Finding, Neighbours, Pair, SessionVoxels
from unibrain.audit.likeness import NEAR_DUPLICATE, small_pictures
from unibrain.audit.material import Material
from unibrain.errors import InputError

__all__ = ["clip_embeddings", "examine"]

_UNREADABLE = "what cannot be read can be neither checked nor decoded"


def examine(material: Material, near_duplicate: float = NEAR_DUPLICATE, betas: bool = True) -> Audit:
    """Audit a subject.

    Betas are read session by session, pictures in blocks; beside the prepared subject this takes some 200 MB for a
    subject of NSD.

    Parameters
    ----------
    material : Material
    near_duplicate : float
        From this likeness on two pictures are near duplicates, 0 to 1.
    betas : bool
        Whether to read the betas of all sessions again, to count their voxels without a response (about as long as
        preparing takes).

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If `near_duplicate` is out of range. A file that cannot be read is a finding.
    """
    if not 0 < near_duplicate <= 1:
        raise InputError(
            f"near duplicates: found a likeness of {near_duplicate:g}, expected more than 0 and at most 1, such as "
            f"{NEAR_DUPLICATE:g}"
        )
    findings: list[Finding] = []
    if material.sessions is not None:
        sessions = material.sessions
        findings += _tried("sessions", lambda: [scan_checks.check_sessions(sessions())])
    voxels, about_voxels = _voxels(material, betas)
    findings += about_voxels
    if material.subject is not None:
        findings.append(scan_checks.check_matrix(material.subject.betas, material.subject.is_test))
    findings += [scan_checks.check_repeats(material.images), image_checks.check_ids(material.images)]
    if material.coco_ids is not None:
        coco_ids = material.coco_ids
        findings += _tried("overlap by COCO id", lambda: [image_checks.check_coco_ids(material.images, coco_ids())])
    pairs, about_pictures = _pictures(material, near_duplicate)
    findings += about_pictures
    if material.captions is not None:
        captions = material.captions
        findings += _tried("captions", lambda: image_checks.check_captions(material.images, captions()))
    regions = scan_checks.region_voxels(material.regions, material.noise_ceiling)
    findings += scan_checks.check_regions(regions)
    neighbours, about_meaning = _meaning(material)
    findings += about_meaning
    return Audit(
        subject=material.name,
        simulated=material.simulated,
        source=material.source,
        split=material.split,
        findings=tuple(findings),
        sessions=voxels,
        regions=regions,
        near_duplicate=near_duplicate,
        pictures=pairs,
        neighbours=neighbours,
    )


def clip_embeddings(folder: Path, stimulus_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read CLIP picture embeddings out of stored latents: the first token of ``c_image``.

    Parameters
    ----------
    folder : pathlib.Path
    stimulus_ids : ndarray of shape (n,), int64

    Returns
    -------
    ndarray of shape (n, width), float32

    Raises
    ------
    InputError
        If the latents are damaged, or lack an image.
    """
    from unibrain.latents import open_latents

    stored = open_latents(folder).select(stimulus_ids)
    width = stored.shapes["c_image"][-1]
    return np.asarray(stored.columns("c_image")[:, 0:width], dtype=np.float32)


def _tried(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; that its files cannot be read is a finding too."""
    try:
        return list(check())
    except InputError as error:
        return [Finding(name, "problem", str(error), _UNREADABLE, "see what was found; then audit again")]


def _voxels(material: Material, wanted: bool) -> tuple[tuple[SessionVoxels, ...], list[Finding]]:
    name, read = "voxels in sessions", material.betas
    why = "a voxel without a response in a session holds nothing to decode there"
    if read is None:
        return (), [Finding(name, "note", "not known: only the prepared matrix is there, without sessions", why)]
    if not wanted:
        return (), [Finding(name, "note", "not looked at (--no-betas)", why, "audit again without --no-betas")]
    counted: list[SessionVoxels] = []
    unreadable: list[str] = []

    def check() -> list[Finding]:
        for session, betas in read():
            if isinstance(betas, InputError):
                unreadable.append(str(betas))
            else:
                counted.append(scan_checks.count_voxels(session, betas))
        if not counted and not unreadable:
            remedy = "fetch them with `unibrain nsd fetch`"
            return [Finding(name, "problem", "no betas are there", why, remedy)]
        return [scan_checks.check_voxels(counted, unreadable)]

    findings = _tried(name, check)
    return tuple(counted), findings


def _pictures(material: Material, near_duplicate: float) -> tuple[tuple[Pair, ...], list[Finding]]:
    read = material.pictures
    if read is None:
        return (), []
    pairs: tuple[Pair, ...] = ()

    def check() -> Iterable[Finding]:
        nonlocal pairs
        small = small_pictures(read, material.images.ids)
        findings, pairs = image_checks.check_pictures(material.images, small, near_duplicate)
        return findings

    findings = _tried("identical pictures", check)
    return pairs, findings


def _meaning(material: Material) -> tuple[Neighbours | None, list[Finding]]:
    name, read, images = "overlap in meaning", material.embeddings, material.images
    why = "test images with close relatives in training can be decoded by picking what was seen in training"
    if len(images.test_ids) < 1 or len(images.train_ids) < 2:
        return None, [Finding(name, "note", "too few images to have neighbours", why)]
    if read is None:
        return None, [Finding(name, "note", "not known: no latents are extracted", why, material.how_to_embed)]
    neighbours: Neighbours | None = None

    def check() -> Iterable[Finding]:
        nonlocal neighbours
        neighbours = image_checks.neighbours_of(images, read())
        return [image_checks.check_meaning(neighbours)]

    findings = _tried(name, check)
    return neighbours, findings
