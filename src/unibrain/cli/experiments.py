"""The experiments as commands: they open a finished run, print a table, and write a page."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import Command, backbone_options, run_argument

if TYPE_CHECKING:
    from unibrain.experiments import Bench, Findings
    from unibrain.pipeline import BackboneSource

_IMAGES = "Test images that take part, spread evenly over all of them."
_BUDGET = "Minutes that it may be expected to decode for; a longer experiment asks for more before it begins."


def experiment(
    name: str, about: str, example: str, images: int = 30
) -> Callable[[Callable[..., "Findings"]], click.Command]:
    """Make a command of a function of a bench and the command's own options."""

    def decorate(function: Callable[..., "Findings"]) -> click.Command:
        def command(run: Path, images: int, budget: float, source: "BackboneSource", **chosen: Any) -> None:
            from unibrain.experiments import open_bench
            from unibrain.pipeline import RunFolder

            with open_bench(RunFolder(run), images, source=source, budget=budget) as bench:
                finish(bench.run.experiments, function(bench, **chosen))

        # Options of the function itself come before those that all experiments share.
        command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        decorated: Any = backbone_options(command)
        decorated = click.option(
            "--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, help=_BUDGET
        )(decorated)
        decorated = click.option("--images", type=int, default=images, show_default=True, help=_IMAGES)(decorated)
        epilog = f"Example: unibrain {example}"
        return click.command(name, cls=Command, help=about, epilog=epilog)(run_argument(decorated))

    return decorate


def finish(folder: Path, findings: "Findings") -> None:
    """Write what was found, and print it."""
    from unibrain.experiments import as_text, write_findings
    from unibrain.experiments.findings import write_index

    page = write_findings(folder / findings.name, findings)
    write_index(folder)
    click.echo(f"\n{as_text(findings)}\n")
    click.echo(f"Table: {page.with_name('table.csv')}")
    click.echo(f"Page, open it in a browser: {page.resolve()}")


@experiment(
    "ablate",
    """Decode without each latent and from each alone, and score every setting against the full one.

    The rows are those of the paper's ablation tables. Needs a run that has reached `reconstruct`; what was decoded
    before is not decoded again.
    """,
    "ablate my-run --images 30",
)
def ablate(bench: "Bench") -> "Findings":
    """See the help of the command."""
    from unibrain.experiments import ablate as work

    return work(bench)
