"""`unibrain`: the command line. Parses, calls one public function, prints; nothing heavy is imported until it runs."""

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

import click

from unibrain import __version__
from unibrain.cli.options import Group
from unibrain.errors import InputError, UnfinishedError

COMMANDS = {
    "demo": ("run:demo", "Decode pictures and captions from simulated scans, start to end."),
    "run": ("run:run", "Run all stages of a settings file."),
    "simulate": ("stages:simulate", "Write a simulated subject in NSD's file layout."),
    "prepare": ("stages:prepare", "Read scans in NSD's layout into one row per image."),
    "import": ("stages:import_", "Read your own scans, pictures and table."),
    "extract": ("stages:extract", "Turn pictures and captions into the four latents."),
    "fit": ("stages:fit", "Fit the four ridge regressions from voxels to latents."),
    "reconstruct": ("stages:reconstruct", "Decode a picture and a caption for every unseen image."),
    "controls": ("stages:controls", "Decode controls and ceilings: without the scans, and from the truth."),
    "evaluate": ("evaluate:evaluate", "Score what was decoded, beside shuffled controls."),
    "report": ("stages:report", "Write the page that shows the run."),
    "plan": ("run:plan", "What a run has left to do: shards, hours, disk."),
    "status": ("run:status", "How far a run is, from any machine."),
    "push": ("run:push", "Copy latents and predictions to an object store."),
    "scores": ("run:scores", "Print the scores of a run: as a table, JSON or CSV."),
    "audit": ("checks:audit", "Look for missing data and for training images in the test set."),
    "split": ("run:split", "Leave whole clusters of images out, beside a naive split."),
    "ablate": ("experiments:ablate", "What each latent gives: without it, and from it alone."),
    "sweep": ("experiments:sweep", "How settings trade pixels for meaning, and which to take."),
    "repeats": ("experiments:repeats", "What more scans of an image give, and more samples of a scan."),
    "regions": ("experiments:regions", "What regions carry: active, alone, left out; and a map of voxels."),
    "align": ("experiments:align", "How well each latent is predicted, and where that breaks."),
    "transfer": ("experiments:transfer", "Decode another subject's scans with this decoder."),
    "further": ("experiments:further", "Decode NSD-Synthetic and NSD-Imagery, further scans of the person."),
    "captions": ("experiments:captions", "What the source of the captions does to decoding."),
    "compare": ("experiments:compare", "Put runs side by side, or subjects into one table."),
    "explore": ("explore:explore", "Look at a run in a browser: move settings, paint activation, compare."),
    "decode": ("explore:decode", "Decode one scan with settings of your own."),
    "export-weights": ("run:export_weights", "Write ridge weights, for maps of voxels."),
    "weights": ("weights:weights", "Get, list and check the published weights."),
    "nsd": ("nsd:nsd", "Download the Natural Scenes Dataset and COCO's captions."),
    "doctor": ("checks:doctor", "Check libraries, machine and weights, and say what moved or lacks."),
}
"""Command to where it is in `unibrain.cli`, and its line in `unibrain --help`, in the order in which they are shown."""

QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Threads that wait for work sleep: where other programs run, spinning ones make everything several times slower."""

_STOPPED = 130
_AGAIN = 0.02


class LazyGroup(Group):
    """A group that knows its commands by name, and imports one only when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(f"unibrain.cli.{module}"), name)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        0 if all went well, 1 if a command that checks something found a problem, or if shards of a stage are missing, 2
        for what a file or an option of the user made impossible (one sentence on standard error; UNIBRAIN_TRACEBACK=1
        shows where), 130 if it was stopped.
    """
    for name, value in QUIET_THREADS.items():
        # The libraries read it when they are imported, which no command has done yet.
        os.environ.setdefault(name, value)
    with stoppable():
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        if code == _STOPPED and arguments is None:
            # The interpreter takes a moment to end, and another Ctrl-C would print a traceback from there.
            sys.stdout.flush()
            os._exit(code)
    return code


def _run(arguments: list[str]) -> int:
    try:
        _check_text(arguments)
        result = cli.main(args=arguments, prog_name="unibrain", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end_bars()
        click.echo("\nstopped; run the same command to continue", err=True)
        return _STOPPED
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        click.echo(_short(shown.getvalue()), err=True, nl=False)
        return 2
    except UnfinishedError as error:
        _end_bars()
        click.echo(f"Unfinished: {error}", err=True)
        return 1
    except Exception as error:
        _end_bars()
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("UNIBRAIN_TRACEBACK"):
            raise
        click.echo(f"Error: {_short(sentence)}", err=True)
        return 2


def _check_text(arguments: list[str]) -> None:
    for argument in arguments:
        if "\0" in argument or (not argument.isascii() and argument.encode(errors="ignore").decode() != argument):
            raise click.UsageError(f"{ascii(argument)[:80]} is not text in Unicode. Rename it, or write it otherwise.")


def _short(sentence: str) -> str:
    """A sentence in which no word is endless: what was typed is named, not repeated."""
    return re.sub(r"\S{300,}", lambda word: f"{word[0][:60]}...{word[0][-60:]}", sentence)


def _end_bars() -> None:
    from unibrain.workspace.progress import end_bars

    end_bars()


def sentence_of(error: Exception) -> str | None:
    """What to tell the user of an error that a file or an option caused; None for a bug of our own."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}. Check the path, its permissions and the disk."
    reason = " ".join(str(error).split())[:200]
    # torch raises errors of its own when memory runs out, and is not imported to ask.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in reason
    ):
        return f"There is not enough memory for what this file or option asks for ({reason or 'out of memory'})."
    if isinstance(error, RecursionError):
        return "A file is nested too deeply to be read. Check what was given; UNIBRAIN_TRACEBACK=1 shows where."
    if isinstance(error, (OverflowError, UnicodeError)):
        return f"A file or option cannot be read ({reason}). Check what was given; UNIBRAIN_TRACEBACK=1 shows where."
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("unibrain"):
        return f"The package {error.name} is not installed. Install it with pip, or install unibrain again."
    return None


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or being asked to end.

    CPython notes a plain KeyboardInterrupt that passes through `exec` (as it may during an import), and then ends the
    process by a signal, whatever exit code it was given; a class of its own is not noted.
    """


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block on SIGINT (Ctrl-C) and SIGTERM (a cluster's queue, `kill`), so that it cleans up.

    A signal is handled wherever Python happens to be. Inside a weak reference's callback, where h5py spends much of
    its time, Python drops every exception; a `Stopped` that is dropped there is raised once more, a moment later. A
    second Ctrl-C ends the process at once, without cleaning up: the next run sweeps what is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [signal.SIGTERM, signal.SIGALRM]
    # Where Ctrl-C is ignored, as a shell has it for what runs in the background, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signals.append(signal.SIGINT)
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if asked and number != signal.SIGALRM:
            os._exit(_STOPPED)
        asked.append(number)
        raise Stopped

    hook = sys.unraisablehook

    def again(dropped: Any) -> None:
        if issubclass(dropped.exc_type, Stopped):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            hook(dropped)

    handlers = {number: signal.signal(number, stop) for number in signals}
    sys.unraisablehook = again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
