"""Settings of a run, once for the file, Python and the command line: what each may be is written where it is declared.

Every section is a pydantic model; `SECTIONS` names them. A run's settings lie in a TOML file with a section per stage.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from unibrain.errors import InputError
from unibrain.pipeline.values import (
    BackboneText,
    Bands,
    BetasPattern,
    Controls,
    Device,
    Mask,
    Name,
    PathText,
    PlaceText,
    RegionFiles,
    Regions,
    Seed,
    Sessions,
    Share,
    SplitText,
    SubjectLabel,
)

_SPEED: dict[str, Any] = {"changes_result": False}
"""Marks what changes speed, and results by no more than rounding, such as a batch size: no stage is redone for it."""


class Section(BaseModel):
    """Settings of one stage: immutable, and checked when they are made.

    Raises
    ------
    pydantic.ValidationError
        A `ValueError` that says what is wrong; `settings_problem` makes one sentence of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        if isinstance(value, str) and not value.isprintable():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("text in Unicode") from None
        return value

    def plain(self, *, only_result: bool = False) -> dict[str, Any]:
        """As a dict; with `only_result`, without what only changes speed."""
        fields = type(self).model_fields
        return {name: value for name, value in self if not (only_result and fields[name].json_schema_extra == _SPEED)}


class SimulateSection(Section):
    """A simulated subject in NSD's file layout."""

    difficulty: Literal["easy", "realistic"] = Field(default="easy", description="How noisy the simulated scans are.")
    seed: Seed = Field(default=1, description="Seed of the images, the brain and its noise.")
    training_images: int = Field(default=3000, ge=4, le=9000, description="Images that the decoder is trained on.")
    test_images: int = Field(default=120, ge=2, le=1000, description="Unseen images that are decoded.")
    sessions: int = Field(default=10, ge=2, le=40, description="Scan sessions that the trials are spread over.")
    voxels: int = Field(default=4000, ge=500, le=16000, description="About how many voxels nsdgeneral has.")


class CustomSection(Section):
    """A laboratory's own scans, pictures and table: what `unibrain import` takes."""

    scans: PathText | None = Field(
        default=None,
        description="Scans x voxels as npy, csv, tsv or HDF5 (FILE:DATASET), or volumes as 4-D NIfTI or GLMsingle's "
        "betasmd.",
    )
    pictures: PathText | None = Field(
        default=None,
        description="Folder of the pictures that were shown, or HDF5 of picture files as LAION-fMRI has it.",
    )
    table: PathText | None = Field(
        default=None,
        description="Table (csv or tsv) with columns scan_from_0 or scan_from_1, picture, captions, session, split.",
    )
    bids: PathText | None = Field(
        default=None,
        description="In place of scans and table: folder of BIDS derivatives with single-trial betas, which holds "
        "sub-01 and so on.",
    )
    subject: SubjectLabel | None = Field(default=None, description="Which subject of that folder, such as sub-01.")
    betas: BetasPattern | None = Field(
        default=None,
        description="File name of the betas in that folder, * standing for any text; left out: the usual ones.",
    )
    captions: PathText | None = Field(
        default=None, description="Captions in a table of their own (csv or tsv): picture and caption, one a line."
    )
    split: SplitText | None = Field(
        default=None,
        description="Published split: its .json file, or a name (tau, shared/ood) in the installed package laion_fmri.",
    )
    mask: PathText | None = Field(
        default=None,
        description="Voxels to read of volumes, above 0 (NIfTI or npy); for a matrix, where its voxels lie.",
    )
    regions: RegionFiles | None = Field(
        default=None,
        description="Masks of regions, on the grid of the mask or one value per voxel: NAME=FILE, several separated by "
        "semicolons.",
    )
    scan_base: int | None = Field(
        default=None, ge=0, le=1, description="What a column named scan is counted from; left out: its name says it."
    )
    test_share: float = Field(
        default=0.1, gt=0, le=0.9, description="Without any split: share of the pictures that is held out."
    )
    split_seed: Seed = Field(default=0, description="Seed of that draw.")
    average: Literal["all", "test"] = Field(
        default="all",
        description="Average the repeats of all pictures, or of test pictures only: then each training scan is a row.",
    )
    zscore: Literal["train", "session", "none"] = Field(
        default="train", description="Z-score by training statistics over all sessions, or of each session, or not."
    )
    crop: Literal["centre", "pad"] = Field(
        default="centre", description="Oblong pictures: cut out the middle square, or add grey borders."
    )
    picture_size: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Side of the stored pictures in pixels; left out: the smallest picture's, at most 512.",
    )
    name: Name | None = Field(
        default=None, description="Name of the subject; left out: its label in BIDS derivatives, else custom."
    )
    simulated: bool = Field(default=False, description="The scans are simulated: every page made of them then says so.")

    def label(self) -> str | None:
        """The subject's folder in BIDS derivatives; None without any."""
        from unibrain.scans.bids import subject_label

        return None if self.subject is None else subject_label(self.subject)

    def region_files(self) -> dict[str, Path]:
        """`regions` as name to file."""
        pairs = (text.split("=", 1) for text in (self.regions or "").split(";") if text)
        return {name: Path(file) for name, file in pairs}


