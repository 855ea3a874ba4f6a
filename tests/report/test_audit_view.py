import base64
import io
import re
from dataclasses import replace

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unibrain.audit import Audit, Finding, Neighbours, Pair, RegionVoxels, SessionVoxels
from unibrain.report import shown_pairs
from unibrain.report.audit_view import audit_view

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
    (Finding("captions", "problem", NASTY, NASTY, NASTY), Finding("repeats", "ok", "fine", "because")),
    (SessionVoxels(3, 75, 108, 1, 2, 4),),
    (RegionVoxels("all", 108, 100, (1.25, 2.5, 33.75)), RegionVoxels(NASTY, 0, 0, None)),
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
    assert "33.8 %" in html
    row = re.search(r'<tr><th scope="row">3</th>.*?</tr>', html)
    assert row is not None
    assert re.findall(r'number">(\d+)', row[0]) == ["75", "1", "2", "4", "108"]
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
