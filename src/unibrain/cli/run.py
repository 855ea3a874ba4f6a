"""`unibrain run`: all stages of a settings file."""

from pathlib import Path

import click

from unibrain.cli.common import device_option, threads_option

__all__ = ["run", "show_scores"]


def show_scores(root: Path) -> None:
    """Print the score table of a run folder, and where its page is."""
    from unibrain.evaluation.scores import load_scores
    from unibrain.evaluation.scores import format_table
    from unibrain.workspace.run_folder import RunFolder

    folder = RunFolder(root)
    click.echo()
    click.echo(format_table(load_scores(folder.artefact("scores"))))
    click.echo()
    click.echo(f"Pictures and captions: {folder.artefact('decoded')}")
    click.echo(f"Scores: {folder.artefact('scores')}")
    click.echo(f"Page, open it in a browser: {folder.artefact('report').resolve()}")


@click.command(epilog="Example: unibrain run examples/settings.toml --out my-run")
@click.argument("settings", metavar="SETTINGS", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("unibrain-run"),
    show_default=True,
    help="Run folder; made if it is not there.",
)
@device_option
@threads_option
def run(settings: Path, out: Path, device: str, dtype: str, offload: bool, threads: int | None) -> None:
    """Run all stages of the settings file SETTINGS, one after the other, in a run folder.

    What is up to date is skipped, what its settings or inputs have changed is redone, and a run that was stopped
    continues. The settings are copied into the run folder; `examples/settings.toml` shows all of them.
    """
    from unibrain.pipeline import BackboneSource, read_settings, run_all
    from unibrain.workspace.progress import limit_threads
    from unibrain.workspace.run_folder import RunFolder

    limit_threads(threads)
    run_all(RunFolder(out), read_settings(settings), BackboneSource(device, dtype=dtype, offload=offload))
    show_scores(out)
