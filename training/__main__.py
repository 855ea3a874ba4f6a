"""``python -m training``: train the small backbone, or measure one.

Examples: ``python -m training train --device cuda``, ``python -m training quality --scenes 200``
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from unibrain.errors import InputError

PARTS = ("autokl", "clip", "optimus", "flows", "writer", "decoder", "judge", "export")


def main(arguments: list[str] | None = None) -> int:
    """Parse, and do what was asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the small backbone, or measure one.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train", help="train it from scratch on scenes; stop it whenever you like, it goes on where it was"
    )
    train.add_argument("--out", type=Path, default=Path("training-runs/small"), help="folder for data and checkpoints")
    train.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts, in this order")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    train.add_argument("--steps", nargs="*", default=[], metavar="PART=STEPS", help="steps in all, if not the recipe's")
    train.add_argument("--start", type=Path, help="a backbone folder whose weights all parts start from")
    train.add_argument("--backbone", type=Path, help="where to export to (default: the folder 'backbone' in --out)")
    quality = commands.add_parser("quality", help="measure a backbone on scenes that it was not trained on")
    quality.add_argument("--backbone", default="small", help="small, or the folder of another backbone")
    quality.add_argument("--out", type=Path, default=Path("training-runs/small"), help="folder for rendered scenes")
    quality.add_argument("--scenes", type=int, default=200, help="number of scenes")
    quality.add_argument("--seed", type=int, default=7, help="seed of scenes and noise")
    quality.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="sampling settings are chosen on validation scenes; test scenes are for the final number",
    )
    quality.add_argument(
        "--scans-of", type=int, metavar="SEED", help="decode scans of the simulated subject with this seed instead"
    )
    quality.add_argument("--difficulty", choices=("easy", "realistic"), default="easy", help="of that subject")
    quality.add_argument("--sheet", type=Path, help="PNG to write: scenes above, what was sampled below")
    options = parser.parse_args(arguments)
    try:
        return _train(options) if options.command == "train" else _measure(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> int:
    import torch

    from training.recipe import RECIPES
    from training.run import TrainingRun

    if options.threads:
        torch.set_num_threads(options.threads)
    recipes = dict(RECIPES)
    for given in options.steps:
        part, _, steps = given.partition("=")
        if part not in recipes or not steps.isdecimal():
            raise InputError(f"--steps {given}: this is no part with a number. Write flows=20000, for example.")
        recipe = recipes[part]
        shorter = int(steps) / recipe.steps
        recipes[part] = replace(recipe, steps=int(steps), cooldown=round(recipe.cooldown * shorter))
    run = TrainingRun(options.out, recipes, options.device, options.start)
    for part in options.parts:
        if part == "export":
            print(f"wrote {run.export(options.backbone or options.out / 'backbone')}")
        else:
            run.train(part)
    return 0


def _measure(options: argparse.Namespace) -> int:
    from training.quality import contact_sheet, linearity, measure_quality
    from unibrain.backbone import load_backbone
    from unibrain.evaluation.scene_judge import read_judge

    backbone = load_backbone(options.backbone)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "judge.safetensors"
    judge = read_judge(file) if file.exists() else None
    if judge is None:
        print(f"{file} is missing, so nobody says what pictures show: `python -m training train --parts judge` fits it")
    numbers, scenes, pictures, captions = measure_quality(
        backbone,
        judge,
        options.out,
        options.scenes,
        options.seed,
        options.split,
        options.scans_of,
        options.difficulty,
    )
    for name, share in linearity(backbone, options.out).items():
        numbers[f"linear in the scene's content: {name}"] = share
    for name, number in numbers.items():
        print(f"{name:<60} {number:7.3f}")
    for row, caption in zip(scenes.captions[:10], captions, strict=False):
        print(f"  {row[0]}  ->  {caption}")
    if options.sheet:
        contact_sheet(scenes.pictures, pictures, options.sheet)
        print(f"wrote {options.sheet}: look at it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
