import json
import math
from functools import partial

import numpy as np
import pytest

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation import (
    METRICS,
    Measure,
    Metric,
    Score,
    Scores,
    evaluate,
    format_table,
    load_scores,
    save_scores,
)
from unibrain.evaluation.captions import meteor, rouge
from unibrain.evaluation.evaluate import derangements
from unibrain.evaluation.identification import correlations, identify
from unibrain.evaluation.metrics import on_pictures
from unibrain.evaluation.pictures import pixel_correlation, structural_similarity
from unibrain.evaluation.wordnet import bundled_synonyms
from unibrain.reconstruction.decoded import Decoded
from unibrain.stimuli.stimuli import Stimuli

NAMES = ["pixcorr", "ssim", "two_way_picture", "meteor", "rouge1", "rougeL", "two_way_caption"]
GENERAL = {name: METRICS[name] for name in NAMES}
WORDS = ["car", "dog", "beach", "tree", "house", "apple", "boat", "cat"]


def two_way(true, decoded):
    return identify(correlations(true, decoded))


class BagOfWords:
    """Embeds captions by counting words: a stand-in for CLIP with a known answer."""

    name = fingerprint = "toy"

    def embed(self, kind, captions):
        assert kind == "caption"
        return np.array([[caption.split().count(word) for word in WORDS] for caption in captions], np.float32)


@pytest.fixture(scope="module")
def world():
    """Eight images whose decoded pictures are noisy copies and whose captions are right, but for one."""
    random = np.random.default_rng(0)
    ids = np.array([30, 10, 50, 20, 70, 60, 5, 40], dtype=np.int64)
    blocks = random.integers(0, 256, (8, 4, 4, 3))
    pictures = np.kron(blocks, np.ones((1, 8, 8, 1))).astype(np.uint8)
    noisy = np.clip(pictures + random.normal(0, 60, pictures.shape), 0, 255).astype(np.uint8)
    row = {int(identity): index for index, identity in enumerate(ids)}
    true = {int(i): (f"a {WORDS[k]} on the left", f"a picture of a {WORDS[k]}", "") for i, k in row.items()}
    stimuli = Stimuli(np.sort(ids), true, lambda asked: pictures[[row[int(i)] for i in asked]], "toy stimuli")
    captions = [f"a {word} on the left" for word in WORDS]
    captions[3] = "a dog on the left"
    return Decoded(ids, noisy, tuple(captions)), stimuli, pictures


@pytest.fixture(scope="module")
def scores(world):
    decoded, stimuli, _ = world
    return evaluate(
        decoded,
        stimuli,
        BagOfWords(),
        simulated=True,
        metrics=GENERAL,
        region_accuracy=[("z_image", "all", 0.25), ("c_text", "V1", math.nan)],
    )


def test_values_are_those_of_the_metrics(world, scores):
    decoded, stimuli, seen = world
    true = [captions[:2] for captions in stimuli.captions(decoded.stimulus_ids)]
    embed = partial(BagOfWords().embed, "caption")
    means = np.array([embed(captions).mean(axis=0) for captions in true])
    expected = {
        "pixcorr": pixel_correlation(seen, decoded.pictures),
        "ssim": structural_similarity(seen, decoded.pictures),
        "meteor": meteor(decoded.captions, true, bundled_synonyms()),
        "rouge1": rouge(decoded.captions, true, "rouge1"),
        "rougeL": rouge(decoded.captions, true, "rougeL"),
        "two_way_caption": two_way(means, embed(decoded.captions)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name].per_image, values, atol=1e-12, err_msg=name)
        assert scores[name].value == pytest.approx(values.mean())


def test_controls_are_near_chance_and_far_below_the_scores(scores):
    for score in scores.scores:
        if score.value is not None:
            assert score.control < score.value, score.name
    # Averaged over all derangements, a perfect decoder is told apart by 3 of the other 7 images.
    assert scores["two_way_caption"].control < 0.5
    assert abs(scores["pixcorr"].control) < 0.2


