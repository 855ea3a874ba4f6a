"""``scores.json``: the scores of a run as a file that people and programs can read."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.evaluation.scores import Score, Scores
from unibrain.workspace.files import write_json

__all__ = ["load_scores", "save_scores"]

_FORMAT = 1


def save_scores(
    path: str | os.PathLike[str],
    scores: Scores,
    *,
    seconds: float,
    peak_memory_gb: float | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write ``scores.json`` atomically.

    Parameters
    ----------
    path : path-like
    scores : Scores
    seconds : float
        Wall-clock seconds of the whole run.
    peak_memory_gb : float or None
        Peak memory of the run, in gigabytes (1e9 bytes); None if it was not measured.
    provenance : mapping
        Where the numbers come from: versions, settings, fingerprints; JSON values only.
    """
    metrics = {
        score.name: {
            "title": score.title,
            "about": score.about,
            "value": score.value,
            "control": score.control,
            "images": score.images,
            "higher_is_better": score.higher_is_better,
            "note": score.note,
            "per_image": list(score.per_image),
        }
        for score in scores.scores
    }
    accuracy = [
        {"latent": latent, "region": region, "correlation": value if math.isfinite(value) else None}
        for latent, region, value in scores.latent_accuracy
    ]
    content = {
        "format": _FORMAT,
        "simulated": scores.simulated,
        "images": len(scores.stimulus_ids),
        "seconds": seconds,
        "peak_memory_gb": peak_memory_gb,
        "metrics": metrics,
        "latent_accuracy": accuracy,
        "stimulus_ids": list(scores.stimulus_ids),
        "provenance": dict(provenance),
    }
    write_json(path, content)


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """Read what `save_scores` wrote.

    Raises
    ------
    InputError
        If the file is not there, or is not such a file.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise InputError(
                f"{file}: its format is {content['format']}, expected {_FORMAT}: evaluate again with this version"
            )
        return _scores(content)
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file, expected the scores of a run: evaluate first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: it cannot be read as scores ({type(error).__name__}: {error}), "
            "expected what unibrain evaluate writes: delete it and evaluate again"
        ) from error


def _scores(content: Mapping[str, Any]) -> Scores:
    metrics = tuple(
        Score(
            name=name,
            title=metric["title"],
            about=metric["about"],
            value=metric["value"],
            control=metric["control"],
            images=metric["images"],
            higher_is_better=metric["higher_is_better"],
            per_image=tuple(metric["per_image"]),
            note=metric["note"],
        )
        for name, metric in content["metrics"].items()
    )
    accuracy = tuple(
        (entry["latent"], entry["region"], math.nan if entry["correlation"] is None else float(entry["correlation"]))
        for entry in content["latent_accuracy"]
    )
    return Scores(metrics, tuple(content["stimulus_ids"]), accuracy, bool(content["simulated"]))
