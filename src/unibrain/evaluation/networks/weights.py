"""`NETWORKS`: the published weights of the networks behind published scores, where they are kept, and their check."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unibrain.backbone.folder import backbones_home
from unibrain.errors import InputError
from unibrain.workspace.files import write_json
from unibrain.workspace.fingerprints import FileState, fingerprint

COMMAND = "unibrain weights fetch metrics"

_WHOLE_HASH = 64
_TOLERANCE = 0.01
_TORCHVISION = (
    "torchvision's code is under BSD-3-Clause; nobody has settled that of its weights, and ImageNet, which they were "
    "trained on, is for non-commercial research."
)


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes
    ----------
    name : str
        Its name in `metrics_home`.
    url : str
        Where it is; what is on the Hugging Face hub is ``hf://owner/name@commit/file``.
    size : int
        Bytes; known to a percent only where not all of `sha256` is known.
    sha256 : str
        64 hexadecimal digits, or their beginning, where no more is known.
    """

    name: str
    url: str
    size: int
    sha256: str

    def may_have(self, size: int) -> bool:
        """Whether a file of this size may be it."""
        exact = len(self.sha256) == _WHOLE_HASH
        return size == self.size if exact else abs(size - self.size) < _TOLERANCE * self.size


@dataclass(frozen=True)
class Network:
    """A row of `NETWORKS`.

    Attributes
    ----------
    name, title : str
        Its key, and its name for people.
    parts : tuple of tuple of Published
        What it needs, the weights first; of each part one file, of those named here. The first of them is fetched.
    licence, about_licence : str
        A few words, and a sentence.
    layers : tuple of str
        Layers that published scores use.
    opt_in : bool
        Fetched only if asked for, because of its licence.
    """

    name: str
    title: str
    parts: tuple[tuple[Published, ...], ...]
    licence: str
    about_licence: str
    layers: tuple[str, ...]
    opt_in: bool = False


def _torchvision(name: str, size: int, sha256: str) -> Published:
    return Published(name, f"https://download.pytorch.org/models/{name}", size, sha256)


_B32, _L14 = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
_B32_MAIN, _L14_MAIN = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", "32bd64288804d66eefd0ccbe215aa642df71cc41"
_VOCABULARY = (
    # All of OpenAI's CLIPs have one vocabulary.
    (
        Published(
            "clip-vocab.json",
            f"hf://{_B32}@{_B32_MAIN}/vocab.json",
            862_328,
            "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363",
        ),
        # The same vocabulary with other spaces and escapes.
        Published(
            "clip-vocab-escaped.json",
            f"hf://{_L14}@{_L14_MAIN}/vocab.json",
            961_143,
            "3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69",
        ),
    ),
    (
        Published(
            "clip-merges.txt",
            f"hf://{_L14}@{_L14_MAIN}/merges.txt",
            524_619,
            "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
        ),
    ),
)
_CLIP_LICENCE = ("MIT", "OpenAI's repository is under MIT; the model cards name no licence of their own.")

NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(
            "alexnet",
            "AlexNet, ImageNet (torchvision IMAGENET1K_V1)",
            (
                (
                    _torchvision(
                        "alexnet-owt-7be5be79.pth",
                        244_408_911,
                        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                    ),
                ),
            ),
            "not settled",
            _TORCHVISION,
            ("features.4", "features.11", "features.5", "features.12", "classifier.5"),
        ),
        Network(
            "inception",
            "Inception-v3, ImageNet (torchvision IMAGENET1K_V1, from TensorFlow)",
            (
                (
                    _torchvision(
                        "inception_v3_google-0cc3c7bd.pth",
                        108_949_747,
                        "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
                    ),
                ),
            ),
            "not settled",
            _TORCHVISION,
            ("avgpool",),
        ),
        Network(
            "efficientnet-b1-v1",
            "EfficientNet-B1, ImageNet (torchvision IMAGENET1K_V1, from timm)",
            (
                (
                    # The server's copy was replaced in 2023; the file before had another name.
                    _torchvision("efficientnet_b1_rwightman-bac287d4.pth", 31_598_000, "bac287d4"),
                    _torchvision("efficientnet_b1_rwightman-533bc792.pth", 31_598_000, "533bc792"),
                ),
            ),
            "not settled",
            _TORCHVISION,
            ("avgpool",),
        ),
        Network(
            "efficientnet-b1-v2",
            "EfficientNet-B1, ImageNet (torchvision IMAGENET1K_V2)",
            (
                (
                    _torchvision(
                        "efficientnet_b1-c27df63c.pth",
                        31_600_329,
                        "c27df63ce6eb17ef8bcea58922fd3a254cba910c720f41ee89d64d99fb7a4ddf",
                    ),
                ),
            ),
            "not settled",
            _TORCHVISION,
            ("avgpool",),
        ),
        Network(
            "swav",
            "ResNet-50, SwAV, 800 epochs",
            (
                (
                    Published(
                        "swav_800ep_pretrain.pth.tar",
                        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
                        113_703_565,
                        "029d0b8c2e70bcee3f8beb70cc104ef51585c090224d33fb9c6f51d146cfd1eb",
                    ),
                ),
            ),
            "CC BY-NC 4.0",
            "Not for commercial use, and to be named where it is used (https://creativecommons.org/licenses/by-nc/4.0/).",
            ("avgpool",),
            opt_in=True,
        ),
        Network(
            "clip-vit-l-14",
            "CLIP ViT-L/14",
            (
                (
                    Published(
                        "clip-vit-large-patch14.safetensors",
                        f"hf://{_L14}@{_L14_MAIN}/model.safetensors",
                        1_710_540_580,
                        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
                    ),
                    Published(
                        "clip-vit-large-patch14.bin",
                        f"hf://{_L14}@{_L14_MAIN}/pytorch_model.bin",
                        1_710_671_599,
                        "f1a17cdbe0f36fec524f5cafb1c261ea3bbbc13e346e0f74fc9eb0460dedd0d3",
                    ),
                ),
                *_VOCABULARY,
            ),
            *_CLIP_LICENCE,
            ("image_embeds", "hidden_states.6", "hidden_states.12"),
        ),
        Network(
            "clip-vit-b-32",
            "CLIP ViT-B/32",
            (
                (
                    Published(
                        "clip-vit-base-patch32.safetensors",
                        f"hf://{_B32}@b33cedfd0df4e43b8238760678fcc89e1a0d38b3/model.safetensors",
                        605_157_884,
                        "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
                    ),
                    Published(
                        "clip-vit-base-patch32.bin",
                        f"hf://{_B32}@{_B32_MAIN}/pytorch_model.bin",
                        605_247_071,
                        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
                    ),
                ),
                *_VOCABULARY,
            ),
            *_CLIP_LICENCE,
            ("image_embeds",),
        ),
    )
}
"""Name to network, in the order in which they are shown."""


def metrics_home() -> Path:
    """Where the networks of the scores are kept: ``metrics``, beside the ``backbones``."""
    return backbones_home().parent / "metrics"


def network_row(name: str) -> Network:
    """A row of `NETWORKS`, or one sentence."""
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}. Choose among {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def present(network: Network, folder: Path) -> list[Path | None]:
    """The file of each part that is in a folder, unread; None where a part is missing."""
    return [
        next((folder / file.name for file in files if (folder / file.name).is_file()), None) for files in network.parts
    ]


def command_for(network: Network) -> str:
    """The command that gets a network."""
    return f"{COMMAND}{' --with-swav' * network.opt_in}"


def checked_files(network: Network, folder: Path) -> list[Path]:
    """The file of each part, after a check of its size and SHA-256; `UnavailableError` if one is missing."""
    from unibrain.evaluation.metrics import UnavailableError

    paths = present(network, folder)
    for files, path in zip(network.parts, paths, strict=True):
        if path is None:
            raise UnavailableError(
                f"{network.title} is not here ({folder / files[0].name} is missing): run {command_for(network)}"
            )
        check(next(file for file in files if file.name == path.name), path, command_for(network))
    return [path for path in paths if path is not None]


def check(published: Published, path: Path, command: str = COMMAND) -> str:
    """The SHA-256 of a file that is the published one. A note beside it keeps that, so that it is read only once.

    Raises
    ------
    InputError
        If it is of another size or content.
    """
    size = path.stat().st_size
    if not published.may_have(size):
        raise InputError(
            f"{path}: {size:,} bytes instead of {published.size:,}, so it was cut off or is another file. Remove it, "
            f"then run {command}."
        )
    note = path.with_name(f"{path.name}.checked.json")
    looked_at = fingerprint(path, _noted(note))
    assert looked_at is not None  # its size was read
    state = looked_at[""]
    found = state.sha256 or ""
    if not found.startswith(published.sha256):
        raise InputError(
            f"{path}: its SHA-256 begins with {found[:16]} instead of {published.sha256[:16]}, so it is damaged or "
            f"another file. Remove it, then run {command}."
        )
    if {"": state} != _noted(note):
        with suppress(OSError):  # a folder that is shared may not be written to
            write_json(note, asdict(state))
    return found


def _noted(note: Path) -> dict[str, FileState]:
    try:
        return {"": FileState(**json.loads(note.read_bytes()))}
    except (OSError, ValueError, TypeError):
        return {}
