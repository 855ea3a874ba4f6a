"""How good a backbone is on unseen scenes: its contexts, and what it makes of true latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.contexts import CHOSEN, FITTED, predicted_latents, simulated_betas
from training.recipe import SCENE_SEED
from training.scenes import SceneSet, scene_set
from unibrain.demo import BACKGROUNDS, load_catalogue
from unibrain.evaluation.captions import rouge
from unibrain.evaluation.identification import correlations, identify
from unibrain.evaluation.pictures import picture_features
from unibrain.evaluation.scene_judge import Judge, background_in, objects_in
from unibrain.workspace.files import atomic_path

if TYPE_CHECKING:
    from unibrain.backbone import Backbone

Pictures = NDArray[np.uint8]


def content_matrix(scenes: SceneSet) -> NDArray[np.float32]:
    """What is on each picture: objects, each by its size, and the background, (n, objects + backgrounds)."""
    matrix = np.zeros((len(scenes.objects), len(load_catalogue()) + len(BACKGROUNDS)), dtype=np.float32)
    rows = np.arange(len(matrix))
    for slot in (0, 1):
        there = scenes.objects[:, slot] >= 0
        matrix[rows[there], scenes.objects[there, slot]] = scenes.sizes[there, slot]
    matrix[rows, len(load_catalogue()) + scenes.backgrounds] = 1
    return matrix


def linearity(
    backbone: "Backbone", folder: Path, fitted: int = 4000, tested: int = 1000, seed: int = 7
) -> dict[str, float]:
    """Share of the contexts' variance on unseen scenes that a linear map from the scenes' content explains."""
    train, test = scene_set(folder, "train", fitted, seed), scene_set(folder, "validation", tested, seed)
    x, x_test = content_matrix(train), content_matrix(test)
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean) + 0.1 * np.eye(x.shape[1])
    found = {}
    for name in ("c_image", "c_text"):
        y, y_test = (_contexts(backbone, name, scenes).reshape(len(scenes.objects), -1) for scenes in (train, test))
        centre = y.mean(0)
        guess = (x_test - mean) @ np.linalg.solve(gram, (x - mean).T @ (y - centre)) + centre
        error, spread = (guess - y_test) ** 2, (y_test - y_test.mean(0)) ** 2
        found[name] = float(1 - error.sum() / spread.sum())
        if name == "c_image":
            width = backbone.embed("picture", test.pictures[:1]).shape[1]
            found["c_image, class token"] = float(1 - error[:, :width].sum() / spread[:, :width].sum())
    return found


def _contexts(backbone: "Backbone", name: str, scenes: SceneSet) -> NDArray[np.float32]:
    if name == "c_image":
        return backbone.encode(name, np.array(scenes.pictures))
    captions = [caption for row in scenes.captions for caption in row[:5]]
    contexts = backbone.encode(name, captions)
    return np.asarray(contexts.reshape(-1, 5, *contexts.shape[1:]).mean(axis=1))


def latents_from_scans(
    backbone: "Backbone",
    folder: Path,
    scenes: SceneSet,
    true: Mapping[str, NDArray[np.float32]],
    seed: int,
    difficulty: str,
) -> dict[str, NDArray[np.float32]]:
    """Latents of scenes as regressions predict them that were fitted to training scans of the same simulated subject.

    `true` are the scenes' true latents.
    """
    known = scene_set(folder, "train", FITTED + CHOSEN, SCENE_SEED)
    captions = [row[0] for row in known.captions]
    latents = {
        "z_image": backbone.encode("z_image", np.array(known.pictures)),
        "z_text": backbone.encode("z_text", captions),
        "c_image": _contexts(backbone, "c_image", known),
        "c_text": _contexts(backbone, "c_text", known),
    }
    both = {name: torch.from_numpy(np.concatenate([latents[name], true[name]])) for name in latents}
    predicted = predicted_latents(simulated_betas([known, scenes], seed, difficulty), both)
    return {name: value[FITTED + CHOSEN :].float().numpy() for name, value in predicted.items()}


def judged_pictures(judge: Judge, features: NDArray[np.float32], scenes: SceneSet) -> dict[str, float]:
    """How often the judge names what is there, on pictures whose features these are."""
    objects, backgrounds = judge.names(features, 2)
    true = _names(scenes)
    single = [row for row, names in enumerate(true) if len(names) == 1]
    pairs = [row for row, names in enumerate(true) if len(names) == 2]
    right = [name == BACKGROUNDS[row] for name, row in zip(backgrounds, scenes.backgrounds, strict=True)]
    return {
        "the object of one named": float(np.mean([objects[row][0] in true[row] for row in single])),
        "both objects of two named": float(np.mean([set(objects[row]) == true[row] for row in pairs])),
        "background named": float(np.mean(right)),
    }


def judged_captions(captions: list[str], scenes: SceneSet) -> dict[str, float]:
    """How often decoded captions name what is there."""
    true, said = _names(scenes), [objects_in(caption) for caption in captions]
    behind = [
        background_in(caption) == BACKGROUNDS[row] for caption, row in zip(captions, scenes.backgrounds, strict=True)
    ]
    return {
        "a true object named": float(np.mean([bool(a & b) for a, b in zip(said, true, strict=True)])),
        "every object named": float(np.mean([a >= b for a, b in zip(said, true, strict=True)])),
        "background named": float(np.mean(behind)),
    }


def _names(scenes: SceneSet) -> list[set[str]]:
    catalogue = load_catalogue()
    return [{catalogue[row].name for row in rows if row >= 0} for rows in scenes.objects]


def measure_quality(
    backbone: "Backbone",
    judge: Judge | None,
    folder: Path,
    count: int = 200,
    seed: int = 7,
    split: Any = "validation",
    scans_of: int | None = None,
    difficulty: str = "easy",
) -> tuple[dict[str, float], SceneSet, Pictures, list[str]]:
    """Decode latents of held-out scenes and score the result.

    Parameters
    ----------
    backbone : Backbone
    judge : Judge or None
        Without one, nobody says what decoded pictures show.
    folder : Path
        Keeps the rendered scenes.
    count, seed, split
        Which scenes. Settings are chosen on ``"validation"``, so ``"test"`` is for the final number.
    scans_of : int, optional
        Seed of a simulated subject: latents predicted from its scans take the place of the true ones.
    difficulty : {"easy", "realistic"}
        Of that subject.

    Returns
    -------
    numbers : dict of str to float
    scenes : SceneSet
    pictures : ndarray of shape (count, size, size, 3), uint8
        Sampled.
    captions : list of str
        Sampled.
    """
    scenes = scene_set(folder, split, count, seed)
    seen = np.array(scenes.pictures)
    latents = {
        "z_image": backbone.encode("z_image", seen),
        "z_text": backbone.encode("z_text", [row[0] for row in scenes.captions]),
        "c_image": _contexts(backbone, "c_image", scenes),
        "c_text": _contexts(backbone, "c_text", scenes),
    }
    rebuilt: Any = backbone.decode("picture", latents["z_image"])
    rewritten: Any = backbone.decode("caption", latents["z_text"])
    if scans_of is not None:
        latents = latents_from_scans(backbone, folder, scenes, latents, scans_of, difficulty)
    contexts = {name: latents[name] for name in ("c_image", "c_text")}
    seeds = np.arange(count, dtype=np.int64) + 1_000_000 * seed
    pictures: Any = backbone.sample("picture", latents["z_image"], contexts, backbone.sampling("picture"), seeds)
    captions: Any = backbone.sample("caption", latents["z_text"], contexts, backbone.sampling("caption"), seeds)
    error = ((rebuilt.astype(float) - seen) ** 2).mean(axis=(1, 2, 3))
    features = {
        name: picture_features(items) for name, items in (("seen", seen), ("rebuilt", rebuilt), ("decoded", pictures))
    }
    embeddings = np.stack([backbone.embed("caption", row).mean(0) for row in scenes.captions])
    numbers = {
        "pictures encoded and decoded (dB)": float(np.mean(10 * np.log10(255**2 / error))),
        "captions encoded and decoded, ROUGE-L": float(np.mean(rouge(rewritten, scenes.captions, "rougeL"))),
        "pictures, two-way": float(np.mean(identify(correlations(features["seen"], features["decoded"])))),
        "captions, two-way": float(np.mean(identify(correlations(embeddings, backbone.embed("caption", captions))))),
        "captions, ROUGE-L": float(np.mean(rouge(captions, scenes.captions, "rougeL"))),
    }
    if judge is not None:
        kinds = {"true pictures": "seen", "pictures encoded and decoded": "rebuilt", "pictures": "decoded"}
        for kind, which in kinds.items():
            judged = judged_pictures(judge, features[which], scenes)
            numbers |= {f"{kind}, {key}": value for key, value in judged.items()}
    numbers |= {f"captions, {key}": value for key, value in judged_captions(captions, scenes).items()}
    return numbers, scenes, pictures, captions


def contact_sheet(seen: Pictures, sampled: Pictures, path: str | Path, columns: int = 10) -> None:
    """Write a PNG of up to 60 scenes, and below each what was sampled from its latents, for a look."""
    from PIL import Image

    count = min(len(seen), 60) // columns * columns or len(seen)
    columns = min(columns, count)
    rows = []
    for first in range(0, count, columns):
        some = slice(first, first + columns)
        rows += [np.concatenate(list(seen[some]), axis=1), np.concatenate(list(sampled[some]), axis=1)]
    sheet = Image.fromarray(np.concatenate(rows))
    with atomic_path(path) as temporary:
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.BICUBIC).save(temporary)
