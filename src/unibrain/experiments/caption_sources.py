"""`unibrain captions`: what the source of the captions does to decoding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench
from unibrain.experiments.findings import Cell, Findings, Strip, cells_of, columns_of
from unibrain.experiments.latent_scores import latent_cells, latent_columns, mean_two_way
from unibrain.experiments.page import interval_figure
from unibrain.latents import LATENTS, Latents
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.evaluation import Scores
    from unibrain.latents import StoredLatents
    from unibrain.reconstruction import Decoded

AS_RUN, SHUFFLED, FROM_FILE, CONTROL = "as in the run", "shuffled", "from the file", "control: decoded items shuffled"
_TEXTS = tuple(name for name, row in LATENTS.items() if row.source == "caption")
_AT_ONCE, _SHOWN = 64, 8

Texts = tuple[str, ...]
Chosen = Mapping[str, Sequence[Texts]]
"""Latent to the captions of each image whose mean is encoded."""


@dataclass(frozen=True)
class _Source:
    """What is encoded of each image, by latent, and whether the source has captions of its own to be scored against."""

    key: str
    choose: Callable[[NDArray[np.int64]], Chosen]
    own: Callable[[NDArray[np.int64]], Sequence[Texts]] | None = None


def caption_sources(bench: Bench, file: Path | None = None) -> Findings:
    """Fit the text latents to captions of several sources, decode from each, and score them.

    The run itself is the reference. The other sources share one kernel and one fit. Pictures and captions are decoded
    with the run's own predictions of the image latent and the CLIP-Image tokens, so only the captions that the decoder
    was trained on differ.

    Parameters
    ----------
    bench : Bench
    file : pathlib.Path, optional
        Captions of the same images by their ids in the run, as a further source (see
        `unibrain.evaluation.caption_files.read_captions`).

    Returns
    -------
    Findings
        Rows are sources, with paired differences to ``"as in the run"``. Captions are scored against the true ones, and
        against the source's own where it has such.

    Raises
    ------
    InputError
        If the run has no captions, the file lacks one of its training images or is no file of captions, or it is
        expected to take more than the budget.
    """
    if not bench.stimuli.has_captions:
        raise InputError(f"{bench.run.root}: it has no captions. Import them, to learn what their source does.")
    sources = _sources(bench, file)
    bench.announce(len(sources) * len(bench.ids), "captions")
    run, true = bench.predicted, bench.true
    predicted = _predict(bench, sources)
    latents = {AS_RUN: run}
    for name, source in sources.items():
        latents[name] = Latents(run.stimulus_ids, {**run, **{t: predicted[f"{source.key}_{t}"] for t in _TEXTS}})
    others = bench.decode_all({name: (found, {}) for name, found in latents.items() if name != AS_RUN})
    decoded = {AS_RUN: bench.decoded()} | others
    scores = {name: bench.score(items) for name, items in decoded.items()}
    reference, cells, heard = scores[AS_RUN], list[Cell](), dict[str, float]()
    for name, found in scores.items():
        own = true if name in (AS_RUN, SHUFFLED) else _encode(bench, sources[name].choose(bench.ids))
        texts, truth = ({text: values[text] for text in _TEXTS} for values in (latents[name], own))
        row = latent_cells(name, texts, truth)
        heard[name] = mean_two_way(row)
        cells += row
        cells += cells_of(name, found, (AS_RUN, reference))
    for name in (AS_RUN, SHUFFLED):
        items = bench.decode(latents[name], kinds=("caption",), use=_TEXTS)
        cells += cells_of(f"{name}, text latents alone", _caption_scores(bench, items), (AS_RUN, reference))
    for name, source in sources.items():
        if source.own is not None:
            scored = _caption_scores(bench, decoded[name], source.own(bench.ids))
            cells += cells_of(f"{name}, against its own", scored)
    cells += [Cell(CONTROL, s.name, s.control, images=s.images) for s in reference.scores if s.kind == "caption"]
    seen, *strips = bench.strips(decoded, _SHOWN)
    if FROM_FILE in sources and (told := sources[FROM_FILE].own) is not None:
        strips.insert(0, Strip("in the file", None, [texts[0] for texts in told(bench.ids[:_SHOWN])]))
    findings = Findings(
        "captions",
        "Where captions come from",
        "The text latents are fitted to captions of several sources: what does the source do to what is decoded?",
        (*latent_columns(_TEXTS), *columns_of(reference)),
        tuple(cells),
        bench.subject.simulated,
        bench.about(**({} if file is None else {"file of captions": str(file)})),
        _answer(heard, scores),
        (seen, *strips),
        notes=(
            "mean of all: both text latents are means over all captions of an image; one: its first; longest: that of "
            "most words; shuffled: captions of other images, chosen as in the run. As in the run is "
            f"caption = {bench.settings.extract.caption}, caption_context = {bench.settings.extract.caption_context}.",
            "Each source's text latents are identified among those of its own captions of the test images, those of "
            "shuffled captions among the true ones. Captions are scored against the true ones, in rows that say so "
            "against the source's own.",
            "The CLIP-Image tokens guide captions too, whatever the text latents were fitted to: what shuffled "
            "captions leave is theirs. The rows of text latents alone have no part of them.",
        ),
    )
    return findings.drawn({"Captions, by source": interval_figure(findings, AS_RUN, "caption")})


def _sources(bench: Bench, file: Path | None) -> dict[str, _Source]:
    """Name of each source to what it is."""
    from unibrain.evaluation.evaluate import derangements

    captions = {int(i): tuple(filter(None, texts)) for i, texts in bench.stimuli.captions_by_id.items()}
    train = np.unique(bench.train.stimulus_ids)
    shuffled = dict(zip(train.tolist(), train[derangements(len(train), 1, 0)[0]].tolist(), strict=True))

    def every(pick: Callable[[Texts], Texts]) -> Callable[[NDArray[np.int64]], Chosen]:
        return lambda ids: {name: [pick(captions[int(i)]) for i in ids] for name in _TEXTS}

    def longest(texts: Texts) -> Texts:
        return (max(texts, key=lambda text: len(text.split())),)

    found = {
        "mean of all": _Source("mean", every(lambda texts: texts)),
        "one": _Source("one", every(lambda texts: texts[:1]), lambda ids: [captions[int(i)][:1] for i in ids]),
        "longest": _Source("longest", every(longest), lambda ids: [longest(captions[int(i)]) for i in ids]),
        SHUFFLED: _Source("shuffled", lambda ids: _as_run(bench, ids, [captions[shuffled[int(i)]] for i in ids])),
    }
    if file is not None:
        table = _read(bench, file)
        found[FROM_FILE] = _Source(
            "file",
            lambda ids: _as_run(bench, ids, [table[int(i)] for i in ids]),
            lambda ids: [table[int(i)] for i in ids],
        )
    return found


def _read(bench: Bench, file: Path) -> dict[int, Texts]:
    """Captions from a file, which must have all images of the experiment."""
    from unibrain.evaluation.caption_files import read_captions

    table = {identity: tuple(texts) for identity, texts in read_captions(file).items() if isinstance(identity, int)}
    wanted = np.union1d(bench.train.stimulus_ids, bench.ids)
    absent = [int(identity) for identity in wanted if int(identity) not in table]
    if absent:
        raise InputError(
            f"{file}: it has no caption of image id {absent[0]} ({len(absent)} of {len(wanted)} images lack one). Name "
            "images by their 0-based ids in the run, as in its split.json, and give captions of all training images."
        )
    return table


def _as_run(bench: Bench, ids: NDArray[np.int64], captions: Sequence[Texts]) -> Chosen:
    """What the run's settings would choose of these captions."""
    from unibrain.latents.extract import used_captions

    section = bench.settings.extract
    uses = {name: section.caption_context if LATENTS[name].guides else section.caption for name in _TEXTS}
    return {
        name: [used_captions(use, section.caption_seed, int(i), texts) for i, texts in zip(ids, captions, strict=True)]
        for name, use in uses.items()
    }


