"""Settings in a TOML file: read with every mistake named, written so that they read back equal."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.pipeline.options import Section, as_plain, nearest, option_of, problem, resolved
from unibrain.pipeline.settings import SECTIONS, Settings
from unibrain.workspace.files import write_text

__all__ = ["read_settings", "settings_text", "write_settings"]


def _section(path: Path, kind: type[Section], found: Mapping[str, object]) -> Section:
    settings = {setting.name: setting for setting in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key not in settings:
            raise InputError(
                f"{path}: [{kind.section}] holds the unknown key {key}{nearest(key, tuple(settings))}, "
                f"expected one of {', '.join(settings)}: correct or remove it"
            )
        wrong = problem(kind, settings[key], value)
        if wrong is not None:
            raise InputError(f"{path}: {key} in [{kind.section}] is {value!r}, {wrong}: correct it")
        values[key] = resolved(option_of(settings[key]), value, path.parent) if isinstance(value, str) else value
    return kind(**values)


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Read a settings file.

    Parameters
    ----------
    path : path-like
        TOML with a section per stage; what is left out has its default. With a section ``[simulate]`` (it may be empty)
        the run simulates its own subject; without one, ``[prepare]`` must name NSD's folder as ``root``.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If the file is missing or no TOML, or holds an unknown section, an unknown key, or a value that is not allowed.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there, expected a settings file: check the path") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise InputError(f"{path} is not a text file, expected settings in TOML: check the path") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{path} is not valid TOML ({error}), expected lines like `alpha = 1000`: correct it"
        ) from None
    values: dict[str, Any] = {}
    for name, content in found.items():
        if name not in SECTIONS:
            raise InputError(
                f"{path} holds the unknown section [{name}]{nearest(name, tuple(SECTIONS))}, "
                f"expected some of {', '.join(SECTIONS)}: correct or remove it"
            )
        if not isinstance(content, dict):
            raise InputError(f"{path}: {name} is {content!r}, expected a section [{name}]: put it in brackets")
        values[name] = _section(path, SECTIONS[name], content)
    try:
        return Settings(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _value(value: object) -> str:
    # A JSON string without escapes for letters is a TOML string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def settings_text(settings: Settings) -> str:
    """Write settings as commented TOML that `read_settings` reads back equal."""
    lines: list[str] = []
    for name, kind in SECTIONS.items():
        section = getattr(settings, name)
        if section is None:
            continue
        lines.append(f"[{name}]")
        abouts = {setting.name: option_of(setting) for setting in fields(kind)}
        for key, value in as_plain(section).items():
            lines.append(f"# {abouts[key].help}")
            lines.append(f"# {key} =" if value is None else f"{key} = {_value(value)}")
        lines.append("")
    return "\n".join(lines)


def write_settings(path: str | os.PathLike[str], settings: Settings) -> None:
    """Write settings atomically; a file that already says the same is left alone."""
    path, text = Path(path), settings_text(settings)
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        write_text(path, text)
