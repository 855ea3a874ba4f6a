"""What a setting may be: type, range, choices and help, written once for the file, Python and the command line."""

import difflib
import math
import re
import types
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from unibrain.errors import InputError

__all__ = [
    "Option",
    "Section",
    "as_plain",
    "choices",
    "expected",
    "nearest",
    "option",
    "option_of",
    "parse_text",
    "problem",
    "resolved",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is known of one setting beside its type.

    Attributes
    ----------
    help : str
        One sentence for the command line and the settings file.
    low, high : float or None
        Allowed range, both ends included.
    above : float or None
        Allowed values are greater than this.
    changes_result : bool
        False for what only changes speed, such as a batch size: no stage is redone for it.
    path : bool
        True for a path: relative ones are taken from the folder of the settings file.
    named_paths : bool
        True, with `path`, for ``NAME=PATH`` pairs separated by semicolons.
    names : tuple of str
        Words that are names and no paths.
    pattern : str
        Regular expression that text has to match as a whole.
    example : str
        What such text looks like, in words.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    changes_result: bool = True
    path: bool = False
    names: tuple[str, ...] = ()
    pattern: str = ""
    example: str = ""
    named_paths: bool = False


def option(
    default: T,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    changes_result: bool = True,
    path: bool = False,
    names: tuple[str, ...] = (),
    pattern: str = "",
    example: str = "",
    named_paths: bool = False,
) -> T:
    """Make a dataclass field that carries an `Option` (its parameters are those of `Option`)."""
    about = Option(help, low, high, above, changes_result, path, names, pattern, example, named_paths)
    return field(default=default, metadata={"option": about})


def option_of(setting: "Field[Any]") -> Option:
    """Return the `Option` of a field made by `option`."""
    return cast(Option, setting.metadata["option"])


def _types(owner: type, name: str) -> tuple[type, ...]:
    hint = get_type_hints(owner)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(str if get_origin(kind) is Literal else kind for kind in kinds)


def choices(owner: type, setting: "Field[Any]") -> tuple[str, ...]:
    """Words that the type of a setting names, ``Literal["easy", "realistic"]``; none if it may be any text."""
    hint = get_type_hints(owner)[setting.name]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))


def _bounds(about: Option) -> str:
    low, high, above = (None if bound is None else f"{bound:,}" for bound in (about.low, about.high, about.above))
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    return f" of at most {high}" if high is not None else ""


def expected(owner: type, setting: "Field[Any]") -> str:
    """Say in words what a setting may be, for example ``"a whole number of at least 1"``."""
    about, kinds = option_of(setting), _types(owner, setting.name)
    words = []
    if int in kinds:
        words.append("a whole number" + _bounds(about))
    elif float in kinds:
        words.append("a number" + _bounds(about))
    if bool in kinds:
        words.append("true or false")
    named = choices(owner, setting)
    if named:
        words += [f'"{choice}"' for choice in named]
    elif str in kinds:
        words.append(about.example or "text")
    return " or ".join(words)


def problem(owner: type, setting: "Field[Any]", value: object) -> str | None:
    """Say what is wrong with a value; None if it is allowed."""
    about, kinds = option_of(setting), _types(owner, setting.name)
    wrong = f"expected {expected(owner, setting)}"
    if value is None:
        return None if type(None) in kinds else wrong
    if isinstance(value, bool):
        return None if bool in kinds else wrong
    if isinstance(value, str):
        named = choices(owner, setting)
        if str not in kinds or (named and value not in named):
            return wrong + nearest(value, named)
        return wrong if about.pattern and not re.fullmatch(about.pattern, value) else None
    if isinstance(value, int) and not {int, float} & set(kinds):
        return wrong
    if isinstance(value, float) and (float not in kinds or not math.isfinite(value)):
        return wrong
    if not isinstance(value, int | float):
        return wrong
    inside = (about.low is None or value >= about.low) and (about.high is None or value <= about.high)
    return None if inside and (about.above is None or value > about.above) else wrong


def resolved(about: Option, value: str, folder: Path) -> str:
    """Make a path absolute, taken from `folder`; leave other text as it is."""
    if not about.path or value in about.names:
        return value
    if about.named_paths:
        one = replace(about, named_paths=False)
        pairs = (pair.partition("=") for pair in value.split(";"))
        return ";".join(f"{name}={resolved(one, path, folder)}" for name, _, path in pairs)
    return str((folder.resolve() / Path(value).expanduser()).resolve())


def nearest(word: str, words: tuple[str, ...]) -> str:
    """Suggest the closest of `words`: ``' (did you mean "alpha"?)'``, or nothing."""
    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f' (did you mean "{by_lower[close[0]]}"?)' if close else ""


def parse_text(owner: type, setting: "Field[Any]", text: str) -> object:
    """Turn what was typed on the command line into a value of the setting's type; leave it text if it is none."""
    kinds = _types(owner, setting.name)
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


@dataclass(frozen=True)
class Section:
    """Base of the settings of one stage, a section of the settings file: every value is checked when one is made.

    Raises
    ------
    InputError
        Naming the section, the key, the value and what is allowed.
    """

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            wrong = problem(type(self), setting, value)
            if wrong is not None:
                raise InputError(f"setting {setting.name} of [{self.section}] is {value!r}, {wrong}")
            if isinstance(value, int) and not isinstance(value, bool) and int not in _types(type(self), setting.name):
                # 3 and 3.0 are one setting: a record must not tell them apart.
                object.__setattr__(self, setting.name, float(value))


def as_plain(settings: Section, *, only_result: bool = False) -> dict[str, Any]:
    """Settings as a dict; with `only_result`, only those that change what the stage writes."""
    return {
        setting.name: getattr(settings, setting.name)
        for setting in fields(settings)
        if option_of(setting).changes_result or not only_result
    }
