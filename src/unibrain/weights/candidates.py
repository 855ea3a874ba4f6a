"""What the given files hold of each part, renamed to our keys; whether it is complete is asked later."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from unibrain.backbone.config import BackboneConfig
from unibrain.errors import InputError
from unibrain.weights import layouts
from unibrain.weights.diffusers_folder import check_folder, component_files, read_component
from unibrain.weights.layouts import Entries
from unibrain.weights.manifest import Role
from unibrain.weights.published import read_weights
from unibrain.weights.recognition import check_role

__all__ = ["Candidate", "in_diffusers_folder", "in_flows_file", "in_own_file"]


@dataclass(frozen=True)
class Candidate:
    """What one source holds of a part.

    Attributes
    ----------
    source : str
        Name of the file, and the place in it.
    path : Path
        For messages.
    tensors : dict of str to Entry
        Under our keys; keys of no layout under their own.
    ignored : int
        Number of known keys that are no weights.
    """

    source: str
    path: Path
    tensors: Entries
    ignored: int = 0


def _candidate(source: str, path: Path, found: Entries, rename: Callable[[Entries], Entries] = dict) -> Candidate:
    weights = {key: entry for key, entry in found.items() if not layouts.is_known_buffer(key)}
    return Candidate(source, path, rename(weights), len(found) - len(weights))


def in_own_file(path: Path, role: Role, config: BackboneConfig) -> Candidate:
    """Open the file of one part.

    Parameters
    ----------
    path : Path
    role : str
        ``autokl``, ``optimus`` or ``clip``.
    config : BackboneConfig

    Raises
    ------
    InputError
        If it cannot be read or is of another kind.
    """
    weights = read_weights(path)
    kind = check_role(path, weights, role)
    found = layouts.entries(weights, path)
    if kind == "autokl":
        return _candidate(path.name, path, found, _autokl_renaming(config))
    if kind == "autokl-diffusers":
        return _candidate(path.name, path, found, layouts.autokl_from_diffusers)
    return _candidate(path.name, path, found, layouts.optimus_from_published if role == "optimus" else dict)


def _autokl_renaming(config: BackboneConfig) -> Callable[[Entries], Entries]:
    return lambda found: layouts.autokl_from_published(found, len(config.autokl.widths))


def in_flows_file(path: Path, config: BackboneConfig) -> dict[str, Candidate]:
    """Open the flows' file, in its current or its deprecated layout, and look which other parts it repeats.

    Parameters
    ----------
    path : Path
    config : BackboneConfig

    Returns
    -------
    dict of str to Candidate
        Always ``flows``, with everything that belongs nowhere in it.

    Raises
    ------
    InputError
        If it cannot be read or is of another kind.
    """
    weights = read_weights(path)
    kind = check_role(path, weights, "flows")
    if kind == "flows":
        prefixes = ("diffuser.", "vae.image.", "vae.text.", "ctx.text.model.", "ctx.image.model.")
    else:
        prefixes = ("model.diffusion_model.", "autokl.", "optimus.", "clip.model.", "clip.model.")
    flows, autokl, optimus, clip_text, clip_image = (layouts.entries(weights, path, prefix) for prefix in prefixes)
    strangers = {
        key: entry
        for key, entry in layouts.entries(weights, path).items()
        if not key.startswith(prefixes) and key not in layouts.SCHEDULE_KEYS
    }

    def rename(found: Entries) -> Entries:
        renamed = found if kind == "flows" else layouts.flows_from_deprecated(found, config.flows)
        return {**renamed, **strangers}

    flows_part = _candidate(path.name, path, flows, rename)
    schedule = len(layouts.SCHEDULE_KEYS & set(weights))
    candidates = {"flows": Candidate(path.name, path, flows_part.tensors, flows_part.ignored + schedule)}
    if autokl:
        candidates["autokl"] = _candidate(f"{path.name}: {prefixes[1]}*", path, autokl, _autokl_renaming(config))
    if optimus:
        candidates["optimus"] = _candidate(
            f"{path.name}: {prefixes[2]}*", path, optimus, layouts.optimus_from_published
        )
    if clip_text or clip_image:
        # The current layout holds CLIP twice; each copy serves its own kind of context.
        where = f"{path.name}: {prefixes[3].split('.')[0]}.*"
        clip = layouts.clip_halves(clip_text or clip_image, clip_image or clip_text)
        candidates["clip"] = _candidate(where, path, clip)
    return candidates


def in_diffusers_folder(folder: Path, config: BackboneConfig, wanted: Collection[str]) -> dict[str, Candidate]:
    """Open the components of a diffusers folder.

    Parameters
    ----------
    folder : Path
    config : BackboneConfig
    wanted : collection of str
        Parts to look for.

    Returns
    -------
    dict of str to Candidate
        Of the parts ``flows``, ``autokl`` and ``clip`` those that are there.

    Raises
    ------
    InputError
        If the folder is another pipeline's, a file cannot be read, or the two UNets do not belong together.
    """
    check_folder(folder)
    candidates = {}

    def component(name: str) -> Entries:
        return read_component(component_files(folder, name))

    if "flows" in wanted:
        image, text = component("image_unet"), component("text_unet")
        _check_time_embeddings(folder, image, text)
        renamed = layouts.flows_from_diffusers(image, text, config.flows)
        candidates["flows"] = Candidate("image_unet and text_unet", folder, renamed)
    if "autokl" in wanted and (autokl := component("vae")):
        candidates["autokl"] = _candidate("vae", folder / "vae", autokl, layouts.autokl_from_diffusers)
    if "clip" in wanted:
        text, image = component("text_encoder"), component("image_encoder")
        if text and image:
            clip = layouts.clip_halves(text, image)
            candidates["clip"] = _candidate("text_encoder and image_encoder", folder, clip)
    return candidates


def _check_time_embeddings(folder: Path, image: Entries, text: Entries) -> None:
    """The published model has one time embedding; two that differ would make one of the flows wrong."""
    for key, entry in text.items():
        if not key.startswith("time_embedding.") or key not in image:
            continue
        one, other = image[key].tensor, entry.tensor
        narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
        if one.shape != other.shape or not torch.equal(one.to(narrow), other.to(narrow)):
            raise InputError(
                f"{folder}: image_unet and text_unet have different {key}, expected the one time embedding that the "
                "published flows share: take both from the same place"
            )
