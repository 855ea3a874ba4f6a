"""What the flows are trained on: latents and contexts of scenes, exact ones and such as real regressions predict."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.scenes import SceneSet
from training.vocabularies import Vocabularies
from unibrain.backbone.coders import encode_pictures, image_context, make_image_processor, preprocess, text_context
from unibrain.backbone.config import BackboneConfig
from unibrain.demo import load_catalogue
from unibrain.demo.anatomy import build_anatomy
from unibrain.demo.settings import DIFFICULTIES, grid_of
from unibrain.demo.voxels import TrialNoise, draw_tuning, signal
from unibrain.scans.nsd_layout import REPEATS
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

CAPTIONS = 5
CONTEXTS = ("c_image", "c_text")

FITTED, CHOSEN = 3000, 500
"""Scenes that each regression is fitted to, and on which its penalty is chosen; neither is predicted."""
ALPHAS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Penalties, as shares of the kernel's mean eigenvalue."""
Brain = tuple[int, str, int]
BRAINS: tuple[Brain, ...] = ((1001, "easy", 2000), (1002, "easy", 9000), (1003, "realistic", 4000))
"""Seeds, difficulties and voxels of the simulated subjects. The demo's have small seeds; none of them is here."""


@dataclass(frozen=True)
class FlowData:
    """What the flows are trained on; n scenes.

    Attributes
    ----------
    exact : dict of str to Tensor
        ``z_image`` (n, channels, h, w), scaled; ``z_text`` (n, captions, width); ``c_image`` and ``c_text``
        (n, tokens, width), the latter a mean over captions.
    empty : dict of str to Tensor of shape (1, tokens, width)
        Unconditional contexts.
    predicted : list of dict of str to Tensor
        What the ridge regressions of each simulated subject predict: shapes as in `exact`, but one ``z_text``, the mean
        of the captions'.
    moved : dict of str to Tensor
        Contexts of scenes with the same content in other places (`unibrain.demo.rearranged`).
    predicted_moved : list of dict of str to Tensor
        What regressions of the same subjects predict from scans of these.
    first : int
        The regressions know the scenes before this one.
    scale_factor : float
        One over the deviation of the unscaled image latents.
    """

    exact: dict[str, Tensor]
    empty: dict[str, Tensor]
    predicted: list[dict[str, Tensor]]
    moved: dict[str, Tensor]
    predicted_moved: list[dict[str, Tensor]]
    first: int
    scale_factor: float


