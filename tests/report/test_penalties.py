"""The section on penalties: the chart is a picture in the page, and the table says which band carries what."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from unibrain.evaluation.scores import Score, Scores
from unibrain.reconstruction.decoded import Decoded
from unibrain.regression.alpha_choice import AlphaChoice
from unibrain.regression.banded import BandChoice
from unibrain.report import ReportContent
from unibrain.report.page import render_report
from unibrain.report.penalties import band_table, penalty_chart

GRID = np.logspace(1, 5, 5)
CURVE = np.array([[0.1, 0.2, 0.3, 0.2, 0.1]])
CHOICES = {
    "z_image": AlphaChoice(GRID, CURVE, CURVE, "latent", 64, 8, "random", 5, 90, 90, 7),
    "c_text": AlphaChoice(GRID, CURVE[:, ::-1].cumsum(1), CURVE, "latent", 64, 64, "all", "loo", 90, 90, 7),
}
BANDS = BandChoice(
    ("early", "<b>other</b>"),
    ("z_image", "c_text"),
    GRID,
    np.array([[1.0, 1.0], [2.0, 0.0]]),
    np.array([[[0.1, 0.2, 0.1, 0.1, 0.0], [0.0, 0.3, 0.1, 0.1, 0.0]], [[0.1, 0.2, 0.25, 0.1, 0.0], [0.0] * 5]]),
    np.array([1, 0]),
    np.array([[0.25, 0.0], [-0.05, 0.35]]),
    "latent",
    {"seed": 0},
)


def render(**changes):
    ids = np.arange(2)
    scores = Scores(
        (Score("pixcorr", "PixCorr", "picture", 0.5, 0.0, 2, True, (0.4, 0.6)),), (0, 1), (), simulated=True
    )
    pictures = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    decoded = Decoded(ids, pictures, ("a", "b"))
    return render_report(
        ReportContent("UniBrain", "subj01", True, pictures, decoded, (("a",), ("b",)), scores, **changes)
    )


def test_chart_is_a_picture_in_the_page():
    html = render(alpha_choices=CHOICES)
    uri = html.split('class="curves" src="')[1].split('"')[0]
    kind, content = uri.split(",")
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    assert "all 64 dimensions, as 8 random projections drawn by seed 7" in html
    assert "leaving out one image at a time of 90 images" in html
    assert html.count("best at the edge of the grid: try alphas beyond 10 to 100000") == 1
    assert 'href="#penalties"' in html


def test_table_shows_what_bands_carry():
    html = render(bands=BANDS)
    table = html.split('class="heat bands"')[1].split("</table>")[0]
    for text in ("0.250", "-0.050", "0.350", "one penalty: 0.200", "one penalty: 0.300", "1e+02", "inf"):
        assert text in table
    assert "&lt;b&gt;other" in table
    assert "<b>" not in table
    assert "chosen among 2 candidates" in html
    assert 'class="curves"' not in html
    rows = band_table(BANDS)["rows"]
    assert [[cell[0] for cell in cells] for _, cells in rows] == BANDS.shares.T.tolist()
    np.testing.assert_array_equal([[cell[1] for cell in cells] for _, cells in rows], BANDS.penalties.T)


def test_runs_without_a_choice_have_no_section():
    assert penalty_chart({}) is None
    assert band_table(None) is None
    assert "penalties" not in render()


@pytest.mark.parametrize("word", ["url(", "@import", "http://", "https://"])
def test_nothing_is_fetched(word):
    with_section, without = render(alpha_choices=CHOICES, bands=BANDS), render()
    assert with_section.count(word) == without.count(word)
