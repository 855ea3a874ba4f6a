"""`unibrain export-weights`: which voxels matter for which dimension of a latent."""

from pathlib import Path

import click

from unibrain.cli.common import run_argument, threads_option

__all__ = ["export_weights"]

LATENTS = ["z_image", "z_text", "c_image", "c_text"]


@click.command(epilog="Example: unibrain export-weights my-run --latent z_text --targets 0:64 --out weights.npy")
@run_argument
@click.option("--latent", type=click.Choice(LATENTS), required=True, help="Which latent.")
@click.option("--targets", default=":", show_default=True, help="Dimensions of the flattened latent, as start:stop.")
@click.option("--regions", default=None, help="Regions, separated by commas, whose voxels are written; left out: all.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npy file to write.")
@threads_option
def export_weights(run: Path, latent: str, targets: str, regions: str | None, out: Path, threads: int | None) -> None:
    """Write the ridge weights of the decoder in RUN: one row per voxel, one column per dimension of the latent.

    The decoder never needs them (those of one full-size subject are 17 GB); maps of which voxels matter do. Rows are
    in the order of the voxels in RUN/subject.npz, whose voxel_indices say where each lies in the volume.
    """
    from unibrain.pipeline import write_weights
    from unibrain.workspace.progress import limit_threads
    from unibrain.workspace.run_folder import RunFolder

    limit_threads(threads)
    names = None if regions is None else tuple(name.strip() for name in regions.split(","))
    rows, columns = write_weights(RunFolder(run), latent, out, targets, names)
    click.echo(f"{out}: {rows:,} voxels x {columns:,} dimensions of {latent}")
