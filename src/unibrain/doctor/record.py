"""Record the fingerprints again: ``python -m unibrain.doctor.record``.

To be run when the small backbone's weights changed, when a probe changed, or when a moved result was looked into and
found to be right.
"""

from pathlib import Path

import click

from unibrain.doctor.catalogue import PROBES
from unibrain.doctor.probe import Bench
from unibrain.doctor.recorded import RECORD, Entry, Record, backbone_files, installed_versions
from unibrain.workspace.progress import track

__all__ = ["main", "record"]


def record(folder: Path | None = None) -> Record:
    """Compute every fingerprint as it is now.

    Parameters
    ----------
    folder : Path, optional
        A backbone; by default the small one in the package.

    Returns
    -------
    Record
        Not written yet.

    Raises
    ------
    InputError
        If the backbone cannot be loaded.
    """
    from unibrain.backbone.storage import backbone_folder, folder_fingerprint

    bench = Bench(backbone_folder("small") if folder is None else folder)
    entries = {probe.name: Entry(probe.compute(bench), probe.tolerance) for probe in track(PROBES, "recording")}
    return Record(installed_versions(), folder_fingerprint(bench.folder), backbone_files(bench.folder), entries)


@click.command(epilog="Example: python -m unibrain.doctor.record")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RECORD,
    help="Where to write; left out: the file that comes with the package.",
)
def main(output: Path) -> None:
    """Record the fingerprints that `unibrain doctor` compares with, as this installation computes them."""
    from unibrain.workspace.progress import limit_threads

    limit_threads(1)
    made = record()
    made.write(output)
    click.echo(f"{output}: {len(made.entries)} fingerprints of backbone {made.weights[:12]}")
    for name, number in made.libraries.items():
        click.echo(f"  {name} {number}")


if __name__ == "__main__":
    main()
