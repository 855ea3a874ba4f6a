"""`Material`: what an audit looks at, wherever it comes from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.images import Images
from unibrain.audit.scan_checks import Sessions
from unibrain.errors import InputError
from unibrain.scans.subject import split_hash
from unibrain.scans.subject import Subject

__all__ = ["Material", "SessionBetas", "material_of_subject"]

SessionBetas = tuple[int, "NDArray[np.generic] | InputError"]
"""Session (1-based) with its betas, (voxels, trials) as stored, or with the reason why they cannot be read."""


@dataclass(frozen=True)
class Material:
    """A subject to audit.

    Callables are called once at most. They raise `InputError` where a file is missing or damaged, which becomes a
    finding.

    Attributes
    ----------
    name : str
    simulated : bool
    source : str
    split : str
        See `unibrain.audit.Audit`.
    images : Images
    regions : mapping of str to ndarray of shape (voxels,), bool
    noise_ceiling : ndarray of shape (voxels,)
    subject : Subject or None
        The prepared subject.
    sessions : callable, optional
        Gives `Sessions`; None where sessions are not known.
    betas : callable, optional
        Goes through all sessions that are there; None where only the prepared matrix is.
    pictures : callable, optional
        Takes ids, returns uint8 pictures (n, height, width, 3).
    captions : callable, optional
        Gives a mapping of id to captions; ids without any may be left out.
    coco_ids : callable, optional
        Gives a mapping of id to COCO id.
    embeddings : callable, optional
        Gives CLIP picture embeddings of all images, in ascending order of id; None where no latents are extracted.
    how_to_embed : str
        What to do to have them.
    """

    name: str
    simulated: bool
    source: str
    split: str
    images: Images
    regions: Mapping[str, NDArray[np.bool_]]
    noise_ceiling: NDArray[np.float32]
    subject: Subject | None = None
    sessions: Callable[[], Sessions] | None = None
    betas: Callable[[], Iterator[SessionBetas]] | None = None
    pictures: Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None = None
    captions: Callable[[], Mapping[int, tuple[str, ...]]] | None = None
    coco_ids: Callable[[], Mapping[int, int]] | None = None
    embeddings: Callable[[], NDArray[np.floating]] | None = None
    how_to_embed: str = "prepare the subject and extract its latents, then audit the run"


def material_of_subject(subject: Subject, source: str) -> Material:
    """What a prepared subject holds by itself; add the rest with `dataclasses.replace`."""
    return Material(
        name=subject.name,
        simulated=subject.simulated,
        source=source,
        split=split_hash(subject),
        images=Images.of_subject(subject),
        regions=subject.regions,
        noise_ceiling=subject.noise_ceiling,
        subject=subject,
    )
