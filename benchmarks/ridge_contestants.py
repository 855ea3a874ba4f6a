"""The contestants of `ridge.py`; each is run as a process of its own, and prints one line of JSON."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ALPHA = 6e4
TOKEN = 768


def peak_gb() -> float:
    """Most memory that this process has held, in gigabytes: VmHWM, which counts resident pages."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def scans(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training scans, test scans, and the training rows."""
    betas, rows = np.load(folder / "betas.npy", mmap_mode="r"), np.load(folder / "train.npy")
    return np.array(betas[rows]), np.delete(np.asarray(betas), rows, axis=0), rows


def timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    began = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - began, result


def product_rate(m: int, n: int, width: int = 4096, seconds: float = 5.0) -> tuple[float, float]:
    """Operations per second of the product that streaming consists of, on arrays in memory: best, and on average."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((m, n), dtype=np.float32), rng.standard_normal((n, width), dtype=np.float32)
    times, began = [timed(np.matmul, left, right)[0]], time.perf_counter()
    while time.perf_counter() - began < seconds:
        times.append(timed(np.matmul, left, right)[0])
    operations = 2 * m * n * width
    return operations / min(times), operations / float(np.mean(times[1:] or times))


class Stages:
    """Seconds spent in some functions of our modules."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Add the time spent in ``owner.name`` to a stage from now on."""
        function = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            spent, result = timed(function, *arguments, **options)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            return result

        setattr(owner, name, watched)


def ours(folder: Path, memory: float, device: str) -> dict[str, Any]:
    """Fit for one alpha, save, load, and predict all test scans onto the disk."""
    from unibrain.latents import open_latents
    from unibrain.regression import BrainDecoder
    from unibrain.regression import decoder as decoder_module
    from unibrain.regression.ridge import System

    stages = Stages()
    stages.watch(decoder_module, "centred_kernel", "kernel")
    stages.watch(decoder_module, "factorise_once", "factor")
    stages.watch(decoder_module, "fit_gains", "check targets")
    stages.watch(System, "operators", "operator")
    train, test, rows = scans(folder)
    targets = open_latents(folder / "latents", verify=False).at(rows)
    stages.seconds["read for the first time"], _ = timed(read_all, targets)
    decoder = BrainDecoder(ALPHA, rescale="none", memory=memory, device=device)
    fit, _ = timed(decoder.fit, train, targets, rows)
    shutil.rmtree(folder / "predicted", ignore_errors=True)
    operator_before = stages.seconds.get("operator", 0.0)
    predict, _ = timed(decoder.predict_to, folder / "predicted", test, storage="npy")
    stages.seconds["operator"] = stages.seconds.get("operator", 0.0) - operator_before
    stages.seconds["stream and write"] = predict - stages.seconds["operator"]
    # A machine with other guests is not always equally fast: rate and stream take turns.
    rates = [product_rate(len(test) + 1, len(train))]
    streams = []
    for _ in range(3):
        streams.append(multiply_all(decoder, test, stages))
        rates.append(product_rate(len(test) + 1, len(train)))
    stages.seconds["stream"] = float(np.median(streams))
    peak = peak_gb()
    stages.seconds["save"], _ = timed(decoder.save, folder / "decoder")
    size = (folder / "decoder" / "decoder.safetensors").stat().st_size / 1e9
    del decoder

    def one_scan() -> Any:
        # As a run does, which has compared the checksums of what a stage reads.
        return BrainDecoder.load(folder / "decoder", verify=False).predict(test[0])

    single, _ = timed(one_scan)
    t = sum(int(np.prod(shape)) for shape in targets.shapes.values())
    operations = 2 * (len(test) + 1) * len(train) * t
    best, average = max(rate for rate, _ in rates), float(np.mean([rate for _, rate in rates]))
    return {
        "fit": fit,
        "predict": predict,
        "single_scan": single,
        "decoder_gb": size,
        "stages": stages.seconds,
        "gemm_gflops": best / 1e9,
        "average_gflops": average / 1e9,
        "gemm_fraction": operations / float(np.median(streams)) / best,
        "average_fraction": operations / float(np.median(streams)) / average,
        "peak_gb": peak,
    }


def multiply_all(decoder: Any, test: np.ndarray, stages: Stages) -> float:
    """Seconds of reading and multiplying all targets, without writing predictions."""
    before = stages.seconds["operator"]
    spent, _ = timed(lambda: sum(1 for _ in decoder.predict_blocks(test)))
    operator = stages.seconds["operator"] - before
    stages.seconds["operator"] = before
    return spent - operator


def read_all(latents: Any) -> None:
    """Read all stored targets once, so that the system keeps of them in memory what it can."""
    from unibrain.regression.targets import block_width, training_targets

    for targets in training_targets(latents).values():
        for _ in targets.blocks(block_width(targets, 1, 1e9)):
            pass


def ours_fit(folder: Path, memory: float, device: str, **parameters: Any) -> dict[str, Any]:
    """A fit with all defaults but `parameters`: gains are measured on images left out."""
    from unibrain.latents import open_latents
    from unibrain.regression import BrainDecoder

    train, _, rows = scans(folder)
    targets = open_latents(folder / "latents", verify=False).at(rows)
    read_all(targets)
    fit, _ = timed(BrainDecoder(**parameters, memory=memory, device=device).fit, train, targets)
    return {"fit": fit, "peak_gb": peak_gb()}


