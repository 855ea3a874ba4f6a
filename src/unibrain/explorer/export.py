"""What there is to look at in a run as plain files, which open from a disk and from any web server."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.controls import CONTROLS
from unibrain.experiments import write_findings
from unibrain.explorer.comparison import compare_with
from unibrain.explorer.session import Session
from unibrain.pipeline.stages import experiments_done
from unibrain.report.sections import templates, webp
from unibrain.workspace.files import atomic_folder, read_json, write_bytes, write_json, write_text

_MARK = "export.json"
_SWEEP = "sweep"


def export(session: Session, folder: Path) -> Path:
    """Write the gallery, the comparisons and the sweeps of a run as plain files.

    The gallery has every test image, what was decoded from its scan, and its controls. Comparisons and sweeps are the
    experiments that were done on this state of the run, and the runs beside it; nothing is decoded for them.

    Parameters
    ----------
    session : Session
    folder : pathlib.Path
        Made if it is not there; an earlier export in it is replaced as a whole.

    Returns
    -------
    pathlib.Path
        The page to open, ``index.html``.

    Raises
    ------
    InputError
        If the folder holds other things than an export, or a run beside this one cannot be compared with it.
    """
    check_folder(folder)
    run = session.bench.run
    with atomic_folder(folder) as made:
        experiments = []
        for name in experiments_done(run):
            shutil.copytree(run.experiments / name, made / "experiments" / name)
            experiments.append(_experiment(made / "experiments" / name))
        for name in session.others:
            found = made / "experiments" / f"beside-{name}"
            write_findings(found, compare_with(session, name))
            experiments.append(_experiment(found))
        about = session.about()
        cards = [_card(session, row, made / "pictures") for row in about["scans"]]
        report = run.artefact("report")
        if report.is_file():
            shutil.copyfile(report, made / "report.html")
        shutil.copyfile(str(files("unibrain").joinpath("report/page.css")), made / "report.css")
        for name in ("explorer.css", "export.js"):
            write_bytes(made / name, files("unibrain").joinpath("explorer/page", name).read_bytes())
        write_json(made / _MARK, {"format": 1, "run": about["run"], "simulated": about["simulated"]})
        page = templates("explorer/page").get_template("export.html.j2")
        text = page.render(
            about=about,
            cards=sorted(cards, key=lambda card: (-(card["overall"] or 0), card["id"])),
            controls=[CONTROLS[name] for name in session.controls],
            sweeps=[one for one in experiments if one["experiment"] == _SWEEP],
            comparisons=[one for one in experiments if one["experiment"] != _SWEEP],
            scores=() if session.scores is None else session.scores.scores,
            report=report.is_file(),
        )
        write_text(made / "index.html", text)
    return folder / "index.html"


def check_folder(folder: Path) -> None:
    """Refuse a folder of other things: an export replaces what is there."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Choose a folder for the export.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise InputError(f"{folder} holds other files. Choose an empty folder for the export, or a new one.")


def _card(session: Session, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An image for the gallery; its pictures are written."""
    shown = {what: session.picture(row["id"], what) for what in ("seen", "decoded", *row["controls"])}
    said = session.control_captions(row["id"])
    pictures = {what: _write(folder / f"{row['id']:06d}-{what}.webp", picture) for what, picture in shown.items()}
    return row | {
        "seen": pictures.pop("seen"),
        "decoded": pictures.pop("decoded"),
        "beside": {name: {"picture": picture, "caption": said.get(name, "")} for name, picture in pictures.items()},
    }


def _write(path: Path, picture: NDArray[np.uint8] | None) -> str | None:
    if picture is None:
        return None
    write_bytes(path, webp(picture))
    return f"pictures/{path.name}"


def _experiment(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / "findings.json")
    strips = read_json(folder / "strips.json") if (folder / "strips.json").is_file() else []
    return content | {"folder": folder.name, "strips": strips}
