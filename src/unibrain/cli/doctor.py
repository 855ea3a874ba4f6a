"""`unibrain doctor`: is this installation the one whose results were checked?"""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unibrain.doctor import Diagnosis

__all__ = ["doctor", "layout"]

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def layout(diagnosis: "Diagnosis") -> str:
    """Lay out a diagnosis as a table: status, what was looked at, what was found, and below it what to do."""
    width = max(len(finding.name) for finding in diagnosis.findings)
    lines = []
    for section in diagnosis.sections:
        lines += ["", section.title]
        for finding in section.findings:
            status = click.style(f"{finding.status:<7}", fg=_COLOURS[finding.status])
            lines.append(f"  {status}  {finding.name:<{width}}  {finding.found}")
            if finding.remedy:
                lines.append(f"  {'':<7}  {'':<{width}}  -> {finding.remedy}")
    counts = {status: sum(f.status == status for f in diagnosis.findings) for status in ("problem", "note")}
    said = ", ".join(f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items())
    return "\n".join([*lines[1:], "", f"{said}."])


@click.command(epilog="Example: unibrain doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, versions and numbers included.")
def doctor(as_json: bool) -> int:
    """Check that this installation computes what it computed when its results were checked.

    Recomputes small fingerprints (preprocessing of a picture, tokens, one step of each flow on the small backbone) and
    names the library that moved; then tells which devices, memory, disk space, weights, data and versions there are,
    and what to do about each lack. Exits with 0 if there is no problem, and with 1 if there is one.
    """
    from unibrain.workspace.progress import limit_threads

    # More threads only wait for each other on computations this small.
    limit_threads(1)
    from unibrain.doctor.examination import examine

    diagnosis = examine()
    if as_json:
        from unibrain import __version__

        click.echo(json.dumps({"unibrain": __version__, **diagnosis.as_dict()}, indent=1, ensure_ascii=False))
    else:
        click.echo(layout(diagnosis))
    return 0 if diagnosis.healthy else 1
