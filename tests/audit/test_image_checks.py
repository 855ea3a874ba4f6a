import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import cdist
from skimage import data

from unibrain.audit.image_checks import (
    NEAR_DUPLICATE,
    Images,
    check_captions,
    check_coco_ids,
    check_ids,
    check_meaning,
    check_pictures,
    edges_of,
    nearest,
    neighbours_of,
    small_pictures,
)
from unibrain.demo import render, sample_scene


def images_of(train: list[int], test: list[int]) -> Images:
    ids = np.array(train + test)
    return Images.of(ids, np.arange(len(ids)) >= len(train), np.full(len(ids), 3))


def jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def brighter(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(picture * 1.1 + 12, 0, 255).astype(np.uint8)


def test_the_nearest_is_that_of_scipy_and_a_row_is_not_its_own_neighbour() -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(37, 12)), rng.normal(size=(101, 12))
    apart, among = cdist(queries, keys, "cosine"), cdist(keys, keys, "cosine")
    np.fill_diagonal(among, np.inf)
    for given, distance in ((queries, apart), (None, among)):
        index, cosine = nearest(given, keys)
        np.testing.assert_array_equal(index, distance.argmin(axis=1))
        np.testing.assert_allclose(cosine, 1 - distance.min(axis=1), atol=1e-6)
    assert nearest(np.zeros((1, 3)), np.eye(3))[1][0] == 0


def test_pictures_are_read_some_at_a_time() -> None:
    asked: list[NDArray[np.int64]] = []

    def read(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append(ids)
        return np.repeat(ids.astype(np.uint8), 425 * 425 * 3).reshape(len(ids), 425, 425, 3)

    ids = np.arange(150)
    digests, edges = small_pictures(read, ids)
    np.testing.assert_array_equal(np.concatenate(asked), ids)
    assert max(len(part) for part in asked) * 425 * 425 * 3 <= 32 * 2**20
    assert len(set(digests)) == 150
    assert not edges.any()  # of one shade each: they have no edges, and are like nothing


def test_likeness_of_copies_and_of_other_pictures() -> None:
    names = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
    photographs = np.stack(
        [np.asarray(Image.fromarray(getattr(data, name)()).resize((256, 256)))[..., :3] for name in names]
    )
    edges = edges_of(photographs)
    likeness = 1 - cdist(edges, edges, "cosine")
    np.fill_diagonal(likeness, -1)
    assert likeness.max() < 0.6
    for change in (lambda p: jpeg(p, 40), brighter, lambda p: np.asarray(Image.fromarray(p).resize((200, 200)))):
        copies = edges_of(np.stack([change(picture) for picture in photographs]))
        assert (1 - cdist(copies, edges, "cosine").diagonal()).min() > NEAR_DUPLICATE


def test_copies_across_the_split_are_found_and_other_scenes_are_not() -> None:
    scenes = np.stack([render(sample_scene(3, number, "train")) for number in range(60)])
    train, test = list(range(100, 150)), list(range(10))
    pictures = {identity: scenes[row] for row, identity in enumerate(train + test)}
    images = images_of(train, test)

    def read(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([pictures[int(i)] for i in ids])

    (same, near), pairs = check_pictures(images, read)
    assert (same.level, near.level) == ("ok", "ok")
    assert len(pairs) == 10
    pictures[4] = pictures[131]
    pictures[7] = jpeg(brighter(pictures[118]), 70)
    pictures[101] = pictures[102]
    (same, near), pairs = check_pictures(images, read)
    assert (same.level, near.level) == ("problem", "problem")
    assert same.details == {"pairs": [[4, 131]], "within_a_side": 1}
    assert [pair[:2] for pair in near.details["pairs"]] == [[7, 118]]
    assert [(pair.test_id, pair.train_id) for pair in pairs[:2]] == [(4, 131), (7, 118)]
    assert pairs[0].similarity == pytest.approx(1, abs=1e-4)
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)


def test_overlap_by_id_and_by_coco_id() -> None:
    images = images_of([1, 2, 3], [7, 8])
    assert check_ids(images).level == "ok"
    finding = check_ids(images_of([1, 2, 3], [7, 3]))
    assert (finding.level, finding.details["both"]) == ("problem", [3])
    coco_ids = {1: 11, 2: 12, 3: 13, 7: 17, 8: 18}
    assert check_coco_ids(images, coco_ids).level == "ok"
    finding = check_coco_ids(images, {**coco_ids, 8: 12})
    assert (finding.level, finding.details["pairs"]) == ("problem", [[8, 2]])


FIVE = tuple(f"caption {number}" for number in range(5))
WHOLE = {1: (*FIVE, "a cat"), 2: FIVE, 7: ("A dog.", "two", "three", "four", "five")}


@pytest.mark.parametrize(
    ("captions", "levels", "without", "few", "shared"),
    [
        (WHOLE, ("ok", "ok"), [], [], []),
        ({**WHOLE, 2: ("a  DOG!", "b")}, ("note", "note"), [], [2], [7]),
        ({**WHOLE, 1: ("", " ")}, ("problem", "ok"), [1], [], []),
        ({}, ("note", "ok"), [1, 2, 7], [], []),
    ],
)
def test_captions_are_counted_and_compared(
    captions: dict[int, tuple[str, ...]],
    levels: tuple[str, str],
    without: list[int],
    few: list[int],
    shared: list[int],
) -> None:
    about, both = check_captions(images_of([1, 2], [7]), captions)
    assert (about.level, both.level) == levels
    assert (about.details["without"], about.details["few"], both.details["test_images"]) == (without, few, shared)


def test_neighbours_in_meaning() -> None:
    rng = np.random.default_rng(1)
    train, near, far = rng.normal(size=(200, 16)), rng.normal(size=(40, 16)), rng.normal(size=(40, 16))
    train[:, :2] += 4
    near[:, :2] += 4
    far[:, 2:4] -= 6
    images = images_of(list(range(200)), list(range(300, 340)))
    found = neighbours_of(images, np.concatenate((train, near)))
    distance = cdist(near, train, "cosine")
    best = {300 + row: (int(distance[row].argmin()), 1 - distance[row].min()) for row in range(40)}
    for pair in found.pairs:
        assert pair.train_id == best[pair.test_id][0]
        assert pair.similarity == pytest.approx(best[pair.test_id][1], abs=1e-4)
    among = cdist(train, train, "cosine")
    np.fill_diagonal(among, np.inf)
    nearest_other = 1 - among.min(axis=1)
    quantiles = np.quantile(nearest_other, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(found.train_quantiles, quantiles, atol=1e-4)
    share = np.mean((1 - distance.min(axis=1)) >= np.median(nearest_other))
    assert found.share_as_near == pytest.approx(share)
    assert 0.25 < share < 0.75  # drawn alike, about half
    assert (sum(found.test_counts), sum(found.train_counts)) == (40, 200)
    assert len(found.edges) == len(found.test_counts) + 1
    assert check_meaning(found).level == "note"
    assert check_meaning(neighbours_of(images, np.concatenate((train, far)))).level == "ok"
