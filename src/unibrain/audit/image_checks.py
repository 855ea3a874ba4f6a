"""Findings about images: repeats, and the same ones on both sides of the split, by id, picture, caption and meaning.

Two pictures are compared by the cosine of the differences between neighbouring pixels of their grey copies of 32 x 32.
Differences do not know the overall brightness, the cosine does not know the contrast, and averaging into few pixels
forgets JPEG's rounding; pictures of different things, which may share a bright sky above a dark ground, have their
edges in different places.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.audit import Finding, Neighbours, Pair, count, judge, some
from unibrain.scans.nsd_layout import REPEATS
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

Ids = NDArray[np.int64]
Pictures = Callable[[Ids], NDArray[np.uint8]]

NEAR_DUPLICATE = 0.9
"""From this likeness on two pictures count as near duplicates. Recompressed or brightened copies are above 0.95; the
nearest of thousands of other photographs is usually below 0.8."""
SIDE = 32
"""Side of the grey copies, in pixels."""
CAPTIONS = 5
"""Captions that COCO has of an image, at least."""
FAR = 0.25
"""If fewer test images than this share lie as near to the training images as these to each other, the test images are
counted as new in meaning."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 40
_PAIRS = 100
_PICTURES_MB = 32
_COSINES_MB = 16
_SAME_IMAGE = "an image that was trained on is not decoded but recognised: scores on it say nothing about new images"


@dataclass(frozen=True)
class Images:
    """Ids (ascending, each once) on both sides of a split, and trials of each; an id on both sides is a finding."""

    train_ids: Ids
    test_ids: Ids
    train_repeats: Ids
    test_repeats: Ids

    @property
    def ids(self) -> Ids:
        """All ids, ascending, each once."""
        return np.union1d(self.train_ids, self.test_ids)

    @classmethod
    def of(cls, stimulus_ids: Ids, is_test: NDArray[np.bool_], trials: Ids | None = None) -> "Images":
        """Gather the rows of each image; a row stands for as many trials as `trials` says, or for one."""
        counts = np.ones(len(stimulus_ids), dtype=np.int64) if trials is None else trials
        sides = []
        for side in (~is_test, is_test):
            ids, rows = np.unique(stimulus_ids[side], return_inverse=True)
            sides.append((ids, np.bincount(rows, weights=counts[side], minlength=len(ids)).astype(np.int64)))
        (train, train_repeats), (test, test_repeats) = sides
        return cls(train, test, train_repeats, test_repeats)


def check_repeats(images: Images) -> Finding:
    """Count images with fewer than three trials."""
    numbers = {}
    for side, repeats in (("training", images.train_repeats), ("test", images.test_repeats)):
        times, many = np.unique(np.minimum(repeats, REPEATS), return_counts=True)
        numbers[side] = dict(zip(map(str, times.tolist()), many.tolist(), strict=True))
    once, twice = (sum(side.get(times, 0) for side in numbers.values()) for times in ("1", "2"))
    advice = "compare scores only with those of subjects and protocols with as many repeats"
    return judge(
        "repeats",
        f"{count(len(images.train_repeats), 'training image')}, {count(len(images.test_repeats), 'test image')}",
        ((once or twice, "note", f"{once:,} shown once, {twice:,} twice", advice),),
        f"all shown {REPEATS} times or more",
        "averages of fewer trials are noisier, and the noise ceiling is that of three",
        numbers,
    )


def check_ids(images: Images) -> Finding:
    """Look for ids on both sides of the split."""
    both = np.intersect1d(images.train_ids, images.test_ids).tolist()
    return judge(
        "overlap by id",
        f"{count(len(images.train_ids), 'training image')}, {count(len(images.test_ids), 'test image')}",
        ((both, "problem", f"on both sides: {some(both)}", "take those images out of training and prepare again"),),
        "none on both sides",
        _SAME_IMAGE,
        {"train": len(images.train_ids), "test": len(images.test_ids), "both": both},
    )


def check_coco_ids(images: Images, coco_ids: Mapping[int, int]) -> Finding:
    """Look for different stimulus ids of one COCO picture on both sides."""
    by_coco = {coco_ids[int(i)]: int(i) for i in images.train_ids}
    pairs = [(int(i), by_coco[coco_ids[int(i)]]) for i in images.test_ids if coco_ids[int(i)] in by_coco]
    pairs = [(test, train) for test, train in pairs if test != train]
    return judge(
        "overlap by COCO id",
        f"{count(len(pairs), 'test image')} from a COCO picture of the training images",
        ((pairs, "problem", _listed(pairs), "take those images out of training"),),
        "",
        _SAME_IMAGE,
        {"pairs": [list(pair) for pair in pairs]},
    )


