"""``python -m unibrain.training``: train the small backbone, or go on training it.

Example: ``python -m unibrain.training --out training-runs/small``

The flows can be trained in several processes:
``torchrun --nproc-per-node 2 -m unibrain.training --parts flows --threads 1``
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from unibrain.errors import InputError

PARTS = ("autokl", "clip", "optimus", "flows", "export")


def main() -> int:
    """Parse, train part after part, export. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m unibrain.training",
        description=(
            "Train the small backbone from scratch on scenes. Stop it whenever you like; it goes on where it was."
        ),
        epilog="Example: python -m unibrain.training --out training-runs/small",
    )
    parser.add_argument("--out", type=Path, default=Path("training-runs/small"), help="folder for data and checkpoints")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts, in this order")
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    parser.add_argument("--flow-steps", type=int, default=0, help="steps of the flows in all (0: as in the recipe)")
    parser.add_argument("--backbone", type=Path, help="where to export to (default: the folder 'backbone' in --out)")
    parser.add_argument("--start", type=Path, help="a backbone folder whose weights all parts start from")
    options = parser.parse_args()

    import torch

    from unibrain.training.processes import join_processes
    from unibrain.training.run import TrainingRun
    from unibrain.training.small import RECIPES

    if options.threads:
        torch.set_num_threads(options.threads)
    join_processes()
    recipes = dict(RECIPES)
    if options.flow_steps:
        recipes["flows"] = dataclasses.replace(recipes["flows"], steps=options.flow_steps)
    try:
        run = TrainingRun(options.out, recipes, options.start)
        for part in options.parts:
            if part == "export":
                print(f"wrote {run.export(options.backbone or options.out / 'backbone')}")
            else:
                getattr(run, part)()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
