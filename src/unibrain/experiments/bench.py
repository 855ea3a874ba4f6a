"""`Bench`: a finished run, opened for experiments: its parts, a few of its test images, and what decodes and scores."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.findings import Strip
from unibrain.latents.table import rows_of
from unibrain.pipeline import BackboneSource, RunFolder, Settings, declare, kept_settings
from unibrain.pipeline.shards import LatentJobs, decode_work, jobs_digest
from unibrain.pipeline.sources import Sources, read_seen
from unibrain.pipeline.stages import STATE, run_fingerprint, sampling_options, training_view
from unibrain.workspace.fingerprints import code_digest, digest
from unibrain.workspace.progress import say
from unibrain.workspace.shards import Engine
from unibrain.workspace.stages import Chain, read_record

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.evaluation import Scores
    from unibrain.evaluation.published import Row
    from unibrain.latents import Latents, StoredLatents
    from unibrain.reconstruction import Decoded
    from unibrain.regression import BrainDecoder
    from unibrain.scans import Subject
    from unibrain.scans.nsd_layout import NsdLayout
    from unibrain.stimuli import Stimuli

_CODE = ("experiments", "evaluation", "reconstruction", "regression", "latents", "backbone", "stimuli", "scans")
"""What computes the kept results: where it changed, nothing that was kept is used."""
_AT_ONCE = 64


@dataclass(eq=False)
class Bench:
    """A finished run, and some of its test images.

    Attributes
    ----------
    run : RunFolder
        Locked while the bench is open.
    settings : Settings
    subject : Subject
        Scans of training and test images; the training scans as the decoder was fitted to them.
    stimuli : Stimuli
        Pictures and captions of all of them.
    network : Backbone
    decoder : BrainDecoder
        As it was fitted.
    stored : StoredLatents
        True latents of all images.
    ids : ndarray of shape (n,), int64
        Test images that experiments decode, spread evenly over all test images.
    sampling : dict
        Keyword arguments of `unibrain.reconstruct`: how the run itself decoded.
    budget : float
        Minutes that an experiment may be expected to decode for.
    ahead : callable or None
        Has several processes decode what `decode_all` is about to ask for.
    """

    run: RunFolder
    settings: Settings
    subject: "Subject"
    stimuli: "Stimuli"
    network: "Backbone"
    decoder: "BrainDecoder"
    stored: "StoredLatents"
    ids: NDArray[np.int64]
    sampling: dict[str, Any]
    budget: float = 60.0
    ahead: Callable[[Path, LatentJobs], None] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the run decodes: pictures, and captions if there are any."""
        return tuple(kind for kind in self.network.kinds if kind == "picture" or self.stimuli.has_captions)

    @property
    def cache(self) -> Path:
        """Where decoded items, predictions and features are kept, by what they depend on; other code has another."""
        return self.run.cache("experiments") / code_digest(*_CODE)[:16]

    @property
    def predicted(self) -> "Latents":
        """The run's own predictions for `ids`."""
        from unibrain.latents import load_latents

        return load_latents(self.run.artefact("predicted"), verify=False).select(self.ids)

    @property
    def true(self) -> "Latents":
        """True latents of `ids`."""
        return self.stored.select(self.ids).read()

    @property
    def nsd(self) -> "NsdLayout | None":
        """NSD's files of this run, if it has such."""
        return Sources(self.run, self.settings).layout() if self.settings.custom is None else None

    @property
    def train(self) -> "Subject":
        """Training scans, as the decoder was fitted to them."""
        return self.subject.train

    @property
    def test(self) -> "Subject":
        """Scans of `ids`, in their order."""
        whole = self.subject.test
        return whole.rows(rows_of(whole.stimulus_ids, self.ids))

    def about(self, **more: Any) -> dict[str, Any]:
        """What a page says of the run, with what else was chosen."""
        return {
            "run": str(self.run.root),
            "subject": self.subject.name + " (simulated)" * self.subject.simulated,
            "test images": len(self.ids),
            "dialect of the scores": self.settings.evaluate.dialect,
            "backbone": f"{self.network.name} {self.network.fingerprint[:12]}",
            "seed": self.settings.reconstruct.seed,
            STATE: run_fingerprint(self.run),
            **more,
        }

    def published(self, *tables: str) -> "dict[str, tuple[Row, ...]]":
        """Title and rows of published tables, for a run on real scans; none of them belongs beside simulated ones."""
        from unibrain.evaluation.published import published_rows, published_tables

        return {} if self.subject.simulated else {published_tables()[name]: published_rows(name) for name in tables}

    def announce(self, decodes: int, what: str) -> None:
        """Say how long decoding this many images takes one worker, before it begins.

        Raises
        ------
        InputError
            If it is expected to take more than the budget.
        """
        record = read_record(self.run, "reconstruct")
        each = 0.0 if record is None else record.worker_seconds / max(1, int(self.subject.is_test.sum()))
        minutes = decodes * each / 60
        say(
            f"{what}: decodes {decodes} images, {_minutes(minutes)} at the speed of this run, less what is kept already"
        )
        if minutes > self.budget:
            raise InputError(
                f"{what} decodes {decodes} images, {_minutes(minutes)}, and the budget is {self.budget:g} min. Allow "
                f"it with --budget {np.ceil(minutes):.0f}, or take fewer with --images."
            )

    def decode(self, latents: "Latents", **options: Any) -> "Decoded":
        """Decode as the run did, but for `options`; what was decoded before with the same input is read."""
        from unibrain.reconstruction import reconstruct

        return reconstruct(self.network, latents, cache=self.cache / "items", **self._chosen(options))

    def decode_all(self, jobs: "Mapping[str, tuple[Latents, Mapping[str, Any]]]") -> "dict[str, Decoded]":
        """Decode several latents, each with options of its own; several processes share them if the bench has them."""
        if self.ahead is not None and jobs:
            self.ahead(self.cache, {name: (some, self._chosen(options)) for name, (some, options) in jobs.items()})
        return {name: self.decode(some, **options) for name, (some, options) in jobs.items()}

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"kinds": self.kinds, "seed": self.settings.reconstruct.seed, **self.sampling, **options}

    def decoded(self) -> "Decoded":
        """What the run itself decoded for `ids`."""
        from unibrain.reconstruction import load_decoded

        whole = load_decoded(self.run.artefact("decoded"))
        return whole.rows(rows_of(whole.stimulus_ids, self.ids))

    def seen(self, ids: NDArray[np.int64], label: str = "seen") -> Strip:
        """The pictures of some images, each with its first caption."""
        captions = [next(iter(row), "") for row in self.stimuli.captions(ids)]
        return Strip(label, self.stimuli.pictures(ids), captions if self.stimuli.has_captions else None)

    def strips(self, decoded: "Mapping[str, Decoded]", count: int) -> tuple[Strip, ...]:
        """What was seen on the first images, and what was decoded for them in each way; all of the same images."""
        ids = next(iter(decoded.values())).stimulus_ids[:count]
        rows = np.arange(len(ids))
        return (self.seen(ids), *(Strip.of(name, items, rows) for name, items in decoded.items()))

    def score(self, decoded: "Decoded", **chosen: Any) -> "Scores":
        """Score decoded items against what was seen, in the dialect of the run if none is chosen."""
        from unibrain.evaluation import evaluate

        section = self.settings.evaluate
        return evaluate(
            decoded,
            self.stimuli,
            self.network,
            simulated=self.subject.simulated,
            seed=section.seed,
            features=self.cache / "features",
            **{"dialect": section.dialect, **chosen},
        )

    def refit(
        self,
        betas: NDArray[np.float32],
        targets: Any,
        ids: NDArray[np.int64],
        *,
        choose: bool = False,
        regions: Any = None,
        factor: float = 1.0,
    ) -> "BrainDecoder":
        """Fit a decoder with the run's settings to other scans or targets.

        The penalties are the run's own times `factor`; with `choose`, or where targets have other names or shapes, or
        bands, they are chosen anew by cross-validation inside these scans. Without `regions` there are no bands.
        """
        from unibrain.regression import BrainDecoder
        from unibrain.regression.targets import training_targets

        parameters, names = self.decoder.get_params() | {"verbose": False}, set(training_targets(targets, ids))
        known = {name: factor * values for name, values in self.decoder.alphas_.items() if name in names}
        own = not choose and self.decoder.bands is None and set(known) == names
        parameters |= {"alpha": known if own else "cv", "bands": None if regions is None else self.decoder.bands}
        return BrainDecoder(**parameters).fit(betas, targets, ids, regions)

    def remember(self, make: Callable[[], "Latents"], *key: Any) -> "Latents":
        """Latents that were predicted before under the same key on the same fit; made, and kept, if there are none."""
        from unibrain.latents import load_latents, save_latents

        record = read_record(self.run, "fit")
        assert record is not None
        about = [
            [name, [str(state.content()) for state in (found or {}).values()]] for name, found in record.inputs.items()
        ]
        folder = self.cache / "latents" / digest(record.settings, record.code, about, *key)[:24]
        if (folder / "manifest.json").is_file():
            return load_latents(folder)
        found = make()
        save_latents(folder, found, self.network.name, self.network.fingerprint)
        return found

    def validation(self, images: int, factor: float = 1.0) -> "Latents":
        """Predictions for training images that a decoder of the same penalties, times `factor`, was not fitted to.

        Settings are chosen on these, so that no test image takes part in the choice. The images are spread evenly over
        the training images.
        """
        train = self.train
        known = np.unique(train.stimulus_ids)
        if images < 2 or images > len(known) // 2:
            raise InputError(
                f"{images} validation images cannot be taken out of {len(known)} training images. Choose from 2 to "
                f"{len(known) // 2}."
            )
        held = spread(known, images)

        def make() -> "Latents":
            out = np.isin(train.stimulus_ids, held)
            ids = train.stimulus_ids[~out]
            decoder = self.refit(train.betas[~out], self.stored.select(ids), ids, regions=train.regions, factor=factor)
            found: Latents = decoder.predict(mean_scans(train, held), held)
            return found

        return self.remember(make, "validation", held, *([] if factor == 1 else [factor]))


