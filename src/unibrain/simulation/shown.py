"""What is shown: scenes, their pictures, and captions as COCO keeps them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.simulation.experiment import Experiment
from unibrain.simulation.settings import SimulationSettings
from unibrain.stimuli.scenes import Scene, Split, describe, render, sample_scene
from unibrain.workspace.files import atomic_path, write_json
from unibrain.workspace.progress import track

__all__ = ["draw_coco", "draw_scenes", "write_captions", "write_curated_captions", "write_pictures"]

_SIX_CAPTIONS_EVERY = 10
_CURATED = 5
_FOUR_CURATED_EVERY = 7
_VALIDATION_EVERY = 5


def draw_scenes(settings: SimulationSettings, experiment: Experiment) -> dict[int, Scene]:
    """Give every image that a scanned subject sees a scene of its own.

    Shared (test) images are scenes of the split ``test``, all others of the split ``train``; no scene occurs twice.

    Parameters
    ----------
    settings : SimulationSettings
    experiment : Experiment

    Returns
    -------
    dict of int to Scene
        By 0-based 73k id, ascending.
    """
    taken: set[str] = set()
    scenes = {}
    shared = settings.test_images
    streams: list[tuple[Split, int, NDArray[np.int64]]] = [("test", 0, experiment.sharedix)]
    for subject in settings.subjects:
        # A subject's scenes do not depend on which other subjects are simulated, save for the rare redrawn one.
        start = (subject - 1) * 2 * settings.training_images
        streams.append(("train", start, experiment.subjectim[subject - 1, shared:]))
    for split, start, ids in streams:
        index = start
        for stimulus_id in (ids - 1).tolist():
            scene = sample_scene(settings.seed, index, split)
            while scene.key in taken:
                index += 1
                scene = sample_scene(settings.seed, index, split)
            index += 1
            taken.add(scene.key)
            scenes[stimulus_id] = scene
    return dict(sorted(scenes.items()))


def draw_coco(
    settings: SimulationSettings, experiment: Experiment, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Draw a COCO id and split for every image; shared images are all of ``train2017``.

    Returns
    -------
    coco_ids : ndarray of shape (images,), int64
    coco_splits : ndarray of shape (images,), str
    """
    coco_ids = rng.permutation(max(600_000, 2 * settings.images))[: settings.images] + 1
    splits = np.full(settings.images, "train2017")
    splits[experiment.subjectim[:, settings.test_images :: _VALIDATION_EVERY].ravel() - 1] = "val2017"
    return coco_ids.astype(np.int64), splits


def write_pictures(path: Path, scenes: dict[int, Scene], settings: SimulationSettings) -> NDArray[np.uint8]:
    """Draw all scenes into ``nsd_stimuli.hdf5``.

    Images that no scanned subject sees have a row without content (black), which takes no space.

    Parameters
    ----------
    path : pathlib.Path
    scenes : dict of int to Scene
    settings : SimulationSettings

    Returns
    -------
    ndarray of shape (scenes, size, size, 3), uint8
        The pictures in the order of `scenes`.
    """
    import h5py

    size = settings.picture_size
    pictures = np.empty((len(scenes), size, size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        brick = file.create_dataset("imgBrick", (settings.images, size, size, 3), np.uint8, chunks=(1, size, size, 3))
        items = track(scenes.items(), "drawing pictures", total=len(scenes), unit="picture")
        for row, (stimulus_id, scene) in enumerate(items):
            pictures[row] = render(scene, size)
            brick[stimulus_id] = pictures[row]
    return pictures


def write_captions(
    paths: dict[str, Path],
    scenes: dict[int, Scene],
    coco_ids: NDArray[np.int64],
    coco_splits: NDArray[np.str_],
) -> None:
    """Write COCO's caption files: five captions for most images, six for every tenth.

    Parameters
    ----------
    paths : dict of str to pathlib.Path
        By COCO split.
    scenes : dict of int to Scene
    coco_ids : ndarray of shape (images,), int64
    coco_splits : ndarray of shape (images,), str
    """
    for split, path in paths.items():
        images, annotations = [], []
        for number, (stimulus_id, scene) in enumerate(scenes.items()):
            if coco_splits[stimulus_id] != split:
                continue
            coco_id = int(coco_ids[stimulus_id])
            captions = describe(scene)
            if number % _SIX_CAPTIONS_EVERY == 0:
                captions = (*captions, _one_more(captions))
            images.append({"id": coco_id, "file_name": f"{coco_id:012d}.jpg"})
            annotations += [
                {"image_id": coco_id, "id": 10 * coco_id + i, "caption": text} for i, text in enumerate(captions)
            ]
        info = {"description": "Simulated: captions of composed scenes in COCO's file format"}
        write_json(path, {"info": info, "images": images, "annotations": annotations})


def write_curated_captions(path: Path, scenes: dict[int, Scene], images: int) -> None:
    """Write five captions of each image as the array that published decoders use.

    As there, some are empty: the last one of every seventh image, and all of the images that nobody sees.

    Parameters
    ----------
    path : pathlib.Path
    scenes : dict of int to Scene
        By 0-based 73k id.
    images : int
        Rows of the array.
    """
    texts = {stimulus_id: list(describe(scene)[:_CURATED]) for stimulus_id, scene in scenes.items()}
    for number, captions in enumerate(texts.values()):
        if number % _FOUR_CURATED_EVERY == 0:
            captions[-1] = ""
    longest = max((len(text) for captions in texts.values() for text in captions), default=1)
    array = np.zeros((images, _CURATED), dtype=f"<U{longest}")
    for stimulus_id, captions in texts.items():
        array[stimulus_id, : len(captions)] = captions
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def _one_more(captions: Iterable[str]) -> str:
    plain = [text for text in captions if text.startswith(("a ", "an ")) and text[2] != "p" and " of " not in text]
    return f"a photo of {min(plain or captions, key=len)}"