def recipe(folder: Path, tokens: int) -> dict[str, Any]:
    """Refit scikit-learn's Ridge for each token in double precision, and predict the test scans."""
    from sklearn.linear_model import Ridge

    from unibrain.latents import open_latents

    train, test, rows = (array.astype(np.float64) if array.ndim == 2 else array for array in scans(folder))
    reader = open_latents(folder / "latents", verify=False).at(rows).columns("c_image")
    seconds = []
    for token in range(min(tokens, reader.shape[1] // TOKEN)):
        columns = reader[:, token * TOKEN : (token + 1) * TOKEN].astype(np.float64)

        def one(columns: np.ndarray = columns) -> Any:
            return Ridge(alpha=ALPHA, fit_intercept=True).fit(train, columns).predict(test)

        seconds.append(timed(one)[0])
    return {"seconds_per_token": float(np.median(seconds)), "peak_gb": peak_gb()}


def some_targets(folder: Path, rows: np.ndarray, count: int) -> np.ndarray:
    """Training targets in memory."""
    from unibrain.latents import open_latents

    reader = open_latents(folder / "latents", verify=False).at(rows).columns("c_image")
    return np.asarray(reader[:, 0 : min(count, reader.shape[1])], dtype=np.float32)


def himalaya(folder: Path, targets: list[int], solver: str) -> dict[str, Any]:
    """KernelRidge of himalaya, from arrays in memory to predictions of the test scans."""
    from himalaya.kernel_ridge import KernelRidge

    train, test, rows = scans(folder)
    mean = train.mean(axis=0)
    seconds = []
    for count in targets:
        columns = some_targets(folder, rows, count)

        def fit_and_predict(columns: np.ndarray = columns) -> Any:
            offset = columns.mean(axis=0)
            model = KernelRidge(alpha=ALPHA, kernel="linear", solver=solver).fit(train - mean, columns - offset)
            return model.predict(test - mean) + offset

        seconds.append(timed(fit_and_predict)[0])
    return {"seconds": seconds, "targets": targets, "peak_gb": peak_gb()}


def himalaya_cv(folder: Path, targets: list[int], estimator: str) -> dict[str, Any]:
    """KernelRidgeCV or RidgeCV of himalaya, five folds over the penalties that are our default.

    With its PyTorch backend: its NumPy backend decomposes kernels by a driver that runs on one core, which had not
    finished one of them after thirteen minutes.
    """
    import himalaya.backend
    import himalaya.kernel_ridge
    import himalaya.ridge

    himalaya.backend.set_backend("torch")

    from unibrain.regression import DEFAULT_ALPHAS

    train, _, rows = scans(folder)
    train -= train.mean(axis=0)
    module = himalaya.ridge if estimator == "RidgeCV" else himalaya.kernel_ridge
    seconds = []
    for count in targets:
        columns = some_targets(folder, rows, count)
        columns -= columns.mean(axis=0)
        alphas = np.array(DEFAULT_ALPHAS, dtype=np.float32)
        # All penalties at once would take 13 matrices of images x images, several times.
        model = getattr(module, estimator)(alphas=alphas, cv=5, solver_params={"n_alphas_batch": 3})
        seconds.append(timed(model.fit, train, columns)[0])
    return {"seconds": seconds, "targets": targets, "peak_gb": peak_gb()}


def growth(folder: Path) -> dict[str, Any]:
    """Kernel and stream at shares of the images, targets and voxels, each with the others fixed."""
    from unibrain.regression.ridge import CPU, centred_kernel, cross_kernel, factorise_once
    from unibrain.regression.targets import Operators, Targets, products

    train, test, _ = scans(folder)
    n, p, m = *train.shape, len(test)
    t = 16384 if n > 4000 else 4096
    targets = np.random.default_rng(0).standard_normal((n, t), dtype=np.float32)
    rate = product_rate(m + 1, n, 2048, 2.0)[1]
    rows = []
    for varied in ("images", "targets", "voxels"):
        for share in (1 / 8, 1 / 4, 1 / 2, 1):
            size = {"images": n, "targets": t, "voxels": p} | {
                varied: max(8, int({"images": n, "targets": t, "voxels": p}[varied] * share))
            }
            X = np.ascontiguousarray(train[: size["images"], : size["voxels"]])
            new = test[:, : size["voxels"]]
            Y = Targets(targets[: size["images"], : size["targets"]], "y", np.arange(size["images"]))

            def operator(X: np.ndarray = X, new: np.ndarray = new) -> Any:
                kernel, mean = centred_kernel(X)
                by_alpha = factorise_once(kernel, ALPHA).operators(cross_kernel(new, X, mean), [ALPHA])
                return Operators(by_alpha, np.array([ALPHA]), np.dtype(np.float32), CPU)

            def stream(operators: Any, Y: Any = Y) -> int:
                return sum(1 for _ in products(operators, Y, 2e9))

            kernel_seconds, operators = timed(operator)
            # The first one pays for fresh memory, too.
            seconds = min(timed(stream, operators)[0] for _ in range(3))
            model = 2 * m * size["images"] * size["targets"] / rate
            rows.append(
                {"varied": varied, "size": size[varied], "kernel": kernel_seconds, "stream": seconds, "model": model}
            )
    return {"rows": rows}


CONTESTANTS: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": ours,
    "ours-fit": ours_fit,
    "recipe": recipe,
    "himalaya": himalaya,
    "himalaya-cv": himalaya_cv,
    "growth": growth,
}

if __name__ == "__main__":
    print(json.dumps(CONTESTANTS[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))))
