"""Opening a backbone folder, in the precision that is wanted; nothing in it can execute code.

Networks are built without memory when they are first used, and take their weights from the mapped file.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.devices import Parts, choose_device, choose_dtype, require_memory
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.folder import PARTS, VOCABULARY_FILES, backbone_folder, folder_fingerprint
from unibrain.backbone.products import use_fast_products
from unibrain.backbone.protocol import Backbone
from unibrain.backbone.versatile_diffusion import VersatileDiffusion
from unibrain.errors import InputError
from unibrain.workspace.files import atomic_folder

_WINDOW = 256 * 2**20
"""Bytes of a file that are mapped at a time while its weights are converted."""

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

BLOCKS = {"image flow": "image.data_blocks.", "text flow": "text.data_blocks."}
"""Weights of the flows that only one kind of item needs: they are loaded when it is first decoded."""


# Weight files.


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Map a safetensors file into memory; tensors taken from it are views of the mapped file."""
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # what the system refuses passes as it is; the library calls all of it "no such file"
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Get the backbone again.") from None
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}). Get the file again.") from None


@dataclass(frozen=True)
class Stored:
    """What a weight file holds, as its header says: key to shape, and the type of most of its numbers."""

    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype

    def numbers(self, wanted: Callable[[str], bool] = lambda key: True) -> int:
        """How many numbers the wanted keys have."""
        return sum(torch.Size(shape).numel() for key, shape in self.shapes.items() if wanted(key))


def look_into(path: Path) -> Stored:
    """Read the header of a weight file."""
    counts: dict[str, int] = {}
    shapes = {}
    with open_weights(path) as file:
        for key in file.keys():  # noqa: SIM118 - no mapping
            entry = file.get_slice(key)
            shapes[key] = tuple(entry.get_shape())
            kind = entry.get_dtype()
            counts[kind] = counts.get(kind, 0) + torch.Size(shapes[key]).numel()
    most = max((kind for kind in counts if kind in _TYPES), key=lambda kind: counts[kind], default="F32")
    return Stored(shapes, _TYPES[most])


_DRAWS = {"fill_", "kaiming_uniform_", "normal_", "ones_", "trunc_normal_", "uniform_", "zero_", "zeros_"}


class _NoMemory(TorchFunctionMode):
    """Give every tensor that is to be filled later the meta device, and draw no numbers for it.

    Buffers with content of their own (positions, masks) are made by other functions, and come out right.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        tensor = args[0] if args else kwargs.get("tensor")
        if isinstance(tensor, Tensor) and tensor.is_meta and getattr(func, "__name__", "") in _DRAWS:
            return tensor
        return func(*args, **kwargs)


def build_empty(config: BackboneConfig, part: str) -> Any:
    """Build a network whose parameters take no memory until `take_weights` gives it some."""
    builders: dict[str, Callable[[], Any]] = {
        "flows": lambda: FourFlows(config.flows),
        "autokl": lambda: make_autokl(config.autokl),
        "optimus": lambda: Optimus(config.optimus),
        "clip": lambda: make_clip(config.clip),
    }
    with _NoMemory():
        return builders[part]()


def _own_keys(module: nn.Module, wanted: Callable[[str], bool]) -> tuple[dict[str, Tensor], dict[int, list[str]]]:
    own: dict[str, Tensor] = {key: value for key, value in module.state_dict(keep_vars=True).items() if wanted(key)}
    names: dict[int, list[str]] = {}
    for key, value in own.items():
        names.setdefault(id(value), []).append(key)
    return own, names


def check_weights(path: Path, module: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose keys or shapes are not those of a network; tied weights may be there once or twice."""
    own, names = _own_keys(module, lambda key: True)
    missing = [keys[0] for keys in names.values() if not any(key in found for key in keys)]
    unknown = sorted(set(found) - set(own))
    if missing or unknown:
        what = f"lacks {sorted(missing)[0]}" if missing else f"holds {unknown[0]}"
        raise InputError(
            f"{path}: {what} ({len(missing)} keys are missing, {len(unknown)} unknown). Take weights and config.json "
            "from the same place."
        )
    for key, shape in found.items():
        if shape != tuple(own[key].shape):
            raise InputError(
                f"{path}: {key} has shape {shape}, and config.json says {tuple(own[key].shape)}. Take weights and "
                "config.json from the same place."
            )


