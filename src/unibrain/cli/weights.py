"""`unibrain weights`: getting, importing, listing and checking published weights."""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from unibrain.cli.options import PATH, Group
from unibrain.errors import InputError
from unibrain.weights.published import ROLE_NAMES, DtypeChoice, Precision, Role

F = TypeVar("F", bound=Callable[..., Any])


def _choice_options(function: F) -> F:
    function = click.option("--pictures-only", is_flag=True, help="Do without Optimus, so without captions.")(function)
    function = click.option(
        "--dtype",
        type=click.Choice(get_args(DtypeChoice)),
        default="as-stored",
        show_default=True,
        help="Precision of the converted files.",
    )(function)
    return click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp16",
        show_default=True,
        help="Which published file of the flows to take: 5.1 or 10.3 GB.",
    )(function)


def _role_options(function: F) -> F:
    for role, about in reversed(ROLE_NAMES.items()):
        function = click.option(f"--{role}", type=PATH, help=f"{about[0].upper()}{about[1:]}.")(function)
    return function


def _agreement(yes: bool) -> Callable[[str], bool]:
    def agree(plan: str) -> bool:
        click.echo(plan)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise InputError("Standard input is no terminal to ask on. Add --yes to agree.")
        return click.confirm("Download under these licences?", default=True)

    return agree


