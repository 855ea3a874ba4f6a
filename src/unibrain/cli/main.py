"""`unibrain`: the command line. Parses, calls one public function, prints; nothing heavy is imported until it runs."""

import os
from collections.abc import Sequence
from importlib import import_module

import click

from unibrain import __version__
from unibrain.cli.stopping import stoppable
from unibrain.errors import InputError

__all__ = ["COMMANDS", "LazyGroup", "cli", "main"]

COMMANDS = {
    "demo": ("unibrain.cli.demo:demo", "Decode pictures and captions from simulated scans, start to end."),
    "run": ("unibrain.cli.run:run", "Run all stages of a settings file."),
    "simulate": ("unibrain.cli.stages:simulate", "Write a simulated subject in NSD's file layout."),
    "prepare": ("unibrain.cli.stages:prepare", "Read scans in NSD's layout into one row per image."),
    "import": ("unibrain.cli.own:import_", "Read your own scans, pictures and table."),
    "extract": ("unibrain.cli.stages:extract", "Turn pictures and captions into the four latents."),
    "fit": ("unibrain.cli.stages:fit", "Fit the four ridge regressions from voxels to latents."),
    "reconstruct": ("unibrain.cli.stages:reconstruct", "Decode a picture and a caption for every unseen image."),
    "evaluate": ("unibrain.cli.stages:evaluate", "Score what was decoded, beside shuffled controls."),
    "report": ("unibrain.cli.stages:report", "Write the page that shows the run."),
    "audit": ("unibrain.cli.audit:audit", "Look for missing data and for training images in the test set."),
    "export-weights": ("unibrain.cli.export_weights:export_weights", "Write ridge weights, for maps of voxels."),
    "backbone": ("unibrain.cli.backbone:backbone", "Look at the frozen generative model."),
    "weights": ("unibrain.cli.weights:weights", "Get, list and check the published weights."),
    "nsd": ("unibrain.cli.nsd:nsd", "Download the Natural Scenes Dataset and COCO's captions."),
    "doctor": ("unibrain.cli.doctor:doctor", "Check libraries, machine and weights, and say what moved or lacks."),
}
"""Command to where it is and its line in `unibrain --help`, in the order in which they are shown."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one only when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: unibrain demo --out unibrain-demo",
)
@click.version_option(__version__, "-V", "--version", prog_name="unibrain")
def cli() -> None:
    """Decode what a person saw from an fMRI scan: a picture and a sentence.

    Four ridge regressions lead from voxels to the latents of a frozen Versatile Diffusion model. Start with
    `unibrain demo`: it needs no data, no network and no graphics card.
    """


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{(error.strerror or str(error)).lower()}: check the path, its permissions and the disk"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        0 if all went well, 1 if a command that checks something found a problem, 2 for a mistake in the input (one
        sentence on standard error), 130 if it was stopped.
    """
    try:
        with stoppable():
            given = None if arguments is None else list(arguments)
            result = cli.main(args=given, prog_name="unibrain", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("\nstopped; run the same command to continue", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    except OSError as error:
        if os.environ.get("UNIBRAIN_TRACEBACK"):
            raise
        click.echo(f"Error: {_sentence(error)}", err=True)
        return 2
