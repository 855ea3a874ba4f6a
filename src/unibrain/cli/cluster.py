"""`unibrain plan`, `status` and `push`: what a run has left to do, how far it is, and its latents elsewhere."""

from pathlib import Path

import click

from unibrain.cli.options import PATH, Command, run_argument


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

    found = plan_run(RunFolder(run), None if like is None else RunFolder(like))
    click.echo(plan_text(found, run, workers))


@click.command(cls=Command, epilog="Example: unibrain status my-run")
@run_argument
def status(run: Path) -> None:
    """Print how far the run in RUN is: stages that are done, and the shards of the one under way, with their logs.

    It reads the run folder alone, so it works from every machine that sees it, whoever runs it and wherever.
    """
    from unibrain.pipeline import RunFolder
    from unibrain.pipeline.plan import status_text

    click.echo(status_text(RunFolder(run)))


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