def _refuse_options(what: str, allowed: Collection[str]) -> None:
    """Refuse options that were given and have nothing to do with what is got."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in allowed:
            raise InputError(f"{parameter.opts[0]} has nothing to do with {what}. Leave it out.")


def _next(name: str) -> None:
    click.echo(f"Next: unibrain weights verify {name}")
    click.echo(f"Then: unibrain extract my-run --backbone {name}")


@click.group(cls=Group, epilog="Example: unibrain weights fetch official")
def weights() -> None:
    """Get the published Versatile Diffusion and the networks of published scores, and look at what is on this machine.

    `fetch` downloads; `import` takes files that are on disk already; `list` and `verify` show and check what is there.
    """


@weights.command(
    short_help="Download the published weights.",
    epilog="Example: unibrain weights fetch official --pictures-only",
)
@click.argument("name", type=click.Choice(["official", "metrics"]))
@_choice_options
@click.option("--repository", help="Versatile Diffusion's repository on the hub, owner/name; left out: the known two.")
@click.option("--revision", help="Commit, branch or tag of that repository; left out: main.")
@click.option("--with-swav", is_flag=True, help="With metrics: also SwAV, which is not for commercial use.")
@click.option("--yes", is_flag=True, help="Do not ask before downloading.")
@click.option("--replace", is_flag=True, help="Fetch and convert again, and replace what is there.")
def fetch(
    name: str,
    precision: Precision,
    dtype: DtypeChoice,
    pictures_only: bool,
    repository: str | None,
    revision: str | None,
    with_swav: bool,
    yes: bool,
    replace: bool,
) -> None:
    """Download what NAME says: the official backbone, which is converted, or the networks of published scores.

    official is Versatile Diffusion, from the Hugging Face hub. metrics are AlexNet, Inception-v3, EfficientNet-B1 and
    CLIP, from PyTorch's server and the hub; SwAV is under CC BY-NC 4.0 and comes with --with-swav.

    Sources, licences, sizes and free disk are shown first. Files that are complete are not downloaded again. The hub's
    own variables are followed: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.
    """
    agree = _agreement(yes)
    if name == "metrics":
        _refuse_options("metrics", ("name", "with_swav", "yes"))
        from unibrain.evaluation.networks.fetching import fetch_networks, usual_names
        from unibrain.evaluation.networks.weights import metrics_home

        got = fetch_networks(usual_names(with_swav=with_swav), metrics_home(), agree)
        click.echo("Nothing was downloaded." if got is None else f"{metrics_home()}: {len(got)} files were downloaded")
        return
    if with_swav:
        raise InputError("--with-swav has nothing to do with official. Leave it out, or fetch metrics.")
    from unibrain.backbone.folder import backbones_home
    from unibrain.weights.fetch import fetch_official
    from unibrain.weights.published import official_sources

    sources = official_sources(precision, pictures_only=pictures_only, repository=repository, revision=revision)
    fetched = fetch_official(sources, backbones_home(), dtype=dtype, agree=agree, replace=replace)
    if fetched.state == "declined":
        click.echo("Nothing was downloaded.")
        return
    click.echo(f"{fetched.folder}{' (was there already; --replace does it again)' * (fetched.state == 'was there')}")
    if fetched.state == "converted":
        click.echo("The downloaded files stay in the hub's cache; they are no longer needed for decoding.")
    _next(name)


@weights.command(
    "import",
    short_help="Take published weights from disk.",
    epilog="Example: unibrain weights import /data/downloads --name official",
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@_role_options
@_choice_options
@click.option("--name", default="official", show_default=True, help="What the backbone will be called.")
@click.option("--replace", is_flag=True, help="Replace a backbone of this name that was made otherwise.")
@click.option("--metrics", is_flag=True, help="Take the networks of published scores instead of a backbone.")
def import_(
    paths: tuple[Path, ...],
    precision: Precision,
    dtype: DtypeChoice,
    pictures_only: bool,
    name: str,
    replace: bool,
    metrics: bool,
    **files: Path | None,
) -> None:
    """Convert published weights that are on disk already, without any network.

    PATH is a file, or a folder that is searched with its subfolders: plain downloads, the hub's cache or a snapshot of
    it, a folder in diffusers' format. Files are known by their published names; others are given with their option.
    --diffusers stands for --flows, --autokl and --clip. With --metrics, files are known by their content.
    """
    if metrics:
        _refuse_options("--metrics", ("paths", "metrics"))
        if not paths:
            raise InputError("Nothing to import was given. Give PATH.")
        from unibrain.evaluation.networks.fetching import import_networks
        from unibrain.evaluation.networks.weights import metrics_home

        click.echo("\n".join(map(str, import_networks(paths, metrics_home()))))
        return
    if name == "small" or Path(name).name != name or name.startswith("."):
        raise InputError(f"--name is {name!r}. Give a plain name other than small, such as official.")
    given: dict[Role, Path] = {role: path for role in ROLE_NAMES if (path := files[role.replace("-", "_")]) is not None}
    if not paths and not given:
        raise InputError("Nothing to import was given. Give PATH, or --flows FILE and so on.")
    from unibrain.backbone.folder import backbones_home
    from unibrain.weights.conversion import import_backbone
    from unibrain.weights.published import find_files

    found = find_files(paths, given, precision=precision, pictures_only=pictures_only)
    for role, path in found.items():
        click.echo(f"{role:<12} {path}")
    click.echo(str(import_backbone(found, backbones_home(), name, dtype, replace=replace)))
    _next(name)


@weights.command("list", short_help="Show the backbones on this machine.", epilog="Example: unibrain weights list")
def list_() -> None:
    """Show the backbones on this machine (size, precision, sources, folder), and which networks of scores are there.

    Each backbone's name can be given as --backbone; a folder elsewhere is given by its path.
    """
    from unibrain.backbone.folder import backbone_folder, backbones_home
    from unibrain.evaluation.networks.weights import NETWORKS, command_for, metrics_home, present
    from unibrain.weights.manifest import kept_backbones
    from unibrain.workspace.files import readable_bytes

    home = backbones_home()
    kept = kept_backbones([("small", backbone_folder("small"))], home)
    width = max(len(name) for name, _, _ in kept)
    for name, folder, about in kept:
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        click.echo(f"{name:<{width}}  {readable_bytes(size):>8}  {about}\n{'':<{width}}  {folder}")
    if not any(name == "official" for name, _, _ in kept):
        click.echo(f"official is not in {home}: unibrain weights fetch official")
    click.echo("\nNetworks of published scores:")
    for network in NETWORKS.values():
        there = all(present(network, metrics_home()))
        download = readable_bytes(network.parts[0][0].size)
        state = "there" if there else f"not there: {command_for(network)}"
        click.echo(f"{network.name:<20}{download:>8}  {network.title}, {state}")


@weights.command(short_help="Check the files of a backbone.", epilog="Example: unibrain weights verify official")
@click.argument("name", default="official")
def verify(name: str) -> None:
    """Check a converted backbone: every file's hash, every key and shape, and what its manifest says.

    NAME is a name from `unibrain weights list` or a folder; left out: official.
    """
    from unibrain.backbone.folder import backbone_folder
    from unibrain.weights.conversion import verify as check

    folder = backbone_folder(name)
    if name == "official" and not folder.exists():
        raise InputError(f"{folder}: the official backbone is not there. Run unibrain weights fetch official.")
    manifest = check(folder)
    if manifest is None:
        click.echo(f"{folder}: keys, shapes and vocabularies are right; it has no manifest, so hashes were not checked")
        return
    for part, record in manifest.parts.items():
        click.echo(f"{part:<8} {record.parameters / 1e6:8.1f} M parameters  {record.dtype:<9} from {record.source}")
    for note in manifest.notes:
        click.echo(f"Note: {note}")
    click.echo(f"{folder}: all {len(manifest.files)} files are as they were written on {manifest.date[:10]}")
