"""What the value of a setting may be, where its type alone does not say it."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from unibrain.pipeline.place import parse_place

_WORD = "[A-Za-z0-9][A-Za-z0-9_.+-]*"
_REGION = "[A-Za-z0-9][A-Za-z0-9_.+:-]*"


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
        name, _, file = map(str.strip, pair.partition("="))
        if not (file and re.fullmatch(_REGION, name)):
            raise ValueError("NAME=FILE, several separated by semicolons")
        if name in files:
            raise ValueError(f"a list in which each region is named once; {name} is there twice")
        files[name] = _absolute(file, info)
    return ";".join(f"{name}={file}" for name, file in files.items())


def _bands(value: str) -> str:
    names: set[str] = set()
    for band in value.split(","):
        name, _, regions = band.strip().partition("=")
        if not (re.fullmatch(_WORD, name) and all(re.fullmatch(_REGION, region) for region in regions.split("+"))):
            raise ValueError("bands such as early=V1+V2+V3,faces=faces")
        if name in names:
            raise ValueError(f"a list in which each band is named once; {name} is there twice")
        names.add(name)
    return value


def _sessions(value: str) -> str:
    if value != "present":
        from unibrain.scans.nsd_layout import parse_sessions

        try:
            parse_sessions(value)
        except ValueError as error:
            raise ValueError(f"numbers and ranges such as 1-37 or 1,2,5-8, or present; {error}") from None
    return value


def _controls(value: str) -> str:
    if value not in ("all", "none"):
        from unibrain.evaluation.controls import CONTROLS

        if any(name.strip() not in CONTROLS for name in value.split(",")):
            raise ValueError(f"all, none, or some of {', '.join(CONTROLS)}, separated by commas")
    return value


def _place(value: str) -> str:
    parse_place(value)
    return value


def _like(pattern: str, example: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(example)
        return value

    return AfterValidator(check)


PathText = Annotated[str, AfterValidator(_absolute)]
BackboneText = Annotated[str, AfterValidator(_backbone)]
SplitText = Annotated[str, AfterValidator(_split)]
RegionFiles = Annotated[str, AfterValidator(_named_files)]
Bands = Annotated[str, AfterValidator(_bands)]
Sessions = Annotated[str, AfterValidator(_sessions)]
Controls = Annotated[str, AfterValidator(_controls)]
PlaceText = Annotated[str, AfterValidator(_place)]
Name = Annotated[str, _like(_WORD, "a name of letters, digits, dots and dashes")]
SubjectLabel = Annotated[str, _like("(sub-)?[A-Za-z0-9]+", "a label such as sub-01")]
BetasPattern = Annotated[str, _like(r"[A-Za-z0-9_.*-]+", "a file name such as *_betas.nii.gz")]
Mask = Annotated[str, _like(_REGION, "a name such as nsdgeneral, V1+V2 or streams:ventral")]
Regions = Annotated[str, _like(f"{_REGION}(, ?{_REGION})*", "names such as default,lh,streams:ventral")]
Device = Annotated[str, _like(r"cpu|cuda(:\d{1,3})?", "cpu, cuda or cuda:1")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
