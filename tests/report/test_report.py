import base64
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unibrain.errors import InputError
from unibrain.evaluation import Score, Scores
from unibrain.reconstruction import Decoded
from unibrain.report import Region, ReportContent, regions_of, write_report
from unibrain.report.sections import data_uri

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = '<script>document.title = "broken"</script> & "quoted" <b>bold</b>'
N = 9
PIXCORR = (0.5, 0.9, -0.1, 0.3, 0.7, 0.2, 0.8, 0.1, 0.6)
METEOR = (0.4, 0.8, 0.1, 0.3, 0.7, 0.1, 0.9, 0.2, 0.5)


@pytest.fixture(scope="module")
def content():
    random = np.random.default_rng(0)
    ids = np.array([17, 4, 90, 33, 2, 61, 8, 77, 50], dtype=np.int64)
    seen = random.integers(0, 256, (N, 64, 64, 3), dtype=np.uint8)
    captions = tuple((f"true caption of {i}", f"another of {i}") for i in ids)
    decoded = Decoded(ids, seen // 2, ("", NASTY, *(f"decoded caption of {i}" for i in ids[2:])))
    scores = Scores(
        (
            Score("pixcorr", "PixCorr", "picture", 0.4444, 0.0123, N, True, PIXCORR),
            Score(
                "two_way_picture", "Two-way identification", "picture", None, None, N, True, note="install it like this"
            ),
            Score("meteor", "METEOR", "caption", 0.4567, 0.2, N, True, METEOR),
            Score("two_way_caption", "Two-way", "caption", 0.0, 0.0, N, True, note="24 of 72 are ties"),
        ),
        tuple(ids.tolist()),
        (("z_image", "all", 0.42), ("z_image", "V1", 0.31), ("c_text", "all", float("nan")), ("c_text", "V1", 0.07)),
        simulated=True,
    )
    return ReportContent(
        "UniBrain <demo>",
        "subj01",
        True,
        seen,
        decoded,
        captions,
        scores,
        settings={"seed": 3, "fit": {"alpha": "cv", "nested": {"folds": 5}, "alphas": [1.0, 1e5]}},
        versions={"unibrain": "0.1.0", "torch": "2.13.0"},
        seconds={"simulate": 3.2, "reconstruct": 100.0},
        peak_memory_gb=1.75,
        limits=("A limit of this run.",),
        regions={"all": Region(1234, 20.4), "V1": Region(56, None)},
    )


class Page(HTMLParser):
    """What a browser would find in a page: elements with their attributes, and the text below each class or id."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("img", "meta", "link", "input"):
            self._open.append((tag, {attributes.get("id"), *(attributes.get("class") or "").split()} - {None}))

    def handle_endtag(self, tag):
        if tag in ("td", "th", "dt", "dd"):
            self.handle_data(" ")
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for name in {name for _, names in self._open for name in names}:
            self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]

    def ids_of_cards(self):
        return [int(a["data-id"]) for a in self.all("li") if a.get("class") == "card" and "hidden" not in a]


@pytest.fixture(scope="module")
def path(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run" / "report.html"
    write_report(content, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return path


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browse(path, tmp_path_factory):
    """Open the page (or another file) in headless Chromium and return what is there after its script has run."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (chromium)")

    def open_page(state="", file=path):
        profile = tmp_path_factory.mktemp("profile")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--enable-logging=stderr", "--dump-dom", file.as_uri() + state]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
        return Page(done.stdout.decode("utf-8")), console

    return open_page


def test_a_browser_shows_the_best_first_without_a_complaint(browse, content):
    page, console = browse()
    assert console == []
    # Image 4 and image 8 are first and second in one score each; the smaller id comes first.
    assert page.ids_of_cards()[:2] == [4, 8]
    assert page.ids_of_cards()[-1] == 90
    assert page.texts["status"] == "9 of 9 images, Overall, best first"
    assert page.texts["is-key"].strip().startswith("Overall")
    assert (len(page.all("script")), "broken" in page.texts.get("title", "")) == (1, False)
    assert NASTY in page.texts["decoded"]


def test_a_browser_sorts_by_any_score(browse, content):
    page, console = browse("#sort=meteor&order=worst")
    assert console == []
    ids = content.decoded.stimulus_ids
    expected = sorted(zip(METEOR, ids.tolist(), strict=True))
    assert page.ids_of_cards() == [identity for _, identity in expected]
    assert page.texts["status"] == "9 of 9 images, METEOR, worst first"
    pressed = [button["data-order"] for button in page.all("button") if button["aria-pressed"] == "true"]
    assert pressed == ["worst"]


def test_nothing_is_fetched(path, page):
    text = path.read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            target = attributes.get(name)
            if target is not None and not target.startswith(("data:", "#")):
                assert (tag, target) == ("a", "https://arxiv.org/abs/2308.07428")
    assert "url(" not in text
    assert "@import" not in text
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert "default-src 'none'" in policy[0]


def test_all_pictures_are_in_the_page_and_decode(content, page):
    sources = [image["src"] for image in page.all("img")]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))).convert("RGB")) for s in sources]
    shown = {picture.tobytes() for picture in pictures}
    assert shown == {p.tobytes() for p in (*content.seen, *content.decoded.pictures)}
    assert all(image["alt"] for image in page.all("img"))
    assert len(sources) == 2 * N + 2 * 9  # all images, and a sample of three best, three median, three worst


