"""What to read of a subject and how to prepare it: the published protocols by name, and every choice by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from unibrain.errors import InputError

__all__ = ["AVERAGES", "PROTOCOLS", "ZSCORES", "PrepareSettings", "Protocol"]

AVERAGES = ("all", "test")
ZSCORES = ("train", "session", "none")


@dataclass(frozen=True)
class Protocol:
    """A way to prepare scans that has a name.

    Attributes
    ----------
    average : {"all", "test"}
    zscore : {"train", "session", "none"}
    sessions : tuple of int, optional
        1-based; all that were run if it is None.
    """

    average: str
    zscore: str
    sessions: tuple[int, ...] | None = None


PROTOCOLS: Mapping[str, Protocol] = {
    "unibrain": Protocol("all", "train", tuple(range(1, 38))),
    "nsd-40": Protocol("all", "train", tuple(range(1, 41))),
    "single-trial": Protocol("test", "train"),
    "session-zscore": Protocol("all", "session"),
}
"""By name.

``unibrain``: the first 37 sessions, repeats averaged, z-scored with the training images' statistics, as Brain-Diffuser,
UniBrain and others that decode 982 test images do. ``nsd-40``: the same on all 40 sessions (NSD has released the last
three since), 1,000 test images. ``single-trial``: training rows are single trials, test rows averages.
``session-zscore``: every trial z-scored in its session, with the training trials' statistics (as MindEye), then
averaged."""


@dataclass(frozen=True)
class PrepareSettings:
    """What to read of a subject, and how.

    A choice that is None is the protocol's; without a protocol it is ``average="all"``, ``zscore="train"`` and all
    sessions that were run.

    Attributes
    ----------
    mask : str
        Which voxels: ``"nsdgeneral"``, another label volume of the subject (its voxels above 0), ``"brainmask"``, a
        region or label (``"V1"``, ``"prf-visualrois:V1v"``), one hemisphere of any of them (``"lh.nsdgeneral"``), or
        the union of several (``"V1+V2+faces"``). See `unibrain.scans.nsd.regions`.
    beta_version : str
        NSD's folder of betas; the published decoders use ``betas_fithrf_GLMdenoise_RR``.
    file_format : {"auto", "nifti", "hdf5"}
        Which copy of the betas to read; both give the same numbers.
    sessions : tuple of int or "present", optional
        1-based; or those whose betas are there.
    protocol : {"unibrain", "nsd-40", "single-trial", "session-zscore"}, optional
        See `PROTOCOLS`.
    average : {"all", "test"}, optional
        Average the repeats of every image, or of the test images only: then every training trial is a row.
    zscore : {"train", "session", "none"}, optional
        Per voxel, with mean and deviation (ddof 1) of the training rows, or of the training trials of each session; or
        leave percent signal change.
    regions : str
        Comma-separated: ``"default"`` (V1 to V4, faces, words, places, bodies), ``"all"`` (those, both hemispheres,
        every label volume and label that is there), or what `mask` may be.
    noise_ceiling : {"file", "recompute"}
        From NSD's ``ncsnr``, or by its authors' recipe from the sessions that are read.

    Raises
    ------
    InputError
        If the protocol or a choice is none of those named.
    """

    mask: str = "nsdgeneral"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    file_format: str = "auto"
    sessions: tuple[int, ...] | Literal["present"] | None = None
    protocol: str | None = None
    average: str | None = None
    zscore: str | None = None
    regions: str = "default"
    noise_ceiling: str = "file"

    def __post_init__(self) -> None:
        for name, choices, optional in (
            ("protocol", tuple(PROTOCOLS), True),
            ("average", AVERAGES, True),
            ("zscore", ZSCORES, True),
            ("noise_ceiling", ("file", "recompute"), False),
        ):
            value = getattr(self, name)
            if value not in choices and not (optional and value is None):
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(choices)}: choose one of them")
        if isinstance(self.sessions, str) and self.sessions != "present":
            raise InputError(f"sessions is {self.sessions!r}, expected numbers or 'present': choose one of them")

    def resolved(self) -> "PrepareSettings":
        """Put the protocol's choices where there are none."""
        protocol = PROTOCOLS[self.protocol] if self.protocol is not None else Protocol("all", "train")
        return replace(
            self,
            average=self.average or protocol.average,
            zscore=self.zscore or protocol.zscore,
            sessions=protocol.sessions if self.sessions is None else self.sessions,
        )
