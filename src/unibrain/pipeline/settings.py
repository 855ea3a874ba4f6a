"""Settings of a run, once for the file, Python and the command line: what each may be is written where it is declared.

Every section is a pydantic model; `SECTIONS` names them. A run's settings lie in a TOML file with a section per stage.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from unibrain.errors import InputError
from unibrain.workspace.files import write_text

_SEED = 2**32 - 1
_WORD = "[A-Za-z0-9][A-Za-z0-9_.+-]*"
_REGION = "[A-Za-z0-9][A-Za-z0-9_.+:-]*"
_SPEED: dict[str, Any] = {"changes_result": False}
"""Marks what changes speed, and results by no more than rounding, such as a batch size: no stage is redone for it."""

_FIRST = "# Settings of this run, as unibrain keeps them. Change values, and leave the first and the last line alone."
_LAST = "# End of the settings."


def _absolute(value: str, info: ValidationInfo) -> str:
    """A path from the folder that validation is told of (that of the settings file), or from the working folder."""
    if "\0" in value:
        raise ValueError("a path without the character NUL")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"a path whose user is known here, and {value.split('/')[0]} is not") from None
    folder = Path((info.context or {}).get("folder", "."))
    return os.path.normpath(folder.absolute() / path)


def _backbone(value: str, info: ValidationInfo) -> str:
    """`small`, `official` and other names of converted backbones stay names; the rest are paths of folders."""
    path = _absolute(value, info)
    return value if re.fullmatch(_WORD, value) and not Path(path).is_dir() else path


def _split(value: str, info: ValidationInfo) -> str:
    """`tau`, `shared/ood` and the like stay names; a split's ``.json`` file is a path."""
    if value.lower().endswith(".json"):
        return _absolute(value, info)
    if not re.fullmatch("([A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+", value):
        raise ValueError("a name such as tau or shared/ood, or a .json file")
    return value


def _named_files(value: str, info: ValidationInfo) -> str:
    files: dict[str, str] = {}
    for pair in value.split(";"):
        name, equals, file = pair.strip().partition("=")
        if not (equals and file.strip() and re.fullmatch(_REGION, name.strip())):
            raise ValueError("NAME=FILE, several separated by semicolons")
        if name.strip() in files:
            raise ValueError(f"a list in which each region is named once; {name.strip()} is there twice")
        files[name.strip()] = _absolute(file.strip(), info)
    return ";".join(f"{name}={file}" for name, file in files.items())


def _band_list(value: str) -> str:
    names: set[str] = set()
    for band in value.split(","):
        name, equals, regions = band.strip().partition("=")
        if not (equals and re.fullmatch(_WORD, name) and all(re.fullmatch(_REGION, r) for r in regions.split("+"))):
            raise ValueError("bands such as early=V1+V2+V3,faces=faces")
        if name in names:
            raise ValueError(f"a list in which each band is named once; {name} is there twice")
        names.add(name)
    return value


def _session_list(value: str) -> str:
    if value != "present":
        from unibrain.scans.nsd_layout import parse_sessions

        try:
            parse_sessions(value)
        except ValueError as error:
            raise ValueError(f"numbers and ranges such as 1-37 or 1,2,5-8, or present; {error}") from None
    return value


def _control_list(value: str) -> str:
    if value not in ("all", "none"):
        from unibrain.evaluation.controls import CONTROLS

        unknown = [name for name in value.split(",") if name.strip() not in CONTROLS]
        if unknown:
            raise ValueError(f"all, none, or some of {', '.join(CONTROLS)}, separated by commas")
    return value


def _engine(value: str) -> str:
    from unibrain.pipeline.place import parse_place

    try:
        parse_place(value)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return value


