"""The stages as commands: `unibrain simulate` to `unibrain report`, and `unibrain import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import Command, backbone_options, engine_for, engine_option, run_argument, settings_options
from unibrain.errors import InputError
from unibrain.pipeline import SECTIONS, STAGES

if TYPE_CHECKING:
    from unibrain.pipeline import BackboneSource


def _run_stage(
    name: str,
    section: str,
    run: Path,
    chosen: dict[str, Any],
    with_earlier: bool = False,
    source: "BackboneSource | None" = None,
    on: str | None = None,
) -> None:
    from unibrain.pipeline import RunFolder, kept_settings, run_one

    folder = RunFolder(run)
    settings = kept_settings(folder).changed(section, chosen, where="--", text=True)
    result = run_one(name, folder, settings, source, with_earlier, engine=engine_for(on, settings))
    for path in result.outputs:
        click.echo(f"{path}{' (up to date)' if result.skipped else ''}")
    if name == "fit":
        click.echo(f"\n{_penalties(result.outputs[0])}\n")
    if name == "report":
        click.echo(f"Open {result.outputs[0].resolve()} in a browser.")
    else:
        click.echo(f"Next: unibrain {STAGES[STAGES.index(name) + 1]} {run}")


def _penalties(decoder: Path) -> str:
    """The penalties that were chosen, and how well training images that were left out were predicted with them."""
    from unibrain.regression import load_choices

    choices, bands = load_choices(decoder)
    width = max(map(len, choices), default=0)
    lines = [f"{'latent':<{width}}               penalty  explained variance  correlation"] if choices else []
    for name, choice in choices.items():
        low, high = choice.best.min(), choice.best.max()
        penalty = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        best = range(choice.groups), choice.best_step
        r2, correlation = choice.r2[best].mean(), choice.correlation[best].mean()
        lines.append(f"{name:<{width}}  {penalty:>20}  {r2:>18.3f}  {correlation:>11.3f}")
    if bands is not None:
        lines += [f"{'band':<12}" + "".join(f"  {name:>10}" for name in bands.latents)]
        for band, row in zip(bands.bands, bands.penalties.T, strict=True):
            lines.append(f"{band:<12}" + "".join(f"  {penalty:>10.3g}" for penalty in row))
    if not lines:
        return "The penalty was given, so nothing was cross-validated."
    return "\n".join([*lines, "Chosen by how well training images that were left out are predicted from the others."])


def _stage(name: str, about: str, example: str, backbone: bool = False) -> click.Command:
    def command(
        run: Path,
        with_earlier: bool = False,
        source: "BackboneSource | None" = None,
        on: str | None = None,
        **chosen: Any,
    ) -> None:
        _run_stage(name, name, run, chosen, with_earlier, source, on)

    decorated: Any = backbone_options(command) if backbone else command
    if backbone or name == "fit":
        decorated = engine_option(decorated)
    if name != "simulate":
        earlier = "First run the stages above this one that are not up to date, instead of refusing."
        decorated = click.option("--with-earlier", is_flag=True, help=earlier)(decorated)
    decorated = settings_options(SECTIONS[name])(decorated)
    return click.command(name, cls=Command, help=about, epilog=f"Example: unibrain {example}")(run_argument(decorated))


simulate = _stage(
    "simulate",
    """Write a simulated subject into the run folder RUN, in the file layout of the Natural Scenes Dataset.

    The subject sees composed scenes; its early voxels follow image filters, its semantic voxels objects and keywords.
    No human is scanned, and every page made of it says so. Options are kept in RUN/settings.toml.
    """,
    "simulate my-run --difficulty realistic",
)

prepare = _stage(
    "prepare",
    """Read one subject's scans into RUN/subject.npz: one row per image, repeats averaged, voxels z-scored.

    Scans are those that `unibrain simulate` wrote, or real ones in NSD's layout, named by --root. The mean and
    deviation of the z-scores are those of the training images alone.
    """,
    "prepare my-run --root /data/NSD --subject 1 --sessions 1-37",
)

extract = _stage(
    "extract",
    """Encode the pictures and captions that were seen into the four latents, RUN/latents.

    They are the image latent (AutoKL), the text latent (Optimus), and the CLIP tokens of pictures and of captions: what
    the regressions are trained to predict.
    """,
    "extract my-run --batch-size 32",
    backbone=True,
)

fit = _stage(
    "fit",
    """Fit four ridge regressions from voxels to latents on the training images, RUN/decoder.

    This is all the training there is. The penalty of each latent is chosen by cross-validation inside the training
    images, or given with --alpha. Prints the penalties, and how well images that were left out were predicted.
    """,
    "fit my-run --alpha 60000",
)

reconstruct = _stage(
    "reconstruct",
    """Decode a picture and a caption for every unseen image: RUN/decoded, and the predicted latents in RUN/predicted.

    A run that is stopped continues where it was.
    """,
    "reconstruct my-run --image-weight-pictures 0.6 --seed 1",
    backbone=True,
)

controls = _stage(
    "controls",
    """Decode controls and ceilings for some of the test images, RUN/controls.

    Controls are what would have been decoded without the scans or from a part of what they say: other images, the mean
    of all training latents, the nearest training image, the start of the diffusion alone, one context alone. Ceilings
    are decoded from the true latents. `evaluate` scores them beside the decoded items.
    """,
    "controls my-run --images 100",
    backbone=True,
)

report = _stage(
    "report",
    """Write RUN/report.html: one page, with everything in it, that opens from disk.

    It shows what was seen beside what was decoded, sortable by score, the score table, and how well each latent was
    predicted from each region.
    """,
    "report my-run",
)


@click.command(
    "import",
    cls=Command,
    epilog="Example: unibrain import my-run --scans betas.npy --pictures shown --table trials.csv --region V1=V1.npy",
)
@run_argument
@settings_options(SECTIONS["custom"])
@click.option(
    "--region",
    multiple=True,
    metavar="NAME=FILE",
    help="Mask of one region; may be given several times, together with --regions.",
)
def import_(run: Path, region: tuple[str, ...], **chosen: Any) -> None:
    """Read your own scans into the run folder RUN: RUN/subject.npz, and the pictures with their captions RUN/stimuli.

    The table has one line per scan: its row in the matrix, the file name of the picture that was seen, and if you like
    captions, session and split. With --bids, betas and tables are found in a folder of BIDS derivatives, as GLMsingle's
    and LAION-fMRI's are. Without captions the caption side is switched off. After this, `unibrain extract` and what
    follows work as for NSD; docs/custom-data.md shows all of it.
    """
    for text in region:
        if ";" in text:
            raise InputError(f"--region is {text}, which has a semicolon in it. Rename the file.")
    if region:
        chosen["regions"] = ";".join((*filter(None, [chosen["regions"]]), *region))
    _run_stage("prepare", "custom", run, chosen)
