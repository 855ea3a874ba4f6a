"""Settings of every stage of a run, checked when they are made."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from unibrain.errors import InputError
from unibrain.pipeline.options import Section, option

__all__ = [
    "SECTIONS",
    "EvaluateSection",
    "ExtractSection",
    "FitSection",
    "PrepareSection",
    "ReconstructSection",
    "ReportSection",
    "Settings",
    "SimulateSection",
]

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_SESSIONS = "numbers and ranges such as 1-37 or 1,2,5-8"
_SEED = 2**32 - 1


@dataclass(frozen=True)
class SimulateSection(Section):
    """Settings of `unibrain.pipeline.simulate`: a simulated subject in NSD's file layout."""

    section: ClassVar[str] = "simulate"

    difficulty: Literal["easy", "realistic"] = option("easy", "How noisy the simulated scans are.")
    seed: int = option(1, "Seed of the images, the brain and its noise.", low=0, high=_SEED)
    training_images: int = option(3000, "Images that the decoder is trained on.", low=4, high=9000)
    test_images: int = option(120, "Unseen images that are decoded.", low=2, high=1000)
    sessions: int = option(10, "Scan sessions that the trials are spread over.", low=2, high=40)


@dataclass(frozen=True)
class PrepareSection(Section):
    """Settings of `unibrain.pipeline.prepare`: scans in NSD's layout to one row per image."""

    section: ClassVar[str] = "prepare"

    root: str | None = option(
        None, "NSD's folder (it holds nsddata); leave it out where the run simulates its subject.", path=True
    )
    subject: int = option(1, "Number of the subject.", low=1, high=8)
    sessions: str | None = option(
        None,
        "Sessions to read; left out: all that were run.",
        pattern=r"\d+(-\d+)?(,\d+(-\d+)?)*",
        example=_SESSIONS,
    )
    mask: str = option("nsdgeneral", "Label volume whose voxels above 0 are read, or brainmask.", pattern=_NAME)
    beta_version: str = option("betas_fithrf_GLMdenoise_RR", "NSD's folder of betas.", pattern=_NAME)
    file_format: Literal["auto", "nifti", "hdf5"] = option("auto", "Which copy of the betas to read.")

    def session_numbers(self) -> tuple[int, ...] | None:
        """`sessions` as ascending numbers; None for all."""
        if self.sessions is None:
            return None
        numbers: set[int] = set()
        for part in self.sessions.split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
        if not numbers or min(numbers) < 1:
            raise InputError(f"sessions is {self.sessions!r}, expected {_SESSIONS}, counted from 1: correct it")
        return tuple(sorted(numbers))


@dataclass(frozen=True)
class ExtractSection(Section):
    """Settings of `unibrain.pipeline.extract`: pictures and captions to the four latents."""

    section: ClassVar[str] = "extract"

    backbone: str = option(
        "small",
        "Which backbone: small comes with the package; or the folder of another.",
        path=True,
        names=("small",),
    )
    caption_context: Literal["mean", "first"] = option(
        "mean", "CLIP-Text tokens of all captions of an image averaged, or of its first."
    )
    batch_size: int = option(64, "Images at a time.", low=1, changes_result=False)


@dataclass(frozen=True)
class FitSection(Section):
    """Settings of `unibrain.pipeline.fit`: four ridge regressions from voxels to latents."""

    section: ClassVar[str] = "fit"

    alpha: float | Literal["cv"] = option(
        "cv",
        "Ridge penalty of all latents, or cv to choose one for each by cross-validation.",
        above=0,
    )
    folds: int = option(5, "Folds of the cross-validation, inside the training images.", low=2)
    rescale: Literal["train", "train_per_dimension", "none"] = option(
        "train",
        "How predictions get their natural size back, from training statistics.",
    )
    shuffle_scans: bool = option(
        False, "Shuffle the training scans against their images: a control, everything then decodes at chance."
    )
    seed: int = option(0, "Seed of the folds and of that shuffle.", low=0, high=_SEED)


@dataclass(frozen=True)
class ReconstructSection(Section):
    """Settings of `unibrain.pipeline.reconstruct`: scans to pictures and captions."""

    section: ClassVar[str] = "reconstruct"

    image_weight_pictures: float | None = option(
        None, "Share of CLIP-Image against CLIP-Text tokens in pictures; left out: the backbone's own.", low=0, high=1
    )
    image_weight_captions: float | None = option(
        None, "Share of CLIP-Image against CLIP-Text tokens in captions; left out: the backbone's own.", low=0, high=1
    )
    guidance_scale: float | None = option(
        None, "Classifier-free guidance of both flows; left out: the backbone's own.", low=0
    )
    strength: float | None = option(
        None,
        "Part of the diffusion that the predicted latent is pushed through; left out: the backbone's own.",
        above=0,
        high=0.999,
    )
    steps: int | None = option(None, "Steps of the whole diffusion; left out: the backbone's own.", low=1, high=999)
    eta: float | None = option(
        None,
        "Fresh noise in every step, from 0 (DDIM) to 1 (as much as in training); left out: the backbone's own.",
        low=0,
        high=1,
    )
    seed: int = option(0, "Seed of the noise, one stream per scan.", low=0, high=_SEED)
    batch_size: int = option(32, "Scans at a time.", low=1, changes_result=False)


@dataclass(frozen=True)
class EvaluateSection(Section):
    """Settings of `unibrain.pipeline.evaluate`: scores beside their shuffled controls."""

    section: ClassVar[str] = "evaluate"

    seed: int = option(0, "Seed of the shuffled controls.", low=0, high=_SEED)


@dataclass(frozen=True)
class ReportSection(Section):
    """Settings of `unibrain.pipeline.report`: one page that shows the run."""

    section: ClassVar[str] = "report"

    title: str = option("UniBrain", "Heading of the page.")


@dataclass(frozen=True)
class Settings:
    """Settings of a whole run.

    Attributes
    ----------
    simulate : SimulateSection or None
        None if the scans are real.
    prepare, extract, fit, reconstruct, evaluate, report : Section

    Raises
    ------
    InputError
        If there are both a simulated subject and a folder of real scans.
    """

    simulate: SimulateSection | None = None
    prepare: PrepareSection = field(default_factory=PrepareSection)
    extract: ExtractSection = field(default_factory=ExtractSection)
    fit: FitSection = field(default_factory=FitSection)
    reconstruct: ReconstructSection = field(default_factory=ReconstructSection)
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    report: ReportSection = field(default_factory=ReportSection)

    def __post_init__(self) -> None:
        if self.simulate is not None and self.prepare.root is not None:
            raise InputError(
                f"there are a section [simulate] and root = {self.prepare.root!r} in [prepare], expected one of them: "
                "remove [simulate] to read real scans, or root to simulate them"
            )


SECTIONS: dict[str, type[Section]] = {
    kind.section: kind
    for kind in (
        SimulateSection,
        PrepareSection,
        ExtractSection,
        FitSection,
        ReconstructSection,
        EvaluateSection,
        ReportSection,
    )
}
"""Section of the settings file to its class, in the order of the stages."""
