"""Splitting the images of a run into clusters, and refitting its decoder without them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.run import kept_settings
from unibrain.pipeline.sources import read_seen
from unibrain.pipeline.stages import declare
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Chain

if TYPE_CHECKING:
    from unibrain.evaluation.splits import Refit, Split


@dataclass(frozen=True, eq=False)
class SplitRun:
    """The file and the splits that `split_run` made, the first captions of some images of each cluster, and refits."""

    path: Path
    clusters: "Split"
    naive: "Split"
    examples: tuple[tuple[str, ...], ...]
    refits: tuple["Refit", ...]


def split_run(
    run: RunFolder,
    clusters: int,
    path: Path | None = None,
    *,
    seed: int = 0,
    refit: bool = False,
    examples: int = 3,
    backbone: BackboneSource | None = None,
) -> SplitRun:
    """Cluster the images of a run by their captions, and write the split with a naive one of the same sizes beside it.

    The file, by default ``clusters-K.json`` in the run folder, is replaced only if it is one of folds. With `refit`,
    the training images of each fold are predicted by the run's decoder without that fold, on both splits.
    """
    import numpy as np

    from unibrain.evaluation.splits import (
        caption_features,
        cluster_split,
        naive_split,
        read_folds,
        refit_on,
        write_folds,
    )
    from unibrain.regression import BrainDecoder

    if not run.begun:
        raise InputError(f"{run.root}: there is no run in this folder. Check the path.")
    path = path or run.root / f"clusters-{clusters}.json"
    if path.exists():
        read_folds(path)
    with run.lock():
        settings = kept_settings(run)
        source = backbone or BackboneSource()
        Chain(run, declare(run, settings, source)).require("fit" if refit else "prepare")
        subject, stimuli = read_seen(run, settings)
        ids = np.unique(subject.stimulus_ids)
        features = caption_features(stimuli, ids, source.load(settings.extract.backbone))
        found = cluster_split(features, ids, clusters, seed)
        naive = naive_split(found)
        some = tuple(
            tuple(texts[0] for texts in stimuli.captions(ids[found.folds == fold][:examples]))
            for fold in range(clusters)
        )
        refits: tuple[Refit, ...] = ()
        if refit:
            decoder = BrainDecoder.load(run.artefact("decoder"))
            refits = (*refit_on(decoder, naive, found), *refit_on(decoder, found, found))
        write_folds(path, (found, naive))
    return SplitRun(path, found, naive, some, refits)
