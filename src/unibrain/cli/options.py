"""What commands share: their classes, options made from the settings of a stage, and paths as a shell has them."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from unibrain.pipeline import Section, Settings
    from unibrain.pipeline.settings import EngineSection
    from unibrain.workspace.shards import Engine

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command with `--threads` and `--quiet`, which act before anything heavy is imported."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        about = "Processor threads to use; left out: all."
        self.params.append(click.Option(["--threads"], type=click.IntRange(1, 4096), help=about))
        about = "Print results and errors only; or progress also where no terminal looks, such as into a log."
        self.params.append(click.Option(["--quiet/--verbose", "quiet"], default=None, help=about))

    def invoke(self, ctx: click.Context) -> Any:
        """Limit threads, choose what is shown, and call the command."""
        from unibrain.workspace.progress import limit_threads, show

        limit_threads(ctx.params.pop("threads"))
        quiet = ctx.params.pop("quiet")
        show("normal" if quiet is None else "quiet" if quiet else "verbose")
        try:
            return super().invoke(ctx)
        finally:
            show("normal")  # for whoever calls `main` from Python


class Group(click.Group):
    """A group that says which command was meant."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"There is no command {args[0]!r}.{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The known word that is most like `word`, as a question; nothing if there is none."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


class PathType(click.ParamType):  # type: ignore[type-arg]  # older versions of click take no argument
    """A path; ``~`` and ``~user`` are home folders, also behind ``=``, where a shell leaves them as they are."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Expand it."""
        try:
            return Path(value).expanduser()
        except RuntimeError:
            self.fail(f"{value}: no user of this name is known here.", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Let the shell complete it."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


PATH = PathType()


def run_argument(function: F) -> F:
    """Add the argument RUN, the run folder."""
    return click.argument("run", metavar="RUN", type=PATH)(function)


def out_option(default: str | None, about: str, *, required: bool = False) -> Callable[[F], F]:
    """Add ``--out``, where a command writes to."""
    shown = default is not None
    return click.option("--out", type=PATH, default=default, show_default=shown, required=required, help=about)


def backbone_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--device``, ``--dtype`` and ``--offload``, and hand them over as `source`, a `BackboneSource`."""

    @wraps(function)
    def with_source(*args: Any, device: str, dtype: str, offload: bool, **kwargs: Any) -> Any:
        from unibrain.pipeline import BackboneSource

        return function(*args, source=BackboneSource(device, dtype=dtype, offload=offload), **kwargs)

    about = "Let the parts of the backbone take turns on the device, for graphics cards with little memory."
    decorated: Callable[..., Any] = click.option("--offload", is_flag=True, help=about)(with_source)
    choice = click.Choice(["auto", "fp32", "bf16", "fp16"])
    about = "Precision of the backbone; auto takes fp32 for a small one, 16 bits for what would fill the memory."
    decorated = click.option("--dtype", type=choice, default="auto", show_default=True, help=about)(decorated)
    choice = click.Choice(["auto", "cpu", "cuda", "mps"])
    about = "Where the backbone runs; auto takes a graphics card if there is one."
    return click.option("--device", type=choice, default="auto", show_default=True, help=about)(decorated)


def engine_option(function: F) -> F:
    """Add ``--on``, where the shards of a command are done; see `engine_for`."""
    about = "Where shards are done: local[:WORKERS], dask:ADDRESS or slurm[:PARTITION,KEY=VALUE,...]; left out: as the "
    about += "run's settings say, or in this process."
    return click.option("--on", metavar="PLACE", help=about)(function)


def engine_settings(on: str | None, settings: "Settings") -> "EngineSection":
    """The section of the engine, in which ``--on`` stands if it was given."""
    return settings.changed("engine", {"on": on}, where="--", text=True).engine


def engine_for(on: str | None, settings: "Settings") -> "Engine | None":
    """The engine that ``--on`` names, or the settings; None for none."""
    section = engine_settings(on, settings)
    if section.on is None:
        return None
    from unibrain.engines import engine_of

    return engine_of(section.on, section.time_limit)


def settings_options(kind: "type[Section]", names: Sequence[str] | None = None) -> Callable[[F], F]:
    """Add an option for every setting of a stage (or those of `names`), named as in the settings file.

    Values stay text: `Settings.changed` checks them, and names the option. One that is not given is None.
    """

    def decorate(function: F) -> F:
        schema = kind.model_json_schema()["properties"]
        for name, field in reversed(kind.model_fields.items()):
            if names is not None and name not in names:
                continue
            option, about = f"--{name.replace('_', '-')}", str(field.description).rstrip(".")
            if isinstance(field.default, bool):
                function = click.option(f"{option}/--no-{option[2:]}", name, default=None, help=f"{about}.")(function)
                continue
            default = "" if field.default is None else f" [default: {field.default}]"
            allowed = _allowed(schema[name])
            function = click.option(
                option,
                name,
                metavar="|".join(allowed),
                help=f"{about}.{default}",
                shell_complete=partial(_complete, allowed),
            )(function)
        return function

    return decorate


def _complete(allowed: Sequence[str], ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """What the shell offers for a setting: its words, or files where it may be any text."""
    from click.shell_completion import CompletionItem

    if allowed == ["TEXT"]:
        return [CompletionItem(incomplete, type="file")]
    return [word for word in allowed if word.islower() and word.startswith(incomplete)]


def _allowed(schema: dict[str, Any]) -> list[str]:
    """What a setting may be, for its metavar: words, or a kind of value with its limits."""
    if "anyOf" in schema:
        return [word for part in schema["anyOf"] if part.get("type") != "null" for word in _allowed(part)]
    if "enum" in schema or "const" in schema:
        return list(schema.get("enum") or [schema["const"]])
    if schema["type"] == "string":
        return ["TEXT"]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    limits = "" if low is None else f" from {low}" if "minimum" in schema else f" above {low}"
    limits += f" to {schema['maximum']}" if schema.get("maximum", 1e9) < 1e6 else ""
    return [f"NUMBER{limits}"]
