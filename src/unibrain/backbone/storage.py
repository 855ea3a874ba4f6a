"""A backbone on disk: a folder of safetensors, vocabularies and a configuration. Nothing in it can execute code."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibrain.backbone.folder_fingerprint import PARTS, VOCABULARY_FILES, folder_fingerprint
from unibrain.errors import InputError
from unibrain.workspace.files import atomic_folder

__all__ = [
    "PARTS",
    "VOCABULARY_FILES",
    "backbone_folder",
    "backbones_home",
    "check_weights",
    "fill",
    "folder_fingerprint",
    "open_part",
    "read_part",
    "write_backbone",
]


def backbones_home() -> Path:
    """Where converted backbones are kept: ``backbones`` in ``UNIBRAIN_HOME``, by default in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UNIBRAIN_HOME") or Path(cache) / "unibrain") / "backbones"


def backbone_folder(name: str | Path) -> Path:
    """Where a backbone lies.

    ``"small"`` is in the package, ``"official"`` in `backbones_home`, and so is any other bare name that is found
    there; everything else is a folder's path.
    """
    if str(name) == "small":
        return Path(__file__).parent / "data" / "small"
    kept = backbones_home() / name
    bare = isinstance(name, str) and Path(name).name == name
    return kept if bare and (name == "official" or kept.is_dir()) else Path(name)


def read_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Read the weights of one part.

    Parameters
    ----------
    folder : Path
    part : str
        One of `PARTS`.

    Returns
    -------
    dict of str to Tensor
        In the precision of the file.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    with open_part(folder, part) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


@contextmanager
def open_part(folder: Path, part: str) -> Iterator[Any]:
    """Map the weight file of one part into memory.

    Parameters
    ----------
    folder : Path
    part : str
        One of `PARTS`.

    Yields
    ------
    safetensors.safe_open
        Tensors taken from it are views of the mapped file.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / f"{part}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        without = " (it can be loaded for pictures alone)" if part == "optimus" else ""
        raise InputError(
            f"{path}: no such file, expected the backbone's {part} weights: install the package again or give another "
            f"folder{without}"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}), expected the backbone's {part} weights: get the file "
            "again"
        ) from None


def check_weights(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare the keys and shapes of a network with those of a file.

    Parameters
    ----------
    own, found : mapping of str to tuple of int
        Key to shape.
    where : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If a key is missing or unknown, or a shape differs.
    """
    missing, unknown = sorted(set(own) - set(found)), sorted(set(found) - set(own))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}"
        raise InputError(
            f"{where}: {what} ({len(missing)} keys are missing, {len(unknown)} unknown), expected the {len(own)} keys "
            "of this configuration: take weights and config.json from the same place"
        )
    for key, shape in own.items():
        if shape != found[key]:
            raise InputError(
                f"{where}: {key} has shape {found[key]}, expected {shape}: these are "
                "weights of another size, take weights and config.json from the same place"
            )


def fill(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a module, in the module's precision.

    Parameters
    ----------
    module : torch.nn.Module
    weights : mapping of str to Tensor
        Exactly the module's keys.
    where : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If a key is missing or unknown, or a shape differs.
    """
    own = module.state_dict()
    check_weights(
        {key: tuple(value.shape) for key, value in own.items()},
        {key: tuple(value.shape) for key, value in weights.items()},
        where,
    )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(weights[key])


def write_backbone(
    folder: Path,
    config_json: str,
    weights: Mapping[str, Mapping[str, Tensor]],
    vocabularies: Path,
    extra: Mapping[str, str],
) -> None:
    """Write a backbone folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Replaced if it exists.
    config_json : str
    weights : mapping of str to mapping of str to Tensor
        One entry per part; written in float16. Tied weights are written twice.
    vocabularies : Path
        Folder with the `VOCABULARY_FILES`.
    extra : mapping of str to str
        Names and contents of further text files, for example a model card.
    """
    from safetensors.torch import save_file

    with atomic_folder(folder) as partial:
        (partial / "config.json").write_text(config_json, encoding="utf-8")
        for part in PARTS:
            halves = {
                key: (value.half() if value.is_floating_point() else value).contiguous().clone()
                for key, value in weights[part].items()
            }
            save_file(halves, partial / f"{part}.safetensors")
            (partial / f"{part}.safetensors").chmod(0o644)
        for name in VOCABULARY_FILES:
            (partial / name).write_bytes((vocabularies / name).read_bytes())
        for name, content in extra.items():
            (partial / name).write_text(content, encoding="utf-8")
