"""Settings of every stage of a run, checked when they are made."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from unibrain.errors import InputError
from unibrain.pipeline.options import Section, as_plain, option
from unibrain.pipeline.own_section import OwnSection

__all__ = [
    "SECTIONS",
    "EvaluateSection",
    "ExtractSection",
    "FitSection",
    "OwnSection",
    "PrepareSection",
    "ReconstructSection",
    "ReportSection",
    "Settings",
    "SimulateSection",
]

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_REGION = r"[A-Za-z0-9][A-Za-z0-9_.+:-]*"
_BAND = r"[A-Za-z0-9][A-Za-z0-9_.-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*(\+[A-Za-z0-9][A-Za-z0-9_.:-]*)*"
_SESSIONS = "numbers and ranges such as 1-37 or 1,2,5-8, or present"
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
    """Settings of `unibrain.pipeline.prepare`: scans in NSD's layout to one row per image (or training trial)."""

    section: ClassVar[str] = "prepare"

    root: str | None = option(
        None, "NSD's folder (it holds nsddata); leave it out where the run simulates its subject.", path=True
    )
    subject: int = option(1, "Number of the subject.", low=1, high=8)
    sessions: str | None = option(
        None,
        "Sessions to read, or present for those whose betas are there; left out: the protocol's, or all that were run.",
        pattern=r"present|\d+(-\d+)?(,\d+(-\d+)?)*",
        example=_SESSIONS,
    )
    protocol: Literal["unibrain", "nsd-40", "single-trial", "session-zscore"] | None = option(
        None,
        "Published protocol: sessions 1-37 (unibrain) or 1-40 (nsd-40) averaged, training on single trials, or "
        "z-scores per session; left out: all sessions averaged.",
    )
    average: Literal["all", "test"] | None = option(
        None, "Average the repeats of all images, or of test images only; left out: the protocol's choice."
    )
    zscore: Literal["train", "session", "none"] | None = option(
        None,
        "Z-score by training statistics over all sessions, or of each session, or not; left out: the protocol's.",
    )
    mask: str = option(
        "nsdgeneral",
        "Voxels to read: a label volume, region or label, brainmask, or a union such as V1+V2+faces; lh. or rh. before "
        "a name takes one hemisphere.",
        pattern=_REGION,
        example="a name such as nsdgeneral, V1+V2 or streams:ventral",
    )
    regions: str = option(
        "default",
        "Regions to keep, separated by commas: default, all, or names as in mask.",
        pattern=rf"{_REGION}(, ?{_REGION})*",
        example="names such as default,lh,streams:ventral",
    )
    noise_ceiling: Literal["file", "recompute"] = option(
        "file", "Noise ceiling from NSD's ncsnr, or computed from the sessions that are read."
    )
    beta_version: str = option("betas_fithrf_GLMdenoise_RR", "NSD's folder of betas.", pattern=_NAME)
    file_format: Literal["auto", "nifti", "hdf5"] = option("auto", "Which copy of the betas to read.")

    def session_numbers(self) -> tuple[int, ...] | Literal["present"] | None:
        """`sessions` as ascending numbers; ``"present"``, or None for all."""
        if self.sessions is None:
            return None
        if self.sessions == "present":
            return "present"
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
        "Which backbone: small comes with the package, official is the converted one; or the folder of another.",
        path=True,
        names=("small", "official"),
    )
    captions_from: Literal["coco", "curated"] = option(
        "coco", "Captions of NSD's images: COCO's own files, or the array curated for NSD."
    )
    captions_file: str | None = option(
        None, "That array; left out: COCO_73k_annots_curated.npy beside COCO's files.", path=True
    )
    caption: Literal["first", "random"] = option(
        "first", "Caption that the text latent encodes: the first of an image, or one drawn by caption_seed."
    )
    caption_context: Literal["mean", "first", "random"] = option(
        "mean", "CLIP-Text tokens of all captions of an image averaged, of its first, or of one drawn by caption_seed."
    )
    caption_seed: int = option(0, "Seed of drawn captions.", low=0, high=_SEED)
    batch_size: int = option(64, "Images at a time.", low=1, changes_result=False)
    storage: Literal["auto", "npy", "zarr"] = option(
        "auto", "How latents are stored: npy, or chunked zarr; auto takes zarr from 1 GB on."
    )
    precision: Literal["float32", "float16"] = option("float32", "Precision of the stored latents.")


@dataclass(frozen=True)
class FitSection(Section):
    """Settings of `unibrain.pipeline.fit`: four ridge regressions from voxels to latents."""

    section: ClassVar[str] = "fit"

    alpha: float | Literal["cv"] = option(
        "cv",
        "Ridge penalty of all latents, or cv to choose one for each by cross-validation.",
        above=0,
    )
    alpha_per: Literal["latent", "token", "target"] = option(
        "latent", "What gets a penalty of its own where cv chooses."
    )
    folds: int | Literal["loo"] = option(
        5, "Folds of the cross-validation, inside the training images; or loo: one image left out at a time.", low=2
    )
    bands: str | None = option(
        None,
        "Banded ridge: groups of regions that each get a penalty of their own; left out: one penalty for all voxels.",
        pattern=rf"{_BAND}(,{_BAND})*",
        example="bands such as early=V1+V2+V3,faces=faces",
    )
    rescale: Literal["train", "train_per_dimension", "none", "test"] = option(
        "train",
        "How predictions get their natural size back: from training statistics, not, or from the test set (compare).",
    )
    shuffle_scans: bool = option(
        False, "Shuffle the training scans against their images: a control, everything then decodes at chance."
    )
    seed: int = option(0, "Seed of the folds and of that shuffle.", low=0, high=_SEED)
    memory: float = option(
        2.0, "Gigabytes for streaming the latents, beside the kernel of the scans.", above=0, changes_result=False
    )
    device: str = option(
        "cpu",
        "Where the regressions are computed.",
        pattern=r"cpu|cuda(:\d+)?",
        example="cpu, cuda or cuda:1",
        changes_result=False,
    )

    def band_regions(self) -> dict[str, tuple[str, ...]] | None:
        """`bands` as band name to regions; None without bands."""
        if self.bands is None:
            return None
        return {name: tuple(regions.split("+")) for name, regions in (b.split("=") for b in self.bands.split(","))}


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
    batch_size: int | None = option(
        None, "Scans at a time; left out: as many as fit into memory.", low=1, changes_result=False
    )


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
    own : OwnSection or None
        None if the scans are not a laboratory's own.
    prepare, extract, fit, reconstruct, evaluate, report : Section

    Raises
    ------
    InputError
        If scans come from two places: a simulated subject, NSD's folder, own files; or if there are own scans and
        settings that choose among NSD's.
    """

    simulate: SimulateSection | None = None
    own: OwnSection | None = None
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
        if self.own is None:
            return
        if self.simulate is not None:
            raise InputError("there are sections [simulate] and [own], expected one of them: remove one")
        usual = as_plain(PrepareSection())
        for key, value in as_plain(self.prepare).items():
            if value != usual[key]:
                raise InputError(
                    f"there are a section [own] and {key} = {value!r} in [prepare], which is about NSD's files: remove "
                    f"{key}, or [own]"
                )


SECTIONS: dict[str, type[Section]] = {
    kind.section: kind
    for kind in (
        SimulateSection,
        OwnSection,
        PrepareSection,
        ExtractSection,
        FitSection,
        ReconstructSection,
        EvaluateSection,
        ReportSection,
    )
}
"""Section of the settings file to its class, in the order of the stages."""
