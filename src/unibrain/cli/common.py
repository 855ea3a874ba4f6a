"""What commands share: options made from settings, a stage run over its folder, what to say afterwards."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unibrain.pipeline.settings import Section, Settings

if TYPE_CHECKING:
    from unibrain.workspace.stages import StageResult

__all__ = [
    "NEXT",
    "device_option",
    "overridden",
    "run_argument",
    "settings_options",
    "show_result",
    "threads_option",
]

F = TypeVar("F", bound=Callable[..., Any])

NEXT = {
    "simulate": "prepare",
    "prepare": "extract",
    "extract": "fit",
    "fit": "reconstruct",
    "reconstruct": "evaluate",
    "evaluate": "report",
}
"""Stage to the one that comes after it."""


def run_argument(function: F) -> F:
    """Add the argument RUN, the run folder."""
    return click.argument("run", metavar="RUN", type=click.Path(path_type=Path))(function)


def device_option(function: F) -> F:
    """Add ``--device``, ``--dtype`` and ``--offload``."""
    about = "Let the parts of the backbone take turns on the device, for graphics cards with little memory."
    function = click.option("--offload", is_flag=True, help=about)(function)
    choice = click.Choice(["auto", "fp32", "bf16", "fp16"])
    about = "Precision of the backbone; auto takes fp32 for a small one, 16 bits for what would fill the memory."
    function = click.option("--dtype", type=choice, default="auto", show_default=True, help=about)(function)
    choice = click.Choice(["auto", "cpu", "cuda", "mps"])
    about = "Where the backbone runs; auto takes a graphics card if there is one."
    return click.option("--device", type=choice, default="auto", show_default=True, help=about)(function)


def threads_option(function: F) -> F:
    """Add ``--threads``."""
    about = "Processor threads to use; left out: all."
    return click.option("--threads", type=click.IntRange(min=1), default=None, help=about)(function)


def settings_options(kind: type[Section]) -> Callable[[F], F]:
    """Add an option for every setting of a stage, named as in the settings file.

    An option that is not given is None: it stays as the run folder has it.

    Parameters
    ----------
    kind : type
        A class of settings.

    Returns
    -------
    callable
        A decorator.
    """

    def decorate(function: F) -> F:
        for name, field in reversed(kind.model_fields.items()):
            switch = field.annotation is bool
            option = f"--{name.replace('_', '-')}"
            default = "" if field.default is None or switch else f" [default: {field.default}]"
            function = click.option(
                f"{option}/--no-{option[2:]}" if switch else option,
                name,
                default=None,
                metavar=None if switch else "VALUE",
                help=f"{field.description}{default}",
            )(function)
        return function

    return decorate


def overridden(settings: Settings, section: str, chosen: Mapping[str, Any]) -> Settings:
    """Replace the settings of one stage by the options that were given.

    Parameters
    ----------
    settings : Settings
    section : str
        Name of the stage.
    chosen : mapping of str to object
        Options by the name of their setting; None stands for one that was not given.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If a value is not allowed; the sentence names the option.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    return settings.changed(section, given, where="--", text=True)


def show_result(run: Path, result: "StageResult") -> None:
    """Print what a stage wrote and what to do next."""
    for path in result.outputs:
        click.echo(f"{path}{' (up to date)' if result.skipped else ''}")
    following = NEXT.get(result.name)
    if following is None:
        click.echo(f"Open {result.outputs[0]} in a browser.")
    else:
        click.echo(f"Next: unibrain {following} {run}")