def flow_data(
    config: BackboneConfig,
    coders: dict[str, Any],
    vocabularies: Vocabularies,
    scenes: SceneSet,
    moved: SceneSet,
    folder: Path,
    device: str = "cpu",
) -> FlowData:
    """Encode all scenes and predict their latents, or take what an earlier call left in `folder` (in float16)."""

    def kept(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        file = folder / f"{name}.safetensors"
        if not file.exists():
            with atomic_path(file) as temporary:
                save_file(make(), temporary)
        return load_file(file)

    stored: dict[str, Tensor] = {}
    versions = []
    for part, encode in (("clip", _contexts), ("optimus", _text_latents), ("autokl", _image_latents)):
        # Named after the weights, so that latents of earlier ones are never taken up.
        version = version_of(encoder_weights(coders[part]))
        of_scenes = partial(encode, config, coders[part].to(device), vocabularies, scenes, device)
        stored |= kept(f"latents-{part}-{version}", of_scenes)
        versions.append(version)
    scale_factor = float(stored.pop("scale_factor"))
    empty = {name: stored.pop(f"empty_{name}") for name in CONTEXTS}
    of_moved = partial(_contexts, config, coders["clip"], vocabularies, moved, device)
    elsewhere = kept(f"moved-{versions[0]}", of_moved)
    wanted = {name: stored[name] for name in (*CONTEXTS, "z_image")}
    wanted["z_text"] = stored["z_text"].float().mean(1, True)
    known = scenes.first(FITTED + CHOSEN)

    def predictions(brain: Brain) -> dict[str, Tensor]:
        return predicted_latents(simulated_betas([scenes], *brain), wanted, device)

    def predictions_moved(brain: Brain) -> dict[str, Tensor]:
        betas = simulated_betas([known, moved], *brain)
        contexts = predicted_latents(betas, {name: wanted[name] for name in CONTEXTS}, device)
        return {name: rows[len(known.captions) :].contiguous() for name, rows in contexts.items()}

    coded = "-".join(versions)
    return FlowData(
        exact=stored,
        empty=empty,
        predicted=[kept(f"predicted-{brain[0]}-{coded}", partial(predictions, brain)) for brain in BRAINS],
        moved={name: elsewhere[name] for name in CONTEXTS},
        predicted_moved=[
            kept(f"predicted-moved-{brain[0]}-{versions[0]}", partial(predictions_moved, brain)) for brain in BRAINS
        ],
        first=FITTED + CHOSEN,
        scale_factor=scale_factor,
    )


def encoder_weights(coder: Any) -> dict[str, Tensor]:
    """What decides over the latents of a coder: of Optimus, not its decoder."""
    weights: dict[str, Tensor] = coder.state_dict()
    return {
        key: value for key, value in weights.items() if not key.startswith(("gpt2.", "to_memory.", "to_embedding."))
    }


def version_of(weights: Mapping[str, Tensor]) -> str:
    """Eight hexadecimal digits that tell one set of weights from another."""
    digest = sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:8]


def _batches(scenes: SceneSet, device: str) -> Iterable[slice]:
    batch = 100 if device == "cpu" else 1000
    count = len(scenes.captions)
    return (slice(first, first + batch) for first in track(range(0, count, batch), "encoding scenes", unit="batch"))


def _pixels(scenes: SceneSet, rows: slice, device: str) -> Tensor:
    return torch.tensor(np.array(scenes.pictures[rows]), device=device).permute(0, 3, 1, 2).float() / 255


def _captions(scenes: SceneSet, rows: slice) -> list[str]:
    return [caption for row in scenes.captions[rows] for caption in row[:CAPTIONS]]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.half().cpu() for part in parts]).contiguous()


@torch.inference_mode()
def _contexts(
    config: BackboneConfig, clip: Any, vocabularies: Vocabularies, scenes: SceneSet, device: str
) -> dict[str, Tensor]:
    processor = make_image_processor(config.clip)
    size, eos = config.clip.resize, config.clip.eos_token_id
    mean = torch.tensor(processor.image_mean, device=device)[:, None, None]
    deviation = torch.tensor(processor.image_std, device=device)[:, None, None]
    of_pictures, of_captions = [], []
    for rows in _batches(scenes, device):
        of_pictures.append(image_context(clip, (_pixels(scenes, rows, device) - mean) / deviation))
        text = text_context(clip, vocabularies.clip(_captions(scenes, rows)).to(device), eos)
        of_captions.append(text.unflatten(0, (-1, CAPTIONS)).mean(1))
    grey = np.full((1, size, size, 3), 127, dtype=np.uint8)
    return {
        "c_image": _joined(of_pictures),
        "c_text": _joined(of_captions),
        "empty_c_image": image_context(clip, preprocess(processor, grey, size).to(device)).cpu().contiguous(),
        "empty_c_text": text_context(clip, vocabularies.clip([""]).to(device), eos).cpu().contiguous(),
    }


@torch.inference_mode()
def _text_latents(
    config: BackboneConfig, optimus: Any, vocabularies: Vocabularies, scenes: SceneSet, device: str
) -> dict[str, Tensor]:
    parts = []
    for rows in _batches(scenes, device):
        ids, mask = vocabularies.bert(_captions(scenes, rows))
        parts.append(optimus.encode(ids.to(device), mask.to(device))[0].unflatten(0, (-1, CAPTIONS)))
    return {"z_text": _joined(parts)}