def take_weights(
    module: nn.Module,
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    wanted: Callable[[str], bool] = lambda key: True,
) -> None:
    """Give a network the wanted weights of a file, tensor by tensor, and get it ready for use on `device`.

    On a processor, in the precision of the file, the weights *are* the mapped file: nothing is copied, and what is
    never used is never read. Otherwise one tensor is converted or moved at a time. Every `_WINDOW` bytes the file is
    mapped anew, which lets go of its pages.
    """
    check_weights(path, module, look_into(path).shapes)
    own, names = _own_keys(module, wanted)
    left = list(names.values())
    while left:
        converted = 0
        with open_weights(path) as file:
            stored_keys = set(file.keys())
            while left and converted <= _WINDOW:
                keys = left.pop(0)
                copies = [key for key in keys if key in stored_keys]
                stored = file.get_tensor(copies[0])
                if any(not torch.equal(stored, file.get_tensor(key)) for key in copies[1:]):
                    raise InputError(f"{path}: {' and '.join(copies)} have to be equal. Get the file again.")
                value = stored.to(device=device, dtype=dtype if stored.is_floating_point() else stored.dtype)
                if value is not stored:
                    converted += stored.numel() * stored.element_size()
                if isinstance(own[keys[0]], nn.Parameter):
                    value = nn.Parameter(value, requires_grad=False)
                # Tied weights are one tensor in the module, and stay one.
                for key in keys:
                    parent, _, leaf = key.rpartition(".")
                    setattr(module.get_submodule(parent), leaf, value)
                del stored
    for name, buffer in module.named_buffers():
        if buffer.device != device:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, buffer.to(device))
    module.eval().requires_grad_(False)


def write_backbone(
    folder: Path,
    config_json: str,
    weights: Mapping[str, Mapping[str, Tensor]],
    vocabularies: Path,
    extra: Mapping[str, str],
) -> None:
    """Write a backbone folder, whole or not at all: weights of each part in float16, tied ones once.

    `vocabularies` is a folder with the `VOCABULARY_FILES`; `extra` are names and contents of further text files.
    """
    from safetensors.torch import save_file

    with atomic_folder(folder) as partial_folder:
        (partial_folder / "config.json").write_text(config_json, encoding="utf-8")
        for part in PARTS:
            first: dict[tuple[int, torch.Size], str] = {}
            halves = {
                key: (value.half() if value.is_floating_point() else value).contiguous().clone()
                for key, value in weights[part].items()
                if first.setdefault((value.data_ptr(), value.shape), key) == key
            }
            save_file(halves, partial_folder / f"{part}.safetensors")
        for name in VOCABULARY_FILES:
            (partial_folder / name).write_bytes((vocabularies / name).read_bytes())
        for name, content in extra.items():
            (partial_folder / name).write_text(content, encoding="utf-8")


# Backbones.


@dataclass
class _Loader:
    """Loads the networks of one folder, part by part."""

    folder: Path
    config: BackboneConfig
    stored: Mapping[str, Stored]
    dtype: torch.dtype
    device: torch.device
    offload: bool
    compile: bool
    mapped: int = 0

    def __post_init__(self) -> None:
        self.home = torch.device("cpu") if self.offload else self.device
        loaders = {part: partial(self._load, part) for part in self.stored}
        flows = {flow: partial(self._add, flow) for flow in BLOCKS}
        self.parts = Parts({**loaders, **flows}, self.device, self.offload)

    def _load(self, part: str) -> nn.Module:
        try:
            module: nn.Module = build_empty(self.config, part)
        except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
            # The libraries' own refusals, for example of a width that the heads do not divide.
            raise InputError(
                f"{self.folder / 'config.json'}: no network can be built of these sizes ({error}). "
                "Take the config.json written with the weights."
            ) from None
        self._take(module, part, lambda key: not key.startswith(tuple(BLOCKS.values())))
        use_fast_products(module)
        if part == "autokl" and (self.device.type == "cuda" or self.stored[part].dtype != self.dtype):
            # Convolutions on graphics cards want the channels last, and take two thirds of the time on some processors,
            # where it costs nothing if the weights are converted anyway.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile and part == "flows":
            module.compile()
        return module

    def _add(self, flow: str) -> nn.Module:
        flows: nn.Module = self.parts.get("flows")
        self._take(flows, "flows", lambda key: key.startswith(BLOCKS[flow]))
        if self.device.type == "cuda" and flow == "image flow":
            blocks: Any = flows.get_submodule("image.data_blocks")
            blocks.to(memory_format=torch.channels_last)
        return flows

    def _take(self, module: nn.Module, part: str, wanted: Callable[[str], bool]) -> None:
        stored = self.stored[part]
        needed = self.dtype.itemsize * stored.numbers(wanted)
        what = f"{self.folder} ({part})"
        smaller = "Choose dtype bf16, or " if self.dtype == torch.float32 else ""
        if self.home.type == "cpu":
            # Mapped files count as free memory: what was mapped before is still needed.
            remedy = f"{smaller}close other programs." if smaller else "Close other programs."
            require_memory(needed + self.mapped, self.home, what, remedy)
            self.mapped += needed if stored.dtype == self.dtype else 0
        if self.device.type != "cpu":
            other = "the device cpu" if self.offload else "offload"
            require_memory(needed, self.device, what, f"{smaller or 'Choose '}{other}.")
        take_weights(module, self.folder / f"{part}.safetensors", self.dtype, self.home, wanted)


