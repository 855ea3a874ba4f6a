"""`Material`, what there is to look at of a subject, and every check of it, one after the other."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.audit import image_checks, scan_checks
from unibrain.audit.audit import Audit, Finding, Neighbours, Pair
from unibrain.audit.image_checks import Ids, Images, Pictures
from unibrain.audit.scan_checks import SessionBetas, Sessions
from unibrain.errors import DamagedFileError, InputError
from unibrain.scans.custom import open_listed
from unibrain.scans.custom_scans import read_mask as read_custom_mask
from unibrain.scans.custom_table import CustomTable
from unibrain.scans.foreign import require_folder
from unibrain.scans.nsd import read_noise_ceiling
from unibrain.scans.nsd_betas import read_betas
from unibrain.scans.nsd_design import Design, read_design, read_expdesign
from unibrain.scans.nsd_layout import NsdLayout, formats_of
from unibrain.scans.nsd_regions import read_mask, read_regions
from unibrain.scans.subject import Subject, split_hash
from unibrain.stimuli.nsd import coco_captions, coco_images, read_pictures
from unibrain.workspace.progress import track


@dataclass(frozen=True)
class Material:
    """A subject to audit: what is known of it, and what is read when its turn comes.

    Callables are called once at most; an `InputError` of theirs becomes a finding. None stands for what is not there.

    Attributes
    ----------
    subject, source, split, simulated
        As in `unibrain.audit.Audit`.
    images : Images
    regions : mapping of str to ndarray of shape (voxels,), bool
    noise_ceiling : ndarray of shape (voxels,)
        Percent, NaN where unknown.
    matrix : ndarray of shape (rows, voxels), float32, optional
        The prepared betas.
    is_test : ndarray of shape (rows,), bool
        Of their rows.
    sessions, betas : callable, optional
        Give `Sessions`, and the `SessionBetas` that are there.
    pictures : callable, optional
        Takes ids, returns uint8 pictures (n, height, width, 3).
    captions, coco_ids : callable, optional
        Give mappings of id to captions (ids without any may be missing) and to COCO id.
    embeddings : callable, optional
        Gives CLIP picture embeddings (n, width) of all images, in ascending order of id.
    how_to_embed : str
        What to do to have them.
    """

    subject: str
    source: str
    simulated: bool
    split: str
    images: Images
    regions: Mapping[str, NDArray[np.bool_]]
    noise_ceiling: NDArray[np.float32]
    matrix: NDArray[np.float32] | None = None
    is_test: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    sessions: Callable[[], Sessions] | None = None
    betas: Callable[[], Iterator[SessionBetas]] | None = None
    pictures: Pictures | None = None
    captions: Callable[[], Mapping[int, tuple[str, ...]]] | None = None
    coco_ids: Callable[[], Mapping[int, int]] | None = None
    embeddings: Callable[[], NDArray[np.floating]] | None = None
    how_to_embed: str = "prepare the subject and extract its latents, then audit the run"

    @classmethod
    def of_subject(cls, subject: Subject, source: str, latents: Path | None, how_to_embed: str) -> "Material":
        """What a prepared subject and its stored latents hold; add the rest with `dataclasses.replace`."""
        images = Images.of(subject.stimulus_ids, subject.is_test, subject.repeats)

        def embeddings() -> NDArray[np.floating]:
            from unibrain.latents import open_latents

            stored = open_latents(str(latents)).select(images.ids)
            # The first token of CLIP's contexts of a picture.
            return np.asarray(stored.columns("c_image")[:, 0 : stored.shapes["c_image"][-1]], dtype=np.float32)

        return cls(
            subject.name,
            source,
            subject.simulated,
            split_hash(subject),
            images,
            subject.regions,
            subject.noise_ceiling,
            subject.betas,
            subject.is_test,
            embeddings=None if latents is None else embeddings,
            how_to_embed=how_to_embed,
        )


class NsdTree:
    """One subject's files in NSD's layout, read as far as they go where a reader of data would stop.

    `mask` names the voxels to look at; of the betas of a session, ``"auto"`` takes the format that is there.
    """

    def __init__(self, layout: NsdLayout, mask: str = "nsdgeneral", file_format: str = "auto") -> None:
        self.layout = layout
        self._mask_name, self._formats = mask, formats_of(file_format)

    @cached_property
    def design(self) -> Design:
        """Trials of all sessions that were run."""
        return read_design(self.layout)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels to look at, shape (X, Y, Z)."""
        return read_mask(self.layout, self._mask_name)

    def beside(self, material: Material, used: tuple[int, ...] | None = None) -> Material:
        """Add what there is to read in the tree; `used` are the sessions that the subject was prepared from."""
        ids = material.images.ids
        return replace(
            material,
            sessions=lambda: self.sessions(used),
            betas=self.betas,
            pictures=lambda some: read_pictures(self.layout, some),
            captions=lambda: coco_captions(coco_images(self.layout, ids)),
            coco_ids=lambda: {i: coco_id for i, (coco_id, _) in coco_images(self.layout, ids).items()},
        )

    def sessions(self, used: tuple[int, ...] | None = None) -> Sessions:
        """Sessions of the design, those that were run, and those that are there."""
        run = self.design.sessions
        trials = len(read_expdesign(self.layout.expdesign).masterordering)
        number = -(-trials // len(self.design.trials(run[0])))
        design = tuple(range(1, max(number, *run) + 1))
        return Sessions(design, run, tuple(session for session in design if self._format_of(session)), used)

    def _format_of(self, session: int) -> str:
        return next((name for name in self._formats if self.layout.betas(session, name).is_file()), "")

    def betas(self) -> Iterator[SessionBetas]:
        """Betas inside the mask of every session that was run and is there."""
        there = [session for session in self.design.sessions if self._format_of(session)]
        for session in track(there, "looking at betas", unit="session"):
            training = ~self.design.is_shared[self.design.session == session]
            yield SessionBetas(session, partial(self._read, session, len(training)), training)

    def _read(self, session: int, trials: int) -> NDArray[np.generic]:
        file_format = self._format_of(session)
        path = self.layout.betas(session, file_format)
        return read_betas(path, self.mask, trials, file_format, check_finite=False)[0]


def custom_betas(
    table: CustomTable, scans: Sequence[Path], mask: Path | None = None, dataset: str | None = None
) -> Iterator[SessionBetas]:
    """Go through the sessions of custom scans; without sessions in the table, all scans are one."""
    matrix = open_listed(table, scans, None if mask is None else read_custom_mask(mask), dataset)

    def read(rows: Ids) -> NDArray[np.generic]:
        return matrix.read(rows).T

    for session in track(range(1, len(table.sessions) + 1), "looking at betas", unit="session"):
        trials = table.session == session
        training = ~table.is_test[table.stimulus_ids[trials]]
        yield SessionBetas(session, partial(read, table.scans[trials]), training)


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
    pairs: tuple[Pair, ...] = ()
    neighbours: Neighbours | None = None
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
    findings += [image_checks.check_repeats(images), image_checks.check_ids(images)]
    if material.coco_ids is not None:
        with _noted(findings, "overlap by COCO id"):
            findings.append(image_checks.check_coco_ids(images, material.coco_ids()))
    if material.pictures is not None:
        with _noted(findings, "identical pictures"):
            about_pictures, pairs = image_checks.check_pictures(images, material.pictures)
            findings += about_pictures
    if material.captions is not None:
        with _noted(findings, "captions"):
            findings += image_checks.check_captions(images, material.captions())
    findings += scan_checks.check_regions(material.regions, material.noise_ceiling)
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
    except DamagedFileError:
        raise  # what a stage wrote has to be written again, not audited
    except InputError as error:
        why = "what cannot be read can be neither checked nor decoded"
        findings.append(Finding("problem", title, str(error), "see what was found, then audit again", why))


def _about_betas(looked: scan_checks.Looked, known: bool, wanted: bool) -> list[Finding]:
    title, why = "voxels in sessions", "a voxel without a response in a session holds nothing to decode there"
    if not known:
        return [Finding("note", title, "not known: only the prepared matrix is there, without sessions", "", why)]
    if not wanted:
        return [Finding("note", title, "not looked at (--no-betas)", "audit again without --no-betas", why)]
    if not (looked.sessions or looked.unreadable):
        return [Finding("problem", title, "no betas are there", "fetch them with `unibrain nsd fetch`", why)]
    checks = (scan_checks.check_voxels, scan_checks.check_zscores, scan_checks.check_scans)
    return [check(looked) for check in checks]


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
    require_folder(layout.root, "the folder that holds nsddata")
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
