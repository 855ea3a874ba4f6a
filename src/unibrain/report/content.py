"""`ReportContent`: everything that the page shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation import Scores

if TYPE_CHECKING:
    from unibrain.audit import Audit
    from unibrain.reconstruction import Decoded
    from unibrain.regression import AlphaChoice, BandChoice
    from unibrain.scans.subject import Region


@dataclass(frozen=True, repr=False)
class ReportContent:
    """What a report is made of.

    Attributes
    ----------
    title : str
        Title of the page, for example ``"UniBrain demo"``.
    subject : str
        Name of the subject, for example ``"subj01"``.
    simulated : bool
        True if no human was scanned; the page then says so at its top and beside its numbers.
    seen : ndarray of shape (n, height, width, 3), uint8
        The pictures that were seen, in the order of `decoded`.
    decoded : Decoded
        What was decoded from n scans: pictures, captions or both.
    captions : tuple of n tuples of str
        The true captions of each image; all of them empty if no captions were given.
    scores : Scores
        Scores of the same images in the same order.
    settings : mapping
        Settings of the run: section to mapping of name to value, or name to value.
    versions : mapping of str to str
        Software and weights, for example ``{"torch": "2.13.0"}``.
    seconds : mapping of str to float
        Wall-clock seconds of each stage, in their order.
    peak_memory_gb : float or None
        Peak memory of the run in gigabytes; None if it was not measured.
    limits : tuple of str
        What the reader of this very run should know, shown before the limits that hold for every run.
    alpha_choices : mapping of str to AlphaChoice
        How the penalties of each latent were chosen; empty if they were given.
    alpha_chart : bytes or None
        What `unibrain.plot.penalties` draws of them, as SVG.
    bands : BandChoice or None
        How the penalties of the bands were chosen, and what each band carries; None for ridge without bands.
    regions : mapping of str to Region
        As from `unibrain.report.regions_of`; shown beside how well latents are predicted from each region.
    audit : Audit or None
        What is known of these scans and images; None if nobody looked.
    audit_pictures : mapping of int to ndarray of shape (height, width, 3), uint8
        By stimulus id, the pictures of `unibrain.report.shown_pairs`.
    experiments : mapping of str to str
        Name and title of the experiments that were done on this run; their pages lie in ``experiments/`` beside it.

    Raises
    ------
    InputError
        If there are no images, or the parts are not of the same images.
    """

    title: str
    subject: str
    simulated: bool
    seen: NDArray[np.uint8]
    decoded: "Decoded"
    captions: tuple[tuple[str, ...], ...]
    scores: Scores
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_gb: float | None = None
    limits: tuple[str, ...] = ()
    alpha_choices: Mapping[str, "AlphaChoice"] = field(default_factory=dict)
    alpha_chart: bytes | None = None
    bands: "BandChoice | None" = None
    regions: Mapping[str, "Region"] = field(default_factory=dict)
    audit: "Audit | None" = None
    audit_pictures: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    experiments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.decoded.stimulus_ids)
        if n == 0:
            raise InputError("there are no decoded images to report. Reconstruct the test images first.")
        if self.seen.dtype != np.uint8 or self.seen.ndim != 4 or self.seen.shape[0] != n or self.seen.shape[-1] != 3:
            raise InputError(
                f"the seen pictures are {self.seen.dtype} of shape {self.seen.shape}. "
                f"Give uint8 of shape ({n}, height, width, 3), those of the decoded stimulus ids."
            )
        if len(self.captions) != n or (any(self.captions) and not all(self.captions)):
            raise InputError(
                f"there are true captions for {sum(map(bool, self.captions))} of {n} images. "
                "Give at least one for each, or none at all."
            )
        if tuple(map(int, self.decoded.stimulus_ids)) != self.scores.stimulus_ids:
            raise InputError("the scores are of other images than those decoded. Evaluate these images again.")
        if self.simulated != self.scores.simulated:
            raise InputError(
                f"the scores say simulated={self.scores.simulated}, the report simulated={self.simulated}. "
                "Evaluate the scans of this subject again."
            )

    def __repr__(self) -> str:
        simulated = ", simulated" * self.simulated
        return f"ReportContent({self.title!r}, {self.subject}{simulated}, {len(self.captions)} images)"
