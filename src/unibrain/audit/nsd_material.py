"""What there is to audit in a tree in NSD's layout."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.images import Images
from unibrain.audit.material import Material, SessionBetas
from unibrain.audit.scan_checks import Sessions
from unibrain.errors import InputError
from unibrain.scans.nsd_betas import FILE_FORMATS, read_session
from unibrain.scans.noise_ceiling import read_noise_ceiling
from unibrain.scans.nsd_design import Design, read_design, read_expdesign
from unibrain.scans.foreign import whole_file
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import read_mask, read_regions
from unibrain.scans.nsd_design import read_stim_info
from unibrain.stimuli.nsd import read_annotations
from unibrain.workspace.progress import track

__all__ = ["NsdMaterial", "material_of_tree"]


class NsdMaterial:
    """Reads what an audit needs of one subject's files, and goes on where a reader of data would stop.

    Parameters
    ----------
    layout : NsdLayout
    mask : str
        Voxels to look at; see `unibrain.scans.nsd_regions`.
    file_format : {"auto", "nifti", "hdf5"}
        Which copy of the betas; ``"auto"`` takes, for each session, what is there.
    """

    def __init__(self, layout: NsdLayout, mask: str = "nsdgeneral", file_format: str = "auto") -> None:
        self.layout = layout
        self._mask_name = mask
        self._formats = FILE_FORMATS if file_format == "auto" else (file_format,)

    @cached_property
    def design(self) -> Design:
        """Trials of all sessions that were run."""
        return read_design(self.layout)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels to look at, shape (X, Y, Z)."""
        return read_mask(self.layout, self._mask_name)

    def format_of(self, session: int) -> str | None:
        """Format in which the betas of a session are there; None if they are not."""
        there = (name for name in self._formats if self.layout.betas(session, name).is_file())
        return next(there, None)

    def sessions(self, used: tuple[int, ...] | None = None) -> Sessions:
        """Sessions of the design, those that were run, and those that are there."""
        trials = len(self.design.trials(self.design.sessions[0]))
        number = -(-len(read_expdesign(self.layout.expdesign).masterordering) // trials)
        design = tuple(range(1, max(number, *self.design.sessions) + 1))
        present = tuple(session for session in design if self.format_of(session) is not None)
        return Sessions(design, self.design.sessions, present, used)

    def betas(self) -> Iterator[SessionBetas]:
        """Betas inside the mask of every session that was run and is there."""
        there = [session for session in self.design.sessions if self.format_of(session) is not None]
        for session in track(there, "looking at betas", unit="session"):
            trials = len(self.design.trials(session))
            try:
                file_format = str(self.format_of(session))
                yield session, read_session(self.layout, self.mask, session, trials, file_format, check_finite=False)
            except InputError as error:
                yield session, error

    def pictures(self, stimulus_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures by id, whether they have captions or not."""
        from unibrain.stimuli.nsd import read_nsd_stimuli

        # Asked for no image, it gives the reader of all pictures, and minds no missing caption.
        return read_nsd_stimuli(self.layout.root, np.empty(0, dtype=np.int64)).read_pictures(stimulus_ids)

    @cached_property
    def _images(self) -> Any:
        return read_stim_info(self.layout, ["cocoId", "cocoSplit"])

    def coco_ids(self, stimulus_ids: NDArray[np.int64]) -> dict[int, int]:
        """COCO id of each image."""
        with whole_file(self.layout.stim_info, "comma-separated"):
            numbers = self._images["cocoId"].to_numpy(dtype=np.int64)[stimulus_ids]
        return dict(zip(stimulus_ids.tolist(), numbers.tolist(), strict=True))

    def captions(self, stimulus_ids: NDArray[np.int64]) -> Mapping[int, tuple[str, ...]]:
        """COCO's captions of the images that have any."""
        coco_ids = self.coco_ids(stimulus_ids)
        splits = self._images["cocoSplit"].to_numpy()[stimulus_ids]
        by_split = {
            str(split): read_annotations(self.layout.captions(str(split))) for split in np.unique(splits.astype(str))
        }
        return {
            identity: tuple(by_split[str(split)].get(coco_ids[identity], ()))
            for identity, split in zip(stimulus_ids.tolist(), splits, strict=True)
        }


def material_of_tree(tree: NsdMaterial, regions: str = "default") -> Material:
    """Gather what there is to audit before anything is prepared.

    Images are those of the sessions whose betas are there, or, if none are, of all that were run.

    Parameters
    ----------
    tree : NsdMaterial
    regions : str
        See `unibrain.scans.nsd_regions.read_regions`.

    Returns
    -------
    Material

    Raises
    ------
    InputError
        If there is no such folder, or the design, the mask or a region cannot be read.
    """
    layout = tree.layout
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: found no such folder, expected NSD's files below it: check the path")
    present = [session for session in tree.design.sessions if tree.format_of(session) is not None]
    images = Images.of_design(read_design(layout, present) if present else tree.design)
    return Material(
        name=layout.name,
        simulated=layout.marker.is_file(),
        source=str(layout.root),
        split="",
        images=images,
        regions=read_regions(layout, tree.mask, regions),
        noise_ceiling=read_noise_ceiling(layout, tree.mask),
        sessions=tree.sessions,
        betas=tree.betas,
        pictures=tree.pictures,
        captions=lambda: tree.captions(images.ids),
        coco_ids=lambda: tree.coco_ids(images.ids),
    )
