"""Looking before believing: `unibrain audit` at the data of a subject, `unibrain doctor` at the installation."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import PATH, Command, settings_options
from unibrain.errors import InputError
from unibrain.pipeline import SECTIONS

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


def _audit_lines(audit: "Audit") -> Iterator[str]:
    yield f"{audit.subject}{' (simulated)' if audit.simulated else ''}, {audit.source}"
    for title, pairs in (
        ("Test pictures most like a training picture", audit.pictures),
        ("Test images nearest to a training image in CLIP", audit.neighbours.pairs if audit.neighbours else ()),
    ):
        if pairs:
            yield from ("", title)
            yield from (f"  test {p.test_id}, training {p.train_id}: {p.similarity:.3f}" for p in pairs[:_PAIRS])
    yield from ("", "Findings", *finding_lines(audit.findings))


@click.command(cls=Command, epilog="Example: unibrain audit --root /data/nsd --subject 1")
@click.argument("run", metavar="[RUN]", required=False, type=PATH)
@click.option("--root", type=PATH, help="Audit a tree in NSD's layout before preparing, instead of a run.")
@settings_options(SECTIONS["prepare"], ("subject", "mask", "regions", "beta_version", "format"))
@click.option(
    "--betas/--no-betas",
    default=True,
    help="Whether to read all betas again, as long as preparing takes. [default: yes]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def audit(run: Path | None, root: Path | None, betas: bool, as_json: bool, **chosen: Any) -> int:
    """Report what is missing in a subject's data, and how close its test images are to its training images.

    Looks at sessions, silent voxels, units, empty and repeated scans, repeats, captions, regions and their noise
    ceiling; and at training images in the test set: by id, by picture (exact and near duplicates), by caption, and by
    meaning where latents are extracted. RUN is a run folder with a prepared subject (`unibrain audit my-run`); the
    result is kept in RUN/audit.json, and `unibrain report RUN` shows it. Exits with 0 if there is no problem (notes are
    allowed), with 1 if there is one, and with 2 for bad input.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    if (run is None) == (root is None):
        raise InputError(
            "Give either RUN, the folder of a run with a prepared subject, or --root, a tree in NSD's layout."
        )
    if run is not None and given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise InputError(f"{option} goes with --root only: a run is audited as it was prepared.")
    if run is not None:
        from unibrain.audit import load_audit
        from unibrain.pipeline import RunFolder, kept_settings, run_one

        folder = RunFolder(run)
        found = load_audit(run_one("audit", folder, kept_settings(folder), audit_betas=betas).outputs[0])
    else:
        from unibrain.audit import audit_nsd
        from unibrain.pipeline import Settings

        assert root is not None
        section = Settings().changed("prepare", given, where="--", text=True).prepare
        names = {"format": "file_format"}
        found = audit_nsd(root, betas=betas, **{names.get(name, name): getattr(section, name) for name in given})
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_audit_lines(found)))
        if run is not None:
            click.echo(f"{run / 'audit.json'}\nNext: unibrain report {run}")
    return 1 if found.level == "problem" else 0


@click.command(cls=Command, epilog="Example: unibrain doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, versions and numbers included.")
def doctor(as_json: bool) -> int:
    """Check that this installation computes what it computed when its results were checked.

    Tells threads, devices, memory and weights; then recomputes small fingerprints (preprocessing of a picture, tokens,
    one pass through each network on the small backbone), and names the library that moved. Exits with 0 if there is no
    problem, and with 1 if there is one.
    """
    from unibrain.workspace.progress import limit_threads

    # More threads only wait for each other on computations this small.
    limit_threads(1)
    from dataclasses import asdict

    from unibrain import __version__
    from unibrain.audit.audit import worst
    from unibrain.doctor import examine

    findings = examine()
    level = worst(finding.level for finding in findings)
    if as_json:
        content = {"unibrain": __version__, "level": level, "findings": [asdict(each) for each in findings]}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(finding_lines(findings)))
    return 1 if level == "problem" else 0