def _like(pattern: str, example: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(example)
        return value

    return AfterValidator(check)


PathText = Annotated[str, AfterValidator(_absolute)]
Name = Annotated[str, _like(_WORD, "a name of letters, digits, dots and dashes")]
Seed = Annotated[int, Field(ge=0, le=_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Settings of one stage: immutable, and checked when they are made.

    Raises
    ------
    pydantic.ValidationError
        A `ValueError` that says what is wrong; `settings_problem` makes one sentence of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str]

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
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if not (only_result and field.json_schema_extra == _SPEED)
        }


class SimulateSection(Section):
    """A simulated subject in NSD's file layout."""

    section: ClassVar[str] = "simulate"

    difficulty: Literal["easy", "realistic"] = Field(default="easy", description="How noisy the simulated scans are.")
    seed: Seed = Field(default=1, description="Seed of the images, the brain and its noise.")
    training_images: int = Field(default=3000, ge=4, le=9000, description="Images that the decoder is trained on.")
    test_images: int = Field(default=120, ge=2, le=1000, description="Unseen images that are decoded.")
    sessions: int = Field(default=10, ge=2, le=40, description="Scan sessions that the trials are spread over.")
    voxels: int = Field(default=2000, ge=500, le=16000, description="About how many voxels nsdgeneral has.")


class CustomSection(Section):
    """A laboratory's own scans, pictures and table: what `unibrain import` takes."""

    section: ClassVar[str] = "custom"

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
    subject: Annotated[str, _like("(sub-)?[A-Za-z0-9]+", "a label such as sub-01")] | None = Field(
        default=None, description="Which subject of that folder, such as sub-01."
    )
    betas: Annotated[str, _like(r"[A-Za-z0-9_.*-]+", "a file name such as *_betas.nii.gz")] | None = Field(
        default=None,
        description="File name of the betas in that folder, * standing for any text; left out: the usual ones.",
    )
    captions: PathText | None = Field(
        default=None, description="Captions in a table of their own (csv or tsv): picture and caption, one a line."
    )
    split: Annotated[str, AfterValidator(_split)] | None = Field(
        default=None,
        description="Published split: its .json file, or a name (tau, shared/ood) in the installed package laion_fmri.",
    )
    mask: PathText | None = Field(
        default=None,
        description="Voxels to read of volumes, above 0 (NIfTI or npy); for a matrix, where its voxels lie.",
    )
    regions: Annotated[str, AfterValidator(_named_files)] | None = Field(
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

    def subject_name(self) -> str:
        """`name`, or what stands for it."""
        from unibrain.scans.bids import subject_label

        return self.name or ("custom" if self.subject is None else subject_label(self.subject))

    def region_files(self) -> dict[str, Path]:
        """`regions` as name to file."""
        pairs = (text.split("=", 1) for text in (self.regions or "").split(";") if text)
        return {name: Path(file) for name, file in pairs}


class PrepareSection(Section):
    """Scans in NSD's layout to one row per image (or training trial)."""

    section: ClassVar[str] = "prepare"

    root: PathText | None = Field(
        default=None, description="NSD's folder (it holds nsddata); leave it out where the run simulates its subject."
    )
    subject: int = Field(default=1, ge=1, le=8, description="Number of the subject.")
    sessions: Annotated[str, AfterValidator(_session_list)] | None = Field(
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
    mask: Annotated[str, _like(_REGION, "a name such as nsdgeneral, V1+V2 or streams:ventral")] = Field(
        default="nsdgeneral",
        description="Voxels to read: a label volume, region or label, brainmask, or a union such as V1+V2+faces; lh. "
        "or rh. before a name takes one hemisphere.",
    )
    regions: Annotated[str, _like(f"{_REGION}(, ?{_REGION})*", "names such as default,lh,streams:ventral")] = Field(
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

    section: ClassVar[str] = "extract"

    backbone: Annotated[str, AfterValidator(_backbone)] = Field(
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

    section: ClassVar[str] = "fit"

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
    bands: Annotated[str, AfterValidator(_band_list)] | None = Field(
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
    device: Annotated[str, _like(r"cpu|cuda(:\d{1,3})?", "cpu, cuda or cuda:1")] = Field(
        default="cpu", description="Where the regressions are computed.", json_schema_extra=_SPEED
    )

    def band_regions(self) -> dict[str, tuple[str, ...]] | None:
        """`bands` as band name to regions; None without bands."""
        if self.bands is None:
            return None
        pairs = (band.strip().split("=") for band in self.bands.split(","))
        return {name: tuple(regions.split("+")) for name, regions in pairs}


class ReconstructSection(Section):
    """Scans to pictures and captions."""

    section: ClassVar[str] = "reconstruct"

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
    seed: Seed = Field(default=0, description="Seed of the noise, one stream per scan.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Scans at a time; left out: as many as fit into memory.",
        json_schema_extra=_SPEED,
    )


class ControlsSection(Section):
    """What is decoded without the scans, from a part of them, and from the truth."""

    section: ClassVar[str] = "controls"

    controls: Annotated[str, AfterValidator(_control_list)] = Field(
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


class EvaluateSection(Section):
    """Scores beside their controls and ceilings."""

    section: ClassVar[str] = "evaluate"

    seed: Seed = Field(default=0, description="Seed of the shuffled controls.")
    dialect: Literal["standard", "brain-diffuser", "mindeye", "mindeye-aa", "nsd-imagery", "takagi"] = Field(
        default="standard", description="Whose definitions of the scores of pictures."
    )
    protocol: Literal["none", "standard", "brainhub", "mindeye2"] = Field(
        default="none", description="Captions as papers score them: BLEU, METEOR, ROUGE-L, CIDEr, CLIP-S and others."
    )


class ReportSection(Section):
    """One page that shows the run."""

    section: ClassVar[str] = "report"

    title: str = Field(default="UniBrain", description="Heading of the page.")


class EngineSection(Section):
    """Where the shards of a run are done."""

    section: ClassVar[str] = "engine"

    on: Annotated[str, AfterValidator(_engine)] | None = Field(
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
    kind.section: kind
    for kind in (
        SimulateSection,
        CustomSection,
        PrepareSection,
        ExtractSection,
        FitSection,
        ReconstructSection,
        ControlsSection,
        EvaluateSection,
        ReportSection,
        EngineSection,
    )
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
            usual = PrepareSection()
            for key in self.prepare.model_fields_set:
                if getattr(self.prepare, key) != getattr(usual, key):
                    raise ValueError(
                        f"there are a section [custom] and {key} = {getattr(self.prepare, key)!r} in [prepare], which "
                        f"is about NSD's files. Remove {key}, or [custom]"
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
            Values are text, as typed on a command line.

        Returns
        -------
        Settings

        Raises
        ------
        InputError
            If a value is not allowed.
        """
        kind = SECTIONS[section]
        before: Section = getattr(self, section) or kind()
        try:
            new = kind.model_validate({**before.plain(), **values}, strict=False if text else None)
            return Settings(**{name: getattr(self, name) for name in SECTIONS} | {section: new})
        except ValidationError as error:
            raise InputError(settings_problem(error, where)) from None


def _nearest(word: str, words: tuple[str, ...]) -> str:
    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""


def _shown(value: object) -> str:
    try:
        text = value if isinstance(value, str) else str(value)
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
    kind = SECTIONS.get(error.title.removesuffix("Section").lower())
    words = [
        str(entry["msg"]).removeprefix("Value error, ").removeprefix("Input should be ").split(", unable to parse")[0]
        for entry in found
        if entry["loc"][:1] == first["loc"][:1]
    ]
    if not first["loc"] or kind is None:
        return f"{'the options' if where == '--' else where}: {words[0]}."
    key = str(first["loc"][0])
    place = f"--{key.replace('_', '-')}" if where == "--" else f"{where}: {key} in [{kind.section}]"
    if first["type"] == "extra_forbidden":
        return f"{place} is not known.{_nearest(key, tuple(kind.model_fields))}"
    literals = kind.model_fields[key].annotation if key in kind.model_fields else None
    known = tuple(re.findall(r"'([^']+)'", str(literals))) if isinstance(first["input"], str) else ()
    allowed = " or ".join(words)
    return f"{place} is {_shown(first['input'])}, and has to be {allowed}.{_nearest(str(first['input']), known)}"


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Read a settings file.

    Parameters
    ----------
    path : path-like
        TOML with a section per stage; what is left out has its default. With a section ``[simulate]`` (it may be empty)
        the run simulates its own subject; with ``[custom]`` it reads a laboratory's own files; else ``[prepare]`` must
        name NSD's folder as ``root``. Relative paths start at the file's folder.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If the file is missing or no TOML, or holds an unknown section, an unknown key, or a value that is not allowed;
        or if a file that `write_settings` wrote has lost its end.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Check the path.") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise InputError(f"{path}: this is not a text file. Give a settings file in TOML.") from None
    except RecursionError:
        raise InputError(f"{path}: values are nested too deeply. Write lines of `key = value`.") from None
    except ValueError as error:  # no TOML, or a number of more than 4,300 digits
        raise InputError(f"{path}: this is not valid TOML ({str(error)[:160]}). Correct it.") from None
    if text.startswith(_FIRST) and _LAST not in text:
        raise InputError(f"{path}: the end of the file is missing. Put a whole copy back, or run again from your own.")
    sections: dict[str, Section] = {}
    for name, content in found.items():
        if name not in SECTIONS:
            raise InputError(f"{path}: [{_shown(name)}] is not a section.{_nearest(name, tuple(SECTIONS))}")
        if not isinstance(content, dict):
            raise InputError(f"{path}: {name} is {_shown(content)}, and has to be a section [{name}].")
        try:
            sections[name] = SECTIONS[name].model_validate(content, context={"folder": path.absolute().parent})
        except ValidationError as error:
            raise InputError(settings_problem(error, str(path))) from None
    try:
        return Settings(**sections)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InputError(settings_problem(error, str(path))) from None


def settings_text(settings: Settings) -> str:
    """Write settings as commented TOML that `read_settings` reads back equal."""
    lines = [_FIRST, ""]
    for name, kind in SECTIONS.items():
        section = getattr(settings, name)
        if section is None:
            continue
        lines.append(f"[{name}]")
        for key, value in section.plain().items():
            lines.append(f"# {kind.model_fields[key].description}")
            # A JSON string without escapes for letters is a TOML string, but for DEL, which TOML wants escaped.
            shown = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"# {key} =" if value is None else f"{key} = {shown}")
        lines.append("")
    return "\n".join([*lines, _LAST, ""])


def write_settings(path: str | os.PathLike[str], settings: Settings) -> None:
    """Write settings atomically; a file that already says the same is left alone."""
    path, text = Path(path), settings_text(settings)
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_text(path, text)


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
