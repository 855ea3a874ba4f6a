import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import pytest

from unibrain.errors import InputError
from unibrain.stimuli import read_nsd_stimuli

IDS = [7, 2, 5]
COCO = 100 + 3 * np.arange(10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images of 6 x 5 pixels; every third one is of COCO's val2017."""
    stimuli, experiment = tmp_path / "nsddata_stimuli/stimuli/nsd", tmp_path / "nsddata/experiments/nsd"
    (stimuli / "annotations").mkdir(parents=True)
    experiment.mkdir(parents=True)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = brick()
    splits = np.where(np.arange(10) % 3 == 0, "val2017", "train2017")
    pandas.DataFrame({"cocoId": COCO, "cocoSplit": splits, "nsdId": np.arange(10)}).to_csv(
        experiment / "nsd_stim_info_merged.csv"
    )
    for split in ("train2017", "val2017"):
        annotations = [
            {"image_id": int(c), "id": 1000 * int(c) + n, "caption": f"{split} caption {n} of {c}"}
            for n in range(5)
            for c in COCO[splits == split]
        ]
        (stimuli / "annotations" / f"captions_{split}.json").write_text(json.dumps({"annotations": annotations}))
    return tmp_path


def brick() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)


def captions_file(root: Path, split: str = "train2017") -> Path:
    return root / "nsddata_stimuli/stimuli/nsd/annotations" / f"captions_{split}.json"


def pictures_file(root: Path) -> Path:
    return root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


def test_pictures_come_in_the_order_asked_for(root: Path) -> None:
    stimuli = read_nsd_stimuli(root, range(10))
    for ids in ([7, 2, 5], [9, 9, 0], [3, 4, 5, 1], list(range(10)), []):
        pictures = stimuli.pictures(ids)
        assert pictures.dtype == np.uint8
        np.testing.assert_array_equal(pictures, brick()[np.array(ids, dtype=int)])


def test_captions_go_by_coco_id_and_split_in_file_order(root: Path) -> None:
    stimuli = read_nsd_stimuli(root, IDS)
    assert stimuli.stimulus_ids.tolist() == [2, 5, 7]
    assert repr(stimuli) == f"Stimuli(3 pictures with captions from {pictures_file(root).parent})"
    assert stimuli.captions([7])[0] == tuple(f"train2017 caption {n} of 121" for n in range(5))
    assert read_nsd_stimuli(root, [3]).captions([3])[0][0] == "val2017 caption 0 of 109"


def test_an_id_in_the_other_split_does_not_count(root: Path) -> None:
    """COCO ids are unique over both splits; a caption in the wrong file belongs to something else."""
    path = captions_file(root, "val2017")
    content = json.loads(path.read_text())
    content["annotations"].insert(0, {"image_id": int(COCO[7]), "id": 1, "caption": "wrong split"})
    path.write_text(json.dumps(content))
    assert "wrong split" not in read_nsd_stimuli(root, range(10)).captions([7])[0]


def test_only_the_split_that_is_needed_is_opened(root: Path) -> None:
    captions_file(root, "val2017").unlink()
    assert len(read_nsd_stimuli(root, IDS).captions(IDS)) == 3
    with pytest.raises(InputError, match=r"captions_val2017\.json: no such file.*unibrain nsd fetch-captions"):
        read_nsd_stimuli(root, [3])


def test_images_may_be_listed_in_any_order(root: Path) -> None:
    before = read_nsd_stimuli(root, range(10)).captions(range(10))
    path = root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    pandas.read_csv(path).sample(frac=1, random_state=1).to_csv(path, index=False)
    assert read_nsd_stimuli(root, range(10)).captions(range(10)) == before


def test_empty_captions_are_left_out_and_white_space_is_tidied(root: Path) -> None:
    path = captions_file(root)
    content = json.loads(path.read_text())
    texts = iter(["  \n", "A dog.\n ", "", "two   cats", "x"])
    for annotation in content["annotations"]:
        if annotation["image_id"] == COCO[5]:
            annotation["caption"] = next(texts)
    path.write_text(json.dumps(content))
    assert read_nsd_stimuli(root, IDS).captions([5]) == [("A dog.", "two cats", "x")]


