"""`Session`: a finished run, opened to be explored; what its pages show of it, read when it is asked for."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.controls import CONTROLS
from unibrain.experiments import Bench, open_bench
from unibrain.experiments.bench import spread
from unibrain.explorer.items import FRAMES, Choice, choose, own_sampling
from unibrain.explorer.recipes import Source
from unibrain.latents import LATENTS, Latents, StoredLatents, open_latents
from unibrain.pipeline import BackboneSource, RunFolder, declare
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.stages import Chain

if TYPE_CHECKING:
    from unibrain.evaluation import Score, Scores
    from unibrain.reconstruction import Decoded

_ALL = 2**31
_KEPT_SCANS = 32
_TYPICAL = 50


@dataclass(eq=False)
class Session:
    """A finished run, and what its pages show of it.

    Attributes
    ----------
    bench : Bench
        Opened with all test images.
    source : BackboneSource
    predicted : StoredLatents
        The run's predictions, on disk.
    scores : Scores or None
        None where the run is not scored, or was scored in another state.
    controls : mapping of str to Decoded
        What controls and ceilings show; empty where they are not up to date.
    others : mapping of str to RunFolder
        Further runs that this one may be compared with, by name.
    scans : OrderedDict of str to ndarray of shape (voxels,)
        Scans that were handed over or painted, by digest; the latest of them.
    """

    bench: Bench
    source: BackboneSource
    predicted: StoredLatents
    scores: "Scores | None"
    controls: "Mapping[str, Decoded]"
    others: Mapping[str, RunFolder]
    scans: OrderedDict[str, NDArray[np.float32]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Test images."""
        return self.bench.ids

    @cached_property
    def decoded(self) -> "Decoded":
        """What the run itself decoded."""
        return self.bench.decoded()

    @cached_property
    def _voxels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each voxel over the training scans."""
        betas = self.bench.train.betas
        return betas.mean(axis=0, dtype=np.float64), betas.std(axis=0, ddof=1, dtype=np.float64)

    def scan_of(self, active: NDArray[np.float64]) -> NDArray[np.float32]:
        """A scan in which each voxel is so many deviations from its mean over the training scans."""
        mean, deviation = self._voxels
        return (mean + deviation * active).astype(np.float32)

    @cached_property
    def typical(self) -> dict[str, float]:
        """How far scans of test images move each latent from that of the mean scan: root mean square over some."""
        rest = self.predict(self.scan_of(np.zeros(self.bench.subject.betas.shape[1])))
        some = self.predicted.select(spread(self.ids, _TYPICAL)).read()
        return {name: float(np.linalg.norm(some[name] - rest[name])) / float(np.sqrt(some.n)) for name in some}

    def choose(self, asked: Mapping[str, Any]) -> Choice:
        """See `unibrain.explorer.items.choose`."""
        return choose(self.bench, self.predicted.names, **asked)

    def row(self, identity: int) -> int:
        """Row of a test image.

        Raises
        ------
        InputError
            If it is none.
        """
        found = np.flatnonzero(self.ids == identity)
        if not len(found):
            raise InputError(f"image {identity} is no test image of this run. Its {len(self.ids)} are listed.")
        return int(found[0])

    def keep(self, scan: NDArray[np.float32]) -> str:
        """Remember a scan for a while; its name is its digest."""
        key = digest(scan)
        with self.lock:
            self.scans[key] = scan
            self.scans.move_to_end(key)
            while len(self.scans) > _KEPT_SCANS:
                self.scans.popitem(last=False)
        return key

    def scan(self, key: str) -> NDArray[np.float32]:
        """A scan that was handed over or painted."""
        with self.lock:
            if key not in self.scans:
                raise InputError("this scan is not here any more. Hand it over again.")
            return self.scans[key]

    def predict(self, scan: NDArray[np.float32]) -> Latents:
        """Latents of one scan, shape (voxels,), as image 0: it gets the noise of that image."""

        def make() -> Latents:
            found: Latents = self.bench.decoder.predict(scan, [0])
            return found

        return self.bench.remember(make, "explorer", digest(scan))

    def latents(self, source: Source) -> Latents:
        """Latents of a test image's scan, or of a scan that was handed over."""
        if isinstance(source, str):
            return self.predict(self.scan(source))
        self.row(source)
        return self.predicted.select(np.array([source])).read()

    def warm_up(self) -> None:
        """Load what decoding needs, so that nobody waits for it."""
        from unibrain.reconstruction import reconstruct

        short = {kind: {"steps": 2, "strength": 0.5} for kind in own_sampling(self.bench)}
        latents = self.predicted.select(self.ids[:1]).read()
        reconstruct(self.bench.network, latents, **self.choose({"sampling": short}).options())

    def about(self) -> dict[str, Any]:
        """What every page needs to know of the run."""
        bench = self.bench
        latents = [
            {"name": name, "title": row.title, "explanation": row.explanation, "starts": row.starts}
            for name, row in LATENTS.items()
            if name in self.predicted.names
        ]
        own = {kind: asdict(one) for kind, one in own_sampling(bench).items()}
        return {
            "run": bench.run.root.resolve().name,
            "folder": str(bench.run.root.resolve()),
            "title": bench.settings.report.title,
            "subject": bench.subject.name,
            "simulated": bench.subject.simulated,
            "backbone": bench.network.name,
            "kinds": list(own),
            "sampling": own,
            "seed": bench.settings.reconstruct.seed,
            "frames": FRAMES,
            "latents": latents,
            "controls": [
                {
                    "name": name,
                    "title": CONTROLS[name].title,
                    "role": CONTROLS[name].role,
                    "explanation": CONTROLS[name].explanation,
                }
                for name in self.controls
            ],
            "others": list(self.others),
            "voxels": int(bench.subject.betas.shape[1]),
            "report": bench.run.artefact("report").is_file(),
            "metrics": [
                {"name": score.name, "title": score.title, "short": score.short, "higher": score.higher_is_better}
                for score in self.sortable
            ],
            "scans": self._rows(),
        }

    @property
    def sortable(self) -> "list[Score]":
        """Scores that have a value for every image."""
        found = () if self.scores is None else self.scores.scores
        return [score for score in found if score.complete]

    def _rows(self) -> list[dict[str, Any]]:
        from unibrain.report.page import overall_rank

        places = {} if self.scores is None else {one: row for row, one in enumerate(self.scores.stimulus_ids)}
        rank = None if self.scores is None else overall_rank(self.scores.scores, len(places))
        captions = self.bench.stimuli.captions(self.ids)
        with_controls = {name: set(items.stimulus_ids.tolist()) for name, items in self.controls.items()}
        rows = []
        for row, identity in enumerate(self.ids.tolist()):
            place = places.get(identity)
            values = {} if place is None else {score.name: score.per_image[place] for score in self.sortable}
            rows.append(
                {
                    "id": identity,
                    "captions": list(captions[row]),
                    "caption": None if self.decoded.captions is None else self.decoded.captions[row],
                    "picture": self.decoded.pictures is not None,
                    "overall": None if place is None or rank is None else float(rank[place]),
                    "values": values,
                    "controls": [name for name, ids in with_controls.items() if identity in ids],
                }
            )
        return rows

    def picture(self, identity: int, what: str) -> NDArray[np.uint8] | None:
        """What was seen, what the run decoded, or what a control shows in its place."""
        row = self.row(identity)
        if what == "seen":
            return np.asarray(self.bench.stimuli.pictures(self.ids[row : row + 1])[0])
        items = self.decoded if what == "decoded" else self.controls.get(what)
        if items is None or items.pictures is None:
            return None
        found = np.flatnonzero(items.stimulus_ids == identity)
        return np.asarray(items.pictures[found[0]]) if len(found) else None

    def control_captions(self, identity: int) -> dict[str, str]:
        """What controls and ceilings say in the place of an image's caption."""
        self.row(identity)
        found = {}
        for name, items in self.controls.items():
            at = np.flatnonzero(items.stimulus_ids == identity)
            if items.captions is not None and len(at):
                found[name] = items.captions[at[0]]
        return found