def _encode(bench: Bench, chosen: Chosen) -> dict[str, NDArray[np.float32]]:
    """Latents of captions, for a few images."""
    from unibrain.latents.extract import encode_means

    return {name: encode_means(bench.network, name, groups) for name, groups in chosen.items()}


def _predict(bench: Bench, sources: Mapping[str, _Source]) -> Latents:
    """The text latents of all sources for the test images, each under its source's key, from one fit."""
    train = bench.train
    images = np.unique(train.stimulus_ids)
    chosen = {source.key: source.choose(images) for source in sources.values()}
    key = digest(chosen, images, bench.network.fingerprint)

    def make() -> Latents:
        targets = _targets(bench, chosen, images, key).select(train.stimulus_ids)
        decoder = bench.refit(train.betas, targets, train.stimulus_ids, choose=True, regions=train.regions)
        found: Latents = decoder.predict(bench.test.betas, bench.ids)
        return found

    return bench.remember(make, "captions", key, bench.ids)


def _targets(bench: Bench, chosen: Mapping[str, Chosen], images: NDArray[np.int64], key: str) -> "StoredLatents":
    """Text latents of all sources for the training images, on disk: those of a full-size subject fill no memory."""
    from unibrain.latents import LatentWriter, open_latents

    folder, precision = bench.cache / "captions" / key[:24], bench.settings.extract.precision
    if not (folder / "manifest.json").is_file():
        network = bench.network
        writer = LatentWriter(folder, images, network.name, network.fingerprint, precision=precision)
        starts = range(writer.done.get("rows", 0), len(images), _AT_ONCE)
        for start in track(starts, "encode captions", unit="batch"):
            rows = slice(start, start + _AT_ONCE)
            values = {
                f"{source}_{name}": array
                for source, latents in chosen.items()
                for name, array in _encode(bench, {name: groups[rows] for name, groups in latents.items()}).items()
            }
            writer.begin({name: array.shape[1:] for name, array in values.items()})
            writer.write_rows(start, values)
            writer.mark("rows", min(start + _AT_ONCE, len(images)))
        writer.finish()
    return open_latents(folder, verify=False)


