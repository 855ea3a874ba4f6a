"""Pictures of NSD-Synthetic and NSD-Imagery, and picture files inside HDF5 as LAION-fMRI has them."""

import io
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest
from further_tree import write_brick, write_imagery, write_synthetic
from PIL import Image

from unibrain.errors import InputError
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.stimuli import read_custom_stimuli, write_custom_stimuli
from unibrain.stimuli.nsd import read_further_stimuli


def test_synthetic_pictures_are_square_and_as_bright_as_they_were_seen(tmp_path: Path) -> None:
    layout = NsdLayout(tmp_path, 3)
    pictures = write_synthetic(layout, np.array([1, 2]), np.ones((2, 2, 2, 2), np.int16))
    stimuli = read_further_stimuli(layout, "nsd-synthetic")
    assert stimuli.stimulus_ids.tolist() == [0, 1, 2, 3]
    assert not stimuli.has_captions
    expected = np.sqrt(pictures[[3, 0]][:, :, 8:32] / 255) * 255
    np.testing.assert_allclose(stimuli.pictures([3, 0]), expected, atol=0.5)
    assert layout.synthetic_stimuli[1].name == "nsdsynthetic_colorstimuli_subj03.hdf5"
    write_brick(layout.synthetic_stimuli[1], pictures[..., 0])
    with pytest.raises(InputError, match=r"colorstimuli_subj03\.hdf5: imgBrick is uint8 of shape \(4, 24, 40\)"):
        read_further_stimuli(layout, "nsd-synthetic")


def test_imagined_pictures_are_the_targets_by_their_numbers(tmp_path: Path) -> None:
    layout = NsdLayout(tmp_path)
    shades = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.full((20, 20, 3), 40, np.uint8)
    write_imagery(layout, *np.ones((2, 6, 1, 2, 2, 2), np.int16), pictures=shades)
    found = read_further_stimuli(layout, "nsd-imagery").pictures([5, 0, 2])
    assert found.shape == (3, 425, 425, 3)
    assert found[:, 0, 0, 0].tolist() == [200, 0, 80]


def packed(tmp_path: Path, names: list[str]) -> Path:
    path, kind = tmp_path / "task-images_stimuli.h5", h5py.vlen_dtype(np.uint8)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (len(names),), dtype=kind)
        for row, name in enumerate(names):
            images[row] = np.frombuffer((tmp_path / "shown" / name).read_bytes(), np.uint8)
    pandas.DataFrame({"image_name": names, "n_reps": 4}).to_csv(tmp_path / "task-images_metadata.csv", index=False)
    return path


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    (tmp_path / "shown").mkdir()
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.fromarray(random.integers(0, 256, (30, 24, 3), dtype=np.uint8)).save(tmp_path / "shown" / name)
    return ["c.jpg", "a.jpg", "b.jpg"]


def test_picture_files_inside_hdf5_are_those_of_a_folder(tmp_path: Path, names: list[str]) -> None:
    source, wanted = packed(tmp_path, names), ("a.jpg", "c.jpg")
    assert write_custom_stimuli(tmp_path / "one", source, wanted, [("x",), ("y",)]) == 24
    assert write_custom_stimuli(tmp_path / "two", tmp_path / "shown", wanted, [("x",), ("y",)]) == 24
    one, two = (read_custom_stimuli(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_array_equal(one.pictures([0, 1]), two.pictures([0, 1]))


def test_what_is_wrong_with_packed_pictures_is_named(tmp_path: Path, names: list[str]) -> None:
    source = packed(tmp_path, names)
    listing = tmp_path / "task-images_metadata.csv"

    def refused(wanted: str, match: str) -> None:
        with pytest.raises(InputError, match=match):
            write_custom_stimuli(tmp_path / "stimuli", source, (wanted,), [()])

    refused("d.jpg", r"metadata\.csv: does not name the picture d\.jpg")
    text = listing.read_text()
    listing.write_text(text.replace("image_name", "name"))
    refused("a.jpg", "no column image_name")
    listing.write_text(text + "d.jpg,4\n")
    refused("a.jpg", r"names 4 pictures in 4 lines, but task-images_stimuli\.h5 holds 3")
    listing.unlink()
    refused("a.jpg", r"metadata\.csv: no such file .*Copy it beside the pictures")
    listing.write_text(text)
    with h5py.File(source, "r+") as file:
        file["images"][1] = np.frombuffer(io.BytesIO(b"no picture").getvalue(), np.uint8)
    refused("a.jpg", r"stimuli\.h5:a\.jpg: is no picture")
    with h5py.File(source, "w") as file:
        file["images"] = np.zeros((3, 4, 4, 3), np.uint8)
    refused("a.jpg", "images holds no list of files")
