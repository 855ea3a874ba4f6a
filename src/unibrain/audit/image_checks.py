"""Findings about images: the same ones on both sides of the split, by id, picture, caption and meaning."""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.audit import Finding, Neighbours, Pair
from unibrain.audit.images import Images
from unibrain.audit.likeness import SmallPictures
from unibrain.audit.nearest import nearest, unit_rows
from unibrain.audit.wording import count, some

__all__ = [
    "CAPTIONS",
    "FAR",
    "QUANTILES",
    "check_captions",
    "check_coco_ids",
    "check_ids",
    "check_meaning",
    "check_pictures",
    "neighbours_of",
]

CAPTIONS = 5
"""Captions that COCO has of an image, at least."""
FAR = 0.25
"""If fewer test images than this share lie as near to the training images as these to each other, the test images are
counted as new in meaning."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 40
_PAIRS = 100
_SAME_IMAGE = "an image that was trained on is not decoded but recognised: scores on it say nothing about new images"


def check_ids(images: Images) -> Finding:
    """Look for ids on both sides of the split."""
    both = np.intersect1d(images.train_ids, images.test_ids)
    shown = f"{count(len(images.train_ids), 'training image')}, {count(len(images.test_ids), 'test image')}"
    return Finding(
        "overlap by id",
        "problem" if len(both) else "ok",
        f"{shown}; {f'on both sides: {some(both)}' if len(both) else 'none on both sides'}",
        _SAME_IMAGE,
        "take those images out of training and prepare again" if len(both) else "",
        {"train": len(images.train_ids), "test": len(images.test_ids), "both": both.tolist()},
    )


def check_coco_ids(images: Images, coco_ids: Mapping[int, int]) -> Finding:
    """Look for different stimulus ids of one COCO picture on both sides.

    Parameters
    ----------
    images : Images
    coco_ids : mapping of int to int
        Stimulus id to COCO id.
    """
    by_coco = {coco_ids[int(i)]: int(i) for i in images.train_ids}
    pairs = [(int(i), by_coco[coco_ids[int(i)]]) for i in images.test_ids if coco_ids[int(i)] in by_coco]
    pairs = [(test, train) for test, train in pairs if test != train]
    found = "; ".join(f"test {test} and training {train}" for test, train in pairs[:3])
    return Finding(
        "overlap by COCO id",
        "problem" if pairs else "ok",
        f"{count(len(pairs), 'test image')} from a COCO picture of the training images"
        + (f" ({found}{'; ...' if len(pairs) > 3 else ''})" if pairs else ""),
        _SAME_IMAGE,
        "take those images out of training" if pairs else "",
        {"pairs": [list(pair) for pair in pairs]},
    )


def check_pictures(
    images: Images, small: SmallPictures, near_duplicate: float
) -> tuple[tuple[Finding, Finding], tuple[Pair, ...]]:
    """Compare every test picture with every training picture.

    Parameters
    ----------
    images : Images
    small : SmallPictures
        Of all of them, in ascending order of id.
    near_duplicate : float
        From this likeness on two pictures are near duplicates.

    Returns
    -------
    findings : tuple of Finding
        ``identical pictures`` and ``near duplicates``.
    pairs : tuple of Pair
        The 100 most alike test and training pictures.
    """
    train, test = (np.searchsorted(small.stimulus_ids, ids) for ids in (images.train_ids, images.test_ids))
    same, again = _identical(small, train, test)
    findings = [
        Finding(
            "identical pictures",
            "problem" if same else "note" if again else "ok",
            f"{count(len(same), 'test picture')} with the pixels of a training picture"
            + (f" ({some(f'test {t} and training {o}' for t, o in same)})" if same else "")
            + (f"; {count(again, 'picture')} twice on one side, under two ids" if again else ""),
            _SAME_IMAGE + "; the same picture twice among the test images bounds identification below 100 %",
            "remove one of each pair" if same or again else "",
            {"pairs": [list(pair) for pair in same], "within_a_side": again},
        )
    ]
    pairs: list[Pair] = []
    if len(train) and len(test):
        index, likeness = nearest(small.edges[test], small.edges[train])
        order = np.argsort(-likeness, kind="stable")
        pairs = [
            Pair(int(images.test_ids[row]), int(images.train_ids[index[row]]), round(float(likeness[row]), 4))
            for row in order
        ]
    known = {test_id for test_id, _ in same}
    close = [pair for pair in pairs if pair.similarity >= near_duplicate and pair.test_id not in known]
    if close:
        said = some(f"test {pair.test_id} and training {pair.train_id} ({pair.similarity:.2f})" for pair in close)
    else:
        said = f"closest: {pairs[0].similarity:.2f}" if pairs else "nothing to compare"
    findings.append(
        Finding(
            "near duplicates",
            "problem" if close else "ok",
            f"{count(len(close), 'test picture')} with a likeness of {near_duplicate:g} or more to a training picture "
            f"({said})",
            "a brightened, recompressed or slightly changed copy leaks the answer as the picture itself does",
            "look at these pairs in the report, and remove the training picture of each that is a copy"
            if close
            else "",
            {"threshold": near_duplicate, "pairs": [[p.test_id, p.train_id, p.similarity] for p in close]},
        )
    )
    return (findings[0], findings[1]), tuple(pairs[:_PAIRS])


def _identical(
    small: SmallPictures, train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[list[tuple[int, int]], int]:
    """Pairs of test and training id with the same pixels; pictures that occur again on their own side."""
    by_digest = {small.digests[row]: int(small.stimulus_ids[row]) for row in reversed(train)}
    same = [
        (int(small.stimulus_ids[row]), by_digest[small.digests[row]])
        for row in test
        if small.digests[row] in by_digest and by_digest[small.digests[row]] != int(small.stimulus_ids[row])
    ]
    again = sum(len(rows) - len({small.digests[row] for row in rows}) for rows in (train, test))
    return same, again


def check_captions(images: Images, captions: Mapping[int, tuple[str, ...]]) -> tuple[Finding, Finding]:
    """Count captions, and look for the same sentences on both sides.

    Parameters
    ----------
    images : Images
    captions : mapping of int to tuple of str
        An id that is not there has none.

    Returns
    -------
    tuple of Finding
        ``captions`` and ``captions on both sides``.
    """
    ids = images.ids
    counts = {int(i): len([text for text in captions.get(int(i), ()) if text.strip()]) for i in ids}
    none = [i for i, number in counts.items() if number == 0]
    few = [i for i, number in counts.items() if 0 < number < CAPTIONS]
    total = sum(counts.values())
    spread = f"{min(counts.values(), default=0)} to {max(counts.values(), default=0)}"
    found = f"{total:,} captions of {count(len(counts), 'image')} ({spread} each)"
    why = "an image without a caption has no text latent to learn from or to be scored by; fewer than five are noisier"
    if not total:
        about = Finding(
            "captions",
            "note",
            f"none of {count(len(counts), 'image')} has a caption",
            why,
            "nothing, if only pictures are to be decoded; otherwise add captions",
            {"images": len(counts), "captions": 0},
        )
    else:
        parts = [f"{len(none):,} without: {some(none)}"] * bool(none)
        parts += [f"{len(few):,} with fewer than {CAPTIONS}: {some(few)}"] * bool(few)
        about = Finding(
            "captions",
            "problem" if none else "note" if few else "ok",
            "; ".join([found, *parts]),
            why,
            "add the missing captions, or leave those images out" if none else "",
            {"images": len(counts), "captions": total, "without": none, "few": few},
        )
    training = {words for i in images.train_ids for words in map(_words, captions.get(int(i), ())) if words}
    shared = {
        int(i): sorted(training & {_words(caption) for caption in captions.get(int(i), ())}) for i in images.test_ids
    }
    shared = {i: sentences for i, sentences in shared.items() if sentences}
    example = next(iter(shared.values()))[0] if shared else ""
    return about, Finding(
        "captions on both sides",
        "note" if shared else "ok",
        f"{count(len(shared), 'test image')} of {len(images.test_ids):,} with a caption that a training image has too"
        + (f" (such as “{example}”)" if example else ""),
        "a caption that was trained on can be repeated word by word without being composed",
        "read caption scores beside their shuffled control" if shared else "",
        {"test_images": sorted(shared)},
    )


def _words(caption: str) -> str:
    """A caption without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", caption.casefold()))


