"""`unibrain audit`: what to know of a subject before its numbers are believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.common import threads_option
from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.audit import Audit

__all__ = ["audit", "layout"]

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
_PAIRS = 5


def layout(audit: "Audit") -> str:
    """Lay out an audit as a table: level, what was looked at, what was found, why it matters and what to do."""
    width = max(len(finding.name) for finding in audit.findings)
    indent = " " * (2 + 7 + 2 + width + 2)
    simulated = " (simulated)" if audit.simulated else ""
    lines = [f"{audit.subject}{simulated}, {audit.source}"]
    for finding in audit.findings:
        level = click.style(f"{finding.level:<7}", fg=_COLOURS[finding.level])
        lines.append(f"  {level}  {finding.name:<{width}}  {finding.found}")
        if finding.level != "ok":
            lines.append(f"{indent}{finding.why}")
        if finding.remedy:
            lines.append(f"{indent}-> {finding.remedy}")
    lines += ["", "Noise ceiling by region, in % of the variance of three trials"]
    names = max(len(region.region) for region in audit.regions) if audit.regions else 0
    for region in audit.regions:
        about = "not known"
        if region.quartiles is not None:
            low, middle, high = region.quartiles
            about = f"median {middle:5.1f}, quartiles {low:.1f} to {high:.1f}"
        lines.append(f"  {region.region:<{names}}  {region.voxels:>7,} voxels  {about * (region.voxels > 0)}".rstrip())
    for title, pairs in (
        ("Test pictures most like a training picture", audit.pictures),
        ("Test images nearest to a training image in CLIP", audit.neighbours.pairs if audit.neighbours else ()),
    ):
        if pairs:
            lines += ["", title]
            lines += [f"  test {p.test_id}, training {p.train_id}: {p.similarity:.3f}" for p in pairs[:_PAIRS]]
    counts = {"problem": audit.count("problem"), "note": audit.count("note")}
    said = ", ".join(f"{number} {level}{'s' * (number != 1)}" for level, number in counts.items())
    return "\n".join([*lines, "", f"{said}."])


@click.command(epilog="Example: unibrain audit --root /data/nsd --subject 1")
@click.argument("run", metavar="[RUN]", required=False, default=None, type=click.Path(path_type=Path))
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Audit a tree in NSD's layout before preparing, instead of a run.",
)
@click.option("--subject", type=click.IntRange(1, 8), help="Subject of that tree. [default: 1]")
@click.option("--mask", help="Voxels of that tree to look at, as in prepare. [default: nsdgeneral]")
@click.option("--regions", help="Regions of that tree, as in prepare. [default: default]")
@click.option("--beta-version", help="Folder of its betas. [default: betas_fithrf_GLMdenoise_RR]")
@click.option(
    "--file-format", type=click.Choice(["auto", "nifti", "hdf5"]), help="Which betas to read. [default: auto]"
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Write the audit of that tree to a JSON file."
)
@click.option(
    "--betas/--no-betas",
    default=True,
    help="Whether to read all betas again to count silent voxels, as long as preparing takes. [default: yes]",
)
@click.option(
    "--near-duplicate",
    type=float,
    default=None,
    help="From this likeness on (0 to 1) two pictures are near duplicates. [default: 0.9]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@threads_option
def audit(
    run: Path | None,
    root: Path | None,
    betas: bool,
    near_duplicate: float | None,
    as_json: bool,
    threads: int | None,
    **chosen: Any,
) -> int:
    """Report what is missing in a subject's data, and how close its test images are to its training images.

    Looks at sessions, voxels without a response, repeats, captions, regions and their noise ceiling; and at
    training images in the test set: by id, by picture (exact and near duplicates), by caption, and by meaning where
    latents are extracted. RUN is a run folder with a prepared subject (`unibrain audit my-run`); the result is kept
    in RUN/audit.json, and `unibrain report RUN` shows it. Exits with 0 if there is no problem (notes are allowed),
    with 1 if there is one, and with 2 for bad input.
    """
    from unibrain.workspace.progress import limit_threads

    limit_threads(threads)
    given = {name: value for name, value in chosen.items() if value is not None}
    if (run is None) == (root is None):
        raise InputError(
            f"{'both RUN and --root were' if run else 'neither RUN nor --root was'} given, expected one of them: name "
            "the run folder of a prepared subject, or a tree in NSD's layout"
        )
    if run is not None and given:
        raise InputError(
            f"--{next(iter(given)).replace('_', '-')} was given with RUN, expected it with --root only: a run is "
            "audited as it was prepared"
        )
    found = _of_run(run, betas, near_duplicate) if run is not None else _of_tree(root, given, betas, near_duplicate)
    if as_json:
        from unibrain.audit import audit_text

        click.echo(audit_text(found))
    else:
        click.echo(layout(found))
        if run is not None:
            click.echo(f"{run / 'audit.json'}\nNext: unibrain report {run}")
    return 1 if found.level == "problem" else 0


def _of_run(run: Path, betas: bool, near_duplicate: float | None) -> "Audit":
    from unibrain.audit import load_audit
    from unibrain.pipeline.auditing import audit as audit_run
    from unibrain.workspace.run_folder import RunFolder

    if not run.is_dir():
        raise InputError(f"{run}: found no such folder, expected a run with a prepared subject: check the path")
    return load_audit(audit_run(RunFolder(run), betas=betas, near_duplicate=near_duplicate).outputs[0])


def _of_tree(root: Path | None, given: dict[str, Any], betas: bool, near_duplicate: float | None) -> "Audit":
    from unibrain.audit import save_audit
    from unibrain.pipeline.auditing import audit_tree

    assert root is not None
    out = given.pop("out", None)
    found = audit_tree(root, given.pop("subject", 1), **given, betas=betas, near_duplicate=near_duplicate)
    if out is not None:
        save_audit(out, found)
    return found
