import re

import pytest

from unibrain.errors import InputError
from unibrain.evaluation.metrics import METRICS
from unibrain.evaluation.published import Row, beside, published_rows, published_tables, to_latex, to_markdown

IMAGE = ["pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip", "effnet", "swav"]


def own(table="unibrain", dialect="mindeye", images=982, **options):
    return beside({"pixcorr": 0.3, "clip": 0.9, "other": 1.0, "ssim": None}, dialect, table, images=images, **options)


@pytest.mark.parametrize("table", published_tables())
def test_every_row_is_whole(table):
    for row in published_rows(table):
        assert row.source
        assert row.status
        assert row.dialect_status in ("read", "inferred", "unknown")
        assert (row.dialect == "unknown") == (row.dialect_status == "unknown")
        assert row.direction in ("recon->images", "image->recons", "")
        assert row.images in ((None,) if row.dialect == "unknown" and not row.direction else (982, 1000))
        assert row.values
        assert all(0 < value < 1.1 for value in row.values.values())
        assert row.direction or not {"alexnet2", "clip", "two_way_caption"} & set(row.values)


def test_values_as_printed():
    rows = {row.method: row for row in published_rows("unibrain")}
    assert [rows["UniBrain"].values[name] for name in IMAGE] == [0.249, 0.33, 0.929, 0.956, 0.878, 0.923, 0.766, 0.407]
    assert rows["SD + text"].values == {"alexnet2": 0.852, "alexnet5": 0.914, "inception": 0.858, "clip": 0.841}
    assert rows["MindEye2"].values["ssim"] == 0.431
    assert {row.method: row.values["cider"] for row in published_rows("brainhub")} == {
        "UMBRAE": 0.6106,
        "BrainCap": 0.413,
        "SDRecon": 0.1383,
    }
    assert published_rows("mindeye2-subject1")[0].values["effnet"] == 0.60746899


def test_names_of_captions_are_those_of_our_metrics():
    rows = [row for table in ("unibrain-captions", "mindeye2-captions") for row in published_rows(table)]
    assert {name for row in rows for name in row.values} <= set(METRICS)


@pytest.mark.parametrize(
    ("method", "dialect", "images", "said"),
    [
        ("MindEye1", "mindeye", 982, ""),
        ("MindEye2", "mindeye", 982, "1,000 images, not on 982"),
        ("MindEye2", "mindeye", 1000, ""),
        ("Brain-Diffuser", "mindeye", 982, "dialect brain-diffuser, not in mindeye: not comparable."),
        ("Brain-Diffuser", "brain-diffuser", 982, ""),
        ("UniBrain", "brain-diffuser", 982, "is inferred"),
        ("UniBrain", "standard", 982, "brain-diffuser (inferred), not in standard"),
        ("IC-GAN (Gu)", "brain-diffuser", 982, "number of images that is not known, not on 982"),
        ("IC-GAN (Gu)", "brain-diffuser", 982, "dialect is not known"),
        ("SD + text", "takagi", 982, "from image to recons, not from recon to images"),
    ],
)
def test_what_is_not_comparable_says_so(method, dialect, images, said):
    first, *rows = own(dialect=dialect, images=images)
    assert (first.method, first.values, first.warnings) == ("this run", {"pixcorr": 0.3, "clip": 0.9}, ())
    warnings = next(row for row in rows if row.method == method).warnings
    assert said in " ".join(warnings)
    assert bool(warnings) == bool(said)


def test_markdown():
    text = to_markdown(own(method="ours | *new*", subject="1"))
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "| PixCorr ↑ |" in lines[0]
    assert "| EffNet-B ↓ |" in lines[0]
    assert table[2].startswith(r"| ours \| \*new\* | 1 | 982 | mindeye | 0.300 | - |")
    assert len(table) == 2 + 1 + 9
    marks = {int(mark) for mark in re.findall(r"\[(\d+)\] \|", text)}
    assert (
        marks == {int(mark) for mark in re.findall(r"^\[(\d+)\] ", text, re.MULTILINE)} == set(range(1, len(marks) + 1))
    )
    assert "MindEye1: Scotti et al. 2023 (MindEye), arXiv 2305.18274." in text
    assert "brain-diffuser? |" in text


def test_latex():
    text = to_latex(own(method="50% & #1_a {x} ~^\\", subject="1"))
    assert (
        r"50\% \& \#1\_a \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} & 1 & 982 & mindeye & 0.300" in text
    )
    assert r"EffNet-B $\downarrow$" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    columns = len(re.search(r"\{(l+r+)\}", text)[1])
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [columns - 1] * 10
    assert text.count(r"\begin") == text.count(r"\end") == 1


def test_metrics_of_ones_own_have_a_column():
    row = Row("a", "1", "", "standard", "own", 10, "", {"mine": 0.12345, "ssim": 0.5}, digits=4)
    assert to_markdown([row]).splitlines()[0::2] == [
        "| Method | Subject | N | Dialect | SSIM ↑ | mine ↑ |",
        "| a | 1 | 10 | standard | 0.5000 | 0.1235 |",
    ]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: published_rows("mindeye"), "'mindeye'"),
        (lambda: own("nothing"), "brainhub"),
        (lambda: beside({"clip": None}, "mindeye", "unibrain", images=2), "pixcorr"),
        (lambda: to_markdown([]), "no rows"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError) as error:
        call()
    assert named in str(error.value)
