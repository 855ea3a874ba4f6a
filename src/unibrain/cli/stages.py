"""The stages as commands: `unibrain simulate` to `unibrain report`."""

from pathlib import Path
from typing import Any

import click

from unibrain.cli.common import device_option, overridden, run_argument, settings_options, show_result, threads_option
from unibrain.pipeline.settings import (
    EvaluateSection,
    ExtractSection,
    FitSection,
    PrepareSection,
    ReconstructSection,
    ReportSection,
    SimulateSection,
)

__all__ = ["evaluate", "extract", "fit", "prepare", "reconstruct", "report", "simulate"]


def _stage(
    name: str, run: Path, threads: int | None, chosen: dict[str, Any], backbone_options: dict[str, Any] | None = None
) -> None:
    from unibrain.pipeline import BackboneSource, kept_settings, run_one
    from unibrain.workspace.progress import limit_threads
    from unibrain.workspace.run_folder import RunFolder

    limit_threads(threads)
    folder = RunFolder(run)
    settings = overridden(kept_settings(folder), name, chosen)
    backbone = None if backbone_options is None else BackboneSource(**backbone_options)
    show_result(run, run_one(name, folder, settings, backbone))


@click.command(epilog="Example: unibrain simulate my-run --difficulty realistic")
@run_argument
@settings_options(SimulateSection)
@threads_option
def simulate(run: Path, threads: int | None, **chosen: Any) -> None:
    """Write a simulated subject into the run folder RUN, in the file layout of the Natural Scenes Dataset.

    The subject sees composed scenes; its early voxels follow image filters, its semantic voxels objects and keywords.
    No human is scanned, and every page made of it says so. Options are kept in RUN/settings.toml.
    """
    _stage("simulate", run, threads, chosen)


@click.command(epilog="Example: unibrain prepare my-run --root /data/NSD --subject 1 --sessions 1-37")
@run_argument
@settings_options(PrepareSection)
@threads_option
def prepare(run: Path, threads: int | None, **chosen: Any) -> None:
    """Read one subject's scans into RUN/subject.npz: one row per image, repeats averaged, voxels z-scored.

    Scans are those that `unibrain simulate` wrote, or real ones in NSD's layout, named by --root. The mean and
    deviation of the z-scores are those of the training images alone.
    """
    _stage("prepare", run, threads, chosen)


@click.command(epilog="Example: unibrain extract my-run --batch-size 32")
@run_argument
@settings_options(ExtractSection)
@device_option
@threads_option
def extract(run: Path, device: str, dtype: str, offload: bool, threads: int | None, **chosen: Any) -> None:
    """Encode the pictures and captions that were seen into the four latents, RUN/latents.

    They are the image latent (AutoKL), the text latent (Optimus), and the CLIP tokens of pictures and of captions: what
    the regressions are trained to predict.
    """
    _stage("extract", run, threads, chosen, {"device": device, "dtype": dtype, "offload": offload})


@click.command(epilog="Example: unibrain fit my-run --alpha 60000")
@run_argument
@settings_options(FitSection)
@threads_option
def fit(run: Path, threads: int | None, **chosen: Any) -> None:
    """Fit four ridge regressions from voxels to latents on the training images, RUN/decoder.

    This is all the training there is. The penalty of each latent is chosen by cross-validation inside the training
    images, or given with --alpha.
    """
    _stage("fit", run, threads, chosen)


@click.command(epilog="Example: unibrain reconstruct my-run --image-weight-pictures 0.6 --seed 1")
@run_argument
@settings_options(ReconstructSection)
@device_option
@threads_option
def reconstruct(run: Path, device: str, dtype: str, offload: bool, threads: int | None, **chosen: Any) -> None:
    """Decode a picture and a caption for every unseen image: RUN/decoded, and the predicted latents in RUN/predicted.

    A run that is stopped continues at the picture where it was. The result does not depend on the batch size.
    """
    _stage("reconstruct", run, threads, chosen, {"device": device, "dtype": dtype, "offload": offload})


@click.command(epilog="Example: unibrain evaluate my-run")
@run_argument
@settings_options(EvaluateSection)
@device_option
@threads_option
def evaluate(run: Path, device: str, dtype: str, offload: bool, threads: int | None, **chosen: Any) -> None:
    """Score decoded pictures and captions against what was seen, RUN/scores.json.

    Every score stands beside that of a control: the same decoded items shuffled against the images.
    """
    _stage("evaluate", run, threads, chosen, {"device": device, "dtype": dtype, "offload": offload})


@click.command(epilog="Example: unibrain report my-run")
@run_argument
@settings_options(ReportSection)
@threads_option
def report(run: Path, threads: int | None, **chosen: Any) -> None:
    """Write RUN/report.html: one page, with everything in it, that opens from disk.

    It shows what was seen beside what was decoded, sortable by score, the score table, and how well each latent was
    predicted from each region.
    """
    _stage("report", run, threads, chosen)
