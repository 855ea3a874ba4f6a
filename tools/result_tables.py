"""Fill the tables of scores in README.md and docs/simulated-subject.md from two finished demos.

Example: python tools/result_tables.py unibrain-demo unibrain-demo-realistic .
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROWS = {
    "PixCorr": "pixcorr",
    "SSIM": "ssim",
    "two-way identification, pictures (EfficientNet-lite0)": "two_way_picture",
    "a judge sees the object, images of one object": "judge_object",
    "a judge sees the background": "judge_background",
    "METEOR (nltk)": "meteor",
    "ROUGE-L": "rougeL",
    "two-way identification, captions (CLIP of the small backbone)": "two_way_caption",
    "the same among images with one background": "two_way_caption_same_background",
    "caption names a true object": "caption_object",
    "caption names every object": "caption_objects",
    "caption names the background": "caption_background",
}
"""Title of a row: its metric."""


def main() -> None:
    """Write the numbers into the rows that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("easy", type=Path, help="folder of a finished demo")
    parser.add_argument("realistic", type=Path, help="folder of a finished demo with --difficulty realistic")
    parser.add_argument("project", type=Path, help="folder of README.md")
    options = parser.parse_args()
    easy, realistic = (
        json.loads((run / "scores.json").read_text(encoding="utf-8"))["metrics"]
        for run in (options.easy, options.realistic)
    )

    def in_readme(name: str) -> list[str]:
        row, (low, high) = easy[name], easy[name]["interval"]
        beside = [row["beside"][control]["value"] for control in ("nearest", "oracle")]
        return [f"{row['value']:.3f}", f"{low:.3f} to {high:.3f}", *(f"{v:.3f}" for v in (row["control"], *beside))]

    def in_docs(name: str) -> list[str]:
        row = easy[name]
        values = (row["value"], realistic[name]["value"], row["control"], row["beside"]["oracle"]["value"])
        return [f"{value:.3f}" for value in values]

    for file, cells in (("README.md", in_readme), ("docs/simulated-subject.md", in_docs)):
        path, filled = options.project / file, 0
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            title, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            if title in ROWS and len(rest) == len(cells(ROWS[title])):
                lines[number], filled = f"| {' | '.join([title, *cells(ROWS[title])])} |", filled + 1
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{path}: {filled} of {len(ROWS)} rows")
    print(f"without diffusion: {_alone(easy, 'z_only')}; other contexts: {_alone(easy, 'other_context')}")


def _alone(metrics: dict[str, Any], control: str) -> str:
    names = ("pixcorr", "two_way_picture", "caption_object")
    return ", ".join(f"{name} {metrics[name]['beside'][control]['value']:.3f}" for name in names)


if __name__ == "__main__":
    main()
