"""The sections of the page, one by one: the audit, penalties and bands, the fair sample."""

import base64
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unibrain.audit import Audit, Finding
from unibrain.audit.audit import Neighbours, Pair, SessionSummary
from unibrain.evaluation import Score
from unibrain.regression import AlphaChoice
from unibrain.report import shown_pairs
from unibrain.report.page import fair_sample, overall_rank
from unibrain.report.sections import audit_view, band_table, penalty_view

NASTY = '<script>document.title = "broken"</script> & <b>bold</b>'
PAIRS = tuple(Pair(number, 100 + number, round(0.95 - number / 20, 4)) for number in range(8))
NEIGHBOURS = Neighbours(
    pairs=tuple(Pair(7 - number, 107 - number, 0.9 - number / 50) for number in range(8)),
    test_quantiles=(0.1, 0.2, 0.31, 0.4, 0.5),
    train_quantiles=(0.1, 0.2, 0.42, 0.4, 0.5),
    edges=(0.0, 0.25, 0.5, 0.75, 1.0),
    test_counts=(0, 1, 3, 4),
    train_counts=(10, 40, 30, 20),
    share_as_near=0.5,
)
AUDIT = Audit(
    "subj01",
    False,
    "run",
    "hash",
    (Finding("problem", "captions", NASTY, NASTY, NASTY), Finding("ok", "repeats", "fine", why="because")),
    (SessionSummary(3, 75, 60, 108, 1, 2, 4, 0.5, 1.25),),
    0.9,
    PAIRS,
    NEIGHBOURS,
)