class PrepareSection(Section):
    """Scans in NSD's layout to one row per image (or training trial)."""

    root: PathText | None = Field(
        default=None, description="NSD's folder (it holds nsddata); leave it out where the run simulates its subject."
    )
    subject: int = Field(default=1, ge=1, le=8, description="Number of the subject.")
    sessions: Sessions | None = Field(
        default=None,
        description="Sessions to read (1-37 or 1,2,5-8), or present for those whose betas are there; left out: the "
        "protocol's, or all that were run.",
    )
    protocol: Literal["unibrain", "nsd-40", "single-trial", "session-zscore"] | None = Field(
        default=None,
        description="Published protocol: sessions 1-37 (unibrain) or 1-40 (nsd-40) averaged, training on single "
        "trials, or z-scores per session; left out: all sessions averaged.",
    )
    average: Literal["all", "test"] | None = Field(
        default=None,
        description="Average the repeats of all images, or of test images only; left out: the protocol's choice.",
    )
    zscore: Literal["train", "session", "none"] | None = Field(
        default=None,
        description="Z-score by training statistics over all sessions, or of each session, or not; left out: the "
        "protocol's.",
    )
    mask: Mask = Field(
        default="nsdgeneral",
        description="Voxels to read: a label volume, region or label, brainmask, or a union such as V1+V2+faces; lh. "
        "or rh. before a name takes one hemisphere.",
    )
    regions: Regions = Field(
        default="default", description="Regions to keep, separated by commas: default, all, or names as in mask."
    )
    noise_ceiling: Literal["file", "recompute"] = Field(
        default="file", description="Noise ceiling from NSD's ncsnr, or computed from the sessions that are read."
    )
    beta_version: Name = Field(default="betas_fithrf_GLMdenoise_RR", description="NSD's folder of betas.")
    format: Literal["auto", "nifti", "hdf5"] = Field(default="auto", description="Which copy of the betas to read.")

    def session_numbers(self) -> tuple[int, ...] | Literal["present"] | None:
        """`sessions` as ascending numbers; ``"present"``, or None for all."""
        from unibrain.scans.nsd_layout import parse_sessions

        if self.sessions is None or self.sessions == "present":
            return self.sessions  # type: ignore[return-value]  # mypy does not narrow a str by ==
        return parse_sessions(self.sessions)


