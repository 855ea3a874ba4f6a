"""What a setting may be: type, range, choices and help, written once for the file, Python and the command line."""

import difflib
import math
import types
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from unibrain.errors import InputError

__all__ = ["Option", "StageSettings", "as_plain", "expected", "nearest", "option", "option_of", "parse_text", "problem"]

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
    choices : tuple of str
        Allowed words; for a number with words beside it, the words.
    changes_result : bool
        False for what only changes speed, such as a batch size: no stage is redone for it.
    path : bool
        True for a path: relative ones are taken from the folder of the settings file.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    changes_result: bool = True
    path: bool = False


def option(
    default: T,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    changes_result: bool = True,
    path: bool = False,
) -> T:
    """Make a dataclass field that carries an `Option` (its parameters are those of `Option`)."""
    about = Option(help, low, high, above, choices, changes_result, path)
    return cast(T, field(default=default, metadata={"option": about}))


def option_of(setting: "Field[Any]") -> Option:
    """Return the `Option` of a field made by `option`."""
    return cast(Option, setting.metadata["option"])


def _types(owner: type, name: str) -> tuple[type, ...]:
    hint = get_type_hints(owner)[name]
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)


def _bounds(about: Option) -> str:
    if about.low is not None and about.high is not None:
        return f" from {about.low:g} to {about.high:g}"
    if about.low is not None:
        return f" of at least {about.low:g}"
    if about.above is not None:
        return f" above {about.above:g}" + (f" and at most {about.high:g}" if about.high is not None else "")
    return f" of at most {about.high:g}" if about.high is not None else ""


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
    if about.choices:
        words += [f'"{choice}"' for choice in about.choices]
    elif str in kinds:
        words.append("text")
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
        if str not in kinds or (about.choices and value not in about.choices):
            return wrong + nearest(value, about.choices)
        return None
    if isinstance(value, int) and not {int, float} & set(kinds):
        return wrong
    if isinstance(value, float) and (float not in kinds or not math.isfinite(value)):
        return wrong
    if not isinstance(value, int | float):
        return wrong
    inside = (about.low is None or value >= about.low) and (about.high is None or value <= about.high)
    return None if inside and (about.above is None or value > about.above) else wrong


def nearest(word: str, words: tuple[str, ...]) -> str:
    """Suggest the closest of `words`: ``' (did you mean "alpha"?)'``, or nothing."""
    close = difflib.get_close_matches(word, words, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


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


class StageSettings:
    """Base of the settings of a stage: every value is checked when one is made.

    Raises
    ------
    InputError
        Naming the section, the key, the value and what is allowed.
    """

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
            value = getattr(self, setting.name)
            wrong = problem(type(self), setting, value)
            if wrong is not None:
                raise InputError(f"setting {setting.name} of [{self.section}] is {value!r}, {wrong}")
            if isinstance(value, int) and not isinstance(value, bool) and int not in _types(type(self), setting.name):
                # 3 and 3.0 are one setting: a record must not tell them apart.
                object.__setattr__(self, setting.name, float(value))


def as_plain(settings: StageSettings, *, only_result: bool = False) -> dict[str, Any]:
    """Settings as a dict; with `only_result`, only those that change what the stage writes."""
    return {
        setting.name: getattr(settings, setting.name)
        for setting in fields(settings)  # type: ignore[arg-type]
        if option_of(setting).changes_result or not only_result
    }
