"""A fitted decoder as one safetensors file: exact, versioned, checked, and no code in it."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.alpha_choice import AlphaChoice
from unibrain.regression.banded import BandChoice
from unibrain.regression.ridge import CholeskyFactor, Factorisation
from unibrain.regression.systems import System, pack_lower, unpack_lower
from unibrain.regression.target_reference import find_targets, refer_to
from unibrain.workspace.files import atomic_path

__all__ = ["load_choices", "load_decoder", "save_decoder"]

FORMAT = "unibrain-decoder"
VERSION = 2


def save_decoder(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Any],
    fitted: Mapping[str, Any],
    embed_targets: bool | None = None,
) -> None:
    """Write a fitted decoder.

    The file holds the training scans and the factorisation of their kernel. Training targets that are stored as latents
    are referred to, by path and checksum; those that are in memory are put into the file. That is what a prediction
    needs, at a fraction of the size of the weights (for subject 1 of NSD 1.2 GB instead of 17).

    Parameters
    ----------
    path : path-like
        File to write, for example ``decoder.safetensors``.
    parameters : mapping
        Constructor parameters of the decoder.
    fitted : mapping
        Its fitted attributes, by name (see `unibrain.regression.decoder.BrainDecoder`).
    embed_targets : bool, optional
        Put the targets into the file (True) or refer to them (False).

    Raises
    ------
    InputError
        If targets in memory are to be referred to, or the disk is full.
    """
    from safetensors.numpy import save_file

    latents: Latents | StoredLatents = fitted["latents_"]
    stored = isinstance(latents, StoredLatents)
    if not stored and embed_targets is False:
        raise InputError(
            f"{path}: the training targets are in memory, expected stored latents to refer to: fit to what "
            "unibrain.latents.open_latents returns, or embed them"
        )
    tensors: dict[str, NDArray[Any]] = {
        "betas": fitted["betas_"],
        "betas_mean": fitted["betas_mean_"],
        "stimulus_ids": latents.stimulus_ids,
    }
    reference = None
    if isinstance(latents, StoredLatents) and not embed_targets:
        reference = refer_to(latents, Path(path))
        tensors["rows"] = latents.row_numbers
    else:
        in_memory = latents.read() if isinstance(latents, StoredLatents) else latents
        tensors |= {f"target.{name}": latent for name, latent in in_memory.items()}
    for name in LATENT_NAMES:
        tensors[f"gain.{name}"], tensors[f"alpha.{name}"] = fitted["gain_"][name], fitted["alphas_"][name]
    systems = []
    for number, system in enumerate(fitted["systems_"]):
        tensors |= {f"system.{number}.{part}": array for part, array in _system_arrays(system).items()}
        alpha = system.solver.alpha if isinstance(system.solver, CholeskyFactor) else None
        systems.append({"latents": system.latents, "alpha": alpha})
    bands: BandChoice | None = fitted["band_choice_"]
    if bands is not None:
        tensors |= {f"bands.{part}": array for part, array in bands.arrays().items()}
    choices = {}
    for name, choice in fitted["alpha_choice_"].items():
        choices[name] = choice.settings()
        tensors |= {f"choice.{name}.{part}": array for part, array in choice.arrays().items()}
    # safetensors writes the buffer as it lies in memory: an array in Fortran order would come back scrambled.
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    settings = {
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "bands": None if bands is None else _plain(bands.settings()),
        "systems": systems,
        "choices": _plain(choices),
        "targets": reference,
    }
    text = json.dumps(settings, allow_nan=False)
    metadata = {"format": FORMAT, "version": str(VERSION), "settings": text, "sha256": _digest(text, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def _system_arrays(system: System) -> dict[str, NDArray[Any]]:
    arrays = {} if system.weights is None else {"weights": system.weights}
    if isinstance(system.solver, CholeskyFactor):
        return arrays | {"cholesky": pack_lower(system.solver.factor)}
    assert isinstance(system.solver, Factorisation)
    return arrays | {"eigenvalues": system.solver.eigenvalues, "eigenvectors": system.solver.eigenvectors}


def load_decoder(
    path: str | os.PathLike[str], targets: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_decoder` wrote.

    Parameters
    ----------
    path : path-like
    targets : path-like, optional
        Where the training targets lie now, if they were moved.

    Returns
    -------
    parameters, fitted : dict
        Constructor parameters and fitted attributes.

    Raises
    ------
    InputError
        If the file is missing, truncated, changed since it was written, no decoder, or of another version; if the
        training targets that it refers to are missing or changed.
    """
    path = Path(path)
    settings, tensors = _read(path)
    try:
        systems = tuple(_system(about, number, tensors) for number, about in enumerate(settings["systems"]))
        ids = tensors["stimulus_ids"]
        latents: Latents | StoredLatents
        if settings["targets"] is None:
            latents = Latents(ids, *(tensors[f"target.{name}"] for name in LATENT_NAMES))
        else:
            latents = find_targets(settings["targets"], path, targets).at(tensors["rows"])
        alpha_choices, band_choice = _choices(settings, tensors)
        fitted = {
            "alphas_": {name: tensors[f"alpha.{name}"] for name in LATENT_NAMES},
            "alpha_choice_": alpha_choices,
            "band_choice_": band_choice,
            "gain_": {name: tensors[f"gain.{name}"] for name in LATENT_NAMES},
            "n_features_in_": tensors["betas"].shape[1],
            "betas_": tensors["betas"],
            "betas_mean_": tensors["betas_mean"],
            "systems_": systems,
            "latents_": latents,
        }
    except KeyError as error:
        raise InputError(f"{path}: corrupted, {error} is missing, expected a whole decoder: fit it again") from error
    parameters = settings["parameters"]
    parameters["alphas"] = tuple(parameters["alphas"])
    return parameters, fitted


