"""Settings as a TOML file, with a section per stage: reading it and writing it."""

import json
import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from unibrain.errors import InputError
from unibrain.pipeline.settings import SECTIONS, Section, Settings, nearest, settings_problem, shown
from unibrain.workspace.files import write_text

_FIRST = "# Settings of this run, as unibrain keeps them. Change values, and leave the first and the last line alone."
_LAST = "# End of the settings."


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
    try:
        for name, content in found.items():
            if name not in SECTIONS:
                raise InputError(f"{path}: [{shown(name)}] is not a section.{nearest(name, SECTIONS)}")
            if not isinstance(content, dict):
                raise InputError(f"{path}: {name} is {shown(content)}, and has to be a section [{name}].")
            sections[name] = SECTIONS[name].model_validate(content, context={"folder": path.absolute().parent})
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
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"# {key} =" if value is None else f"{key} = {text}")
        lines.append("")
    return "\n".join([*lines, _LAST, ""])


def write_settings(path: str | os.PathLike[str], settings: Settings) -> None:
    """Write settings atomically; a file that already says the same is left alone."""
    path, text = Path(path), settings_text(settings)
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_text(path, text)
