"""A fitted decoder as one safetensors file: exact, versioned, checked, the same bytes each time, and no code in it.

The file holds the training scans and the factorisation of their kernel. Training targets that are stored as latents are
referred to, by path and checksum; those that are in memory are put into the file. That is what a prediction needs, at a
fraction of the size of the weights (for subject 1 of NSD 1.2 GB instead of 17).
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError
from unibrain.latents import StoredLatents, reopen_latents
from unibrain.regression.bands import BandChoice
from unibrain.regression.penalties import AlphaChoice
from unibrain.regression.ridge import CholeskyFactor, Factorisation, System
from unibrain.regression.targets import TrainingTargets, training_targets
from unibrain.workspace.files import atomic_path
from unibrain.workspace.fingerprints import digest

NAME = "decoder.safetensors"
FORMAT = "unibrain-decoder-4"
"""The only key of the file's metadata: several would come in another order each time."""

Tensors = dict[str, NDArray[Any]]


def save_decoder(folder: str | os.PathLike[str], parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Write a decoder's constructor parameters and fitted attributes, by their names in `BrainDecoder`."""
    from safetensors.numpy import save_file

    path, targets = Path(folder) / NAME, fitted["targets_"]
    tensors: Tensors = {"betas": fitted["betas_"], "betas_mean": fitted["betas_mean_"], "groups": targets.ids}
    about: dict[str, Any] = {"kind": targets.kind, "parameters": parameters, "stored": None, "shapes": targets.shapes}
    about["features"] = fitted.get("feature_names_in_")
    if targets.stored is not None:
        about["stored"] = {"place": _place(targets.stored, path), "manifest_sha256": targets.stored.manifest_sha256}
        tensors["rows"] = targets.stored.row_numbers
    else:
        tensors |= {f"target.{name}": reader[:, :] for name, reader in targets.items()}
    for name in targets:
        tensors[f"gain.{name}"], tensors[f"alpha.{name}"] = fitted["gain_"][name], fitted["alphas_"][name]
    about["systems"] = [
        _system_about(system, f"system.{number}", tensors) for number, system in enumerate(fitted["systems_"])
    ]
    about["choices"] = {
        name: _choice_about(choice, f"choice.{name}", tensors) for name, choice in fitted["alpha_choice_"].items()
    }
    bands = fitted["band_choice_"]
    about["bands"] = None if bands is None else _choice_about(bands, "bands", tensors)
    # safetensors writes the buffer as it lies in memory: an array in Fortran order would come back scrambled.
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    about["sha256"] = {name: digest(tensor) for name, tensor in tensors.items()}
    # JSON does not know NumPy's numbers and arrays, and mappings that are no dict.
    text = json.dumps(about, allow_nan=False, default=lambda value: getattr(value, "tolist", lambda: dict(value))())
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {FORMAT: f"{digest(text)} {text}"})


