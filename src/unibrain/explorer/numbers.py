"""The numbers of a run for the page: the tables and plots of its report, and what experiments found."""

from dataclasses import asdict
from typing import Any

from unibrain.evaluation import METRICS
from unibrain.evaluation.scores import TOP
from unibrain.explorer.session import Session
from unibrain.latents.table import latent_title
from unibrain.pipeline.stages import experiments_done
from unibrain.regression import load_choices
from unibrain.report import regions_of
from unibrain.report.sections import penalty_view, svg_uri
from unibrain.workspace.files import read_json


def numbers(session: Session) -> dict[str, Any]:
    """Scores with intervals, controls, ceilings and dialects; latents by region; penalties; experiments."""
    scores, bench = session.scores, session.bench
    run = bench.run
    found: dict[str, Any] = {"experiments": _experiments(session), "root": str(run.root)}
    choices, _ = load_choices(run.artefact("decoder"))
    chart = run.artefact("decoder") / "alpha.svg"
    found["penalties"] = penalty_view(choices, chart.read_bytes() if choices and chart.is_file() else None)
    if scores is None:
        return found
    latents = list(dict.fromkeys(latent for latent, _, _ in scores.latent_accuracy))
    about = regions_of(bench.subject)
    return found | {
        "images": len(scores.stimulus_ids),
        "scores": [
            {
                **{key: value for key, value in asdict(score).items() if key not in ("per_image", "versions")},
                "standing": score.standing,
                "question": METRICS[score.name].question if score.name in METRICS else "",
                "explanation": METRICS[score.name].explanation if score.name in METRICS else "",
            }
            for score in scores.scores
        ],
        "controls": list(map(asdict, scores.controls)),
        "identification": [asdict(one) | {"title": latent_title(one.latent)} for one in scores.latent_identification],
        "top": list(TOP),
        "latents": [{"name": name, "title": latent_title(name)} for name in latents],
        "regions": [
            {
                "name": region,
                "voxels": about[region].voxels if region in about else None,
                "ceiling": about[region].noise_ceiling if region in about else None,
                "values": [known.get(latent) for latent in latents],
            }
            for region, known in scores.accuracy_by_region.items()
        ],
    }


def _experiments(session: Session) -> list[dict[str, Any]]:
    """What was done on this state of the run."""
    folder, found = session.bench.run.experiments, []
    for name, title in experiments_done(session.bench.run).items():
        content = read_json(folder / name / "findings.json")
        figures = sorted((folder / name).glob("figure-*.svg"))
        found.append(
            {
                "name": name,
                "title": title,
                "question": content["question"],
                "answer": content["answer"],
                "figures": [svg_uri(path.read_bytes()) for path in figures],
            }
        )
    return found