def load_folder(
    name: str | Path,
    device: str = "auto",
    batch_size: int | None = None,
    dtype: str = "auto",
    *,
    offload: bool = False,
    compile: bool = False,
) -> VersatileDiffusion:
    """Open a folder of Versatile Diffusion; the options are those of `load_backbone`."""
    folder = backbone_folder(name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: there is no backbone (config.json is missing). Give {', '.join(map(repr, BACKBONES))} or the "
            "folder of a backbone."
        )
    chosen = choose_device(device)
    offload = offload and chosen.type != "cpu"
    if compile and (chosen.type != "cuda" or offload):
        raise InputError(
            f"compile is for graphics cards that hold all parts, not for {chosen}{' with offload' if offload else ''}. "
            "Leave it out."
        )
    fingerprint = folder_fingerprint(folder)
    config = BackboneConfig.from_json(folder / "config.json")
    files = {part: folder / f"{part}.safetensors" for part in PARTS}
    stored = {part: look_into(path) for part, path in files.items() if part != "optimus" or path.is_file()}
    numbers = sum(entry.numbers() for entry in stored.values())
    # By the size of the whole backbone, so that every stage of a run computes in the same precision.
    largest = max(stored.values(), key=lambda entry: entry.numbers())
    precision = choose_dtype(dtype, chosen, numbers, largest.dtype)
    loader = _Loader(folder, config, stored, precision, chosen, offload, compile)
    weights = precision.itemsize * numbers
    return VersatileDiffusion(config, loader.parts, folder, fingerprint, precision, batch_size, weights)


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "small": partial(load_folder, "small"),
    "official": partial(load_folder, "official"),
}
"""Name to loader, which is called with the options of `load_backbone`. A further backbone is a further row."""


def load_backbone(
    name: str | Path = "small",
    device: str = "auto",
    batch_size: int | None = None,
    dtype: str = "auto",
    *,
    offload: bool = False,
    compile: bool = False,
) -> Backbone:
    """Open a backbone. Its networks are loaded when they are first used, without ever holding a weight twice.

    Parameters
    ----------
    name : str or Path
        A name in `BACKBONES`: ``"small"`` for the one in the package, ``"official"`` for the converted official one; or
        a folder with ``config.json``, weights and vocabularies.
    device : str
        ``"auto"`` takes CUDA, then Apple's MPS, then the processor; or a name that PyTorch knows.
    batch_size : int, optional
        Most pictures, captions or scans in one call of a network; found by itself if left out.
    dtype : {"auto", "fp32", "bf16", "fp16"}
        Precision. ``"auto"`` takes float32 for a small model; for a large one what the device computes in and the
        machine's memory holds.
    offload : bool
        For graphics cards with little memory: a network is on the device only while it is used.
    compile : bool
        Compile the flows with `torch.compile`; only on graphics cards. The first steps then take minutes.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        If the folder is not there or incomplete, a weight file is no safetensors file, or there is no such device or no
        such precision on it. What is wrong inside a file, or does not fit into memory, is told when it is first used.

    Examples
    --------
    >>> backbone = load_backbone("small", device="cpu")
    >>> backbone.encode("z_text", ["a dog on a beach"]).shape
    (1, 128)
    """
    loader = BACKBONES.get(str(name), partial(load_folder, name))
    return loader(device=device, batch_size=batch_size, dtype=dtype, offload=offload, compile=compile)
