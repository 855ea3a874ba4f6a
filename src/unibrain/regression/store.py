"""A fitted decoder as one safetensors file: exact, versioned, checked, and no code in it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.regression.crossvalidation import AlphaCurve
from unibrain.regression.ridge import Factorisation
from unibrain.workspace.atomic import atomic_path

__all__ = ["load_decoder", "save_decoder"]

FORMAT = "unibrain-decoder"
VERSION = 1
ARRAYS = (
    "betas",
    "betas_mean",
    "eigenvalues",
    "eigenvectors",
    "stimulus_ids",
    *(f"target.{name}" for name in LATENT_NAMES),
    *(f"gain.{name}" for name in LATENT_NAMES),
)


def save_decoder(path: str | os.PathLike[str], parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Write a fitted decoder.

    The file holds the training scans, the factorisation of their kernel, and the training targets: what a prediction
    needs, at a fraction of the size of the weights.

    Parameters
    ----------
    path : path-like
        File to write, for example ``decoder.safetensors``.
    parameters : mapping
        Constructor parameters of the decoder.
    fitted : mapping
        Its fitted attributes, by name (see `unibrain.regression.decoder.BrainDecoder`).

    Raises
    ------
    InputError
        If the disk is full.
    """
    from safetensors.numpy import save_file

    latents: Latents = fitted["latents_"]
    factorisation: Factorisation = fitted["factorisation_"]
    tensors: dict[str, NDArray[Any]] = {
        "betas": fitted["betas_"],
        "betas_mean": fitted["betas_mean_"],
        "eigenvalues": factorisation.eigenvalues,
        "eigenvectors": factorisation.eigenvectors,
        "stimulus_ids": latents.stimulus_ids,
    }
    for name, latent in latents.items():
        tensors[f"target.{name}"] = latent
        tensors[f"gain.{name}"] = fitted["gain_"][name]
    # safetensors writes the buffer as it lies in memory: an array in Fortran order would come back scrambled.
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    settings = {
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "alpha": fitted["alpha_"],
        "curves": {name: asdict(curve) for name, curve in fitted["alpha_curve_"].items()},
    }
    text = json.dumps(settings, allow_nan=False)
    metadata = {"format": FORMAT, "version": str(VERSION), "settings": text, "sha256": _digest(text, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_decoder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_decoder` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    parameters, fitted : dict
        Constructor parameters and fitted attributes.

    Raises
    ------
    InputError
        If the file is missing, truncated, changed since it was written, no decoder, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, expected a fitted decoder: fit one first (unibrain fit)")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ARRAYS if name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: truncated or no safetensors file ({error}), expected a fitted decoder: fit it again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: a safetensors file of another kind, expected a decoder that unibrain has fitted: check the path"
        )
    if metadata.get("version") != str(VERSION):
        raise InputError(f"{path}: decoder format version {metadata.get('version')}, expected {VERSION}: fit it again")
    text = metadata.get("settings", "")
    if set(tensors) != set(ARRAYS) or metadata.get("sha256") != _digest(text, tensors):
        raise InputError(
            f"{path}: corrupted, its content does not match its checksum, expected an unchanged file: fit it again"
        )

    settings = json.loads(text)
    fitted = {
        "alpha_": settings["alpha"],
        "alpha_curve_": {name: _curve(curve) for name, curve in settings["curves"].items()},
        "gain_": {name: tensors[f"gain.{name}"] for name in LATENT_NAMES},
        "n_features_in_": tensors["betas"].shape[1],
        "betas_": tensors["betas"],
        "betas_mean_": tensors["betas_mean"],
        "factorisation_": Factorisation(tensors["eigenvalues"], tensors["eigenvectors"]),
        "latents_": Latents(tensors["stimulus_ids"], *(tensors[f"target.{name}"] for name in LATENT_NAMES)),
    }
    parameters = settings["parameters"]
    parameters["alphas"] = tuple(parameters["alphas"])
    return parameters, fitted


def _digest(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in ARRAYS:
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        digest.update(tensors[name].data.cast("B"))
    return digest.hexdigest()


def _curve(curve: Mapping[str, Any]) -> AlphaCurve:
    return AlphaCurve(tuple(curve["alphas"]), tuple(curve["r2"]), tuple(curve["correlation"]), curve["targets"])


def _plain(value: Any) -> Any:
    """A parameter as JSON knows it: numpy scalars and arrays, tuples and mappings become numbers, lists and dicts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