def render(audit: Audit | None) -> str:
    random = np.random.default_rng(0)
    pictures = {
        identity: random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for pair in shown_pairs(AUDIT)
        for identity in (pair.test_id, pair.train_id)
        if identity != 3
    }
    environment = Environment(
        loader=PackageLoader("unibrain.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    view = audit_view(audit, pictures)
    return environment.get_template("audit.html.j2").render(audit=view, simulated=False)


def test_findings_tables_and_pictures_are_shown_and_escaped() -> None:
    html = render(AUDIT)
    assert "<script" not in html
    assert "<b>" not in html
    assert "1 problem, 0 notes" in html
    assert 'class="level level-problem">problem' in html
    row = re.search(r'<tr><th scope="row">3</th>.*?</tr>', html)
    assert row is not None
    assert re.findall(r'number">(\d+)', row[0]) == ["75", "1", "2", "4", "108", "0", "1"]
    # Six pairs of each kind; those with image 3, whose picture is not there, are left out.
    assert html.count("likeness ") == 5
    assert html.count("cosine 0.") == 5
    assert html.count("said warning") == 2
    sources = re.findall(r'src="([^"]+)"', html)
    assert len(sources) == 20
    for source in sources:
        assert source.startswith("data:image/webp;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size == (16, 16)


def test_the_plot_shows_shares_of_both_sides() -> None:
    view = audit_view(AUDIT, {})
    assert view is not None
    plot = view["plot"]
    assert len(plot["bars"]) == 3  # an empty bin has no bar
    heights = [height for _, _, _, height in plot["bars"]]
    assert np.allclose(np.array(heights) / heights[-1], np.array([1, 3, 4]) / 4, atol=0.01)
    tops = [plot["floor"] - float(value) for value in re.findall(r"V([\d.]+)H", plot["steps"])]
    # 40 % of the training images are in one bin, 50 % of the test images: on one scale.
    assert np.allclose(np.array(tops) / max(heights), np.array([0.1, 0.4, 0.3, 0.2]) / 0.5, atol=0.01)
    assert all(x >= 0 and x + width <= plot["width"] for x, _, width, _ in plot["bars"])
    assert [text for _, text in plot["ticks"]] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert "median 0.31" in render(AUDIT)


def test_without_an_audit_or_without_latents_there_is_less() -> None:
    assert audit_view(None, {}) is None
    html = render(replace(AUDIT, neighbours=None, pictures=(), sessions=()))
    assert "<svg" not in html
    assert "<img" not in html
    assert "without a response in" not in html


GRID = np.logspace(1, 5, 5)
CURVE = np.array([[0.1, 0.2, 0.3, 0.2, 0.1]])


def test_penalties_are_words_and_warnings_below_one_chart() -> None:
    choices = {
        "z_image": AlphaChoice(GRID, CURVE, CURVE, "latent", 64, 8, 5, 90, 90, 7),
        "c_text": AlphaChoice(GRID, CURVE[:, ::-1].cumsum(1), CURVE, "latent", 64, 64, "loo", 90, 90, 7),
    }
    chart = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    view = penalty_view(choices, chart)
    image, text = view["latents"]
    assert image["title"] == "image latent (AutoKL)"
    assert "8 of 64 dimensions" in image["words"]
    assert image["warning"] == ""
    assert "leaving out one image at a time of 90 images" in text["words"]
    assert text["warning"].startswith("best at the edge of the grid")
    kind, content = view["chart"].split(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content) == chart
    assert penalty_view({}, None) == {"chart": None, "latents": []}


def test_bands_are_a_table_of_shares_and_penalties() -> None:
    shares, penalties = np.array([[0.25, 0.0], [-0.05, 0.35]]), np.array([[100.0, np.inf], [1e3, 1e4]])
    choice = SimpleNamespace(
        bands=("early", "other"),
        latents=("z_image", "c_text"),
        shares=shares,
        penalties=penalties,
        best_r2=shares.sum(axis=1),
        candidates=[1, 2],
    )
    table = band_table(choice)  # type: ignore[arg-type]
    assert table is not None
    assert [[cell[0] for cell in cells] for _, cells in table["rows"]] == shares.T.tolist()
    assert [[cell[1] for cell in cells] for _, cells in table["rows"]] == penalties.T.tolist()
    assert (table["largest"], table["candidates"]) == (0.35, 2)
    assert band_table(None) is None


@pytest.mark.parametrize(
    ("scores", "rank"),
    [
        ([("picture", True, (0.1, 0.9, 0.5)), ("caption", True, (-3, 8, 0))], [0, 1, 0.5]),
        # Pictures and captions count alike, however many scores there are of each.
        ([*[("picture", True, (0, 1))] * 3, ("caption", True, (1, 0))], [0.5, 0.5]),
        ([("picture", False, (3, 1, 2))], [0, 1, 0.5]),
        ([("picture", True, (1, 1, 0))], [0.75, 0.75, 0]),
        ([("picture", True, (0.3,))], [0.5]),
        ([("picture", True, ())], [0.5] * 4),
    ],
)
def test_overall_rank(scores: list[tuple[str, bool, tuple[float, ...]]], rank: list[float]) -> None:
    found = [Score("a", "a", kind, 0.5, 0.4, len(rank), higher, values) for kind, higher, values in scores]  # type: ignore[arg-type]
    np.testing.assert_allclose(overall_rank(found, len(rank)), rank)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 6))
def test_a_sample_is_fair(rank, count):
    rank = np.array(rank)
    sample = fair_sample(rank, count)
    rows = [row for group in sample.values() for row in group]
    assert len(set(rows)) == len(rows)
    if len(rank) < 3:
        assert sorted(sample["All"]) == list(range(len(rank)))
        return
    sizes = {label: len(group) for label, group in sample.items()}
    expected = min(count, len(rank) // 3)
    assert sizes == {"Best": expected, "Median": expected, "Worst": expected}
    others = np.delete(rank, sample["Best"])
    assert rank[sample["Best"]].min() >= others.max()
    assert rank[sample["Worst"]].max() <= np.delete(rank, sample["Worst"]).min()
    middle = rank[sample["Median"]]
    rest = len(rank) - expected
    assert (rank > middle.max()).sum() <= rest // 2
    assert (rank < middle.min()).sum() <= rest - rest // 2
