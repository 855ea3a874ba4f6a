import json

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.evaluation.identification import centroids, cluster_identification, correlations
from unibrain.evaluation.splits import (
    Split,
    caption_features,
    cluster_split,
    naive_split,
    read_folds,
    refit_lines,
    refit_on,
    write_folds,
)
from unibrain.latents import Latents
from unibrain.regression import BrainDecoder, latent_accuracy
from unibrain.stimuli import Stimuli

IDS = np.array([9, 4, 7, 1, 12, 30])
SPLIT = Split("clusters", 3, 5, IDS, np.array([0, 0, 0, 1, 1, 2]))


def clouds(n=90, k=3, width=200, seed=0):
    random = np.random.default_rng(seed)
    kinds = np.sort(np.arange(n) ** 2 % k)
    return (2 * random.normal(size=(k, width))[kinds] + random.normal(size=(n, width))).astype(np.float32), kinds


@pytest.mark.parametrize("width", [20, 200])  # with and without a projection
def test_clusters_are_found_again(width):
    features, kinds = clouds(width=width)
    split = cluster_split(features, np.arange(90) * 3, len(np.unique(kinds)), seed=1)
    pairs = set(zip(split.folds.tolist(), kinds.tolist(), strict=True))
    assert len(pairs) == split.k
    assert split.sizes == sorted(split.sizes, reverse=True)
    again = cluster_split(features, np.arange(90) * 3, split.k, seed=1)
    np.testing.assert_array_equal(again.folds, split.folds)
    np.testing.assert_array_equal(cluster_split(9 * features, split.stimulus_ids, split.k, 1).folds, split.folds)


def test_the_naive_split_has_the_same_sizes():
    features, kinds = clouds()
    split = cluster_split(features, np.arange(90), len(np.unique(kinds)), seed=2)
    naive = naive_split(split)
    assert (naive.name, naive.sizes) == ("naive", split.sizes)
    assert 0.2 < np.mean(naive.folds == split.folds) < 0.8
    np.testing.assert_array_equal(naive_split(split).folds, naive.folds)


def test_folds_by_id():
    assert SPLIT.of([30, 9, 9, 1]).tolist() == [2, 0, 0, 1]
    assert SPLIT.sizes == [3, 2, 1]


def test_file(tmp_path):
    write_folds(tmp_path / "folds.json", (SPLIT, naive_split(SPLIT)))
    found, naive = read_folds(tmp_path / "folds.json")
    assert (found.name, found.k, found.seed, naive.name) == ("clusters", 3, 5, "naive")
    np.testing.assert_array_equal(found.stimulus_ids, IDS)
    np.testing.assert_array_equal(found.folds, SPLIT.folds)
    np.testing.assert_array_equal(naive.folds, naive_split(SPLIT).folds)


def changed(**entry):
    folds = {"9": 0, "4": 1}
    return {"format": ["unibrain-folds", 1], "splits": [{"name": "n", "k": 2, "seed": 0, "folds": folds} | entry]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        [],
        {"format": ["unibrain-folds", 2], "splits": []},
        {"format": 3},
        changed(k=3),
        changed(k="two"),
        changed(folds={"9": 0.5, "4": 1}),
        changed(folds={"9": True, "4": False}),
        changed(folds={"nine": 0, "4": 1}),
        changed(folds={"9": 0, "9" * 30: 1}),
        changed(folds=[0, 1]),
        changed(folds={}),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content):
    path = tmp_path / "folds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=r"folds\.json"):
        read_folds(path)


def stimuli(captions):
    return Stimuli(
        np.array(list(captions)), captions, lambda ids: np.empty((0, 1, 1, 3), np.uint8), "here", any(captions.values())
    )


def test_caption_features_are_means(toy):
    captions = {3: ("a red car", "the dog"), 8: ("a red car",), 5: ("blue sky", "", "sea")}
    found = caption_features(stimuli(captions), np.array([8, 3, 5]), toy)
    for row, texts in zip(found, (captions[8], captions[3], ("blue sky", "sea")), strict=True):
        np.testing.assert_allclose(row, toy.embed("caption", list(texts)).mean(axis=0), rtol=1e-6)


def decoder_of(alpha, n=80, **options):
    random = np.random.default_rng(3)
    clusters = np.arange(n) % 4
    hidden = random.normal(size=(4, 6))[clusters] + 0.7 * random.normal(size=(n, 6))
    betas = hidden @ random.normal(size=(6, 40)) + random.normal(size=(n, 40))
    ids = random.permutation(500)[:n]
    ids[5] = ids[1]  # an image of two trials
    arrays = {
        "z_text": hidden @ random.normal(size=(6, 10)) + 3,
        "c_text": (hidden @ random.normal(size=(6, 21))).reshape(n, 7, 3),
    }
    for array in arrays.values():
        array[5] = array[1]
    latents = Latents(ids, {name: array.astype(np.float32) for name, array in arrays.items()})
    split = Split("clusters", 4, 0, np.delete(ids, 5), np.delete(clusters, 5))
    return BrainDecoder(alpha, **options).fit(betas, latents), betas, latents, split


