"""Which shards the stages of a run are divided into.

A shard leaves its result where the stage looks before it computes anything: encoded batches, decoded items, scores. So
a stage that was divided is the very stage that one process runs, and finds its work done.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.workspace.fingerprints import code_digest, digest
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Shard, Work, write_work

if TYPE_CHECKING:
    from unibrain.evaluation import Metric, Score
    from unibrain.latents import Latents
    from unibrain.latents.extract import Together
    from unibrain.regression.blocks import SharedBlocks

SHARDS = "shards"
"""Name of the folder in the cache of a stage that has a folder for each of its works."""

_CODE = ("backbone", "evaluation", "latents", "reconstruction", "regression", "stimuli", "pipeline/tasks.py")
"""What computes the results of shards: a worker on which it differs is refused."""

Jobs = Mapping[str, "tuple[Latents | Path, Mapping[str, Any]]"]
"""Name to latents (or the folder that holds them) and the keyword arguments of `unibrain.reconstruct`."""

LatentJobs = Mapping[str, "tuple[Latents, Mapping[str, Any]]"]
"""The same, of latents in memory."""


def program() -> dict[str, str]:
    """What has to be equal on every worker, whatever it does."""
    from unibrain import __version__

    return {"version of unibrain": __version__, "code": code_digest(*_CODE)}


def worker_facts(source: BackboneSource, network: str) -> dict[str, Any]:
    """What has to be equal on every worker that uses the backbone, and how it opens it."""
    import torch

    return {
        "backbone": network,
        "device": source.device,
        "dtype": source.dtype,
        "offload": source.offload,
        "threads": torch.get_num_threads(),
        "same": {
            **program(),
            "weights of the backbone": source.fingerprint(network),
            "precision": source.precision(network),
        },
    }


def encode_work(
    cache: Path,
    run: RunFolder,
    together: "Together",
    kept: Path,
    kept_common: Path,
    choices: Mapping[str, Any],
    facts: Any,
) -> Work:
    """Batches of images to encode."""
    shards = [
        Shard(
            f"{kind}-{number:06d}",
            f"latents of {kind} images, batch {number} (image ids {batch.min()} to {batch.max()})",
            len(batch),
            {"ids": batch.tolist(), "kept": str(folder.absolute())},
        )
        for kind, batches, folder in (("common", together.common, kept_common), ("own", together.own, kept))
        for number, batch in enumerate(batches)
    ]
    about = {"run": str(run.root.absolute()), "ids": together.ids.tolist(), "choices": dict(choices), **facts}
    return write_work(Work(cache / SHARDS / "extract", "extract", "encode", about, tuple(shards)))


def block_work(cache: Path, stage: str, blocks: "SharedBlocks") -> Work:
    """Blocks of columns of latents to multiply."""
    from threadpoolctl import threadpool_info

    shards = [
        Shard(
            f"{name}-{block.start:07d}-{block.stop:07d}",
            f"{name}, columns {block.start} to {block.stop - 1}",
            block.stop - block.start,
            {"latent": name, "first": block.start, "stop": block.stop},
        )
        for name, block in blocks.blocks
    ]
    about = {
        "folder": str(blocks.folder.absolute()),
        "latents": blocks.latents if "://" in blocks.latents else str(Path(blocks.latents).absolute()),
        "measure": blocks.measure,
        "device": blocks.device,
        # Of the library that multiplies, which may have others than PyTorch.
        "threads": max([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"], default=None),
        "same": program(),
    }
    return write_work(Work(cache / SHARDS / stage, stage, "block", about, tuple(shards)))


def decode_work(
    cache: Path, stage: str, jobs: Jobs, source: BackboneSource, network: str, folder: Path | None = None
) -> Work:
    """Batches of scans to decode into `items` of a cache, of one job after the other.

    Latents that are in memory are written down first. The work lies in `folder`, by default where that of a stage does.
    """
    from unibrain.latents import Latents, load_latents, save_latents
    from unibrain.reconstruction.reconstruct import batches_of, kinds_of

    folder = folder or cache / SHARDS / stage
    backbone, told, shards = source.load(network), dict[str, Any](), list[Shard]()
    for name, (latents, options) in jobs.items():
        if isinstance(latents, Latents):
            # Several jobs may decode the same latents in other ways.
            place = folder / "latents" / _content(latents)[:16]
            if not place.exists():
                save_latents(place, latents, backbone.name, backbone.fingerprint)
        else:
            place, latents = latents, load_latents(latents, verify=False)
        rest = {key: value for key, value in _plain(options).items() if key not in ("kinds", "batch_size")}
        told[name] = {"latents": str(place.absolute()), "options": rest}
        for kind in kinds_of(backbone, options.get("use") or latents, options.get("kinds")):
            for rows in batches_of(backbone, kind, latents.n, options.get("batch_size")):
                first, last = int(rows[0]), int(rows[-1])
                what = f"{kind} of rows {first} to {last} (image ids {latents.stimulus_ids[first]} to "
                what += f"{latents.stimulus_ids[last]})"
                shards.append(
                    Shard(
                        f"{len(told):03d}-{kind}-{first:06d}-{last + 1:06d}",
                        what if len(jobs) == 1 else f"{name}: {what}",
                        len(rows),
                        {"job": name, "kind": kind, "first": first, "last": last},
                    )
                )
    about = {"jobs": told, "items": str((cache / "items").absolute()), **worker_facts(source, network)}
    return write_work(Work(folder, stage, "decode", about, tuple(shards)))


def jobs_digest(jobs: LatentJobs) -> str:
    """What tells some jobs from others."""
    return digest([[name, _content(latents), _plain(options)] for name, (latents, options) in jobs.items()])


def _content(latents: "Latents") -> str:
    return digest(list(latents), latents.stimulus_ids, *(latents[name] for name in latents))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    return {key: sorted(value) if isinstance(value, (set, frozenset)) else value for key, value in options.items()}


def score_work(
    cache: Path, run: RunFolder, metrics: Iterable["Metric"], chosen: Mapping[str, Any], images: int, facts: Any
) -> Work:
    """Metrics to compute; those that look at the features of one network together."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        groups.setdefault(f"{metric.kind}-{metric.network or 'no-network'}", []).append(metric.name)
    shards = [
        Shard(f"score-{name}".replace(".", "-"), f"scores {', '.join(names)}", images, {"metrics": names})
        for name, names in groups.items()
    ]
    about = {"run": str(run.root.absolute()), "cache": str(cache.absolute()), **chosen, **facts}
    return write_work(Work(cache / SHARDS / "evaluate", "evaluate", "score", about, tuple(shards)))


def scores_folder(cache: Path) -> Path:
    """Where shards leave scores, in the cache of `evaluate`."""
    return cache / "scores"


def known_scores(cache: Path) -> dict[str, "Score"]:
    """Scores that shards have left, by name; a file that cannot be read is one that is not there."""
    from unibrain.evaluation import load_scores

    found = dict[str, "Score"]()
    for path in sorted(scores_folder(cache).glob("*.json")):
        try:
            found |= {score.name: score for score in load_scores(path).scores}
        except InputError:
            continue
    return found
