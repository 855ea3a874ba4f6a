"""The experiments as commands: they open a finished run, print a table, and write a page."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import PATH, Command, backbone_options, engine_for, engine_option, out_option, run_argument
from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.experiments import Bench, Findings
    from unibrain.pipeline import BackboneSource

_IMAGES = "Test images that take part, spread evenly over all of them."
_VALIDATION = "Training images that are taken out of training to take part, spread evenly over all of them."
_BUDGET = "Minutes that it may be expected to decode for; a longer experiment asks for more before it begins."


def experiment(example: str, images: int = 30, which: str = "") -> Callable[[Callable[..., "Findings"]], click.Command]:
    """Make a command of a function of a bench and the command's own options, with its name and its docstring.

    Its images are test images; where they are others, `which` says what they are, and the function is told how many.
    """

    def decorate(function: Callable[..., "Findings"]) -> click.Command:
        def command(
            run: Path, images: int, budget: float, source: "BackboneSource", on: str | None, **chosen: Any
        ) -> None:
            from unibrain.experiments import open_bench
            from unibrain.pipeline import RunFolder, kept_settings

            chosen |= {"images": images} if which else {}
            folder = RunFolder(run)
            engine = engine_for(on, kept_settings(folder))
            with open_bench(folder, images, source=source, budget=budget, engine=engine) as bench:
                finish(bench.run.experiments, function(bench, **chosen))

        # Options of the function itself come before those that all experiments share.
        command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        decorated: Any = engine_option(backbone_options(command))
        decorated = click.option(
            "--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, help=_BUDGET
        )(decorated)
        about = which or _IMAGES
        decorated = click.option("--images", type=int, default=images, show_default=True, help=about)(decorated)
        name, about, epilog = function.__name__, function.__doc__ or "", f"Example: unibrain {example}"
        return click.command(name, cls=Command, help=about, epilog=epilog)(run_argument(decorated))

    return decorate


def finish(folder: Path, findings: "Findings") -> None:
    """Write what was found, and print it."""
    from unibrain.experiments import as_text, write_findings
    from unibrain.experiments.findings import write_index
    from unibrain.pipeline.stages import STATE

    page = write_findings(folder / findings.folder, findings)
    write_index(folder, findings.about.get(STATE))
    click.echo(f"\n{as_text(findings)}\n")
    click.echo(f"Table: {page.with_name('table.csv')}")
    click.echo(f"Page, open it in a browser: {page.resolve()}")


@experiment("ablate my-run --images 30")
def ablate(bench: "Bench") -> "Findings":
    """Decode without each latent and from each alone, and score every setting against the full one.

    The rows are those of the paper's ablation tables. Needs a run that has reached `reconstruct`; what was decoded
    before is not decoded again.
    """
    from unibrain.experiments import ablate as work

    return work(bench)


class Numbers(click.ParamType):  # type: ignore[type-arg]  # older versions of click take no argument
    """Numbers separated by commas."""

    name = "numbers"

    def __init__(self, kind: Callable[[str], float] = float) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them."""
        found = []
        for text in str(value).split(","):
            try:
                found.append(self.kind(text))
            except ValueError:
                self.fail(f"{text!r} is no {'whole ' * (self.kind is int)}number. Separate numbers by commas.")
        return tuple(found)


@experiment("sweep my-run --image-weight 0.4,0.6,0.8 --strength 0.5,0.75 --grid", which=_VALIDATION)
@click.option("--image-weight", type=Numbers(), help="Shares of CLIP-Image against CLIP-Text tokens, such as 0,0.6,1.")
@click.option("--strength", type=Numbers(), help="Parts of the diffusion that the predicted latent is pushed through.")
@click.option("--guidance-scale", type=Numbers(), help="Scales of classifier-free guidance.")
@click.option("--steps", type=Numbers(int), help="Steps of the whole diffusion.")
@click.option("--alpha", type=Numbers(), help="Factors on the fitted penalties, such as 0.1,1,10; each is a refit.")
@click.option("--grid", is_flag=True, help="Decode all combinations of these values.")
def sweep(bench: "Bench", images: int, grid: bool, **options: tuple[float, ...] | None) -> "Findings":
    """Decode with other settings, and say which to take: for pictures, and for captions.

    Each option takes several values and is varied alone, the others as the run has them; with --grid, all combinations
    are decoded. Without any, image_weight goes from 0 (CLIP-Text alone) to 1 (CLIP-Image alone). The images are
    training images, decoded by a decoder that was fitted to all others: no test image takes part in the choice.
    """
    from unibrain.experiments import sweep as work

    return work(bench, {name: values for name, values in options.items() if values}, grid=grid, images=images)


@experiment("repeats my-run --samples 4")
@click.option("--samples", type=int, default=4, show_default=True, help="Seeds per scan, the run's own among them.")
def repeats(bench: "Bench", samples: int) -> "Findings":
    """Decode each repeat of an image alone, means of several, and several samples of each scan.

    Shows how scores grow with repeats and with samples. Of several samples, the one is chosen that agrees best with
    what was predicted from the scan, without a look at the truth; beside it are their mean and a ceiling.
    """
    from unibrain.experiments import repeats as work

    return work(bench, samples)


