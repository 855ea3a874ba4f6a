"""`unibrain evaluate`: scores of a run, or of results that were decoded elsewhere, in any dialect."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unibrain.cli.options import PATH, Command, backbone_options, engine_for, engine_option, settings_options
from unibrain.errors import InputError
from unibrain.pipeline import SECTIONS

if TYPE_CHECKING:
    from unibrain.evaluation import Scores
    from unibrain.pipeline import BackboneSource

_LAYOUTS = ("text", "markdown", "latex", "csv", "json")


@click.command(
    cls=Command,
    epilog="Example: unibrain evaluate my-run --dialect mindeye --like mindeye2-subject1",
)
@click.argument("run", metavar="[RUN]", type=PATH, required=False)
@settings_options(SECTIONS["evaluate"])
@click.option("--seen", type=PATH, help="Without RUN: folder of the pictures that were seen.")
@click.option("--decoded", type=PATH, help="Without RUN: folder of decoded pictures, of the same names.")
@click.option("--references", type=PATH, help="Without RUN: file of true captions (json, csv, tsv, txt).")
@click.option("--captions", type=PATH, help="Without RUN: file of decoded captions.")
@click.option("--like", metavar="TABLE", help="Set published rows beside the scores; `--like list` names the tables.")
@click.option("--all-dialects", is_flag=True, help="Scores of pictures in every dialect, on the same pictures.")
@click.option("--backbone", help="Without RUN: backbone whose CLIP compares captions.")
@click.option(
    "--format", "layout", type=click.Choice(_LAYOUTS), default="text", show_default=True, help="How to print."
)
@click.option("--with-earlier", is_flag=True, help="First run the stages above this one that are not up to date.")
@engine_option
@backbone_options
def evaluate(
    run: Path | None,
    seen: Path | None,
    decoded: Path | None,
    references: Path | None,
    captions: Path | None,
    like: str | None,
    all_dialects: bool,
    backbone: str | None,
    layout: str,
    with_earlier: bool,
    source: "BackboneSource",
    on: str | None,
    **chosen: Any,
) -> None:
    """Score what was decoded against what was seen, and print the table.

    With RUN, the items of a run: RUN/scores.json, every score beside its controls and ceilings. Without RUN, pictures
    and captions that were decoded by anybody: `unibrain evaluate --seen truth --decoded theirs --all-dialects`.
    """
    if like is not None:
        from unibrain.evaluation.published import published_tables

        tables = published_tables()
        if like == "list":
            click.echo("\n".join(f"{name}: {title}" for name, title in tables.items()))
            return
        if like not in tables:
            raise InputError(f"--like {like}: there is no such table. Choose among {', '.join(tables)}.")
    files = {"--seen": seen, "--decoded": decoded, "--references": references, "--captions": captions}
    given = [name for name, path in files.items() if path is not None]
    if run is None and not given:
        raise InputError("there is nothing to score. Name a run folder, or --seen and --decoded.")
    if run is not None and given:
        raise InputError(f"{given[0]} is for results without a run, and {run} is one. Leave one of them out.")
    dialect = chosen["dialect"] or "standard"
    if run is None:
        found, items, names = _from_files(list(files.values()), dialect, backbone, source, chosen)
        subject = "not a run"
    else:
        found, items = _from_run(run, chosen, with_earlier, source, layout, all_dialects, on)
        names, subject, dialect = None, str(run), found.scores[0].dialect if found.scores else dialect
    if found.simulated and (all_dialects or like):
        click.echo("SIMULATED SCANS: no human was scanned; no published number can be compared with these.\n")
    if all_dialects:
        from unibrain.evaluation.dialects import in_all_dialects

        click.echo(in_all_dialects(*items))
        return
    if like is not None:
        _beside_published(found, like, dialect, subject, layout)
        return
    _print(found, layout, names)
    if run is not None and layout == "text":
        click.echo(f"\nNext: unibrain report {run}")


def _from_run(
    run: Path,
    chosen: dict[str, Any],
    with_earlier: bool,
    source: "BackboneSource",
    layout: str,
    items: bool,
    on: str | None,
) -> tuple["Scores", Any]:
    from unibrain.pipeline import RunFolder, decoded_items, kept_settings, run_one

    folder = RunFolder(run)
    settings = kept_settings(folder).changed("evaluate", chosen, where="--", text=True)
    result = run_one("evaluate", folder, settings, source, with_earlier, engine=engine_for(on, settings))
    from unibrain.evaluation import load_scores

    if layout == "text":
        click.echo(f"{result.outputs[0]}{' (up to date)' if result.skipped else ''}\n")
    return load_scores(result.outputs[0]), decoded_items(folder) if items else None


def _from_files(
    files: Sequence[Path | None], dialect: str, backbone: str | None, source: "BackboneSource", chosen: dict[str, Any]
) -> tuple["Scores", Any, tuple[str, ...]]:
    from unibrain.evaluation import evaluate as score
    from unibrain.evaluation.dialects import dialect_metrics
    from unibrain.evaluation.result_files import read_results
    from unibrain.pipeline import Settings

    section = Settings().changed("evaluate", chosen, where="--", text=True).evaluate
    items, stimuli, names = read_results(*files)
    kinds = {kind for kind in ("picture", "caption") if getattr(items, f"{kind}s") is not None}
    metrics = {name: row for name, row in dialect_metrics(dialect).items() if row.kind in kinds}
    network = None if backbone is None else source.load(backbone)
    found = score(
        items,
        stimuli,
        network,
        simulated=False,
        seed=section.seed,
        metrics=metrics,
        dialect=dialect,
        protocol="none" if items.captions is None else section.protocol,
    )
    return found, (items, stimuli), names


def _beside_published(found: "Scores", table: str, dialect: str, subject: str, layout: str) -> None:
    from unibrain.evaluation.published import beside, published_rows, to_latex, to_markdown

    values = {score.name: score.value for score in found.scores if score.value is not None}
    # A published table is about pictures or about captions, and each has a dialect of its own.
    dialects = {score.name: score.dialect for score in found.scores}
    dialect = next((dialects[name] for name in published_rows(table)[0].values if name in dialects), dialect)
    rows = beside(values, dialect, table, images=len(found.stimulus_ids), subject=subject)
    click.echo(to_latex(rows) if layout == "latex" else to_markdown(rows))


def _print(found: "Scores", layout: str, names: tuple[str, ...] | None) -> None:
    from unibrain.evaluation import format_table
    from unibrain.evaluation.result_files import per_image_csv
    from unibrain.evaluation.scores import to_json, to_table

    if layout == "csv":
        click.echo(per_image_csv(found, names), nl=False)
    elif layout == "json":
        click.echo(to_json(found), nl=False)
    elif layout in ("markdown", "latex"):
        click.echo(to_table(found, layout))
    else:
        click.echo(format_table(found))
