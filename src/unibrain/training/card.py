"""The model card of a trained small backbone."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.folder import PARTS
from unibrain.training.small import SCENES

__all__ = ["model_card"]

TITLES = {
    "autokl": "AutoKL (image autoencoder)",
    "clip": "CLIP",
    "optimus": "Optimus (text autoencoder)",
    "flows": "the four flows",
}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def model_card(
    folder: Path,
    config: BackboneConfig,
    recipes: dict[str, dict[str, Any]],
    logs: dict[str, list[dict[str, float]]],
    notes: str = "",
) -> str:
    """Write down how a backbone was made, from its logs and files.

    Parameters
    ----------
    folder : Path
        The exported backbone; its weight files are measured.
    config : BackboneConfig
    recipes : dict
        Recipe of each part, as it stood at the end.
    logs : dict
        Log lines of each part.
    notes : str
        What the logs do not show, Markdown.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        "# The small backbone",
        "",
        "A small configuration of the same classes as the official Versatile Diffusion, trained from scratch on",
        "composed scenes (`unibrain.demo`). It knows nothing but these scenes. It is for demonstrations,",
        "tests and teaching; scientific results on real scans need the official weights.",
        "",
        f"- Data: {SCENES['train']:,} scenes of the split `train`, seed {SCENES['seed']}, 64 x 64 pixels, five",
        "  captions each. Combinations of objects and background in the splits `validation` and `test` never occur",
        "  in it.",
        "- Command: `python -m unibrain.training --out training-runs/small` (stopped and continued; see the logs)",
        f"- Hardware: {_processor()}, {torch.get_num_threads()} thread(s) at the time of export; "
        f"PyTorch {torch.__version__}",
        f"- The flows predict: {config.schedule.prediction}; scale of the image latents: "
        f"{config.autokl.scale_factor:.5f}",
        "- Full log: `training-log.json`. Licence: MIT, as the rest of UniBrain.",
        "",
        "| part | steps | batch at the end | seed | hours | last logged losses |",
        "|---|---|---|---|---|---|",
    ]
    for part, title in TITLES.items():
        log, recipe = logs[part], recipes[part]
        last = log[-1] if log else {}
        losses = ", ".join(f"{key} {value:.4g}" for key, value in last.items() if key not in ("step", "seconds"))
        hours = last.get("seconds", 0.0) / 3600
        lines.append(
            f"| {title} | {last.get('step', 0):,.0f} | {recipe['batch_size']} | {recipe['seed']} | {hours:.2f} "
            f"| {losses} |"
        )
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    for part in PARTS:
        content = (folder / f"{part}.safetensors").read_bytes()
        lines.append(f"| `{part}.safetensors` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |")
    if notes:
        lines += ["", "## Notes", "", notes.strip()]
    return "\n".join(lines) + "\n"