@torch.inference_mode()
def _image_latents(
    config: BackboneConfig, autokl: Any, vocabularies: Vocabularies, scenes: SceneSet, device: str
) -> dict[str, Tensor]:
    encoded = scene_latents(autokl, scenes, device, len(scenes.captions))
    scale_factor = 1 / encoded.std()
    return {"z_image": (encoded * scale_factor).half().contiguous(), "scale_factor": scale_factor}


@torch.inference_mode()
def scene_latents(autokl: Any, scenes: SceneSet, device: str, count: int) -> Tensor:
    """Unscaled latents of the first `count` scenes."""
    some = (rows for rows in _batches(scenes, device) if rows.start < count)
    return torch.cat([encode_pictures(autokl, _pixels(scenes, rows, device), 1.0).cpu() for rows in some])[:count]


def simulated_betas(sets: Sequence[SceneSet], seed: int, difficulty: str, voxels: int = 4000) -> NDArray[np.float32]:
    """Responses of one simulated subject to all scenes of the sets, averaged over three noisy repeats: (n, voxels)."""
    brain, tuned, reliable, trials = (np.random.default_rng([seed, stream]) for stream in range(4))
    tuning = draw_tuning(build_anatomy(grid_of(voxels), brain), load_catalogue(), tuned)
    shown = [some.scene(index) for some in sets for index in range(len(some.captions))]
    pictures = sets[0].pictures if len(sets) == 1 else np.concatenate([some.pictures for some in sets])
    fitted = np.arange(len(shown)) < FITTED
    betas = signal(tuning, pictures, shown, fitted)
    noise = TrialNoise(betas[fitted], DIFFICULTIES[difficulty], reliable)
    for first in range(0, len(betas), 1000):
        rows = slice(first, first + 1000)
        betas[rows] += noise.draw(len(betas[rows]), trials) / np.float32(REPEATS**0.5)
    return betas


@torch.inference_mode()
def predicted_latents(betas: NDArray[np.float32], latents: dict[str, Tensor], device: str = "cpu") -> dict[str, Tensor]:
    """Latents of all scenes as ridge regressions fitted to the first `FITTED` of them predict them, in float16.

    One penalty per latent, chosen on the next `CHOSEN`. Predictions are not rescaled: they are conditional means.
    """
    fitted = torch.from_numpy(betas[:FITTED]).to(device)
    mean, deviation = fitted.mean(0), fitted.std(0)
    x = (fitted - mean) / deviation
    kernel = x @ x.T
    values, vectors = torch.linalg.eigh(kernel.double())
    values, vectors = values.float(), vectors.float()
    others = [(torch.from_numpy(part).to(device) - mean) / deviation for part in np.array_split(betas, 20)]
    similar = torch.cat([part @ x.T for part in others]) @ vectors  # (n, FITTED), in the kernel's axes
    found = {}
    for name, targets in latents.items():
        y = targets.to(device).float().flatten(1)
        centre = y[:FITTED].mean(0)
        turned = vectors.T @ (y[:FITTED] - centre)
        held_out = slice(FITTED, FITTED + CHOSEN)
        errors = {}
        for share in ALPHAS:
            guess = (similar[held_out] / (values + share * values.mean())) @ turned + centre
            errors[share] = float((guess - y[held_out]).square().mean())
        alpha = min(errors, key=errors.__getitem__) * values.mean()
        guesses = [(part / (values + alpha)) @ turned + centre for part in similar.split(2000)]
        found[name] = torch.cat([guess.half().cpu() for guess in guesses]).unflatten(1, targets.shape[1:])
        explained = 1 - errors[min(errors, key=errors.__getitem__)] / float(y[held_out].var(0).mean())
        print(f"{name}: explained {explained:.3f}", flush=True)
    return found
