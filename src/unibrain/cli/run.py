"""A whole run as a command (`demo`, `run`), how far it is (`plan`, `status`), and what to take from it.

That is `scores`, `export-weights`, `push` (its latents elsewhere) and `split` (harder splits of its images).
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unibrain.cli.options import (
    PATH,
    Command,
    backbone_options,
    engine_for,
    engine_option,
    engine_settings,
    out_option,
    run_argument,
)
from unibrain.errors import InputError, UnfinishedError

if TYPE_CHECKING:
    from unibrain.pipeline import BackboneSource, RunFolder, Settings

_MOST_PROCESSES = 4
"""Of the demo: each holds half a gigabyte, and more have little left to share."""

_LONGEST = 60
"""Characters of a caption that are shown."""


def _run_all(out: Path, settings: "Settings", source: "BackboneSource", on: str | None = None) -> None:
    from unibrain.evaluation import format_table, load_scores
    from unibrain.pipeline import RunFolder, run_all
    from unibrain.workspace.provenance import peak_memory_mb
    from unibrain.workspace.stages import read_record

    began, folder = time.monotonic(), RunFolder(out)
    done = run_all(folder, settings, source, engine_for(on, settings))
    click.echo(f"\n{format_table(load_scores(folder.artefact('scores')))}\n")
    click.echo(f"Pictures and captions: {folder.artefact('decoded')}")
    click.echo(f"Scores: {folder.artefact('scores')}")
    click.echo(f"Page, open it in a browser: {folder.artefact('report').resolve()}")
    _note_remarks(folder)
    records = [read_record(folder, result.name) for result in done if not result.skipped]
    peak = max([peak_memory_mb(), *(record.provenance.peak_memory_mb for record in records if record is not None)])
    click.echo(f"{time.monotonic() - began:.0f} s, at most {peak / 1000:.1f} GB of memory")


@click.command(cls=Command, epilog="Example: unibrain demo --out unibrain-demo --seed 7")
@out_option("unibrain-demo", "Run folder; made if it is not there.")
@click.option(
    "--images", type=click.IntRange(2, 1000), default=120, show_default=True, help="Unseen images that are decoded."
)
@click.option(
    "--training-images",
    type=click.IntRange(4, 9000),
    default=3000,
    show_default=True,
    help="Images that it is trained on.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=1,
    show_default=True,
    help="Seed of the simulated subject.",
)
@click.option(
    "--difficulty",
    type=click.Choice(["easy", "realistic"]),
    default="easy",
    show_default=True,
    help="How noisy the simulated scans are.",
)
@click.option("--batch-size", type=click.IntRange(1, 9000), default=32, show_default=True, help="Scans at a time.")
@backbone_options
def demo(
    out: Path,
    images: int,
    training_images: int,
    seed: int,
    difficulty: str,
    batch_size: int,
    source: "BackboneSource",
) -> None:
    """Decode pictures and captions from simulated scans, start to end, and write a page that shows them.

    It needs no data, no network and no graphics card, and takes a few minutes. The scans are simulated, no human
    was scanned; the code is that which reads the Natural Scenes Dataset. Without a graphics card, processes of one
    thread share the work: one for each processor, or as --threads says, up to four. Stop it with Ctrl-C, and the same
    command continues where it was.
    """
    from unibrain.pipeline import demo_settings

    _run_all(out, demo_settings(images, training_images, seed, difficulty, batch_size), source, _processes(source))


def _processes(source: "BackboneSource") -> str | None:
    """Where the demo does shards: small matrices gain little from threads, so processors get a process each."""
    from unibrain.workspace.progress import usable_threads

    processes = min(usable_threads(), _MOST_PROCESSES)
    if processes == 1:
        return None
    from unibrain.backbone.devices import choose_device
    from unibrain.engines.worker import limit_here

    if choose_device(source.device).type != "cpu":
        return None
    limit_here(1, processes)
    return f"local:{processes}"


@click.command(cls=Command, epilog="Example: unibrain run examples/settings.toml --out my-run")
@click.argument("settings", metavar="SETTINGS", type=PATH)
@out_option("unibrain-run", "Run folder; made if it is not there. With --subjects, the folder of their runs.")
@click.option("--subjects", help="Numbers of NSD's subjects, such as 1,2,5,7: a run for each, and a table of all.")
@engine_option
@click.option("--dry-run", is_flag=True, help="With --on slurm: print the job script, and do nothing.")
@backbone_options
def run(
    settings: Path, out: Path, subjects: str | None, on: str | None, dry_run: bool, source: "BackboneSource"
) -> None:
    """Run all stages of the settings file SETTINGS, one after the other, in a run folder.

    What is up to date is skipped, what its settings or inputs have changed is redone, and a run that was stopped
    continues. The settings are copied into the run folder; `examples/settings.toml` shows all of them.
    """
    from unibrain.pipeline import read_settings

    chosen = read_settings(settings)
    if dry_run:
        _print_script(out, chosen, source, on)
    elif subjects is None:
        _run_all(out, chosen, source, on)
    else:
        _run_subjects(out, chosen, subjects, source, on)


def _print_script(out: Path, settings: "Settings", source: "BackboneSource", on: str | None) -> None:
    """Print what would be submitted to SLURM."""
    from unibrain.engines.slurm import job_script
    from unibrain.pipeline.place import parse_place

    place = parse_place(engine_settings(on, settings).on or "local")
    if place.engine != "slurm":
        raise InputError("--dry-run prints the job script for SLURM. Add --on slurm:PARTITION.")
    click.echo(job_script(place, "extract", out.absolute() / ".cache" / "extract", source.device))


def _run_subjects(out: Path, settings: "Settings", subjects: str, source: "BackboneSource", on: str | None) -> None:
    """Run each subject in a folder of its own, all else equal, and put them into one table."""
    from unibrain.cli.experiments import check_out, finish
    from unibrain.engines.subjects import run_subjects
    from unibrain.experiments import group
    from unibrain.pipeline import RunFolder

    if settings.custom is not None:
        raise InputError("--subjects is about NSD's subjects, and there is a section [custom]. Run each by itself.")
    texts = subjects.split(",")
    each = [settings.changed("prepare", {"subject": text}, where="--", text=True) for text in texts]
    chosen = {one.prepare.subject: one for one in each}
    if len(chosen) < max(2, len(texts)):
        raise InputError(f"--subjects is {subjects}. Name at least two different subjects, such as 1,2,5,7.")
    if RunFolder(out).begun:
        raise InputError(f"{out}: this folder holds a run of its own. Choose another folder for those of the subjects.")
    check_out(out)
    engine_settings(on, settings)  # refused before anything is made
    runs = {f"subj{number:02d}": one for number, one in sorted(chosen.items())}
    failed = run_subjects(out, runs, source, on)
    folders = {name: RunFolder(out / name) for name in runs}
    for name, folder in folders.items():
        if name not in failed:
            click.echo(f"{name}: {folder.artefact('report').resolve()}")
            _note_remarks(folder)
    if failed:
        whole = f"{len(failed)} of {len(runs)} subjects are not finished, the others are."
        raise UnfinishedError("\n".join([whole, *(f"{out / name}: {reason}" for name, reason in failed.items())]))
    finish(out, group(list(folders.values()), source))


def _note_remarks(folder: "RunFolder") -> None:
    """Say what is on record beside the results."""
    from unibrain.pipeline.run import remarks_of

    for text in remarks_of(folder):
        click.echo(f"Note: {text}")


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

    for title, folder in _runs(run):
        found = plan_run(folder, None if like is None else RunFolder(like))
        click.echo(f"{title}{plan_text(found, folder.root, workers)}")


@click.command(cls=Command, epilog="Example: unibrain status my-run")
@run_argument
def status(run: Path) -> None:
    """Print how far the run in RUN is: stages that are done, and the shards of the one under way, with their logs.

    It reads the run folder alone, so it works from every machine that sees it, whoever runs it and wherever.
    """
    from unibrain.pipeline.plan import status_text

    for title, folder in _runs(run):
        click.echo(f"{title}{status_text(folder)}")


def _runs(root: Path) -> "list[tuple[str, RunFolder]]":
    """The run in a folder, or those of several subjects (`run --subjects`), each with a heading."""
    from unibrain.pipeline import RunFolder

    below = [one for one in map(RunFolder, sorted(root.glob("subj*"))) if one.settings.exists()]
    if RunFolder(root).begun or not below:
        return [("", RunFolder(root))]
    return [(f"\n{one.root.name}\n", one) for one in below]


@click.command(cls=Command, epilog="Example: unibrain scores my-run --csv")
@run_argument
@click.option("--json", "layout", flag_value="json", help="Print RUN/scores.json: everything, per image too.")
@click.option("--csv", "layout", flag_value="csv", help="Print one line per score, separated by commas.")
def scores(run: Path, layout: str | None) -> None:
    """Print the scores of the run in RUN, each beside its control: as a table, as JSON, or as CSV for other programs.

    Nothing is computed: `unibrain evaluate RUN` does that.
    """
    from unibrain.evaluation import format_table, load_scores
    from unibrain.pipeline import RunFolder

    folder = RunFolder(run)
    found = load_scores(folder.artefact("scores"))
    if layout == "json":
        click.echo(folder.artefact("scores").read_text(encoding="utf-8"), nl=False)
    elif layout == "csv":
        click.echo(found.to_frame().to_csv(), nl=False)
    else:
        click.echo(format_table(found))
    _note_if_stale(folder)


def _note_if_stale(folder: "RunFolder") -> None:
    from unibrain.pipeline import declare, kept_settings
    from unibrain.workspace.progress import say
    from unibrain.workspace.stages import Chain

    try:
        current = Chain(folder, declare(folder, kept_settings(folder))).is_current("evaluate")
    except InputError:
        return  # what the run was made from is not here: its scores can still be read
    if not current:
        command = f"unibrain evaluate {folder.root} --with-earlier"
        say(f"Note: the run has changed since it was scored. `{command}` scores it as it is now.")


@click.command(
    "export-weights",
    cls=Command,
    epilog="Example: unibrain export-weights my-run --latent z_text --targets 0:64 --out weights.npy",
)
@run_argument
@click.option("--latent", required=True, help="Which latent, such as z_image.")
@click.option("--targets", default=":", show_default=True, help="Dimensions of the flattened latent, as start:stop.")
@click.option("--regions", help="Regions, separated by commas, whose voxels are written; left out: all.")
@out_option(None, "The .npy file to write.", required=True)
def export_weights(run: Path, latent: str, targets: str, regions: str | None, out: Path) -> None:
    """Write the ridge weights of the decoder in RUN: one row per voxel, one column per dimension of the latent.

    The decoder never needs them (those of one full-size subject are 17 GB); maps of which voxels matter do. Rows are
    in the order of the voxels in RUN/subject.npz, whose voxel_indices say where each lies in the volume.
    """
    from unibrain.pipeline import RunFolder, write_weights

    names = None if regions is None else tuple(name.strip() for name in regions.split(","))
    rows, columns = write_weights(RunFolder(run), latent, out, targets, names)
    click.echo(f"{out}: {rows:,} voxels x {columns:,} dimensions of {latent}")


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


@click.command(cls=Command, epilog="Example: unibrain split my-run --clusters 10 --refit")
@run_argument
@click.option("--clusters", type=click.IntRange(2, 1000), required=True, help="How many clusters.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of clusters and naive split."
)
@click.option("--refit", is_flag=True, help="Predict each cluster from the others, beside the naive split.")
@out_option(None, "The .json file to write; left out: RUN/clusters-K.json.")
@backbone_options
def split(run: Path, clusters: int, seed: int, refit: bool, out: Path | None, source: "BackboneSource") -> None:
    """Cluster the images of the run in RUN by their captions, so that whole clusters can be left out of training.

    Test images that are drawn at random have near twins in training: a decoder that only knows categories looks good on
    them. The file holds a fold for each stimulus id, for the clusters and for a naive split of the same sizes. With
    --refit, the training images of each fold are predicted by a decoder that never saw the fold.
    """
    from unibrain.evaluation.splits import refit_lines
    from unibrain.pipeline import RunFolder
    from unibrain.pipeline.split import split_run

    made = split_run(RunFolder(run), clusters, out, seed=seed, refit=refit, backbone=source)
    click.echo(f"{made.path}: {clusters} clusters of {len(made.clusters.stimulus_ids):,} images, and a naive split\n")
    for number, (size, captions) in enumerate(zip(made.clusters.sizes, made.examples, strict=True)):
        texts = (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..." for text in captions)
        click.echo(f"  {number:>3}  {size:>6,} images  {' | '.join(texts)}")
    click.echo()
    if refit:
        click.echo("\n".join(refit_lines(made.refits)))
    else:
        chosen = f" --seed {seed}" * (seed != 0) + (f" --out {out}" if out is not None else "")
        click.echo(f"Next: unibrain split {run} --clusters {clusters}{chosen} --refit")