def test_the_seed_decides_the_control_and_nothing_else(world, scores):
    decoded, stimuli, _ = world
    other = evaluate(decoded, stimuli, BagOfWords(), simulated=True, seed=1, metrics=GENERAL)
    assert [s.value for s in other.scores] == [s.value for s in scores.scores]
    assert other["pixcorr"].control != scores["pixcorr"].control


def test_a_metric_is_a_row_of_the_table(world):
    """What to add for a metric: a function and its row."""
    decoded, stimuli, seen = world

    def brightness_error(seen, decoded):
        return np.abs(seen.mean(axis=(1, 2, 3)) - decoded.mean(axis=(1, 2, 3)))

    def never(items):
        raise UnavailableError("the moon is needed")

    rows = (
        Metric("bright", "Brightness", "Bright", "picture", "?", "...", on_pictures(brightness_error), False, (0, 255)),
        Metric("never", "Never", "Never", "caption", "?", "...", never),
        Metric(
            "noted", "Noted", "Noted", "caption", "?", "...", lambda items: Measure(lambda order: order / 7, "so it is")
        ),
        Metric(
            "count",
            "Count",
            "Count",
            "latent",
            "?",
            "...",
            lambda predicted, true: {n: len(predicted[n]) for n in true},
        ),
    )
    latents = {"toy": np.zeros((8, 3))}
    found = evaluate(
        decoded,
        stimuli,
        BagOfWords(),
        simulated=False,
        predicted=latents,
        latents=latents,
        region_accuracy=[("toy", "V1", 0.5), ("toy", "all", -1.0)],
        metrics={row.name: row for row in rows},
    )
    np.testing.assert_allclose(found["bright"].per_image, brightness_error(seen, decoded.pictures))
    assert not found["bright"].higher_is_better
    assert (found["never"].value, found["never"].note) == (None, "the moon is needed")
    assert (found["noted"].value, found["noted"].note) == (0.5, "so it is")
    # The decoder's own accuracy stands before that of regions, and is not replaced by a fit to them.
    assert found.latent_accuracy == (("toy", "all", 8.0), ("toy", "V1", 0.5))
    assert "Brightness  (lower)" in format_table(found)


def test_every_metric_is_explained():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.question.endswith("?")
        assert len(metric.explanation) > 50
        assert metric.bounds[0] < metric.bounds[1]


def test_ties_are_said_beside_the_number(world):
    decoded, stimuli, _ = world
    alike = Decoded(decoded.stimulus_ids, decoded.pictures, ("a car",) * 8)
    twins = Stimuli(
        stimuli.stimulus_ids, dict.fromkeys(stimuli.captions_by_id, ("a car",)), stimuli.read_pictures, "toy stimuli"
    )
    found = evaluate(alike, twins, BagOfWords(), simulated=True)
    assert found["two_way_caption"].value == 0
    assert "56 of 56 comparisons are ties, which count as losses: chance is 0.000" in found["two_way_caption"].note
    assert found["two_way_picture"].note == ""


def test_a_picture_of_one_colour_counts_as_zero(world):
    decoded, stimuli, _ = world
    pictures = decoded.pictures.copy()
    pictures[2] = 128
    score = evaluate(Decoded(decoded.stimulus_ids, pictures, decoded.captions), stimuli, BagOfWords(), simulated=True)[
        "pixcorr"
    ]
    assert score.per_image[2] == 0
    assert score.value == pytest.approx(np.mean(score.per_image))
    assert "pictures of one colour, counted as 0: 1" in score.note


def test_a_single_image_has_scores_but_no_control(world):
    decoded, stimuli, _ = world
    one = Decoded(decoded.stimulus_ids[:1], decoded.pictures[:1], decoded.captions[:1])
    scores = evaluate(one, stimuli, BagOfWords(), simulated=False)
    assert scores["pixcorr"].value is not None
    assert scores["pixcorr"].control is None
    assert scores["two_way_caption"].value is None
    assert "at least two images" in scores["two_way_caption"].note


