"""How one shard is done, by the public function that does the whole of it."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.run import kept_settings
from unibrain.pipeline.shards import scores_folder
from unibrain.pipeline.sources import read_seen
from unibrain.pipeline.stages import decoded_and_controls
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Shard, Work

if TYPE_CHECKING:
    from unibrain.reconstruction import Decoded
    from unibrain.stimuli import Stimuli


def perform(work: Work, shard: Shard, source: BackboneSource) -> None:
    """Do one shard, and leave its result where the stage looks for it."""
    TASKS[work.kind](work, shard, source)


def _encode(work: Work, shard: Shard, source: BackboneSource) -> None:
    from unibrain.latents import keep_batch

    stimuli = _seen(work.about["run"], work.token, tuple(work.about["ids"]))
    network = source.load(work.about["backbone"])
    keep_batch(Path(shard.task["kept"]), network, stimuli, shard.task["ids"], **work.about["choices"])


def _block(work: Work, shard: Shard, _: BackboneSource) -> None:
    from unibrain.regression.blocks import keep_block

    about, task = work.about, shard.task
    columns = slice(task["first"], task["stop"])
    keep_block(Path(about["folder"]), about["latents"], about["measure"], about["device"], task["latent"], columns)


def _decode(work: Work, shard: Shard, source: BackboneSource) -> None:
    from unibrain.latents import load_latents
    from unibrain.reconstruction import reconstruct

    job = work.about["jobs"][shard.task["job"]]
    rows = np.arange(shard.task["first"], shard.task["last"] + 1)
    latents = load_latents(job["latents"], verify=False).rows(rows)
    reconstruct(
        source.load(work.about["backbone"]),
        latents,
        kinds=[shard.task["kind"]],
        batch_size=len(rows),
        cache=work.about["items"],
        **job["options"],
    )


def _score(work: Work, shard: Shard, source: BackboneSource) -> None:
    from unibrain.evaluation.evaluate import metric_scores, metrics_of
    from unibrain.evaluation.scores import Scores, to_json
    from unibrain.workspace.files import write_text

    about, network = work.about, source.load(work.about["backbone"])
    decoded, controls = _decoded(about["run"], work.token)
    metrics = metrics_of(about["dialect"], about["protocol"])
    found = metric_scores(
        decoded,
        _seen(about["run"], work.token),
        network,
        [metrics[name] for name in shard.task["metrics"]],
        seed=about["seed"],
        controls=controls,
        dialect=about["dialect"],
        features=Path(about["cache"]) / "features",
    )
    ids = tuple(int(identity) for identity in decoded.stimulus_ids)
    write_text(
        scores_folder(Path(about["cache"])) / f"{shard.name}.json", to_json(Scores(tuple(found), ids, (), False))
    )


TASKS: dict[str, Callable[[Work, Shard, BackboneSource], None]] = {
    "encode": _encode,
    "block": _block,
    "decode": _decode,
    "score": _score,
}
"""Kind of work to what does a shard of it."""


@lru_cache(maxsize=1)
def _seen(run: str, token: str, more: tuple[int, ...] = ()) -> "Stimuli":
    """What was seen in a run, and more images; a worker reads it once for all shards of one plan."""
    folder = RunFolder(run)
    return read_seen(folder, kept_settings(folder), more)[1]


@lru_cache(maxsize=1)
def _decoded(run: str, token: str) -> "tuple[Decoded, dict[str, Decoded]]":
    return decoded_and_controls(RunFolder(run))
