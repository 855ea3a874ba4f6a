"""`unibrain backbone`: looking at the frozen generative model."""

from typing import TYPE_CHECKING

import click

from unibrain.cli.common import device_option, threads_option

if TYPE_CHECKING:
    from unibrain.training.quality import Quality

__all__ = ["backbone", "quality_table"]

_LINES = {
    "autokl_psnr": "pictures encoded and decoded (dB)",
    "two_way_autokl": "two-way identification of those",
    "two_way_picture": "two-way identification of sampled pictures",
    "two_way_without_latent": "the same, started from pure noise",
    "rougeL_optimus": "ROUGE-L of captions encoded and decoded",
    "rougeL": "ROUGE-L of sampled captions",
    "two_way_caption": "two-way identification of sampled captions",
    "two_way_clip": "two-way identification of pictures by their captions in CLIP",
}


def quality_table(quality: "Quality") -> str:
    """Lay out what was measured, one line each."""
    width = max(map(len, _LINES.values()))
    lines = [f"  {title:<{width}}  {getattr(quality, name):7.3f}" for name, title in _LINES.items()]
    return "\n".join([f"{quality.scenes} held-out scenes, decoded from their true latents", *lines])


@click.group(epilog="Example: unibrain backbone quality --scenes 200")
def backbone() -> None:
    """Look at the frozen generative model that turns latents into pictures and captions.

    `quality` measures how good the small one is that comes with the package, given the true latents: no decoder can be
    better than that.
    """


@backbone.command(epilog="Example: unibrain backbone quality --scenes 200 --split test")
@click.option(
    "--backbone", "name", default="small", show_default=True, help="small, or the folder of another backbone."
)
@click.option("--scenes", type=click.IntRange(min=2), default=200, show_default=True, help="Number of scenes.")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Seed of scenes and noise.")
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="Sampling settings were chosen on validation scenes; test scenes are for the final number.",
)
@click.option("--sheet", type=click.Path(dir_okay=False), help="PNG to write: scenes above, what was sampled below.")
@device_option
@threads_option
def quality(
    name: str,
    scenes: int,
    seed: int,
    split: str,
    sheet: str | None,
    device: str,
    dtype: str,
    offload: bool,
    threads: int | None,
) -> None:
    """Measure a backbone on scenes that it was not trained on, and print what was found.

    Pictures and captions are generated from true latents, and compared with the scenes that they were taken from.
    """
    from unibrain.workspace.progress import limit_threads

    limit_threads(threads)
    from unibrain.backbone import load_backbone
    from unibrain.training.quality import measure_quality

    loaded = load_backbone(name, device, dtype=dtype, offload=offload)
    found, seen, sampled, captions = measure_quality(loaded, scenes, seed, split=split)
    click.echo(quality_table(found))
    for true, caption in captions[:10]:
        click.echo(f"  {true}  ->  {caption}")
    if sheet is not None:
        from unibrain.training.quality import contact_sheet

        contact_sheet(seen, sampled, sheet)
        click.echo(f"wrote {sheet}: look at it")