def test_text_is_escaped(path, page):
    assert len(page.all("script")) == 1
    assert page.all("b") == []
    assert NASTY not in path.read_text(encoding="utf-8")
    assert NASTY in page.texts["decoded"]
    assert "(no caption)" in page.texts["decoded"]


def test_simulated_data_are_called_so_and_others_are_not(content, page, tmp_path):
    assert "Simulated data. No human was scanned." in page.texts["banner"]
    assert "From simulated scan to picture and sentence: 9 unseen images decoded" in page.texts["top"]
    human = replace(content, simulated=False, scores=replace(content.scores, simulated=False))
    write_report(human, tmp_path / "human.html")
    text = (tmp_path / "human.html").read_text(encoding="utf-8")
    assert "imulated" not in text
    assert "From scan to picture and sentence: 9 unseen images decoded" in text


def test_what_is_said_where(page):
    for place, said in (
        ("missing", "install it like this"),
        ("tile", "24 of 72 are ties"),
        ("latents", "The picture starts from it"),
        ("sample", "they may disagree"),
        ("limits", "A limit of this run."),
        ("pairs", "2.13.0"),
        ("stages", "1 min 43 s"),
        ("stages", "peak memory 1.75 GB"),
    ):
        assert said in page.texts[place]


def test_scores_accuracy_and_settings_are_tables(page):
    for place, cells in (
        ("scores", {"0.444", "0.012", "0.457", "0.200", "9"}),
        ("heat", {"0.42", "0.31", "0.07", "–", "V1", "1,234", "20", "56"}),
        ("settings", {"alpha", "cv", "nested.folds", "5", "seed", "3"}),
    ):
        assert cells <= set(page.texts[place].split())
    assert "NaN" not in page.texts["heat"]


def test_one_image_and_no_scores_still_make_a_page(content, tmp_path):
    one = replace(
        content,
        seen=content.seen[:1],
        decoded=Decoded(content.decoded.stimulus_ids[:1], content.decoded.pictures[:1], ("a cat",)),
        captions=content.captions[:1],
        scores=Scores((), content.scores.stimulus_ids[:1], (), simulated=True),
        settings={},
        versions={},
        seconds={},
        peak_memory_gb=None,
    )
    write_report(one, tmp_path / "one.html")
    assert Page((tmp_path / "one.html").read_text(encoding="utf-8")).ids_of_cards() == [17]


@pytest.mark.parametrize("missing", ["pictures", "captions"])
def test_a_page_of_one_kind_only(content, missing, tmp_path):
    captions = ((),) * N if missing == "captions" else content.captions
    decoded = replace(content.decoded, **{missing: None})
    write_report(replace(content, decoded=decoded, captions=captions), tmp_path / "some.html")
    page = Page((tmp_path / "some.html").read_text(encoding="utf-8"))
    assert f"No {missing} were decoded" in page.texts["sample"]
    assert len(page.all("img")) == (1 if missing == "pictures" else 2) * (N + 9)


TELEPHONE = """<!doctype html><iframe width="400" height="900" srcdoc="{page}"></iframe><p id="cut"></p><script>
onload = () => {{
  const inside = document.querySelector("iframe").contentDocument;
  const cut = [...inside.querySelectorAll(".frame *, .heat *, .curves *, .tiles *, .card *")]
    .filter((element) => element.getClientRects().length && element.getBoundingClientRect().right > 400);
  document.getElementById("cut").textContent = `${{inside.querySelectorAll("tr").length}} rows, cut: ${{
    cut.map((element) => element.outerHTML.slice(0, 80)).join()}}`;
}};
</script>"""


def test_nothing_is_cut_on_a_telephone(path, browse, tmp_path):
    (tmp_path / "telephone.html").write_text(TELEPHONE.format(page=html.escape(path.read_text(encoding="utf-8"))))
    page, _ = browse(file=tmp_path / "telephone.html")
    assert re.fullmatch(r"\d\d rows, cut: ", page.texts["cut"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: {"seen": c.seen[:3]}, r"shape \(3, 64, 64, 3\)"),
        (lambda c: {"captions": c.captions[:3]}, "captions for 3 of 9"),
        (lambda c: {"scores": replace(c.scores, stimulus_ids=tuple(range(9)))}, "scores are of other images"),
        (lambda c: {"simulated": False}, "simulated=True, the report simulated=False"),
        (lambda c: {"decoded": Decoded(np.empty(0, np.int64))}, "no decoded images"),
    ],
)
def test_content_that_does_not_belong_together(content, change, named):
    with pytest.raises(InputError, match=named):
        replace(content, **change(content))


def test_regions_have_their_voxels_and_the_median_of_the_known_ceilings():
    ceiling = np.array([10, np.nan, 30, 80], np.float32)
    masks = {"V1": np.array([True, True, False, True]), "FFA": np.array([False, True, False, False])}
    found = regions_of(SimpleNamespace(noise_ceiling=ceiling, regions=masks))
    assert found == {"all": Region(4, 30.0), "V1": Region(3, 45.0), "FFA": Region(1, None)}
    assert list(found) == ["all", "V1", "FFA"]


def test_small_pictures_are_exact_and_large_ones_shrink():
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)
    decode = lambda uri: Image.open(io.BytesIO(base64.b64decode(re.fullmatch(r"data:image/webp;base64,(.+)", uri)[1])))  # noqa: E731
    np.testing.assert_array_equal(np.asarray(decode(data_uri(small)).convert("RGB")), small)
    assert decode(data_uri(large)).size == (240, 320)
