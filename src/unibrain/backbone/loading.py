"""Opening a backbone folder: what is needed of it, once, in the precision that is wanted."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.devices import choose_device, choose_dtype
from unibrain.backbone.flows import ContextKind, FourFlows
from unibrain.backbone.lean import Stored, build_empty, look_into, take_weights
from unibrain.backbone.memory import require_memory
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.parts import Parts, check_parts
from unibrain.backbone.products import use_fast_products
from unibrain.backbone.protocol import Backbone
from unibrain.backbone.storage import PARTS, backbone_folder, folder_fingerprint
from unibrain.backbone.versatile_diffusion import VersatileDiffusion
from unibrain.backbone.vocabularies import open_tokenizers
from unibrain.errors import InputError

_LATENT_OF: dict[str, ContextKind] = {"autokl": "image", "optimus": "text"}
"""A flow's latents come from and go to one autoencoder; without it, its data blocks have nothing to do."""


def load_folder(
    name: str | Path = "small",
    device: str = "auto",
    batch_size: int | None = None,
    dtype: str = "auto",
    parts: Iterable[str] = PARTS,
    *,
    offload: bool = False,
    compile: bool = False,
) -> VersatileDiffusion:
    """Load a backbone, or parts of it, without ever holding a weight twice.

    Parameters
    ----------
    name : str or Path
        ``"small"`` for the one in the package, ``"official"`` for the converted official one, or a folder with
        ``config.json``, weights and vocabularies.
    device : str
        ``"auto"`` takes CUDA, then Apple's MPS, then the processor; or a name that PyTorch knows.
    batch_size : int, optional
        Most pictures, captions or scans in one call of a network; found by itself if left out.
    dtype : {"auto", "fp32", "bf16", "fp16"}
        Precision; see `unibrain.backbone.devices.choose_dtype` for what ``"auto"`` takes.
    parts : iterable of str
        What is needed. ``flows`` and ``clip`` with ``autokl`` decode pictures, with ``optimus`` captions (``flows``
        then has only the half that the other one asks for); ``autokl``, ``optimus`` and ``clip`` extract latents;
        ``clip`` scores captions. What is not named is not loaded.
    offload : bool
        For graphics cards with little memory: a part is on the device only while it is used.
    compile : bool
        Compile the flows with `torch.compile`; only on graphics cards. The first steps then take minutes.

    Returns
    -------
    VersatileDiffusion

    Raises
    ------
    InputError
        If the folder is not there or incomplete, weights or vocabularies are of another size than the configuration
        says, there is no such device, the device has no such precision, or memory will not do.

    Examples
    --------
    >>> load_backbone("small", device="cpu").encode("z_text", ["a dog on a beach"]).shape
    (1, 128)
    >>> load_backbone("small", device="cpu", parts=["clip"]).parts.names
    ('clip',)
    """
    folder = backbone_folder(name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no backbone there (config.json is missing), expected 'small' or the folder of a backbone: "
            "check the name"
        )
    wanted, chosen = check_parts(parts), choose_device(device)
    offload = offload and chosen.type != "cpu"
    if compile and (chosen.type != "cuda" or offload):
        raise InputError(
            f"compile was asked for on the device {chosen}{' with offload' if offload else ''}, expected a graphics "
            "card that holds all parts: leave it out"
        )
    fingerprint = folder_fingerprint(folder)
    config = BackboneConfig.from_json(folder / "config.json")
    stored = _stored(folder, wanted)
    precision = _precision(stored, dtype, chosen)
    _check_memory(folder, {part: stored[part] for part in wanted}, precision, chosen, offload)
    home = torch.device("cpu") if offload else chosen
    modules = {part: _load(folder, config, part, wanted, precision, home, chosen) for part in wanted}
    if compile and "flows" in modules:
        modules["flows"].compile()
    loaded = Parts(modules, chosen, offload)
    tokenizers = open_tokenizers(folder, loaded, config.optimus.max_pieces, config.clip.eos_token_id)
    return VersatileDiffusion(config, loaded, tokenizers, fingerprint, precision, batch_size)


