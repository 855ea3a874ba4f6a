"""`unibrain nsd`: downloading the Natural Scenes Dataset and COCO's captions."""

import sys
from pathlib import Path

import click

from unibrain.cli.options import PATH, Group, out_option
from unibrain.errors import InputError

_out_option = out_option("nsd", "Folder for NSD's tree; made if it is not there.")


@click.group(cls=Group, epilog="Example: unibrain nsd fetch --subject 1 --sessions 1-37")
def nsd() -> None:
    """Download what is needed of the Natural Scenes Dataset, and the captions of its pictures.

    `fetch` gets one subject's scans and the pictures from NSD's public bucket; `fetch-captions` gets COCO's captions.
    """


@nsd.command(epilog="Example: unibrain nsd fetch --subject 1 --sessions 1-37 --out /data/nsd")
@click.option("--subject", type=click.IntRange(1, 8), required=True, help="Which of NSD's eight subjects, 1 to 8.")
@click.option("--sessions", help="Which sessions, such as 1-37 or 1,2,5-7; left out: all that the bucket has.")
@_out_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["hdf5", "nifti"]),
    default="hdf5",
    show_default=True,
    help="Format of the betas: HDF5 is quicker to read, NIfTI is about half as large.",
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    default=("nsdgeneral",),
    show_default=True,
    help="Mask or region that will be read, such as V1+streams:ventral, or all; may be given several times.",
)
@click.option(
    "--beta-version", default="betas_fithrf_GLMdenoise_RR", show_default=True, help="Folder of the betas in the bucket."
)
@click.option("--stimuli/--no-stimuli", default=True, help="Whether to get the pictures, about 40 GB. [default: yes]")
@click.option(
    "--further",
    multiple=True,
    type=click.Choice(["nsd-synthetic", "nsd-imagery"]),
    help="Also the scans and stimuli of another experiment with this subject; may be given twice.",
)
@click.option("--dry-run", is_flag=True, help="Only list what is needed, with its size; nothing is written.")
@click.option("--yes", is_flag=True, help="Agree to NSD's terms without being asked, for scripts.")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Files at a time.")
@click.option("--endpoint", metavar="URL", help="Another S3 server that holds the bucket, such as a mirror.")
def fetch(
    subject: int,
    sessions: str | None,
    out: Path,
    file_format: str,
    masks: tuple[str, ...],
    beta_version: str,
    stimuli: bool,
    further: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    jobs: int,
    endpoint: str | None,
) -> None:
    """Download one subject's scans, and the pictures, from NSD's public bucket; only what is missing is asked for.

    The list and its size are shown first, and you are asked whether you agree to NSD's terms. Files are checked by size
    and content; a download that was stopped is continued by the same command. Proxies are taken from HTTPS_PROXY.
    """
    from unibrain.nsd_download import NSD_TERMS, Choice, fetch_nsd
    from unibrain.scans.nsd_layout import parse_sessions

    def agree(plan: str) -> bool:
        click.echo(f"{plan}\n\n{NSD_TERMS}")
        if yes:
            click.echo("Agreed with --yes.")
            return True
        if not sys.stdin.isatty():
            raise InputError(
                "NSD's terms were not agreed to, and standard input is no terminal to ask on. Read them on "
                "naturalscenesdataset.org and add --yes."
            )
        return click.confirm(
            "Do you agree to NSD's Terms and Conditions, and have you filled in its form?", default=False
        )

    try:
        chosen = None if sessions is None else parse_sessions(sessions)
    except ValueError as error:
        raise InputError(f"--sessions: {error}.") from None
    choice = Choice(subject, chosen, file_format, masks, beta_version, stimuli, further)
    fetched = fetch_nsd(choice, out, agree=agree, show=click.echo, dry_run=dry_run, jobs=jobs, endpoint=endpoint)
    if fetched.state == "declined":
        raise InputError(
            "NSD's terms were not agreed to, so nothing was downloaded. Read them on naturalscenesdataset.org and run "
            "the same command again."
        )
    if fetched.state == "dry run":
        click.echo("Nothing was downloaded; run the same command without --dry-run.")
        return
    was_there = len(fetched.plan.files) - fetched.downloaded
    click.echo(f"{out}: {fetched.downloaded} files downloaded, {was_there} were there already")
    if fetched.size_only:
        click.echo(f"checked by size only (the bucket tells no hash of it): {', '.join(fetched.size_only)}")
    if not fetched.plan.layout.captions("train2017").is_file():
        click.echo(f"Next: unibrain nsd fetch-captions --out {out}")


@nsd.command("fetch-captions", epilog="Example: unibrain nsd fetch-captions --out /data/nsd")
@_out_option
@click.option("--zip", "archive", type=PATH, help="annotations_trainval2017.zip that is on disk already.")
@click.option("--replace", is_flag=True, help="Get them again, and replace what is there.")
def fetch_captions(out: Path, archive: Path | None, replace: bool) -> None:
    """Download COCO's annotations (253 MB) and extract the captions to where they are looked for beside NSD's pictures.

    NSD's pictures are from COCO, and so are the sentences that describe them; they are published under CC BY 4.0. The
    archive is checked by its hash, and removed when the two files of captions are extracted.
    """
    from unibrain.nsd_download import fetch_captions as get

    fetched = get(out, archive=archive, replace=replace, show=click.echo)
    for path in fetched.files:
        click.echo(f"{path}{' (was there already; --replace gets it again)' * (fetched.state == 'was there')}")
    if fetched.state == "fetched" and not fetched.published:
        click.echo(
            "This is not the archive that COCO published: only names, CRC and content of its captions were checked."
        )