@contextmanager
def open_session(
    run: RunFolder, others: Sequence[RunFolder] = (), source: BackboneSource | None = None, *, lock: bool = True
) -> Iterator[Session]:
    """Open a finished run to be explored.

    Parameters
    ----------
    run : RunFolder
        Everything up to `reconstruct` must be up to date.
    others : sequence of RunFolder
        Runs that it may be compared with.
    source : BackboneSource, optional
        By default that of the settings, on the best device.
    lock : bool
        See `unibrain.experiments.open_bench`.

    Yields
    ------
    Session

    Raises
    ------
    InputError
        If a stage is not up to date (the sentence says what to run first), or one of `others` is no run.
    """
    from unibrain.evaluation import load_scores
    from unibrain.reconstruction import load_decoded

    source, names = source or BackboneSource(), [other.root.resolve().name for other in others]
    for other, name in zip(others, names, strict=True):
        if not other.begun:
            raise InputError(f"{other.root}: there is no run in this folder. Check the path.")
        if names.count(name) > 1:
            raise InputError(f"{other.root}: two of the runs beside are called {name}. Rename a folder.")
    with open_bench(run, _ALL, source=source, lock=lock) as bench:
        chain = Chain(run, declare(run, bench.settings, source))
        folder = run.artefact("controls")
        found = [name for name in CONTROLS if (folder / name).is_dir()] if chain.is_current("controls") else []
        yield Session(
            bench,
            source,
            open_latents(run.artefact("predicted"), verify=False),
            load_scores(run.artefact("scores")) if chain.is_current("evaluate") else None,
            {name: load_decoded(folder / name) for name in found},
            dict(zip(names, others, strict=True)),
        )
