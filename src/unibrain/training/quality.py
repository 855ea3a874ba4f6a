"""How good a backbone is on unseen scenes, given their true latents: the ceiling of what decoding can reach."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.demo import describe, render, sample_scene
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import SamplingSettings, VersatileDiffusion

__all__ = ["Quality", "contact_sheet", "measure_quality"]


@dataclass(frozen=True)
class Quality:
    """What was measured.

    Attributes
    ----------
    scenes : int
    autokl_psnr : float
        Of pictures encoded and decoded, dB.
    two_way_picture : float
        Two-way identification of pictures sampled from true latents and contexts, by EfficientNet-lite0; 0 to 1.
    two_way_without_latent : float
        The same, started from pure noise.
    two_way_autokl : float
        The same of pictures that were only encoded and decoded.
    rougeL : float
        Of captions sampled from true latents and contexts, against the best of the references; 0 to 1.
    rougeL_optimus : float
        Of captions that were only encoded and decoded.
    two_way_caption : float
        Two-way identification of the sampled captions in the backbone's CLIP.
    two_way_clip : float
        Two-way identification of pictures by their captions, both in the backbone's CLIP.
    """

    scenes: int
    autokl_psnr: float
    two_way_picture: float
    two_way_without_latent: float
    two_way_autokl: float
    rougeL: float  # noqa: N815 (the metric's name)
    rougeL_optimus: float  # noqa: N815
    two_way_caption: float
    two_way_clip: float


def measure_quality(
    backbone: "VersatileDiffusion",
    scenes: int = 200,
    seed: int = 7,
    image_settings: "SamplingSettings | None" = None,
    text_settings: "SamplingSettings | None" = None,
    split: str = "validation",
) -> tuple[Quality, NDArray[np.uint8], NDArray[np.uint8], list[tuple[str, str]]]:
    """Decode true latents of held-out scenes and score the result.

    Parameters
    ----------
    backbone : VersatileDiffusion
    scenes : int
        Number of scenes.
    seed : int
        Which scenes, and which noise.
    image_settings, text_settings : SamplingSettings, optional
        The backbone's own by default.
    split : {"validation", "test"}
        Settings are chosen on the first, so the second is for the final number.

    Returns
    -------
    quality : Quality
    seen, sampled : ndarray of shape (scenes, size, size, 3), uint8
        True pictures, and those sampled from their latents.
    captions : list of (str, str)
        First true caption, and the sampled one.
    """
    from unibrain.evaluation.captions import rouge
    from unibrain.evaluation.pictures import picture_features
    from unibrain.evaluation.identification import two_way_identification

    size = backbone.config.autokl.image_size
    drawn = [sample_scene(seed, index, split) for index in range(scenes)]  # type: ignore[arg-type]
    seen = np.stack([render(scene, size) for scene in drawn])
    references = [describe(scene) for scene in drawn]
    first = [row[0] for row in references]
    z_image, c_image = backbone.encode("z_image", seen), backbone.encode("c_image", seen)
    z_text = backbone.encode("z_text", first)
    c_text = np.stack([backbone.encode("c_text", row).mean(0) for row in references])
    seeds = np.arange(scenes, dtype=np.int64) + 1_000_000 * seed
    pictures: list[NDArray[np.uint8]] = []
    noise_pictures: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for start in track(range(0, scenes, 64), "sampling", unit="batch"):
        rows = slice(start, start + 64)
        contexts = {"c_image": c_image[rows], "c_text": c_text[rows]}
        images, texts = image_settings or backbone.sampling("picture"), text_settings or backbone.sampling("caption")
        pictures.append(backbone.sample("picture", z_image[rows], contexts, images, seeds[rows]))
        noise_pictures.append(backbone.sample("picture", None, contexts, images, seeds[rows]))
        captions += backbone.sample("caption", z_text[rows], contexts, texts, seeds[rows])
    sampled, from_noise = np.concatenate(pictures), np.concatenate(noise_pictures)
    rebuilt = backbone.decode("picture", z_image)
    error = ((rebuilt.astype(float) - seen) ** 2).mean(axis=(1, 2, 3))
    true_features = picture_features(seen)

    def identified(decoded: NDArray[np.uint8]) -> float:
        return float(np.mean(two_way_identification(true_features, picture_features(decoded))))

    embeddings = np.stack([backbone.embed("caption", row).mean(0) for row in references])
    quality = Quality(
        scenes=scenes,
        autokl_psnr=float(np.mean(10 * np.log10(255**2 / error))),
        two_way_picture=identified(sampled),
        two_way_without_latent=identified(from_noise),
        two_way_autokl=identified(rebuilt),
        rougeL=float(np.mean(rouge(captions, references, "rougeL"))),
        rougeL_optimus=float(np.mean(rouge(backbone.decode("caption", z_text), references, "rougeL"))),
        two_way_caption=float(np.mean(two_way_identification(embeddings, backbone.embed("caption", captions)))),
        two_way_clip=float(np.mean(two_way_identification(embeddings, c_image[:, 0]))),
    )
    return quality, seen, sampled, list(zip(first, captions, strict=True))


def contact_sheet(seen: NDArray[np.uint8], sampled: NDArray[np.uint8], path: str | Path, columns: int = 10) -> None:
    """Write scenes, and below each what was sampled from its latents, for a look.

    Parameters
    ----------
    seen, sampled : ndarray of shape (n, size, size, 3), uint8
    path : str or Path
        PNG to write; at most 60 pairs are shown.
    columns : int
        Pairs in a row.
    """
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