def load_choices(path: str | os.PathLike[str]) -> tuple[dict[str, AlphaChoice], BandChoice | None]:
    """Read only how the penalties of a fitted decoder were chosen.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    alpha_choices : dict of str to AlphaChoice
        Empty if the penalties were given.
    band_choice : BandChoice or None
        None without bands.

    Raises
    ------
    InputError
        As `load_decoder`, but for a damaged part that is not read here.
    """
    settings, tensors = _read(Path(path), ("choice.", "bands."))
    return _choices(settings, tensors)


def _choices(
    settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, AlphaChoice], BandChoice | None]:
    alphas = {
        name: AlphaChoice.restore(about, _parts(f"choice.{name}", tensors))
        for name, about in settings["choices"].items()
    }
    bands = settings["bands"]
    return alphas, None if bands is None else BandChoice.restore(bands, _parts("bands", tensors))


def _read(path: Path, prefixes: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: there is no such file, expected a fitted decoder: fit one first (unibrain fit)")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if not prefixes or name.startswith(prefixes)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
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
    if not prefixes and metadata.get("sha256") != _digest(text, tensors):
        raise InputError(
            f"{path}: corrupted, its content does not match its checksum, expected an unchanged file: fit it again"
        )
    return dict(json.loads(text)), tensors


def _system(about: Mapping[str, Any], number: int, tensors: Mapping[str, NDArray[Any]]) -> System:
    arrays = _parts(f"system.{number}", tensors)
    if about["alpha"] is not None:
        solver: CholeskyFactor | Factorisation = CholeskyFactor(about["alpha"], unpack_lower(arrays["cholesky"]))
    else:
        solver = Factorisation(arrays["eigenvalues"], arrays["eigenvectors"])
    return System(tuple(about["latents"]), arrays.get("weights"), solver)


def _parts(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}


def _digest(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A parameter as JSON knows it: numpy scalars and arrays, tuples and mappings become numbers, lists and dicts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
