"""A run to play with: `explore` serves its page or writes it as files, `decode` decodes one scan as somebody chose."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import PATH, Command, backbone_options, out_option, run_argument
from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.pipeline import BackboneSource


@click.command(cls=Command, epilog="Example: unibrain explore my-run --beside other-run")
@run_argument
@click.option(
    "--beside", metavar="RUN", multiple=True, type=PATH, help="Another run to compare with; may be given again."
)
@click.option(
    "--export", "target", type=PATH, metavar="FOLDER", help="Serve nothing: write the pages into this folder as files."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to serve; others than this machine need a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8421, show_default=True, help="0 takes one that is free."
)
@backbone_options
def explore(
    run: Path, beside: tuple[Path, ...], target: Path | None, host: str, port: int, source: "BackboneSource"
) -> None:
    """Look at the run in RUN in a browser: move settings, paint activation, compare, read the numbers.

    The page is served on this machine alone, and asks nothing of any other. The run folder is locked until it is closed
    by Ctrl-C. Served elsewhere with --host, it can be opened with the token that is printed. With --export, the gallery
    and what experiments found are written as plain files.
    """
    from unibrain.explorer import export, open_session, serve
    from unibrain.explorer.export import check_folder
    from unibrain.pipeline import RunFolder

    if target is None:
        need_server()
    else:
        check_folder(target)
    with open_session(RunFolder(run), [RunFolder(other) for other in beside], source) as session:
        if target is not None:
            click.echo(f"Page, open it in a browser: {export(session, target).resolve()}")
            return

        def ready(address: str) -> None:
            click.echo(f"Open {address} in a browser; Ctrl-C closes it.")

        try:
            serve(session, host, port, ready)
        except KeyboardInterrupt:
            click.echo("closed")


def need_server() -> None:
    """Refuse where the server is not installed."""
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            raise InputError(
                f"`unibrain explore` needs the package {name}. Install it: pip install 'unibrain[explore]'."
            )


@click.command(cls=Command, epilog="Example: unibrain decode my-run --image 73 --picture image_weight=0.4,steps=30")
@run_argument
@click.option("--image", type=click.IntRange(min=0), help="Id of the test image whose scan is decoded.")
@click.option("--scan", type=PATH, help="Instead: a scan of your own, an .npy file with one number per voxel.")
@click.option("--use", help="Latents that take part, separated by commas; left out: all.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the noise; left out: that of the run.")
@click.option(
    "--picture", metavar="NAME=VALUE,...", default="", help="How pictures are sampled; the rest as in the run."
)
@click.option("--caption", metavar="NAME=VALUE,...", default="", help="The same for captions.")
@out_option("unibrain-decoded", "Folder of the picture and decoded.json; it is replaced.")
@backbone_options
def decode(
    run: Path,
    image: int | None,
    scan: Path | None,
    use: str | None,
    seed: int | None,
    picture: str,
    caption: str,
    out: Path,
    source: "BackboneSource",
) -> None:
    """Decode one scan of the run in RUN with settings of your own, into a picture and a caption.

    Settings are image_weight, guidance_scale, guidance_end, strength, steps, eta and sampler; what is left out is as
    the run decodes. Nothing in the run is changed.
    """
    import numpy as np

    from unibrain.explorer import open_session
    from unibrain.explorer.brain import inside, read_upload
    from unibrain.pipeline import RunFolder
    from unibrain.reconstruction import reconstruct, save_decoded

    if (image is None) == (scan is None):
        raise InputError("Name one test image (--image ID), or one scan (--scan FILE).")
    if out.exists() and not (out / "decoded.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds other things. Choose another folder by --out.")
    asked: dict[str, Any] = {"seed": seed, "use": None if use is None else [name.strip() for name in use.split(",")]}
    given = {"picture": sampling(picture, "--picture"), "caption": sampling(caption, "--caption")}
    asked["sampling"] = {kind: values for kind, values in given.items() if values}
    # Not locked: the page that the command was copied from may be open.
    with open_session(RunFolder(run), source=source, lock=False) as session:
        choice = session.choose(asked)
        if scan is None:
            latents = session.latents(int(image or 0))
        else:
            subject = session.bench.subject
            try:
                values = read_upload(scan.read_bytes(), subject.betas.shape[1], subject.grid_shape)
            except InputError as error:
                raise InputError(f"{scan}: {error}") from None
            latents = session.predict(inside(values, subject.voxel_indices, painted=False).astype(np.float32))
        decoded = reconstruct(session.bench.network, latents, **choice.options())
    save_decoded(out, decoded)
    click.echo(f"Picture and caption: {out.resolve()}")
    if decoded.captions is not None:
        click.echo(decoded.captions[0])


def sampling(text: str, option: str) -> dict[str, Any]:
    """Settings as ``NAME=VALUE,...``: numbers, or the name of a sampler."""
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = part.partition("=")
        if not sign or not value:
            raise InputError(f"{option} has {part!r}. Give settings as NAME=VALUE, separated by commas.")
        for kind in (int, float, str):
            try:
                found[name] = kind(value)
                break
            except ValueError:
                continue
    return found