def _listed(pairs: Iterable[tuple[int, int]]) -> str:
    return some(f"test {test} and training {train}" for test, train in pairs)


def edges_of(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Differences of neighbouring pixels in small grey copies, shape (n, 2 * 31 * 32); 0 for a picture of one shade."""
    from PIL import Image

    small = np.empty((len(pictures), SIDE, SIDE), dtype=np.float32)
    for row, picture in enumerate(pictures):
        # In floats: rounding the grey values would drown the edges of a faint picture.
        grey = Image.fromarray(picture).convert("L").convert("F")
        small[row] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    across = np.diff(small, axis=2).reshape(len(small), -1)
    down = np.diff(small, axis=1).reshape(len(small), -1)
    return np.concatenate((across, down), axis=1)


def small_pictures(read: Pictures, stimulus_ids: Ids) -> tuple[list[str], NDArray[np.float32]]:
    """Read pictures, some at a time; keep what compares them: digests of the pixels, and `edges_of` (8 kB each)."""
    first = read(stimulus_ids[:1])
    digests, edges = [digest(picture) for picture in first], [edges_of(first)]
    step = max(1, _PICTURES_MB * 2**20 // max(first.nbytes, 1))
    for start in track(range(1, len(stimulus_ids), step), "comparing pictures", unit="block"):
        pictures = read(stimulus_ids[start : start + step])
        digests += map(digest, pictures)
        edges.append(edges_of(pictures))
    return digests, np.concatenate(edges)


def nearest(
    queries: NDArray[np.floating] | None, keys: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The row of `keys` with the largest cosine for each of `queries`, and that cosine (0 for a row of zeros).

    Without `queries` for each key among the others. All cosines together are never held in memory.
    """
    from sklearn import config_context
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1, algorithm="brute", metric="cosine").fit(np.asarray(keys, np.float32))
    with config_context(working_memory=_COSINES_MB):
        distance, index = search.kneighbors(None if queries is None else np.asarray(queries, np.float32))
    return index[:, 0], np.clip(1 - distance[:, 0], -1, 1)


def check_pictures(images: Images, read: Pictures) -> tuple[tuple[Finding, Finding], tuple[Pair, ...]]:
    """Compare every test picture with every training picture.

    Gives findings on identical pictures and on near duplicates, and the 100 pairs that are most alike.
    """
    digests, edges = small_pictures(read, images.ids)
    train, test = (np.searchsorted(images.ids, ids) for ids in (images.train_ids, images.test_ids))
    by_digest = {digests[row]: int(i) for row, i in zip(train[::-1], images.train_ids[::-1], strict=True)}
    found = {int(i): by_digest.get(digests[row]) for row, i in zip(test, images.test_ids, strict=True)}
    same = [(one, other) for one, other in found.items() if other is not None and other != one]
    again = sum(len(rows) - len({digests[row] for row in rows}) for rows in (train, test))
    identical = judge(
        "identical pictures",
        f"{count(len(same), 'test picture')} with the pixels of a training picture",
        (
            (same, "problem", _listed(same), "remove one of each pair"),
            (again, "note", f"{count(again, 'picture')} twice on one side, under two ids", "remove one of each pair"),
        ),
        "",
        _SAME_IMAGE + "; the same picture twice among the test images bounds identification below 100 %",
        {"pairs": [list(pair) for pair in same], "within_a_side": again},
    )
    pairs: tuple[Pair, ...] = ()
    if len(train) and len(test):
        pairs = _pairs(images, *nearest(edges[test], edges[train]))
    known = {test_id for test_id, _ in same}
    close = [pair for pair in pairs if pair.similarity >= NEAR_DUPLICATE and pair.test_id not in known]
    near = judge(
        "near duplicates",
        f"{count(len(close), 'test picture')} with a likeness of {NEAR_DUPLICATE:g} or more to a training picture",
        (
            (
                close,
                "problem",
                some(f"test {pair.test_id} and training {pair.train_id} ({pair.similarity:.2f})" for pair in close),
                "look at these pairs in the report, and remove the training picture of each that is a copy",
            ),
        ),
        f"closest: {pairs[0].similarity:.2f}" if pairs else "nothing to compare",
        "a brightened, recompressed or slightly changed copy leaks the answer as the picture itself does",
        {"threshold": NEAR_DUPLICATE, "pairs": [[p.test_id, p.train_id, p.similarity] for p in close]},
    )
    return (identical, near), pairs[:_PAIRS]


