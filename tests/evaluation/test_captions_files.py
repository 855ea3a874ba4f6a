import json

import pytest

from unibrain.errors import InputError
from unibrain.evaluation.caption_files import read_captions

EXPECTED = {0: ["a dog"], 7: ["two cats, asleep"], "beach": ["sea “and” sand"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("brainhub.json", '{"0": "a dog", "7": "two cats, asleep", "beach": "sea “and” sand"}'),
        ("lists.JSON", '{"0": ["a dog "], "7": ["two cats, asleep\\n"], "beach": ["sea “and” sand"]}'),
        (
            "results.json",
            '[{"image_id": 0, "caption": "a dog", "id": 4}, {"image_id": 7, "caption": "two cats, asleep"}, '
            '{"image_id": "beach", "caption": "sea “and” sand"}]',
        ),
        ("heads.csv", 'image_id,caption\r\n0,a dog\r\n7,"two cats, asleep"\r\nbeach,sea “and” sand\r\n'),
        ("no-heads.tsv", "0\ta dog\n7\ttwo cats, asleep\n\nbeach\tsea “and” sand"),
        ("mark.csv", '\ufeff0,a dog\n7,"two cats, asleep"\nbeach,sea “and” sand\n'),
    ],
)
def test_captions_are_read_from_every_kind_of_file(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_captions(tmp_path / name) == EXPECTED


def test_lines_of_text_are_the_images_in_order(tmp_path):
    (tmp_path / "decoded.txt").write_bytes("a dog\r\ntwo\u2028cats\r\n".encode())
    assert read_captions(tmp_path / "decoded.txt") == {0: ["a dog"], 1: ["two\u2028cats"]}


def test_references_of_coco_are_grouped_by_image(tmp_path):
    annotations = [{"image_id": image, "id": 9, "caption": text} for image, text in [(5, "a"), (4, "b"), (5, "c")]]
    (tmp_path / "captions_val.json").write_text(json.dumps({"images": [], "annotations": annotations}))
    assert read_captions(tmp_path / "captions_val.json") == {5: ["a", "c"], 4: ["b"]}


def test_a_number_with_zeros_before_it_is_a_name(tmp_path):
    (tmp_path / "names.csv").write_text("007,a\n7,b\n")
    assert read_captions(tmp_path / "names.csv") == {"007": ["a"], 7: ["b"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.json", None, "cannot be read"),
        ("a.json", '{"3": ""}', "image 3 has an empty caption"),
        ("a.json", '{"3": ["a", "  "]}', "image 3 has an empty caption"),
        ("a.json", '{"3": []}', "image 3 has no caption"),
        ("a.json", '{"3": "a", "3": "b"}', "'3' stands there twice"),
        ("a.json", '{"3": 5}', r"image 3 is int \(5\)"),
        ("a.json", '{"3": {"a": "b"}}', "image 3 is dict"),
        ("a.json", '["a", "b"]', "entry 0 is str.*image_id and caption"),
        ("a.json", '[{"image_id": 3}]', "entry 0 is dict"),
        ("a.json", "5", "it holds int"),
        ("a.json", "{}", "no captions"),
        ("a.json", '{"3": "a"', "not valid json"),
        ("a.json", "[" * 100_000, "not valid json"),
        ("a.json", "{'3': 'a'}".encode("utf-16"), r"not in UTF-8 \(byte 0\)"),
        ("a.txt", "caf\u00e9".encode("latin-1"), r"not in UTF-8 \(byte 3\)"),
        ("a.txt", "", "no captions"),
        ("a.txt", "a\n\nb\n", "image 1 has an empty caption"),
        ("a.csv", "0,a dog, asleep\n", "row 1 has 3 columns.*double quotes"),
        ("a.csv", '0,"a dog\n', "not a sound table"),
        ("a.tsv", "a dog\n", "row 1 has 1 columns"),
        ("a.xlsx", "0,a", r"are not \.xlsx"),
        ("a", "0,a", "without an ending"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as error:
        read_captions(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
