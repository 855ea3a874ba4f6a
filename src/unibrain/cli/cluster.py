"""`unibrain plan`, `status` and `push`: what a run has left to do, how far it is, and its latents elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unibrain.cli.options import PATH, Command, run_argument

if TYPE_CHECKING:
    from unibrain.pipeline import RunFolder


@click.command(cls=Command, epilog="Example: unibrain plan my-run --workers 8")
@run_argument
@click.option("--like", metavar="RUN", type=PATH, help="A run whose speed counts where this one was not measured.")
@click.option(
    "--workers", type=click.IntRange(1, 4096), default=1, show_default=True, help="Workers that share the shards."
)
def plan(run: Path, like: Path | None, workers: int) -> None:
    """Print what the run in RUN has left to do: its stages, their shards, the time they are expected to take, and disk.

    Times are those that were measured in this run, or in the run of --like, scaled to the number of images; what was
    never measured is a dash. Nothing is computed.
    """
    from unibrain.pipeline import RunFolder
    from unibrain.pipeline.plan import plan_run, plan_text

    for title, folder in _runs(run):
        found = plan_run(folder, None if like is None else RunFolder(like))
        click.echo(f"{title}{plan_text(found, folder.root, workers)}")


@click.command(cls=Command, epilog="Example: unibrain status my-run")
@run_argument
def status(run: Path) -> None:
    """Print how far the run in RUN is: stages that are done, and the shards of the one under way, with their logs.

    It reads the run folder alone, so it works from every machine that sees it, whoever runs it and wherever.
    """
    from unibrain.pipeline.plan import status_text

    for title, folder in _runs(run):
        click.echo(f"{title}{status_text(folder)}")


def _runs(root: Path) -> "list[tuple[str, RunFolder]]":
    """The run in a folder, or those of several subjects (`run --subjects`), each with a heading."""
    from unibrain.pipeline import RunFolder

    below = [one for one in map(RunFolder, sorted(root.glob("subj*"))) if one.settings.exists()]
    if RunFolder(root).begun or not below:
        return [("", RunFolder(root))]
    return [(f"\n{one.root.name}\n", one) for one in below]


@click.command(cls=Command, epilog="Example: unibrain push my-run s3://our-bucket/my-run")
@run_argument
@click.argument("address", metavar="ADDRESS")
def push(run: Path, address: str) -> None:
    """Copy the latents and the predictions of the run in RUN to an object store: ADDRESS/latents, ADDRESS/predicted.

    They are read there by their address (`unibrain.open_latents`), also by a decoder. Keys and endpoint are taken from
    the environment, as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.
    """
    from unibrain.pipeline import RunFolder
    from unibrain.pipeline.run import push_latents

    for name, place in push_latents(RunFolder(run), address).items():
        click.echo(f"{name}: {place}")
