"""Finding the files of a folder in the diffusers format."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unibrain.errors import InputError
from unibrain.weights.layouts import Entries, entries
from unibrain.weights.published import read_weights

__all__ = ["check_folder", "component_files", "read_component", "tokenizer_file"]

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_VARIANTS = ("", ".fp16")


def check_folder(folder: Path) -> None:
    """Refuse what is no Versatile Diffusion in the diffusers format.

    Raises
    ------
    InputError
        Naming what is there.
    """
    wanted = "the folder of Versatile Diffusion in the diffusers format (image_unet, text_unet, vae and CLIP)"
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {found}, expected {wanted}: give the folder that holds model_index.json")
    for name in ("image_unet", "text_unet"):
        if not (folder / name).is_dir():
            other = "a Stable Diffusion pipeline" if (folder / "unet").is_dir() else f"no folder {name}"
            raise InputError(f"{folder}: holds {other}, expected {wanted}: get all of shi-labs/versatile-diffusion")


def component_files(folder: Path, component: str) -> tuple[Path, ...]:
    """Find a component's weights: one file, or the parts that an index lists.

    The full precision is preferred to the half one, and safetensors to pickles.

    Parameters
    ----------
    folder : Path
        The whole pipeline's.
    component : str
        For example ``image_unet``.

    Returns
    -------
    tuple of Path
        Empty if there are none.

    Raises
    ------
    InputError
        If an index is damaged.
    """
    for variant in _VARIANTS:
        for suffix in _SUFFIXES:
            for stem in _STEMS:
                # diffusers writes x.fp16.bin, but x.safetensors.index.fp16.json
                name = f"{stem}{variant}{suffix}"
                if suffix.endswith(".json") and variant:
                    name = f"{stem}{suffix.removesuffix('.json')}{variant}.json"
                path = folder / component / name
                if path.is_file():
                    return _listed(path) if path.suffix == ".json" else (path,)
    return ()


def _listed(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("a name in it is no plain file name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index}: no index of weights ({error}), expected a weight_map to files beside it: download it again"
        ) from None
    return tuple(index.parent / name for name in names)


def read_component(files: Sequence[Path]) -> Entries:
    """Open all files of a component; see `read_weights`."""
    found: Entries = {}
    for path in files:
        weights: dict[str, Tensor] = read_weights(path)
        found.update(entries(weights, path))
    return found


def tokenizer_file(folder: Path, name: str) -> Path | None:
    """CLIP's ``vocab.json`` or ``merges.txt`` in the pipeline's ``tokenizer`` folder, where it has one."""
    path = folder / "tokenizer" / name
    return path if path.is_file() else None