def without(coco_id: int) -> Callable[[dict], dict]:
    return lambda content: {"annotations": [a for a in content["annotations"] if a["image_id"] != coco_id]}


def captions_become(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    return lambda root: (
        (path := captions_file(root)).write_text(json.dumps(change(json.loads(path.read_text())))) and None
    )


def pictures_become(content: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        with h5py.File(pictures_file(root), "w") as file:
            file["imgBrick"] = content

    return write


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (captions_become(without(115)), ("captions_train2017.json", "image id 5", "COCO id 115")),
        (captions_become(lambda _: {"images": []}), ("captions_train2017.json", "annotations")),
        (captions_become(lambda _: {"annotations": [{"image_id": "x", "caption": "a"}]}), ("captions_train2017.json",)),
        (pictures_become(np.zeros((10, 3, 6, 5), np.uint8)), ("nsd_stimuli.hdf5", "(10, 3, 6, 5)")),
        (pictures_become(np.zeros((10, 6, 5, 3), np.float32)), ("nsd_stimuli.hdf5", "float32")),
        (pictures_become(np.zeros((7, 6, 5, 3), np.uint8)), ("nsd_stimuli.hdf5", "7 pictures", "id 7")),
        (pictures_become(h5py.ExternalLink("other.h5", "imgBrick")), ("nsd_stimuli.hdf5", "link")),
    ],
)
def test_the_file_at_fault_is_named(root: Path, damage: Callable[[Path], None], names: tuple[str, ...]) -> None:
    damage(root)
    with pytest.raises(InputError) as caught:
        read_nsd_stimuli(root, IDS)
    head, _, rest = str(caught.value).partition(": ")
    assert Path(head).name == names[0]
    for name in names[1:]:
        assert name in rest


@pytest.mark.parametrize("wrong", [-1, 10])
def test_an_id_that_is_not_there(root: Path, wrong: int) -> None:
    with pytest.raises(InputError, match=rf"nsd_stimuli\.hdf5: .*10 pictures.*id {wrong}"):
        read_nsd_stimuli(root, [1, wrong])
    with pytest.raises(InputError, match=rf"10 pictures.*id {wrong}"):
        read_nsd_stimuli(root, []).read_pictures(np.array([wrong]))


CURATED = np.array([[f"curated {n} of {i}" for n in range(4)] + [""] for i in range(10)])


def curated_file(root: Path) -> Path:
    return captions_file(root).with_name("COCO_73k_annots_curated.npy")


def test_the_curated_array_goes_by_73k_id(root: Path) -> None:
    np.save(curated_file(root), CURATED)
    for split in ("train2017", "val2017"):
        captions_file(root, split).unlink()
    stimuli = read_nsd_stimuli(root, IDS, "curated")
    assert stimuli.captions([7]) == [tuple(f"curated {n} of 7" for n in range(4))]
    np.save(root / "elsewhere.npy", np.char.add(CURATED, " !"))
    other = read_nsd_stimuli(root, IDS, "curated", root / "elsewhere.npy")
    assert other.captions([2])[0][1] == "curated 1 of 2 !"
    with pytest.raises(InputError, match="captions_from is 'nsd'"):
        read_nsd_stimuli(root, IDS, "nsd")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (CURATED[:5], "5 images"),
        (CURATED[:, 0], "(10,)"),
        (np.zeros((10, 5)), "float64"),
        (np.where(np.arange(10)[:, None] == 5, " ", CURATED), "image id 5"),
    ],
)
def test_a_curated_array_that_is_none(root: Path, content: np.ndarray, names: str) -> None:
    np.save(curated_file(root), content)
    with pytest.raises(InputError) as caught:
        read_nsd_stimuli(root, IDS, "curated")
    assert str(caught.value).startswith(f"{curated_file(root)}: ")
    assert names in str(caught.value)
