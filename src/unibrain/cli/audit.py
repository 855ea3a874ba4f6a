"""`unibrain audit`: what to know of a subject before its numbers are believed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.common import threads_option
from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.audit import Audit, Finding

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
_PAIRS = 5


def finding_lines(findings: "Iterable[Finding]") -> Iterator[str]:
    """A table: level, what was looked at, what was found, and below it why it matters and what to do."""
    findings = tuple(findings)
    width = max(len(finding.title) for finding in findings)
    for finding in findings:
        level = click.style(f"{finding.level:<7}", fg=_COLOURS[finding.level])
        yield f"  {level}  {finding.title:<{width}}  {finding.what}"
        below = [finding.why] if finding.why and finding.level != "ok" else []
        below += [f"-> {finding.advice}"] if finding.advice else []
        yield from (" " * (width + 13) + line for line in below)
    counts = {level: sum(finding.level == level for finding in findings) for level in ("problem", "note")}
    yield from ("", ", ".join(f"{number} {level}{'s' * (number != 1)}" for level, number in counts.items()) + ".")


def _lines(audit: "Audit") -> Iterator[str]:
    yield f"{audit.subject}{' (simulated)' if audit.simulated else ''}, {audit.source}"
    for title, pairs in (
        ("Test pictures most like a training picture", audit.pictures),
        ("Test images nearest to a training image in CLIP", audit.neighbours.pairs if audit.neighbours else ()),
    ):
        if pairs:
            yield from ("", title)
            yield from (f"  test {p.test_id}, training {p.train_id}: {p.similarity:.3f}" for p in pairs[:_PAIRS])
    yield from ("", "Findings", *finding_lines(audit.findings))


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
    "--betas/--no-betas",
    default=True,
    help="Whether to read all betas again, as long as preparing takes. [default: yes]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@threads_option
def audit(run: Path | None, root: Path | None, betas: bool, as_json: bool, threads: int | None, **chosen: Any) -> int:
    """Report what is missing in a subject's data, and how close its test images are to its training images.

    Looks at sessions, silent voxels, units, empty and repeated scans, repeats, captions, regions and their noise
    ceiling; and at training images in the test set: by id, by picture (exact and near duplicates), by caption, and by
    meaning where latents are extracted. RUN is a run folder with a prepared subject (`unibrain audit my-run`); the
    result is kept in RUN/audit.json, and `unibrain report RUN` shows it. Exits with 0 if there is no problem (notes are
    allowed), with 1 if there is one, and with 2 for bad input.
    """
    from unibrain.workspace.progress import limit_threads

    limit_threads(threads)
    given = {name: value for name, value in chosen.items() if value is not None}
    if (run is None) == (root is None):
        raise InputError(
            "Give either RUN, the folder of a run with a prepared subject, or --root, a tree in NSD's layout."
        )
    if run is not None and given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise InputError(f"{option} goes with --root only: a run is audited as it was prepared.")
    found = _of_run(run, betas) if run is not None else _of_tree(root, betas, given)
    if as_json:
        import json

        click.echo(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(found)))
        if run is not None:
            click.echo(f"{run / 'audit.json'}\nNext: unibrain report {run}")
    return 1 if found.level == "problem" else 0


def _of_run(run: Path, betas: bool) -> "Audit":
    from unibrain.audit import load_audit
    from unibrain.pipeline import RunFolder, kept_settings, run_one

    if not run.is_dir():
        raise InputError(f"{run}: no such run folder. Check the path.")
    folder = RunFolder(run)
    return load_audit(run_one("audit", folder, kept_settings(folder), audit_betas=betas).outputs[0])


def _of_tree(root: Path | None, betas: bool, given: dict[str, Any]) -> "Audit":
    from unibrain.audit import audit_nsd

    assert root is not None
    return audit_nsd(root, betas=betas, **given)