def _caption_scores(bench: Bench, items: "Decoded", references: Sequence[Texts] | None = None) -> "Scores":
    """Scores of captions only, against the true ones or others."""
    if references is not None:
        known = {int(i): texts for i, texts in zip(bench.ids, references, strict=True)}
        captions = {**bench.stimuli.captions_by_id, **known}
        bench = replace(bench, stimuli=replace(bench.stimuli, captions_by_id=captions))
    found = bench.score(replace(items, pictures=None))
    return replace(found, scores=tuple(score for score in found.scores if score.kind == "caption"))


def _answer(heard: Mapping[str, float], scores: Mapping[str, "Scores"]) -> str:
    """What the numbers say, in two sentences."""
    sure = {name: value for name, value in heard.items() if name != SHUFFLED}
    best, worst = (choose(sure, key=lambda name: sure[name]) for choose in (max, min))
    text = (
        f'Of the sources, the text latents of "{best}" are told from scans best (two-way {sure[best]:.2f}) and those '
        f'of "{worst}" worst ({sure[worst]:.2f}); those of shuffled captions with {heard[SHUFFLED]:.2f}, where chance '
        "is 0.50."
    )
    rouge = {name: next((s.value for s in found.scores if s.name == "rougeL"), None) for name, found in scores.items()}
    known = {name: value for name, value in rouge.items() if value is not None}
    if known:
        values = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        text += f" ROUGE-L of what is decoded, against the true captions: {values}."
    return text
