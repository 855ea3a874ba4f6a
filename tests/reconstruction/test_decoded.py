"""Decoded pictures and captions on disk, read back and read by others (Pillow, json)."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unibrain.errors import InputError
from unibrain.reconstruction import Decoded, load_decoded, picture_name, save_decoded

CAPTIONS = ("a red car", "", 'a "dog"\nand ünïcode 犬')


def draw(ids=(12, 0, 72_999)):
    pictures = np.random.default_rng(0).integers(0, 256, (len(ids), 6, 5, 3), dtype=np.uint8)
    return Decoded(np.array(ids), pictures, CAPTIONS[: len(ids)])


@pytest.fixture
def folder(tmp_path):
    save_decoded(tmp_path / "decoded", draw())
    return tmp_path / "decoded"


def test_comes_back_exactly_and_in_order(folder):
    decoded, loaded = draw(), load_decoded(folder)
    assert repr(loaded) == "Decoded(3 scans: pictures, captions)"
    assert (loaded.stimulus_ids.tolist(), loaded.stimulus_ids.dtype) == ([12, 0, 72_999], np.int64)
    np.testing.assert_array_equal(loaded.pictures, decoded.pictures)
    assert loaded.captions == CAPTIONS


def test_others_can_read_it(folder):
    assert {path.name for path in folder.iterdir()} == {"000012.png", "000000.png", "072999.png", "decoded.json"}
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "072999.png")), draw().pictures[2])
    assert json.loads((folder / "decoded.json").read_text(encoding="utf-8"))["captions"] == list(CAPTIONS)


@pytest.mark.parametrize("left_out", ["pictures", "captions"])
def test_one_kind_alone(tmp_path, left_out):
    decoded = draw()
    pictures = None if left_out == "pictures" else decoded.pictures
    captions = None if left_out == "captions" else decoded.captions
    save_decoded(tmp_path / "decoded", Decoded(decoded.stimulus_ids, pictures, captions))
    loaded = load_decoded(tmp_path / "decoded")
    assert getattr(loaded, left_out) is None
    assert len(loaded.captions or loaded.pictures) == 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 9))
def test_any_caption_and_size(tmp_path, captions, height, width):
    pictures = np.random.default_rng(0).integers(0, 256, (len(captions), height, width, 3), dtype=np.uint8)
    save_decoded(tmp_path / "decoded", Decoded(np.arange(len(captions)), pictures, tuple(captions)))
    loaded = load_decoded(tmp_path / "decoded")
    assert loaded.captions == tuple(captions)
    np.testing.assert_array_equal(loaded.pictures, pictures)


def test_writing_again_replaces_all(folder):
    save_decoded(folder, draw((1,)))
    assert {path.name for path in folder.iterdir()} == {"000001.png", "decoded.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["decoded"]


@pytest.mark.parametrize(("ids", "named"), [((4, 4), "image id 4 occurs twice"), ((4, -1), "image id -1")])
def test_ids_without_a_file_name_of_their_own(tmp_path, ids, named):
    with pytest.raises(InputError, match=named):
        save_decoded(tmp_path / "decoded", draw(ids))
    assert list(tmp_path.iterdir()) == []


def test_counts_and_pictures_that_do_not_fit():
    pictures = draw().pictures
    for arguments, named in (
        ((np.arange(2), pictures), "3 items of kind picture for 2"),
        ((np.arange(3), pictures, ("a",)), "1 items of kind caption for 3"),
        ((np.arange(3), pictures.astype(float)), "float64"),
        ((np.arange(3), pictures[..., :1]), r"\(3, 6, 5, 1\)"),
    ):
        with pytest.raises(InputError, match=named):
            Decoded(*arguments)


ONE = '{"stimulus_ids": [12], "pictures": true, "captions": ["a"], "others": []}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "\xff",
        "{}",
        "[]",
        "[" * 100_000,
        ONE.replace("[12]", "[]"),
        ONE.replace("[12]", '["../../12"]'),
        ONE.replace("[12]", "[true]"),
        ONE.replace("[12]", "[1.0]"),
        ONE.replace("[12]", "[-1]"),
        ONE.replace("[12]", "[12, 12]"),
        ONE.replace('["a"]', "[null]"),
        ONE.replace('["a"]', '["a", "b"]'),
        ONE.replace("[]", '["../../secret"]'),
    ],
)
def test_an_index_of_something_else(folder, content):
    (folder / "decoded.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"decoded\.json"):
        load_decoded(folder)


def save(picture, **options):
    return lambda path: Image.fromarray(picture).save(path, **options)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        *[lambda path, keep=keep: path.write_bytes(path.read_bytes()[:keep]) for keep in (0, 20, 60, -15)],
        save(np.zeros((6, 5), dtype=np.uint8)),
        save(np.zeros((6, 4, 3), dtype=np.uint8)),
        save(np.zeros((6, 5, 3), dtype=np.uint8), format="JPEG"),
    ],
)
def test_damaged_pictures_are_named(folder, damage):
    damage(folder / picture_name(0))
    with pytest.raises(InputError, match=r"000000\.png"):
        load_decoded(folder)
    (folder / "decoded.json").unlink()
    with pytest.raises(InputError, match="nothing decoded"):
        load_decoded(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_picture_is_found(folder, position, bit):
    path = folder / picture_name(12)
    whole = path.read_bytes()
    content = bytearray(whole)
    # All but the last twelve bytes: those are the end mark, which carries nothing.
    content[position % (len(content) - 12)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"000012\.png"):
        load_decoded(folder)
    path.write_bytes(whole)