@pytest.mark.parametrize("alpha", [50.0, {"z_text": 20.0, "c_text": 300.0}, "cv"])
def test_refitting_is_fitting_again_without_the_fold(alpha):
    decoder, betas, latents, split = decoder_of(alpha)
    naive = naive_split(split)
    for left_out in (naive, split):
        folds, predicted = left_out.of(latents.stimulus_ids), {}
        for name in latents:
            predicted[name] = np.empty_like(latents[name])
        accuracy = dict.fromkeys(latents, 0.0)
        for fold in range(4):
            out = folds == fold
            refitted = BrainDecoder(decoder.alpha_, rescale="none").fit(betas[~out], latents.rows(~out))
            found = refitted.predict(betas[out], latents.stimulus_ids[out])
            for name, value in latent_accuracy(found, latents.rows(out)).items():
                predicted[name][out] = found[name]
                accuracy[name] += value * out.mean()
        own = split.of(latents.stimulus_ids)
        for refit in refit_on(decoder, left_out, split):
            name = refit.latent
            assert refit.accuracy == pytest.approx(accuracy[name], abs=1e-5)
            similarity = correlations(centroids(latents[name], own), predicted[name])
            assert refit.clusters_told == pytest.approx(cluster_identification(similarity, own).mean(), abs=0.013)
            assert (refit.split, refit.chance, refit.images) == (left_out.name, 0.25, 80)


def test_what_only_knows_clusters_falls_to_chance_without_them():
    random = np.random.default_rng(4)
    clusters = np.arange(120) % 6
    hidden = np.eye(6)[clusters]
    betas = hidden @ random.normal(size=(6, 50)) + 0.3 * random.normal(size=(120, 50))
    latents = {"z_text": (hidden @ random.normal(size=(6, 30))).astype(np.float32)}
    decoder = BrainDecoder(10.0).fit(betas, latents)
    split = Split("clusters", 6, 0, np.arange(120), clusters)
    (naive,), (left_out,) = (refit_on(decoder, some, split) for some in (naive_split(split), split))
    assert naive.clusters_told > 0.95
    assert left_out.clusters_told < 0.2
    assert naive.accuracy > 0.8
    assert left_out.accuracy == pytest.approx(0, abs=1e-6)  # within a cluster there is nothing to tell
    lines = refit_lines((naive, left_out))
    assert lines[1].split() == [
        "z_text",
        *(f"{v:.3f}" for v in (naive.accuracy, naive.clusters_told, 0, left_out.clusters_told)),
    ]


def test_banded_decoders_and_large_latents(monkeypatch):
    monkeypatch.setattr("unibrain.regression.accuracy.SAMPLED_TARGETS", 5)
    decoder, betas, latents, split = decoder_of(50.0)
    regions = {"a": np.arange(40) < 20, "b": np.arange(40) >= 20}
    banded = BrainDecoder(bands={"a": ["a"], "b": ["b"]}).fit(betas, latents, regions=regions)
    for fitted in (decoder, banded):
        assert [refit.latent for refit in refit_on(fitted, split, split)] == ["z_text", "c_text"]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Split("clusters", 2, 0, np.array([1, 1]), np.array([0, 1])), "clusters"),
        (lambda: Split("clusters", 2, 0, np.array([1, 2]), np.array([0, 1, 1])), "3 folds"),
        (lambda: Split("clusters", 3, 0, np.array([1, 2, 3]), np.array([0, 2, 2])), "3 folds"),
        (lambda: Split("clusters", 1, 0, np.array([1, 2]), np.array([0, 0])), "1 folds"),
        (lambda: SPLIT.of([4, 5]), "image id 5"),
        (lambda: cluster_split(np.ones((5, 3)), np.arange(5), 2), "2 clusters"),
        (lambda: cluster_split(np.eye(5), np.arange(5), 6), "6 clusters"),
        (lambda: caption_features(stimuli({1: ()}), np.array([1]), None), "here"),
        (lambda: refit_on(decoder_of(50.0)[0], SPLIT, SPLIT), "no fold for image id"),
        (lambda: read_folds("nowhere.json"), "nowhere.json"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError) as error:
        call()
    assert named in str(error.value)