@experiment("transfer my-run other-run --images 30")
@click.argument("other", metavar="OTHER", type=PATH)
def transfer(bench: "Bench", other: Path) -> "Findings":
    """Decode the scans of another subject, those of the run in OTHER, with the decoder of the run in RUN.

    Images that both subjects saw align their voxels; the scores are shown over the number of such images, beside those
    of the other subject's own decoder and of an alignment on shuffled images. Of the test images, --images are decoded
    and the others that both saw align; training images that both saw align first.
    """
    from unibrain.experiments import transfer as work
    from unibrain.experiments.transfer import open_other
    from unibrain.pipeline import RunFolder

    with open_other(bench, RunFolder(other), len(bench.ids)) as second:
        return work(bench, second)


@experiment(
    "further my-run nsd-imagery --dialect nsd-imagery",
    which="Stimuli that are decoded, spread evenly over all of them.",
)
@click.argument("name", metavar="SET", type=click.Choice(["nsd-synthetic", "nsd-imagery"]))
@click.option(
    "--zscore",
    type=click.Choice(["train", "set"]),
    default="train",
    show_default=True,
    help="Z-score the scans with the training scans' statistics, or with those of the set's own session (compare).",
)
@click.option("--dialect", help="Whose definitions of the scores of pictures; left out: the run's.")
def further(bench: "Bench", name: str, images: int, zscore: str, dialect: str | None) -> "Findings":
    """Decode further scans of the person of a run on NSD: those of NSD-Synthetic or NSD-Imagery.

    They are prepared with the statistics of the run's training scans, and decoded by the run's decoder as it is. Scored
    are pictures and latents of pictures, against what was shown or imagined. `unibrain nsd fetch --further` gets them.
    """
    from unibrain.experiments import further as work

    return work(bench, name, images, zscore=zscore, dialect=dialect)


@experiment("captions my-run --file machine.json")
@click.option(
    "--file",
    type=PATH,
    help="Captions of the same images by their ids in the run, one more source: .json, .csv or .tsv.",
)
def captions(bench: "Bench", file: Path | None) -> "Findings":
    """Fit the text latents to captions of several sources, and score what is decoded from each.

    The sources are the mean over an image's captions, its first, its longest, those of other images (a control), and
    with --file those of a file. The image latents are the run's own, so only the captions differ.
    """
    from unibrain.experiments import caption_sources as work

    return work(bench, file)


@click.command("compare", cls=Command, epilog="Example: unibrain compare my-run other-run --out my-comparison")
@click.argument("runs", metavar="RUN RUN ...", nargs=-1, required=True, type=PATH)
@click.option("--group", "grouped", is_flag=True, help="The runs are of different subjects: a table with their mean.")
@out_option("unibrain-compare", "Folder of the page and the table; made if it is not there.")
def compare(runs: tuple[Path, ...], grouped: bool, out: Path) -> None:
    """Put finished runs side by side: scores, paired differences to the first RUN, and pictures of the same scans.

    Runs must be scored in one dialect, on the same test images, with one backbone; with --group, subjects may have seen
    other images, nothing is paired, and the mean over subjects has an interval.
    """
    from unibrain.experiments import compare as work
    from unibrain.experiments import group
    from unibrain.pipeline import RunFolder

    check_out(out)
    folders = [RunFolder(run) for run in runs]
    finish(out, group(folders) if grouped else work(folders))


def check_out(out: Path) -> None:
    """Refuse a folder of other things: the page of a comparison would replace what is there."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file. Choose a folder for the comparison.")
    ours = not out.exists() or (out / "compare" / "findings.json").is_file()
    if not ours and any((out / name).exists() for name in ("compare", "index.html")):
        raise InputError(f"{out} holds other files (compare, index.html). Choose another folder for the comparison.")


@experiment("regions my-run --activate faces,V1,V2+V3 --decode --map")
@click.option(
    "--activate",
    metavar="NAMES",
    default="",
    help="Regions, separated by commas; V2+V3 is both as one. [default: all regions of the run]",
)
@click.option("--mask", "masks", metavar="NAME=FILE", multiple=True, help="A region of your own; may be given again.")
@click.option("--value", type=float, default=2.0, show_default=True, help="How far active voxels are from their mean.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Items of each synthetic scan, side by side.")
@click.option("--decode", is_flag=True, help="Also decode from each region alone, and from all voxels but it.")
@click.option("--map", "contributions", is_flag=True, help="Also map what each voxel contributes to each latent.")
def regions(bench: "Bench", activate: str, masks: tuple[str, ...], **options: Any) -> "Findings":
    """Decode synthetic scans in which one region is active, and with --decode and --map ask what regions carry.

    The voxels of a region are set to --value deviations over the training scans, all others to their mean; the same
    noise belongs to a seed in all regions. Of NSD's label volumes also regions that were not prepared can be named.
    """
    from unibrain.experiments import regions as work

    files: dict[str, Path] = {}
    for text in masks:
        name, _, file = text.partition("=")
        if not name or not file or name in files:
            raise InputError(f"--mask {text}: give a name and a file, NAME=FILE, each name once.")
        files[name] = PATH.convert(file, None, None)
    names = [name.strip() for name in activate.split(",") if name.strip()]
    return work(bench, names, files, **options)


@experiment("align my-run", images=1000)
def align(bench: "Bench") -> "Findings":
    """Compare predicted with true latents: on training images, on the same when left out, and on unseen ones.

    Token by token and channel by channel, region by region beside the noise ceiling of the scans, by identification
    among test and training images; and shows the images that are taken for others. Nothing is decoded.
    """
    from unibrain.experiments import align as work

    return work(bench)