def spread(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of `ids`, evenly over them."""
    found: NDArray[np.int64] = ids[np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(np.int64))]
    return found


def mean_scans(subject: "Subject", ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """One scan for each image, as test scans are: of single trials, their mean."""
    return np.stack([subject.betas[subject.stimulus_ids == identity].mean(axis=0) for identity in ids])


def contents(stimuli: "Stimuli", ids: NDArray[np.int64]) -> list[str]:
    """Digest of each picture: what it looks like, where its number alone says little."""
    parts = [stimuli.pictures(ids[start : start + _AT_ONCE]) for start in range(0, len(ids), _AT_ONCE)]
    return [digest(np.ascontiguousarray(picture)) for part in parts for picture in part]


def _minutes(minutes: float) -> str:
    return f"about {60 * minutes:.0f} s" if minutes < 2 else f"about {minutes:.0f} min"


@contextmanager
def open_bench(
    run: RunFolder,
    images: int = 30,
    *,
    source: BackboneSource | None = None,
    budget: float = 60.0,
    lock: bool = True,
    engine: Engine | None = None,
) -> Iterator[Bench]:
    """Open a finished run for experiments.

    Parameters
    ----------
    run : RunFolder
        Everything up to `reconstruct` must be up to date.
    images : int
        How many of its test images experiments decode, at least 2.
    source : BackboneSource, optional
        By default that of the settings, on the best device.
    budget : float
        Minutes that an experiment may be expected to decode for.
    lock : bool
        Whether to work in the folder alone; what only reads for a moment may go beside a page that is open.
    engine : callable, optional
        Does the shards of what is decoded, as in `unibrain.pipeline.run_one`.

    Yields
    ------
    Bench
        The run folder is locked for the length of the block, unless it was asked not to be.

    Raises
    ------
    InputError
        If a stage is not up to date, or `images` is out of range.
    """
    from unibrain.latents import open_latents
    from unibrain.regression import BrainDecoder

    if images < 2:
        raise InputError(f"--images is {images}: an experiment compares at least 2 images.")
    if not run.begun:
        raise InputError(f"{run.root}: there is no run in this folder. Check the path, or begin with `unibrain demo`.")
    settings, source = kept_settings(run), source or BackboneSource()
    with run.lock() if lock else nullcontext():
        Chain(run, declare(run, settings, source)).require("reconstruct")
        subject, stimuli = read_seen(run, settings)
        yield Bench(
            run,
            settings,
            training_view(subject, settings),
            stimuli,
            source.load(settings.extract.backbone),
            BrainDecoder.load(run.artefact("decoder"), verify=False),
            open_latents(run.artefact("latents")),
            spread(subject.test.stimulus_ids, images),
            sampling_options(settings, stimuli.has_captions),
            budget,
            None if engine is None else partial(_decode_ahead, engine, source, settings.extract.backbone),
        )


def _decode_ahead(engine: Engine, source: BackboneSource, network: str, cache: Path, jobs: LatentJobs) -> None:
    """Have an engine decode jobs into the cache of a bench."""
    folder = cache / "shards" / jobs_digest(jobs)[:16]
    engine(decode_work(cache, "experiment", jobs, source, network, folder))
    shutil.rmtree(folder)