class ExtractSection(Section):
    """Pictures and captions to latents."""

    backbone: BackboneText = Field(
        default="small",
        description="Which backbone: small comes with the package, official is the converted one; or the folder of "
        "another.",
    )
    captions_from: Literal["coco", "curated"] = Field(
        default="coco", description="Captions of NSD's images: COCO's own files, or the array curated for NSD."
    )
    captions_file: PathText | None = Field(
        default=None, description="That array; left out: COCO_73k_annots_curated.npy beside COCO's files."
    )
    caption: Literal["first", "random"] = Field(
        default="first",
        description="Caption that the text latent encodes: an image's first, or one drawn by caption_seed.",
    )
    caption_context: Literal["mean", "first", "random"] = Field(
        default="mean",
        description="CLIP-Text tokens of all captions of an image averaged, of its first, or of one drawn by "
        "caption_seed.",
    )
    caption_seed: Seed = Field(default=0, description="Seed of drawn captions.")
    batch_size: int = Field(default=64, ge=1, description="Images at a time.", json_schema_extra=_SPEED)
    storage: Literal["auto", "npy", "zarr"] = Field(
        default="auto", description="How latents are stored: npy, or chunked zarr; auto takes zarr from 1 GB on."
    )
    precision: Literal["float32", "float16"] = Field(default="float32", description="Precision of the stored latents.")
    shared: PathText | None = Field(
        default=None,
        description="Folder that keeps encoded batches for other runs on the same pictures; left out: none.",
        json_schema_extra=_SPEED,
    )

    @field_validator("captions_file")
    @classmethod
    def _is_read(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("captions_from") != "curated":
            raise ValueError("left out unless captions_from is curated; COCO's captions have no such file")
        return value


class FitSection(Section):
    """Ridge regressions from voxels to latents."""

    alpha: Annotated[float, Field(gt=0)] | Literal["cv"] = Field(
        default="cv", description="Ridge penalty of all latents, or cv to choose one for each by cross-validation."
    )
    alpha_per: Literal["latent", "token", "target"] = Field(
        default="latent", description="What gets a penalty of its own where cv chooses."
    )
    folds: Annotated[int, Field(ge=2)] | Literal["loo"] = Field(
        default=5,
        description="Folds of the cross-validation, inside the training images; or loo: one image left out at a time.",
    )
    bands: Bands | None = Field(
        default=None,
        description="Banded ridge: groups of regions that each get a penalty of their own, such as "
        "early=V1+V2+V3,faces=faces; left out: one penalty for all voxels.",
    )
    rescale: Literal["train", "train_per_dimension", "none", "test"] = Field(
        default="train",
        description="How predictions get their natural size back: from training statistics, not, or from the test set "
        "(compare).",
    )
    shuffle_scans: bool = Field(
        default=False,
        description="Shuffle the training scans against their images: a control, everything then decodes at chance.",
    )
    seed: Seed = Field(default=0, description="Seed of the folds and of that shuffle.")
    memory: float = Field(
        default=2.0,
        gt=0,
        description="Gigabytes for streaming the latents, beside the kernel of the scans.",
        json_schema_extra=_SPEED,
    )
    device: Device = Field(default="cpu", description="Where the regressions are computed.", json_schema_extra=_SPEED)

    def band_regions(self) -> dict[str, tuple[str, ...]] | None:
        """`bands` as band name to regions; None without bands."""
        if self.bands is None:
            return None
        pairs = (band.strip().split("=") for band in self.bands.split(","))
        return {name: tuple(regions.split("+")) for name, regions in pairs}


class ReconstructSection(Section):
    """Scans to pictures and captions."""

    image_weight_pictures: Share | None = Field(
        default=None,
        description="Share of CLIP-Image against CLIP-Text tokens in pictures; left out: the backbone's own.",
    )
    image_weight_captions: Share | None = Field(
        default=None,
        description="Share of CLIP-Image against CLIP-Text tokens in captions; left out: the backbone's own.",
    )
    guidance_scale: float | None = Field(
        default=None, ge=0, description="Classifier-free guidance of both flows; left out: the backbone's own."
    )
    strength: float | None = Field(
        default=None,
        gt=0,
        le=0.999,
        description="Part of the diffusion that the predicted latent is pushed through; left out: the backbone's own.",
    )
    steps: int | None = Field(
        default=None, ge=1, le=999, description="Steps of the whole diffusion; left out: the backbone's own."
    )
    eta: Share | None = Field(
        default=None,
        description="Fresh noise in every step, from 0 (DDIM) to 1 (as much as in training); left out: the backbone's "
        "own.",
    )
    sampler: Literal["ddim", "dpm++"] | None = Field(
        default=None,
        description="DDIM, or DPM-Solver++, which needs fewer steps and takes no eta; left out: the backbone's own.",
    )
    guidance_end: Share | None = Field(
        default=None,
        description="Part of the diffusion below which guidance is left out, from 0 (never); left out: the backbone's "
        "own.",
    )
    seed: Seed = Field(default=0, description="Seed of the noise, one stream per scan.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Scans at a time; left out: as many as fit into memory.",
        json_schema_extra=_SPEED,
    )


class ControlsSection(Section):
    """What is decoded without the scans, from a part of them, and from the truth."""

    controls: Controls = Field(
        default="all",
        description="Which to decode: all, none, or some: random, mean, nearest, z_only, other_context, oracle, span.",
    )
    images: int = Field(
        default=40, ge=2, description="How many test images they are decoded for, spread evenly over all of them."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Images at a time; left out: as many as fit into memory.",
        json_schema_extra=_SPEED,
    )

    def names(self) -> list[str]:
        """`controls` as names, in the order in which they are shown."""
        from unibrain.evaluation.controls import CONTROLS

        chosen = [name.strip() for name in self.controls.split(",")]
        return [name for name in CONTROLS if self.controls == "all" or name in chosen]


class EvaluateSection(Section):
    """Scores beside their controls and ceilings."""

    seed: Seed = Field(default=0, description="Seed of the shuffled controls.")
    dialect: Literal["standard", "brain-diffuser", "mindeye", "mindeye-aa", "nsd-imagery", "takagi"] = Field(
        default="standard", description="Whose definitions of the scores of pictures."
    )
    protocol: Literal["none", "standard", "brainhub", "mindeye2"] = Field(
        default="none", description="Captions as papers score them: BLEU, METEOR, ROUGE-L, CIDEr, CLIP-S and others."
    )


class ReportSection(Section):
    """One page that shows the run."""

    title: str = Field(default="UniBrain", description="Heading of the page.")


class EngineSection(Section):
    """Where the shards of a run are done."""

    on: PlaceText | None = Field(
        default=None,
        description="Where shards are done: local[:WORKERS], dask:ADDRESS or slurm[:PARTITION,KEY=VALUE,...]; left "
        "out: in one process, without shards.",
        json_schema_extra=_SPEED,
    )
    time_limit: float = Field(
        default=60.0,
        gt=0,
        le=10_000,
        description="Minutes after which a shard is taken for hanging, and tried again elsewhere.",
        json_schema_extra=_SPEED,
    )


SECTIONS: dict[str, type[Section]] = {
    "simulate": SimulateSection,
    "custom": CustomSection,
    "prepare": PrepareSection,
    "extract": ExtractSection,
    "fit": FitSection,
    "reconstruct": ReconstructSection,
    "controls": ControlsSection,
    "evaluate": EvaluateSection,
    "report": ReportSection,
    "engine": EngineSection,
}
"""Section of the settings file to its class, in the order of the stages."""


class Settings(BaseModel):
    """Settings of a whole run.

    Attributes
    ----------
    simulate : SimulateSection or None
        None if the scans are real.
    custom : CustomSection or None
        None if the scans are not a laboratory's own.
    prepare, extract, fit, reconstruct, controls, evaluate, report, engine : Section

    Raises
    ------
    pydantic.ValidationError
        If scans come from two places (a simulated subject, NSD's folder, a laboratory's own files), or if there are
        own scans and settings that choose among NSD's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    simulate: SimulateSection | None = None
    custom: CustomSection | None = None
    prepare: PrepareSection = PrepareSection()
    extract: ExtractSection = ExtractSection()
    fit: FitSection = FitSection()
    reconstruct: ReconstructSection = ReconstructSection()
    controls: ControlsSection = ControlsSection()
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()
    engine: EngineSection = EngineSection()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.simulate is not None and self.custom is not None:
            raise ValueError("there are sections [simulate] and [custom]. Remove one")
        if self.simulate is not None and self.prepare.root is not None:
            raise ValueError(
                f"there are a section [simulate] and root = {self.prepare.root!r} in [prepare]. Remove [simulate] to "
                "read real scans, or root to simulate them"
            )
        if self.custom is not None:
            for key, value in self.prepare.model_dump(exclude_defaults=True).items():
                raise ValueError(
                    f"there are a section [custom] and {key} = {value!r} in [prepare], which is about NSD's files. "
                    f"Remove {key}, or [custom]"
                )
        return self

    def changed(self, section: str, values: Mapping[str, object], *, where: str, text: bool = False) -> "Settings":
        """Replace some values of one section.

        Parameters
        ----------
        section : str
            One of `SECTIONS`; one that is None begins with its defaults.
        values : mapping of str to object
        where : str
            As in `settings_problem`.
        text : bool
            Values are text, as typed on a command line; those that are None were not, and change nothing.

        Returns
        -------
        Settings

        Raises
        ------
        InputError
            If a value is not allowed.
        """
        if text:
            values = {name: value for name, value in values.items() if value is not None}
            if not values:
                return self
        kind = SECTIONS[section]
        before: Section = getattr(self, section) or kind()
        try:
            new = kind.model_validate({**before.plain(), **values}, strict=False if text else None)
            return Settings(**dict(self) | {section: new})
        except ValidationError as error:
            raise InputError(settings_problem(error, where)) from None


def nearest(word: str, words: Iterable[str]) -> str:
    """The word that was meant, as a question; nothing if none is like it."""
    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""


def shown(value: object) -> str:
    """A wrong value as a sentence names it: on one line, and not too long."""
    try:
        text = str(value)
    except ValueError:  # a whole number of more than 4,300 digits
        text = "a very large number"
    text = text.encode(errors="replace").decode()
    return json.dumps(text if len(text) <= 60 else f"{text[:40]}...", ensure_ascii=False).strip('"')


def settings_problem(error: ValidationError, where: str) -> str:
    """Make one sentence of what pydantic found wrong.

    Parameters
    ----------
    error : pydantic.ValidationError
        Of a `Section` or of `Settings`.
    where : str
        What is at fault: the settings file, or ``"--"`` to name the option that was typed.

    Returns
    -------
    str
    """
    found = error.errors(include_url=False)
    first = found[0]
    section = error.title.removesuffix("Section").lower()
    words = [
        str(entry["msg"]).removeprefix("Value error, ").removeprefix("Input should be ").split(", unable to parse")[0]
        for entry in found
        if entry["loc"][:1] == first["loc"][:1]
    ]
    if not first["loc"] or section not in SECTIONS:
        return f"{'the options' if where == '--' else where}: {words[0]}."
    key = str(first["loc"][0])
    place = f"--{key.replace('_', '-')}" if where == "--" else f"{where}: {key} in [{section}]"
    fields = SECTIONS[section].model_fields
    if first["type"] == "extra_forbidden":
        return f"{place} is not known.{nearest(key, fields)}"
    literals = fields[key].annotation if key in fields else None
    known = re.findall(r"'([^']+)'", str(literals)) if isinstance(first["input"], str) else ()
    allowed = " or ".join(words)
    return f"{place} is {shown(first['input'])}, and has to be {allowed}.{nearest(str(first['input']), known)}"


def demo_settings(
    images: int = 120, training_images: int = 3000, seed: int = 1, difficulty: str = "easy", batch_size: int = 32
) -> Settings:
    """Settings of `unibrain demo`: the main job on a simulated subject and the backbone that comes with the package.

    Parameters
    ----------
    images, training_images : int
        Unseen images that are decoded (2 to 1,000), and images that the decoder is trained on (4 to 9,000).
    seed : int
        Of the simulated subject.
    difficulty : {"easy", "realistic"}
        How noisy the simulated scans are.
    batch_size : int
        Scans, or images, at a time.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If a value is not allowed; it is named as the option of the command.
    """
    simulate = {"difficulty": difficulty, "seed": seed, "training_images": training_images, "test_images": images}
    settings = Settings(report=ReportSection(title="UniBrain demo"), controls=ControlsSection(images=30))
    # The small flows were trained on what regressions predict as it is; amplified, its errors are too large for them.
    batch = {"batch_size": batch_size}
    for section, values in (
        ("simulate", simulate),
        ("extract", batch),
        ("fit", {"rescale": "none"}),
        ("reconstruct", batch),
    ):
        settings = settings.changed(section, values, where="--")
    return settings