def test_without_the_network_the_cell_says_how_to_get_it(world, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["unibrain.evaluation.metrics"], "network_is_installed", lambda: False)
    decoded, stimuli, _ = world
    score = evaluate(decoded, stimuli, BagOfWords(), simulated=True)["two_way_picture"]
    assert score.value is None
    assert 'pip install "unibrain[demo]"' in score.note


def test_bad_input(world):
    decoded, stimuli, _ = world
    nothing = Decoded(decoded.stimulus_ids[:0], decoded.pictures[:0], ())
    with pytest.raises(InputError, match="no decoded images"):
        evaluate(nothing, stimuli, BagOfWords(), simulated=True)
    stranger = Decoded(np.array([99]), decoded.pictures[:1], decoded.captions[:1])
    with pytest.raises(InputError, match="image id 99"):
        evaluate(stranger, stimuli, BagOfWords(), simulated=True)


def test_scores_json_has_what_a_reader_needs_and_comes_back(tmp_path, scores):
    path = tmp_path / "run" / "scores.json"
    save_scores(path, scores, seconds=81.5, peak_memory_gb=1.9, provenance={"unibrain": "0.1.0"})
    content = json.loads(path.read_text())
    about = {
        "simulated": True,
        "images": 8,
        "seconds": 81.5,
        "peak_memory_gb": 1.9,
        "provenance": {"unibrain": "0.1.0"},
    }
    assert {name: content[name] for name in about} == about
    assert list(content["metrics"]) == NAMES
    assert {"value", "control", "images"} <= set(content["metrics"]["ssim"])
    assert content["latent_accuracy"][1] == {"latent": "c_text", "region": "V1", "correlation": None}
    back = load_scores(path)
    assert back.scores == scores.scores
    assert back.stimulus_ids == scores.stimulus_ids
    assert back.latent_accuracy[0] == ("z_image", "all", 0.25)
    assert math.isnan(back.latent_accuracy[1][2])
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        *((text, "Evaluate again") for text in ("", "[]", "{}", "[" * 100_000, '{"format": 2, "metrics": []}')),
        ('{"format": 1}', "another version"),
        (None, "no scores yet"),
    ],
)
def test_wrong_scores_files(tmp_path, text, named):
    path = tmp_path / "scores.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"scores\.json: .*{named}"):
        load_scores(path)


def test_one_line_a_table_and_a_frame(scores):
    assert "\n" not in repr(scores)
    assert len(repr(scores)) < 250
    assert repr(METRICS["ssim"]) == "Metric(ssim of a picture, -1 to 1, higher is better)"
    assert repr(Score("ssim", "SSIM", "picture", 0.41, None, 3, True)) == "Score(ssim 0.410, control -, 3 images)"
    lines = format_table(scores).splitlines()
    assert lines[0].startswith("SIMULATED")
    score = scores["pixcorr"]
    cells = f"{score.value:.3f} {score.interval[0]:.3f} to {score.interval[1]:.3f} 8 {score.control:.3f}".split()
    assert ["PixCorr", "(higher)", *cells] in [line.split() for line in lines]
    missing = Score("meteor", "METEOR", "caption", None, None, 120, True, note="install WordNet")
    lines = format_table(Scores((missing,), (), (), simulated=False)).splitlines()
    assert [line.split() for line in lines][1] == ["METEOR", "(higher)", "-", "-", "120", "-", "[1]"]
    assert (lines[-1], "SIMULATED" in lines[0]) == ("[1] install WordNet", False)
    frame = scores.to_frame()
    assert list(frame.index) == NAMES
    assert frame.loc["pixcorr", "value"] == scores["pixcorr"].value
    assert frame["value"].dtype == float


def test_every_derangement_is_equally_likely():
    orders, counts = np.unique(derangements(4, 9000, seed=0), axis=0, return_counts=True)
    assert not (orders == np.arange(4)).any()
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (9, 1)))  # all that there are
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()