def load_decoder(
    folder: str | os.PathLike[str], targets: str | os.PathLike[str] | None = None, verify: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_decoder` wrote: constructor parameters and fitted attributes.

    `targets` is where the training targets lie now, if they were moved; `verify` reads all of them for their checksums.
    """
    path = Path(folder) / NAME
    about, tensors = _read(path)
    shapes = {name: tuple(shape) for name, shape in about["shapes"].items()}
    if about["stored"] is None:
        arrays = {name: tensors[f"target.{name}"] for name in shapes}
        known = TrainingTargets(about["kind"], tensors["groups"], shapes, arrays)
    else:
        known = training_targets(_find_targets(about["stored"], path, targets, verify).at(tensors["rows"]))
    parameters = about["parameters"] | {"alphas": tuple(about["parameters"]["alphas"])}
    fitted = {
        "alphas_": {name: tensors[f"alpha.{name}"] for name in shapes},
        "gain_": {name: tensors[f"gain.{name}"] for name in shapes},
        "n_features_in_": tensors["betas"].shape[1],
        "betas_": tensors["betas"],
        "betas_mean_": tensors["betas_mean"],
        "systems_": tuple(_system(one, f"system.{number}", tensors) for number, one in enumerate(about["systems"])),
        "targets_": known,
    }
    fitted["alpha_choice_"], fitted["band_choice_"] = _choices(about, tensors)
    if about["features"] is not None:
        fitted["feature_names_in_"] = np.array(about["features"], dtype=object)
    return parameters, fitted


def load_choices(folder: str | os.PathLike[str]) -> tuple[dict[str, AlphaChoice], BandChoice | None]:
    """Read only how the penalties of a fitted decoder were chosen.

    Parameters
    ----------
    folder : path-like
        Where `BrainDecoder.save` wrote it, such as ``run/decoder``.

    Returns
    -------
    alpha_choices : dict of str to AlphaChoice
        Empty if the penalties were given.
    band_choice : BandChoice or None
        None without bands.

    Raises
    ------
    InputError
        If there is no decoder.
    DamagedFileError
        If what is read of its file is truncated or changed, or written by another version.
    """
    return _choices(*_read(Path(folder) / NAME, ("choice.", "bands.")))


def _read(path: Path, prefixes: tuple[str, ...] = ("",)) -> tuple[dict[str, Any], Tensors]:
    """What the header tells, and the tensors whose names begin so, each compared with its checksum."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} does not exist. Fit a decoder first (unibrain fit).")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise DamagedFileError(path, f"{path} is truncated or damaged ({error}). Fit the decoder again.") from error
    if FORMAT not in metadata:
        raise DamagedFileError(path, f"{path} is damaged, or a decoder of another version of unibrain. Fit it again.")
    checksum, _, text = metadata[FORMAT].partition(" ")
    about: dict[str, Any] = json.loads(text) if digest(text) == checksum else {"sha256": None}
    expected = {name: value for name, value in (about["sha256"] or {}).items() if name.startswith(prefixes)}
    if about["sha256"] is None or {name: digest(tensor) for name, tensor in tensors.items()} != expected:
        raise DamagedFileError(path, f"{path} was changed or damaged after it was written. Fit the decoder again.")
    return about, tensors


def _system_about(system: System, prefix: str, tensors: Tensors) -> dict[str, Any]:
    solver, alpha = system.solver, None
    if system.weights is not None:
        tensors[f"{prefix}.weights"] = system.weights
    if isinstance(solver, CholeskyFactor):
        tensors[f"{prefix}.cholesky"], alpha = solver.factor[np.tri(solver.n, dtype=bool)], solver.alpha  # half of it
    else:
        tensors |= {f"{prefix}.basis": solver.basis, f"{prefix}.band": solver.band}
    return {"names": system.names, "alpha": alpha}


def _system(about: Mapping[str, Any], prefix: str, tensors: Mapping[str, NDArray[Any]]) -> System:
    solver: Factorisation | CholeskyFactor
    if about["alpha"] is None:
        solver = Factorisation(tensors[f"{prefix}.basis"], tensors[f"{prefix}.band"])
    else:
        n = len(tensors["betas"])
        factor = np.zeros((n, n))
        factor[np.tri(n, dtype=bool)] = tensors[f"{prefix}.cholesky"]
        solver = CholeskyFactor(about["alpha"], factor)
    return System(tuple(about["names"]), tensors.get(f"{prefix}.weights"), solver)


def _choice_about(choice: AlphaChoice | BandChoice, prefix: str, tensors: Tensors) -> dict[str, Any]:
    """The fields of a choice: arrays go to the tensors, the others are returned."""
    fields = {field.name: getattr(choice, field.name) for field in dataclasses.fields(choice)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    tensors |= {f"{prefix}.{name}": value for name, value in arrays.items()}
    return {name: value for name, value in fields.items() if name not in arrays}


def _choices(
    about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, AlphaChoice], BandChoice | None]:
    def arrays(prefix: str) -> dict[str, Any]:
        known = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return {name: value for name, value in known.items() if "." not in name}  # a latent's name may go on after it

    choices = {name: AlphaChoice(**known, **arrays(f"choice.{name}.")) for name, known in about["choices"].items()}
    if about["bands"] is None:
        return choices, None
    bands = about["bands"] | {name: tuple(about["bands"][name]) for name in ("bands", "latents")}
    return choices, BandChoice(**bands, **arrays("bands."))


def _place(latents: StoredLatents, path: Path) -> str:
    """Where stored targets lie, seen from the decoder's folder, so that a run may be moved or copied."""
    if "://" in latents.folder:
        return latents.folder
    absolute = Path(latents.folder).resolve()
    try:
        return Path(os.path.relpath(absolute, path.parent.resolve())).as_posix()
    except ValueError:
        # Another drive: there is no relative path.
        return absolute.as_posix()


def _find_targets(
    stored: Mapping[str, Any], path: Path, moved_to: str | os.PathLike[str] | None, verify: bool
) -> StoredLatents:
    """Open the targets that a decoder refers to: only read, and only if their checksums are those of the fit."""
    place: Any = moved_to or stored["place"]
    if moved_to is None and "://" not in place:
        # Joining keeps an absolute path as it is.
        place = Path(os.path.normpath(path.parent.resolve() / place))
        if not place.is_dir():
            raise InputError(
                f"{path} was fitted to the latents in {place}, which are gone. Restore them, name their new folder "
                "(BrainDecoder.load(folder, targets=...)), or fit again."
            )
    return reopen_latents(place, stored["manifest_sha256"], verify)