def _pairs(images: Images, index: NDArray[np.int64], cosine: NDArray[np.float32]) -> tuple[Pair, ...]:
    order = np.argsort(-cosine, kind="stable")
    return tuple(
        Pair(int(images.test_ids[row]), int(images.train_ids[index[row]]), round(float(cosine[row]), 4))
        for row in order
    )


def check_captions(images: Images, captions: Mapping[int, tuple[str, ...]]) -> tuple[Finding, Finding]:
    """Count captions (an id that is missing has none), and look for the same sentences on both sides."""
    counts = {int(i): sum(bool(text.strip()) for text in captions.get(int(i), ())) for i in images.ids}
    without = [i for i, number in counts.items() if number == 0]
    few = [i for i, number in counts.items() if 0 < number < CAPTIONS]
    total = sum(counts.values())
    spread = f"{min(counts.values(), default=0)} to {max(counts.values(), default=0)}"
    about = judge(
        "captions",
        f"{total:,} captions of {count(len(counts), 'image')} ({spread} each)",
        (
            (not total, "note", "", "nothing, if only pictures are to be decoded; otherwise add captions"),
            (
                total and without,
                "problem",
                f"{len(without):,} without: {some(without)}",
                "add the missing captions, or leave those images out",
            ),
            (few, "note", f"{len(few):,} with fewer than {CAPTIONS}: {some(few)}", ""),
        ),
        "",
        "an image without a caption has no text latent to learn from or to be scored by; fewer than five are noisier",
        {"images": len(counts), "captions": total, "without": without, "few": few},
    )
    training = {words for i in images.train_ids for words in map(_words, captions.get(int(i), ())) if words}
    shared = {int(i): training & set(map(_words, captions.get(int(i), ()))) for i in images.test_ids}
    shared = {i: sentences for i, sentences in shared.items() if sentences}
    example = min(next(iter(shared.values()))) if shared else ""
    return about, judge(
        "captions on both sides",
        f"{count(len(shared), 'test image')} of {len(images.test_ids):,} with a caption that a training image has too",
        ((shared, "note", f"for example “{example}”", "read caption scores beside their shuffled control"),),
        "",
        "a caption that was trained on can be repeated word by word without being composed",
        {"test_images": sorted(shared)},
    )


def _words(caption: str) -> str:
    """A caption without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", caption.casefold()))


def neighbours_of(images: Images, embeddings: NDArray[np.floating]) -> Neighbours:
    """Find the nearest training image of every test image, and of every training image among the others.

    Takes CLIP picture embeddings (images, width) in ascending order of id; at least one test, two training images.
    """
    train, test = (embeddings[np.searchsorted(images.ids, ids)] for ids in (images.train_ids, images.test_ids))
    index, cosine = nearest(test, train)
    _, among = nearest(None, train)
    both = np.concatenate((cosine, among))
    edges = np.linspace(float(both.min()), max(float(both.max()), float(both.min()) + 1e-3), _BINS + 1)
    return Neighbours(
        pairs=_pairs(images, index, cosine),
        test_quantiles=tuple(round(float(value), 4) for value in np.quantile(cosine, QUANTILES)),
        train_quantiles=tuple(round(float(value), 4) for value in np.quantile(among, QUANTILES)),
        edges=tuple(round(float(edge), 6) for edge in edges),
        test_counts=tuple(np.histogram(cosine, edges)[0].tolist()),
        train_counts=tuple(np.histogram(among, edges)[0].tolist()),
        share_as_near=float((cosine >= np.median(among)).mean()),
    )


def check_meaning(neighbours: Neighbours | None, how_to_embed: str = "") -> Finding:
    """Judge how new the test images are in meaning (Shirakawa et al. 2024); without latents say how to know."""
    why = (
        "test images with close relatives in training can be decoded by picking what was seen in training (Shirakawa "
        "et al. 2024, Spurious reconstruction from brain activity); scores then say little about new kinds of images"
    )
    if neighbours is None:
        return Finding("note", "overlap in meaning", "not known: no latents are extracted", how_to_embed, why)
    test, train = neighbours.test_quantiles, neighbours.train_quantiles
    advice = "call the test images new pictures of familiar kinds, and hold out whole kinds to claim more"
    near = f"{100 * neighbours.share_as_near:.0f} % of the test images are as near as the median training image"
    return judge(
        "overlap in meaning",
        f"nearest training image in CLIP: median cosine {test[2]:.2f} for test images, {train[2]:.2f} among training "
        f"images; {near}",
        ((neighbours.share_as_near >= FAR, "note", "", advice),),
        "",
        why,
        {"test": list(test), "train": list(train), "quantiles": list(QUANTILES)},
    )