def precision_in(name: str | Path, device: str = "auto", dtype: str = "auto") -> torch.dtype:
    """Tell the precision that a backbone would be loaded in, without loading it.

    Returns
    -------
    torch.dtype

    Raises
    ------
    InputError
        As `load_backbone`.
    """
    return _precision(_stored(backbone_folder(name), ()), dtype, choose_device(device))


def _stored(folder: Path, wanted: tuple[str, ...]) -> dict[str, Stored]:
    """Headers of the weight files that are there; those of `wanted` have to be."""
    there = (part for part in PARTS if part in wanted or (folder / f"{part}.safetensors").is_file())
    return {part: look_into(folder, part) for part in there}


def _precision(stored: dict[str, Stored], dtype: str, device: torch.device) -> torch.dtype:
    """Choose by the size of the whole backbone, so that every stage of a run computes in the same precision."""
    if not stored:
        return choose_dtype(dtype, device, 0, torch.float32)
    largest = max(stored.values(), key=lambda entry: entry.numbers())
    return choose_dtype(dtype, device, sum(entry.numbers() for entry in stored.values()), largest.dtype)


def _left_out(part: str, wanted: tuple[str, ...]) -> tuple[ContextKind, ...]:
    """Latents that the flows need no blocks for; without any autoencoder, they are loaded whole."""
    coders = [coder for coder in _LATENT_OF if coder in wanted]
    if part != "flows" or not coders:
        return ()
    return tuple(latent for coder, latent in _LATENT_OF.items() if coder not in coders)


def _prefixes(part: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{latent}.data_blocks." for latent in _left_out(part, wanted))


def _check_memory(
    folder: Path,
    stored: dict[str, Stored],
    dtype: torch.dtype,
    device: torch.device,
    offload: bool,
) -> None:
    wanted = tuple(stored)
    needed = {part: dtype.itemsize * entry.numbers(_prefixes(part, wanted)) for part, entry in stored.items()}
    smaller = "choose dtype bf16, " if dtype == torch.float32 else ""
    what = f"{folder} ({', '.join(wanted)})"
    if offload:
        require_memory(max(needed.values()), device, f"the largest part of {what}", f"{smaller}or the device cpu")
    elif device.type != "cpu":
        remedy = f"{smaller}load fewer parts, or let them take turns with offload"
        require_memory(sum(needed.values()), device, what, remedy)
    if offload or device.type == "cpu":
        remedy = f"{smaller}load fewer parts, or close other programs"
        require_memory(sum(needed.values()), torch.device("cpu"), what, remedy)


def _built(folder: Path, build: Callable[[], Any]) -> Any:
    try:
        return build_empty(build)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        # The libraries' own refusals, for example of a width that the heads do not divide.
        raise InputError(
            f"{folder / 'config.json'}: no network can be built of these sizes ({error}): "
            "take the config.json written with the weights"
        ) from None


def _load(
    folder: Path,
    config: BackboneConfig,
    part: str,
    wanted: tuple[str, ...],
    dtype: torch.dtype,
    home: torch.device,
    device: torch.device,
) -> nn.Module:
    left_out = _left_out(part, wanted)
    latents = tuple(latent for latent in _LATENT_OF.values() if latent not in left_out)
    build: dict[str, Callable[[], Any]] = {
        "flows": lambda: FourFlows(config.flows, latents),
        "autokl": lambda: make_autokl(config.autokl),
        "optimus": lambda: Optimus(config.optimus),
        "clip": lambda: make_clip(config.clip),
    }
    module: nn.Module = _built(folder, build[part])
    take_weights(module, folder, part, dtype, home, _prefixes(part, wanted))
    use_fast_products(module)
    if device.type == "cuda" and part in ("flows", "autokl"):
        # Convolutions on graphics cards want the channels last; on processors it makes no difference (measured).
        convolutions: Any = module.get_submodule("image.data_blocks") if part == "flows" else module
        convolutions.to(memory_format=torch.channels_last)
    return module


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "small": partial(load_folder, "small"),
    "official": partial(load_folder, "official"),
}
"""Name to loader, which is called with the options of `load_backbone`. A further backbone is a further row."""


def load_backbone(name: str | Path = "small", **options: Any) -> Any:
    """Load a backbone of `BACKBONES`, or of a folder; see `load_folder` for the options."""
    return BACKBONES.get(str(name), partial(load_folder, name))(**options)
