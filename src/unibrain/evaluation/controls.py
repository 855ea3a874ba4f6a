"""Controls and ceilings: what would have been decoded without the scans, from a part of them, or from the truth."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents import LATENTS, Latents
from unibrain.reconstruction import Decoded, reconstruct
from unibrain.regression.targets import block_width, training_targets
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.latents import StoredLatents
    from unibrain.stimuli import Stimuli

_MEMORY = 5e8
"""Bytes for a block of training latents."""

_SAME = 2e-3
"""Latents that differ by less, as a share of the largest number, decode alike."""

_RIDGE = {np.dtype(np.float32): 3e-7, np.dtype(np.float64): 1e-12}
"""Share of a kernel's trace that is added to its diagonal, by the products' type: more than rounding takes away."""


@dataclass(frozen=True)
class Control:
    """A row of `CONTROLS`, with a title for a narrow column, and what it shows.

    A score has to be above its controls, and cannot be expected above its ceilings. `diffuses` is whether it costs
    another diffusion of every image.
    """

    name: str
    title: str
    role: Literal["control", "ceiling"]
    explanation: str
    diffuses: bool = False


CONTROLS: dict[str, Control] = {
    row.name: row
    for row in (
        Control(
            "random",
            "random",
            "control",
            "Other pictures and captions, drawn from the training images: the score's own zero.",
        ),
        Control(
            "mean",
            "mean",
            "control",
            "Decoded from the mean of all training latents: what the network paints when a scan says nothing.",
            True,
        ),
        Control(
            "nearest",
            "nearest",
            "control",
            "The training image whose contexts are closest to the predicted ones, and its caption: retrieval without "
            "a generator.",
        ),
        Control(
            "z_only",
            "Z only",
            "control",
            "Decoded from the predicted image or text latent alone, without diffusion.",
        ),
        Control(
            "other_context",
            "other ctx",
            "control",
            "Pictures decoded from the predicted CLIP-Text tokens alone, captions from the CLIP-Image tokens alone.",
            True,
        ),
        Control(
            "oracle",
            "oracle",
            "ceiling",
            "Decoded from the true latents: what the backbone could show if the regressions were perfect.",
            True,
        ),
        Control(
            "span",
            "span",
            "ceiling",
            "Decoded from what of the true latents is a mixture of training latents: ridge regression predicts nothing "
            "else.",
            True,
        ),
    )
}
"""Name to control, in the order in which they are shown. The shuffled control stands beside them in every score."""


def decode_controls(
    backbone: "Backbone",
    predicted: Latents,
    true: Latents,
    training: "Latents | StoredLatents",
    stimuli: "Stimuli",
    *,
    names: Collection[str] | None = None,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Decoded]:
    """Make what controls and ceilings show in the place of the decoded items.

    Parameters
    ----------
    backbone : Backbone
    predicted, true : Latents
        Of the same images in the same order; every control has one row for each.
    training : Latents or StoredLatents
        Of the images that the decoder was fitted to; read in blocks.
    stimuli : Stimuli
        Pictures and captions of the training images.
    names : collection of str, optional
        Which rows of `CONTROLS`; all if left out.
    sampling : mapping, optional
        Keyword arguments of `reconstruct`: how the items themselves were decoded.
    seed : int
        Seed of the noise, that of the items themselves, and of the random draw.
    cache : pathlib.Path, optional
        Keeps what is decoded, so that a stopped run continues.

    Returns
    -------
    dict of str to Decoded

    Raises
    ------
    InputError
        If a name is unknown, or predicted and true latents are not of the same images.
    """
    options = {"seed": seed, **(sampling or {})}
    jobs = control_jobs(backbone, predicted, true, training, names=names, sampling=options)
    return show_controls(backbone, predicted, training, stimuli, jobs, names=names, seed=seed, cache=cache)


def show_controls(
    backbone: "Backbone",
    predicted: Latents,
    training: "Latents | StoredLatents",
    stimuli: "Stimuli",
    jobs: Mapping[str, tuple[Latents, Mapping[str, Any]]],
    *,
    names: Collection[str] | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Decoded]:
    """Decode the jobs of `control_jobs`, and add what needs no decoding; see `decode_controls`."""
    wanted = _wanted(names)
    decodes, training_ids = decoded_kinds(backbone, predicted), np.unique(training.stimulus_ids)
    found = dict[str, Decoded]()

    def shown(ids: NDArray[np.int64]) -> Decoded:
        captions = [next(iter(filter(None, row)), "") for row in stimuli.captions(ids)]
        pictures = stimuli.pictures(ids) if "picture" in decodes else None
        return Decoded(predicted.stimulus_ids, pictures, tuple(captions) if "caption" in decodes else None)

    def decode(name: str) -> Decoded:
        latents, options = jobs[name]
        return reconstruct(backbone, latents, cache=cache, **options)

    def make(name: str) -> Decoded | None:  # None: what it would be decoded from is not there
        if name == "random":
            drawn = np.random.default_rng([seed, 13]).choice(training_ids, predicted.n)
            return shown(drawn)
        if name == "nearest":
            return shown(nearest_training_ids(predicted, training))
        if name == "other_context":
            parts = {kind: f"{name} {kind}" for kind in decodes if f"{name} {kind}" in jobs}
            items: dict[str, Any] = {f"{kind}s": getattr(decode(job), f"{kind}s") for kind, job in parts.items()}
            return Decoded(predicted.stimulus_ids, **items) if items else None
        return decode(name) if name in jobs else found["oracle"]  # a span that loses nothing

    for name in track(wanted, "controls", unit="control"):
        made = make(name)
        if made is not None:
            found[name] = made
    return found


def _wanted(names: Collection[str] | None) -> list[str]:
    unknown = set(names or ()) - set(CONTROLS)
    if unknown:
        raise InputError(f"there is no control {min(unknown)!r}. Choose among {', '.join(CONTROLS)}.")
    return [name for name in CONTROLS if names is None or name in names]


def decoded_kinds(backbone: "Backbone", predicted: Latents) -> dict[str, str]:
    """Kind of item that can be decoded to the latent that it starts from."""
    return {row.starts: name for name, row in LATENTS.items() if row.starts in backbone.kinds and name in predicted}


def control_jobs(
    backbone: "Backbone",
    predicted: Latents,
    true: Latents,
    training: "Latents | StoredLatents",
    *,
    names: Collection[str] | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, tuple[Latents, dict[str, Any]]]:
    """What of the controls is decoded: name to latents and keyword arguments of `reconstruct`; see `decode_controls`.

    ``"other_context"`` is a job for each kind. ``"span"`` is left out where it is the same as ``"oracle"``.
    """
    if not np.array_equal(predicted.stimulus_ids, true.stimulus_ids):
        raise InputError("predicted and true latents are not of the same images. Predict and extract them again.")
    wanted, options, found = _wanted(names), dict(sampling or {}), dict[str, tuple[Latents, dict[str, Any]]]()
    decodes = decoded_kinds(backbone, predicted)
    if "mean" in wanted:
        found["mean"] = (_means(training, predicted), options)
    if "z_only" in wanted:
        found["z_only"] = (predicted, options | {"use": sorted(decodes.values())})
    for kind, context in {"picture": "c_text", "caption": "c_image"}.items():
        if "other_context" in wanted and kind in decodes and context in predicted and LATENTS[context].guides:
            found[f"other_context {kind}"] = (predicted, options | {"kinds": [kind], "use": [context]})
    if "oracle" in wanted:
        found["oracle"] = (true, options)
    if "span" in wanted:
        spanned = span_projection(true, training)
        # With more training images than dimensions nothing is lost, and the oracle says it already.
        whole = all(np.abs(spanned[key] - true[key]).max() <= _SAME * np.abs(true[key]).max() for key in true)
        if not (whole and "oracle" in found):
            found["span"] = (spanned, options)
    return found


def nearest_training_ids(predicted: Latents, training: "Latents | StoredLatents") -> NDArray[np.int64]:
    """Training image that is closest to each prediction, shape (n,): by the cosine of the contexts less their mean.

    The mean is that of the training images; the cosines of all contexts count alike.
    """
    targets = training_targets(training)
    total = np.zeros((predicted.n, len(targets.ids)))
    for name in (name for name, row in LATENTS.items() if row.guides and name in predicted and name in targets):
        rows = predicted[name].reshape(predicted.n, -1)
        products, squares, own = np.zeros_like(total), np.zeros(len(targets.ids)), np.zeros(predicted.n)
        for block, values in targets[name].blocks(block_width(targets[name], 1, _MEMORY)):
            mean = values.mean(0)
            there, here = values - mean, rows[:, block] - mean
            products += here @ there.T
            squares += (there**2).sum(1)
            own += (here**2).sum(1)
        total += products / np.maximum(np.sqrt(np.outer(own, squares)), np.finfo(float).tiny)
    found: NDArray[np.int64] = targets.ids[total.argmax(1)]
    return found


def _means(training: "Latents | StoredLatents", like: Latents) -> Latents:
    targets = training_targets(training)
    means = {}
    for name in like:
        parts = [values.mean(0) for _, values in targets[name].blocks(block_width(targets[name], 1, _MEMORY))]
        mean = np.concatenate(parts).reshape(1, *like[name].shape[1:]).astype(np.float32)
        means[name] = np.repeat(mean, like.n, axis=0)
    return Latents(like.stimulus_ids, means)


def span_projection(true: Latents, training: "Latents | StoredLatents") -> Latents:
    """Project latents on all mixtures of training latents (weights that add up to one, of any sign).

    Where there are more training images than dimensions, that is mostly no restriction. Two passes over the training
    latents; one, by dimensions instead of images, where there are fewer of them.
    """
    from scipy.linalg import solve

    targets = training_targets(training)
    n, projected = len(targets.ids), {}
    for name in true:
        width, rows = block_width(targets[name], 1, _MEMORY), true[name].reshape(true.n, -1)
        if targets[name].shape[1] < n and width == targets[name].shape[1]:
            # In single precision, directions in which images differ little would seem to be lost.
            values = targets[name][:, :].astype(np.float64)
            mean = values.mean(0)
            values -= mean
            kernel = values.T @ values
            ridge = _add_ridge(kernel, values.dtype)
            lost = solve(kernel, ridge * (rows - mean).T, assume_a="pos", overwrite_a=True).T
            projected[name] = (rows - lost).reshape(true[name].shape).astype(np.float32)
            continue
        kernel, cross = np.zeros((n, n)), np.zeros((n, true.n))
        for block, values in targets[name].blocks(width):
            mean = values.mean(0)
            kernel += (values - mean) @ (values - mean).T
            cross += (values - mean) @ (rows[:, block] - mean).T
        _add_ridge(kernel, np.dtype(np.float32))
        weights = solve(kernel, cross, assume_a="pos", overwrite_a=True)
        parts = []
        for _, values in targets[name].blocks(width):
            mean = values.mean(0)
            parts.append(weights.T @ (values - mean) + mean)
        projected[name] = np.hstack(parts).reshape(true[name].shape).astype(np.float32)
    return Latents(true.stimulus_ids, projected)


def _add_ridge(kernel: NDArray[np.float64], products: np.dtype[Any]) -> float:
    """Add the ridge to the diagonal of a kernel, in place, and return it."""
    ridge = _RIDGE[products] * float(np.trace(kernel)) + float(np.finfo(np.float32).tiny)
    kernel[np.diag_indices(len(kernel))] += ridge
    return ridge
