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
    assert loaded.stimulus_ids.tolist() == [12, 0, 72_999]
    assert loaded.stimulus_ids.dtype == np.int64
    np.testing.assert_array_equal(loaded.pictures, decoded.pictures)
    assert loaded.captions == CAPTIONS


def test_others_can_read_it(folder):
    assert {path.name for path in folder.iterdir()} == {"000012.png", "000000.png", "072999.png", "captions.json"}
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "072999.png")), draw().pictures[2])
    entries = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    assert entries[0] == {"stimulus_id": 12, "caption": "a red car"}


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
    assert {path.name for path in folder.iterdir()} == {"000001.png", "captions.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["decoded"]


@pytest.mark.parametrize(
    ("ids", "message"), [((4, 4), "image id 4 occurs twice"), ((4, -1), "image id -1, expected 0-based")]
)
def test_refuses_ids_without_a_name_of_their_own(tmp_path, ids, message):
    with pytest.raises(InputError, match=message):
        save_decoded(tmp_path / "decoded", draw(ids))
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_without_captions(tmp_path):
    with pytest.raises(InputError, match=r"captions\.json is missing"):
        load_decoded(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"\xff",
        b"{}",
        b"[]",
        b"[3]",
        b'[{"stimulus_id": 12}]',
        b'[{"stimulus_id": 12, "caption": null}]',
        b'[{"stimulus_id": "../../12", "caption": ""}]',
        b'[{"stimulus_id": true, "caption": ""}]',
        b'[{"stimulus_id": 1.0, "caption": ""}]',
        b'[{"stimulus_id": -1, "caption": ""}]',
        b'[{"stimulus_id": 12, "caption": ""}, {"stimulus_id": 12, "caption": ""}]',
    ],
)
def test_refuses_other_captions(folder, content):
    (folder / "captions.json").write_bytes(content)
    with pytest.raises(InputError, match=r"captions\.json: "):
        load_decoded(folder)


def test_refuses_a_missing_picture(folder):
    (folder / picture_name(0)).unlink()
    with pytest.raises(InputError, match=r"000000\.png: there is no such file"):
        load_decoded(folder)


@pytest.mark.parametrize("keep", [0, 20, 60, -15])
def test_refuses_a_truncated_picture(folder, keep):
    path = folder / picture_name(12)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"000012\.png: truncated or damaged"):
        load_decoded(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_refuses_any_flipped_bit_of_a_picture(folder, position, bit):
    path = folder / picture_name(12)
    whole = path.read_bytes()
    content = bytearray(whole)
    # All but the last twelve bytes: those are the end mark, which carries nothing.
    content[position % (len(content) - 12)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"000012\.png: truncated or damaged"):
        load_decoded(folder)
    path.write_bytes(whole)


def test_refuses_other_pictures(folder):
    Image.fromarray(np.zeros((6, 5), dtype=np.uint8)).save(folder / picture_name(12))
    with pytest.raises(InputError, match="mode L, expected RGB"):
        load_decoded(folder)
    Image.fromarray(np.zeros((6, 5, 3), dtype=np.uint8)).save(folder / picture_name(12), format="JPEG")
    with pytest.raises(InputError, match="truncated or damaged"):
        load_decoded(folder)
    Image.fromarray(np.zeros((6, 4, 3), dtype=np.uint8)).save(folder / picture_name(12))
    with pytest.raises(InputError, match=r"shape \(6, 5, 3\), expected \(6, 4, 3\)"):
        load_decoded(folder)
