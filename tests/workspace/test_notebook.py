"""How results show themselves: read back by an HTML parser and by Pillow."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from unibrain.evaluation import Score, Scores, format_table
from unibrain.evaluation.scores import Beside
from unibrain.experiments import Cell, Column, Findings, Strip
from unibrain.latents import Latents, StoredLatents
from unibrain.reconstruction import Decoded
from unibrain.scans import Subject
from unibrain.workspace.notebook import picture_uri

NASTY = '<img src=x onerror="1">&'
SIMULATED = "Simulated scans: no human was scanned."


class Reader(HTMLParser):
    """Rows of tables, all text, sources of images; refuses tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def read_uri(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])), formats=("PNG",)))


def test_a_picture_is_exact_and_a_large_one_is_made_smaller() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (150, 192, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_uri(picture_uri(picture)), picture)
    assert read_uri(picture_uri(picture.repeat(3, 0).repeat(3, 1))).shape == (150, 192, 3)


def test_decoded_shows_the_first_pictures_over_their_captions() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    captions = (NASTY, "", *(f"picture {number}" for number in range(2, 20)))
    shown = Reader(Decoded(np.arange(20), pictures, captions)._repr_html_())
    assert len(shown.sources) == 12
    np.testing.assert_array_equal(read_uri(shown.sources[3]), pictures[3])
    assert all(text in shown.text for text in (NASTY, "(no caption)", "picture 11", "20 scans", "the first 12 of them"))
    assert "picture 12" not in shown.text
    words = Reader(Decoded(np.array([7]), None, ("a dog",))._repr_html_())
    assert (words.sources, "a dog" in words.text) == ([], True)
    assert "image 7" in Reader(Decoded(np.array([7]), pictures[:1])._repr_html_()).text


def test_a_subject_shows_its_split_and_regions() -> None:
    subject = Subject(
        NASTY,
        np.zeros((4, 3), np.float32),
        np.array([1, 1, 2, 5]),
        np.array([False, False, False, True]),
        np.array([1, 1, 1, 3]),
        np.arange(3),
        (3, 1, 1),
        {"V1": np.array([True, True, False]), "none": np.zeros(3, bool)},
        np.array([10, 30, np.nan], np.float32),
        simulated=True,
        preparation={"protocol": "single-trial", "sessions": list(range(1, 38))},
    )
    shown = Reader(subject._repr_html_())
    assert ["training", "3", "2", "3"] in shown.rows
    assert ["test", "1", "1", "3"] in shown.rows
    assert shown.rows[-3:] == [["all voxels", "3", "20 %"], ["V1", "2", "20 %"], ["none", "0", "not known"]]
    assert all(text in shown.text for text in (NASTY, SIMULATED, "single-trial", "1, 2 ... 37 (37)"))


def test_latents_show_their_shapes() -> None:
    arrays = {"z_image": np.zeros((2, 4, 8, 8), np.float32), NASTY: np.zeros(2, np.float32)}
    latents = Latents(np.array([1, 2]), arrays)
    rows = Reader(latents._repr_html_()).rows[1:]
    assert rows == [
        ["z_image", "4 x 8 x 8", "256", "image latent (AutoKL)", "picture starts from it"],
        [NASTY, "1", "1", "", ""],
    ]
    stored = StoredLatents(
        "folder", "", latents.stimulus_ids, {n: a.shape[1:] for n, a in arrays.items()}, {}, np.arange(2)
    )
    found = Reader(stored._repr_html_())
    assert (found.rows[1:], "in folder" in found.text) == (rows, True)


def test_scores_show_the_numbers_of_the_printed_table() -> None:
    score = Score("ssim", f"SSIM {NASTY}", "picture", 0.41, 0.2, 12, True, note="a note", interval=(0.38, 0.44))
    beside = {"random": Beside(0.1, 0.4, 6), "oracle": Beside(0.9, 0.4, 6)}
    scores = Scores(
        (score, Score("far", "Far", "caption", None, None, 12, False, beside=beside)), (0,) * 12, (), simulated=True
    )
    shown, printed = Reader(scores._repr_html_()), format_table(scores)
    assert SIMULATED in shown.text
    for row, line in zip(shown.rows[1:], (line for line in printed.splitlines() if line.startswith("  ")), strict=True):
        assert row[1:] == re.split(r"\s{2,}", line.rsplit("er)", 1)[1].removesuffix(" [1]").strip())
    assert shown.rows[0][1:] == re.split(r"\s{2,}", printed.splitlines()[2].strip())[1:]
    assert "[1] a note" in shown.text
    assert Reader(Scores((), (), (), simulated=False)._repr_html_()).text.count(SIMULATED) == 0


def test_findings_show_table_figures_and_pictures() -> None:
    found = Findings(
        "test",
        NASTY,
        "?",
        (Column("ssim", "SSIM", "SSIM", "picture"),),
        (
            Cell("full", "ssim", 0.5),
            Cell("less", "ssim", 0.2, against="full", difference=-0.3, difference_low=-0.4, difference_high=-0.2),
        ),
        simulated=True,
        about={},
        answer="less is less",
        strips=(Strip("seen", np.zeros((2, 4, 4, 3), np.uint8), ["one", NASTY]),),
        figures={"Heading": b"<svg/>"},
    )
    shown = Reader(found._repr_html_())
    assert shown.rows == [["", "SSIM ↑"], ["full", "0.500"], ["less", "0.200*"]]
    assert [source.split(";")[0] for source in shown.sources] == [
        "data:image/svg+xml",
        "data:image/png",
        "data:image/png",
    ]
    assert all(text in shown.text for text in (NASTY, SIMULATED, "less is less", "differs from full", "Heading"))