def neighbours_of(images: Images, embeddings: NDArray[np.floating]) -> Neighbours:
    """Find the nearest training image of every test image, and of every training image among the others.

    Parameters
    ----------
    images : Images
        At least one test and two training images.
    embeddings : ndarray of shape (images, width)
        CLIP picture embeddings, in ascending order of id.

    Returns
    -------
    Neighbours
    """
    rows = unit_rows(embeddings)
    train, test = (rows[np.searchsorted(images.ids, ids)] for ids in (images.train_ids, images.test_ids))
    index, cosine = nearest(test, train)
    _, among = nearest(train, train)
    order = np.argsort(-cosine, kind="stable")
    both = np.concatenate((cosine, among))
    edges = np.linspace(float(both.min()), max(float(both.max()), float(both.min()) + 1e-3), _BINS + 1)
    return Neighbours(
        pairs=tuple(
            Pair(int(images.test_ids[row]), int(images.train_ids[index[row]]), round(float(cosine[row]), 4))
            for row in order
        ),
        test_quantiles=tuple(round(float(value), 4) for value in np.quantile(cosine, QUANTILES)),
        train_quantiles=tuple(round(float(value), 4) for value in np.quantile(among, QUANTILES)),
        edges=tuple(round(float(edge), 6) for edge in edges),
        test_counts=tuple(np.histogram(cosine, edges)[0].tolist()),
        train_counts=tuple(np.histogram(among, edges)[0].tolist()),
        share_as_near=float((cosine >= np.median(among)).mean()),
    )


def check_meaning(neighbours: Neighbours) -> Finding:
    """Judge how new the test images are in meaning (Shirakawa et al. 2024)."""
    test_quantiles, train_quantiles = neighbours.test_quantiles, neighbours.train_quantiles
    test, train = test_quantiles[2], train_quantiles[2]
    overlap = neighbours.share_as_near >= FAR
    return Finding(
        "overlap in meaning",
        "note" if overlap else "ok",
        f"nearest training image in CLIP: median cosine {test:.2f} for test images, {train:.2f} among training images; "
        f"{100 * neighbours.share_as_near:.0f} % of the test images are as near as the median training image",
        "test images with close relatives in training can be decoded by picking what was seen in training (Shirakawa "
        "et al. 2024, Spurious reconstruction from brain activity); scores then say little about new kinds of images",
        "call the test images new pictures of familiar kinds, and hold out whole kinds to claim more"
        if overlap
        else "",
        {
            "test": list(neighbours.test_quantiles),
            "train": list(neighbours.train_quantiles),
            "quantiles": list(QUANTILES),
        },
    )
