"""Picture files of every kind, and what is kept of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibrain.errors import DamagedFileError, InputError
from unibrain.stimuli import read_custom_stimuli, write_custom_stimuli
from unibrain.stimuli.custom import open_square


def halves(width: int = 40, height: int = 40) -> np.ndarray:
    """Left half red, right half blue."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[:, : width // 2, 0] = 200
    picture[:, width // 2 :, 2] = 200
    return picture


def test_formats_and_modes_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(halves())
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm"):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(open_square(tmp_path / name, 40), halves())
    image.save(tmp_path / "a.jpg", quality=95)
    assert np.abs(open_square(tmp_path / "a.jpg", 40).astype(int)[:, :16] - halves()[:, :16]).max() < 12
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    np.testing.assert_array_equal(open_square(tmp_path / "p.png", 40), halves())
    image.convert("L").save(tmp_path / "l.png")
    assert (open_square(tmp_path / "l.png", 40) == np.asarray(image.convert("L"))[..., None]).all()
    Image.fromarray(np.full((20, 20), 128 * 257, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert (open_square(tmp_path / "deep.png", 20) == 128).all(), "scaled, not clipped"


def test_what_is_transparent_shows_grey(tmp_path: Path) -> None:
    rgba = np.dstack([halves(), np.full((40, 40), 255, dtype=np.uint8)])
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "t.png")
    found = open_square(tmp_path / "t.png", 40)
    assert (found[:10] == 127).all()
    np.testing.assert_array_equal(found[10:], halves()[10:])


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    image, exif = Image.fromarray(halves()), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: left comes to the top
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(open_square(tmp_path / "turned.png", 40), np.rot90(halves(), -1))


def test_oblong_pictures_are_cut_or_padded(tmp_path: Path) -> None:
    Image.fromarray(halves(80, 40)).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(open_square(tmp_path / "wide.png", 40), halves(80, 40)[:, 20:60])
    padded = open_square(tmp_path / "wide.png", 80, "pad")
    assert (padded[:20] == 127).all()
    assert (padded[60:] == 127).all()
    np.testing.assert_array_equal(padded[20:60], halves(80, 40))


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "shown"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, shape in (("a.png", (30, 50)), ("more/b.png", (24, 24)), ("c.png", (90, 60))):
        Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / name)
    return folder


NAMES = ("a.png", "c.png", "more/b.png")


def test_written_and_read_back(tmp_path: Path) -> None:
    folder, captions = folder_of(tmp_path), (("one",), ("two", "zwei"), ("three",))
    assert write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, captions) == 24
    stimuli = read_custom_stimuli(tmp_path / "stimuli", [2, 0, 2])
    assert stimuli.stimulus_ids.tolist() == [0, 2]
    assert stimuli.captions([2, 0]) == [("three",), ("one",)]
    found = stimuli.pictures([2, 0])
    np.testing.assert_array_equal(found[0], open_square(folder / "more/b.png", 24))
    np.testing.assert_array_equal(found[1], open_square(folder / "a.png", 24))
    assert found.dtype == np.uint8
    assert write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3, size=16, crop="pad") == 16
    silent = read_custom_stimuli(tmp_path / "stimuli")
    assert not silent.has_captions
    assert silent.captions([1, 2]) == [(), ()]


def replaced(save: Callable[[Path], object], name: str = "c.png") -> Callable[[Path], object]:
    """Another file where c.png was."""

    def write(folder: Path) -> None:
        save(folder / name)
        (folder / name).rename(folder / "c.png")

    return write


def several(path: Path) -> None:
    frames = [Image.fromarray(halves()), Image.fromarray(halves()[::-1, ::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def leaving(folder: Path) -> None:
    (folder / "c.png").rename(folder.parent / "c.png")
    (folder / "c.png").symlink_to(folder.parent / "c.png")


def loop(folder: Path) -> None:
    (folder / "c.png").unlink()
    (folder / "c.png").symlink_to("c.png")


@pytest.mark.parametrize(
    ("mistake", "names"),
    [
        (lambda folder: (folder / "c.png").unlink(), "no such file"),
        (replaced(Image.fromarray(halves(2, 1)).save), "1 pixels"),
        (replaced(Image.fromarray(halves()).save, "c.eps"), "PNG"),
        (replaced(lambda path: path.write_bytes(path.read_bytes()[:3000])), "truncated"),
        (replaced(several), "2 pictures"),
        (replaced(Image.fromarray(np.ones((30, 30), dtype=np.float32)).save, "c.tif"), "mode F"),
        (replaced(lambda path: path.write_bytes(path.with_name("a.png").read_bytes())), "a.png"),
        (leaving, "leads out of"),
        (loop, "loop of symbolic links"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, mistake: Callable[[Path], None], names: str) -> None:
    folder = folder_of(tmp_path)
    mistake(folder)
    with pytest.raises(InputError) as caught:
        write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3)
    assert str(caught.value).startswith(f"{folder / 'c.png'}: ")
    assert names in str(caught.value)
    assert not (tmp_path / "stimuli").exists()


def test_one_picture_under_two_names_may_be_on_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(InputError, match=r"c\.png: is the same picture as a\.png"):
        write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3, is_test=[False, True, False])
    write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3, is_test=[False, False, True])
    assert "c.png: is the same picture as a.png. They count as two training pictures." in caplog.text
    stimuli = read_custom_stimuli(tmp_path / "stimuli")
    np.testing.assert_array_equal(*stimuli.pictures([0, 1]))
    assert not np.array_equal(*stimuli.pictures([0, 2]))


def test_a_folder_with_links_to_itself_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for name in ("one", "two"):
        (folder / name).symlink_to(".")
    assert write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3) == 24
    (tmp_path / "round").symlink_to("round")
    for root, says in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "round", "loop"),
        (folder / "a.png", "file"),
    ):
        with pytest.raises(InputError, match=says):
            write_custom_stimuli(tmp_path / "stimuli", root, NAMES, [()] * 3)


def test_a_small_picture_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path)
    Image.fromarray(halves(100, 100)).save(folder / "a.png")
    assert write_custom_stimuli(tmp_path / "stimuli", folder, NAMES, [()] * 3) == 24
    assert "b.png: has a side of 24 pixels" in caplog.text


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("pictures.npy", flip),
        ("pictures.npy", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("pictures.npy", lambda path: np.save(path, np.zeros(3))),
        ("stimuli.json", lambda path: path.write_text("{}")),
        ("stimuli.json", lambda path: path.write_text(path.read_text()[:50])),
    ],
)
def test_damaged_stimuli_are_made_again(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    write_custom_stimuli(tmp_path / "stimuli", folder_of(tmp_path), NAMES, [()] * 3)
    with pytest.raises(InputError, match="3 pictures, none with the 0-based id 3"):
        read_custom_stimuli(tmp_path / "stimuli", [3])
    damage(tmp_path / "stimuli" / name)
    with pytest.raises(DamagedFileError) as caught:
        read_custom_stimuli(tmp_path / "stimuli").pictures([0, 1, 2])
    assert caught.value.path == tmp_path / "stimuli" / name
