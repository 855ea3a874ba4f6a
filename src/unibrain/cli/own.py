"""`unibrain import`: a laboratory's own scans, pictures and table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from unibrain.cli.common import overridden, run_argument, settings_options, show_result, threads_option
from unibrain.errors import InputError
from unibrain.pipeline.settings import CustomSection

__all__ = ["import_"]

F = TypeVar("F", bound=Callable[..., Any])


def _region_option(function: F) -> F:
    about = "Mask of one region, NAME=FILE; may be given several times, together with --regions."
    return click.option("--region", "region", multiple=True, metavar="NAME=FILE", help=about)(function)


@click.command(
    "import",
    epilog="Example: unibrain import my-run --scans betas.npy --pictures shown --table trials.csv --region V1=V1.npy",
)
@run_argument
@settings_options(CustomSection)
@_region_option
@threads_option
def import_(run: Path, region: tuple[str, ...], threads: int | None, **chosen: Any) -> None:
    """Read your own scans into the run folder RUN: RUN/subject.npz, and the pictures with their captions RUN/stimuli.

    The table has one line per scan: its row in the matrix, the file name of the picture that was seen, and if you like
    captions, session and split. Without captions the caption side is switched off. After this, `unibrain extract` and
    what follows work as for NSD; docs/own-data.md shows all of it.
    """
    from unibrain.pipeline import kept_settings, run_one
    from unibrain.workspace.progress import limit_threads
    from unibrain.workspace.run_folder import RunFolder

    limit_threads(threads)
    if region:
        wrong = [text for text in region if ";" in text]
        if wrong:
            raise InputError(f"--region is {wrong[0]}, expected NAME=FILE without a semicolon: rename the file")
        chosen["regions"] = ";".join((*([chosen["regions"]] if chosen["regions"] else []), *region))
    folder = RunFolder(run)
    settings = overridden(kept_settings(folder), "custom", chosen)
    show_result(run, run_one("prepare", folder, settings))
