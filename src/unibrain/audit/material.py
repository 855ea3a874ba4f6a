"""What an audit looks at: a prepared subject, a tree in NSD's layout, a laboratory's custom scans."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.custom_scans import open_scans
from unibrain.scans.custom_scans import read_mask as read_custom_mask
from unibrain.scans.custom_table import CustomTable
from unibrain.scans.nsd_betas import read_session
from unibrain.scans.nsd_design import Design, read_design, read_expdesign
from unibrain.scans.nsd_layout import NsdLayout, formats_of
from unibrain.scans.nsd_regions import read_mask
from unibrain.scans.subject import Subject, split_hash
from unibrain.stimuli.nsd import coco_captions, coco_images, read_pictures
from unibrain.workspace.progress import track

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class SessionBetas:
    """One session (1-based): betas (voxels, trials) as stored, or why they cannot be read; its training trials."""

    session: int
    betas: "NDArray[np.generic] | InputError"
    is_training: NDArray[np.bool_]


@dataclass(frozen=True)
class Sessions:
    """Sessions (1-based) of the design, those that were run, that are there, and that a subject was read from."""

    design: tuple[int, ...]
    run: tuple[int, ...]
    present: tuple[int, ...]
    used: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Images:
    """Ids (ascending, each once) on both sides of a split, and trials of each; an id on both sides is a finding."""

    train_ids: Ids
    test_ids: Ids
    train_repeats: Ids
    test_repeats: Ids

    @property
    def ids(self) -> Ids:
        """All ids, ascending, each once."""
        return np.union1d(self.train_ids, self.test_ids)

    @classmethod
    def of(cls, stimulus_ids: Ids, is_test: NDArray[np.bool_], trials: Ids | None = None) -> "Images":
        """Gather the rows of each image; a row stands for as many trials as `trials` says, or for one."""
        counts = np.ones(len(stimulus_ids), dtype=np.int64) if trials is None else trials
        sides = []
        for side in (~is_test, is_test):
            ids, rows = np.unique(stimulus_ids[side], return_inverse=True)
            sides.append((ids, np.bincount(rows, weights=counts[side], minlength=len(ids)).astype(np.int64)))
        (train, train_repeats), (test, test_repeats) = sides
        return cls(train, test, train_repeats, test_repeats)


@dataclass(frozen=True)
class Material:
    """A subject to audit: what is known of it, and what is read when its turn comes.

    Callables are called once at most; an `InputError` of theirs becomes a finding. None stands for what is not there.

    Attributes
    ----------
    subject, source, split : str
    simulated : bool
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
    pictures: Callable[[Ids], NDArray[np.uint8]] | None = None
    captions: Callable[[], Mapping[int, tuple[str, ...]]] | None = None
    coco_ids: Callable[[], Mapping[int, int]] | None = None
    embeddings: Callable[[], NDArray[np.floating]] | None = None
    how_to_embed: str = "prepare the subject and extract its latents, then audit the run"

    @classmethod
    def of_subject(cls, subject: Subject, source: str, how_to_embed: str) -> "Material":
        """What a prepared subject holds by itself; add the rest with `dataclasses.replace`."""
        return cls(
            subject.name,
            source,
            subject.simulated,
            split_hash(subject),
            Images.of(subject.stimulus_ids, subject.is_test, subject.repeats),
            subject.regions,
            subject.noise_ceiling,
            subject.betas,
            subject.is_test,
            how_to_embed=how_to_embed,
        )

    def with_latents(self, folder: Path) -> "Material":
        """Add the CLIP picture embeddings of stored latents: the first token of ``c_image``."""

        def embeddings() -> NDArray[np.floating]:
            from unibrain.latents import open_latents

            stored = open_latents(folder).select(self.images.ids)
            return np.asarray(stored.columns("c_image")[:, 0 : stored.shapes["c_image"][-1]], dtype=np.float32)

        return replace(self, embeddings=embeddings)


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
            about = (self.layout, self.mask, session, len(training), self._format_of(session))
            betas: NDArray[np.generic] | InputError
            try:
                betas, _ = read_session(*about, check_finite=False)
            except InputError as error:
                betas = error
            yield SessionBetas(session, betas, training)


def custom_betas(
    table: CustomTable, scans: Path, mask: Path | None = None, dataset: str | None = None
) -> Iterator[SessionBetas]:
    """Go through the sessions of custom scans; without sessions in the table, all scans are one."""
    matrix = open_scans(scans, None if mask is None else read_custom_mask(mask), dataset)
    if matrix.scans != table.rows:
        raise InputError(f"{scans}: {matrix.scans} scans, but {table.path.name} lists {table.rows}. Import them again.")
    for session in track(range(1, len(table.sessions) + 1), "looking at betas", unit="session"):
        trials = table.session == session
        betas: NDArray[np.generic] | InputError
        try:
            betas = matrix.read(table.scans[trials]).T
        except InputError as error:
            betas = error
        yield SessionBetas(session, betas, ~table.is_test[table.stimulus_ids[trials]])
