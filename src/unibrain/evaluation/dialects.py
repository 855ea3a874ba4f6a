"""`DIALECTS`: how published papers compute the scores of pictures, each as a small record, and their metrics.

The same name stands for different numbers: pictures take different ways to a metric, networks have different weights,
layers and input sizes, and identification has two directions. Facts and sources are in ``docs/metrics.md``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.features import FeatureCache, Rows
from unibrain.evaluation.identification import Direction, correlations
from unibrain.evaluation.metrics import METRICS, Comparison, Measure, Metric, looked_up, on_pictures, two_way
from unibrain.evaluation.pictures import SeenPictures, at_size, pixel_correlation, structural_similarity

if TYPE_CHECKING:
    import torch

    from unibrain.reconstruction import Decoded
    from unibrain.stimuli import Stimuli

_BATCH = 16

_NETWORK_TITLES = {
    "alexnet2": ("AlexNet(2)", "early visual features"),
    "alexnet5": ("AlexNet(5)", "middle visual features"),
    "alexnet_fc7": ("AlexNet(fc7)", "late visual features"),
    "inception": ("Inception-v3", "what a classifier of objects sees"),
    "clip": ("CLIP ViT-L/14", "what is shown, as a sentence would say it"),
    "clip6": ("CLIP ViT-L/14, layer 6", "early features of CLIP"),
    "clip12": ("CLIP ViT-L/14, layer 12", "middle features of CLIP"),
    "effnet": ("EfficientNet-B1", "what a classifier of objects sees"),
    "swav": ("SwAV ResNet-50", "features learned without labels"),
}
_DISTANCES = ("effnet", "swav")

_USUAL_LAYERS = {
    "alexnet2": ("alexnet", "features.4"),
    "alexnet5": ("alexnet", "features.11"),
    "inception": ("inception", "avgpool"),
    "clip": ("clip-vit-l-14", "image_embeds"),
    "effnet": ("efficientnet-b1-v2", "avgpool"),
    "swav": ("swav", "avgpool"),
}


@dataclass(frozen=True)
class Dialect:
    """How a family of papers computes scores of pictures.

    Attributes
    ----------
    name : str
    about : str
        Who computes scores so.
    resampling : {"pil-bicubic", "pil-bilinear", "tensor", "tensor-antialias"}
        How pictures are resized for networks: as 8-bit pictures by Pillow, which always smooths when it shrinks, or as
        tensors, bilinear, without or with smoothing.
    bottleneck : int or None
        Side that both pictures are brought to before anything else.
    pixel_side : int or None
        Side at which PixCorr and SSIM compare; None: that of the pictures that were seen.
    ssim : {"2d", "columns"} or None
        SSIM of the grey picture, or the mean of one-dimensional SSIMs of its columns (scikit-image before 0.19); None:
        no pixel metrics.
    crop : bool
        Whether the shorter side is resized and the middle cut out, instead of squeezing the picture into a square.
    layers : mapping of str to (str, str)
        Metric to its network, a key of `unibrain.evaluation.networks.weights.NETWORKS`, and the layer.
    sides : mapping of str to int
        Network to the side of its input.
    direction : str
        Of two-way identification.
    minus_one : bool
        Whether ``1 / (N - 1)`` is subtracted, as NSD-Imagery's script does.
    images : tuple of int
        Numbers of test images that published tables have; empty: any.
    """

    name: str
    about: str
    resampling: Literal["pil-bicubic", "pil-bilinear", "tensor", "tensor-antialias"]
    bottleneck: int | None = None
    pixel_side: int | None = None
    ssim: Literal["2d", "columns"] | None = "2d"
    crop: bool = False
    layers: Mapping[str, tuple[str, str]] = field(default_factory=lambda: dict(_USUAL_LAYERS))
    sides: Mapping[str, int] = field(default_factory=dict)
    direction: Direction = "recon->images"
    minus_one: bool = False
    images: tuple[int, ...] = ()

    def path(self, side: int | None) -> str:
        """The way of a picture to a metric, in words."""
        filters = {
            "pil-bicubic": "bicubic (Pillow)",
            "pil-bilinear": "bilinear (Pillow)",
            "tensor": "bilinear tensor, no antialias",
            "tensor-antialias": "bilinear tensor, antialias",
        }
        steps = [f"{self.bottleneck} x {self.bottleneck}"] if self.bottleneck else []
        steps.append("size of the seen picture" if side is None else f"{side} x {side}" + ", centre crop" * self.crop)
        return f"{', then '.join(steps)}; {filters[self.resampling]}"


_MINDEYE = Dialect(
    "mindeye",
    "MindEye and MindEye2 (Scotti et al. 2023, 2024) with torchvision up to 0.16: everything passes through 256 x 256.",
    "tensor",
    bottleneck=256,
    pixel_side=425,
    sides={"alexnet": 256, "inception": 342, "clip-vit-l-14": 224, "efficientnet-b1-v2": 255, "swav": 224},
    images=(982, 1000),
)

DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect(
            "standard",
            "UniBrain's own: pictures keep their detail, each network gets the input size it was trained for, SSIM is "
            "two-dimensional, and a decoded picture is compared with all true images.",
            "pil-bicubic",
            sides={"alexnet": 224, "inception": 299, "clip-vit-l-14": 224, "efficientnet-b1-v2": 240, "swav": 224},
        ),
        Dialect(
            "brain-diffuser",
            "Brain-Diffuser (Ozcelik and VanRullen 2023), whose table most papers of 2023 extend.",
            "pil-bilinear",
            pixel_side=425,
            ssim="columns",
            layers=_USUAL_LAYERS | {"effnet": ("efficientnet-b1-v1", "avgpool")},
            sides=dict.fromkeys(("alexnet", "inception", "clip-vit-l-14", "efficientnet-b1-v1", "swav"), 224),
            images=(982,),
        ),
        _MINDEYE,
        replace(
            _MINDEYE,
            name="mindeye-aa",
            about="The same scripts with torchvision from 0.17 on, which smooths when it shrinks (NeuroFlow, SynBrain, "
            "any rerun today).",
            resampling="tensor-antialias",
        ),
        replace(
            _MINDEYE,
            name="nsd-imagery",
            about="NSD-Imagery (MIRAGE): through 512 x 512, with 1 / (N - 1) subtracted from two-way identification.",
            bottleneck=512,
            pixel_side=512,
            minus_one=True,
            images=(12, 1000),
        ),
        Dialect(
            "takagi",
            "Takagi and Nishimoto (2023): layers behind the poolings, and each true image compared with all decoded "
            "pictures.",
            "pil-bilinear",
            ssim=None,
            crop=True,
            layers={
                "alexnet2": ("alexnet", "features.5"),
                "alexnet5": ("alexnet", "features.12"),
                "alexnet_fc7": ("alexnet", "classifier.5"),
                "inception": ("inception", "avgpool"),
                "clip": ("clip-vit-l-14", "image_embeds"),
                "clip6": ("clip-vit-l-14", "hidden_states.6"),
                "clip12": ("clip-vit-l-14", "hidden_states.12"),
            },
            sides={"alexnet": 299, "inception": 299, "clip-vit-l-14": 224},
            direction="image->recons",
            images=(982,),
        ),
    )
}
"""Name to dialect."""


def dialect_metrics(name: str) -> dict[str, Metric]:
    """The metrics of a dialect by name: those of pictures by its own definitions, all others as in `METRICS`.

    `InputError` if there is no such dialect.
    """
    if name not in DIALECTS:
        raise InputError(f"there is no dialect {name!r}. Choose among {', '.join(DIALECTS)}.")
    dialect = DIALECTS[name]
    own = METRICS.values() if name == "standard" else _pixel_rows(dialect)
    rows = [*(row for row in own if row.kind == "picture"), *_network_rows(dialect)]
    return {row.name: row for row in rows} | {key: row for key, row in METRICS.items() if row.kind != "picture"}


def check_images(name: str, images: int) -> str:
    """A warning if a dialect's published tables are of another number of images, and the score depends on it."""
    expected = DIALECTS[name].images
    if not expected or images in expected:
        return ""
    numbers = " or ".join(map(str, expected))
    return f"published tables of the dialect {name} are of {numbers} images, and these scores of {images}"


def in_all_dialects(decoded: "Decoded", stimuli: "Stimuli") -> str:
    """A table of the scores of pictures in every dialect, on the same pictures; what is not installed is a dash."""
    if decoded.pictures is None:
        raise InputError("dialects are about pictures, and none were decoded. Reconstruct pictures first.")
    seen = SeenPictures(stimuli, decoded.stimulus_ids)
    items = Comparison(seen, decoded.pictures, [()] * len(seen), None, None, FeatureCache())
    found: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    for name, dialect in DIALECTS.items():
        for metric in (*_pixel_rows(dialect), *_network_rows(dialect)):
            try:
                values = metric.function(items).values(np.arange(len(seen)))
            except UnavailableError as error:
                missing += [str(error)] * (str(error) not in missing)
                continue
            value = np.nan_to_num(values, nan=metric.unrelated).mean()
            found.setdefault(metric.name, {})[name] = f"{value:.4f}"
    titles = {name: title for name, (title, _) in _NETWORK_TITLES.items()} | {"pixcorr": "PixCorr", "ssim": "SSIM"}
    width = max((len(titles[name]) for name in found), default=0)
    lines = [f"{'':<{width}}" + "".join(f"{name:>16}" for name in DIALECTS)]
    for name, values in found.items():
        cells = "".join(f"{values.get(dialect, '-'):>16}" for dialect in DIALECTS)
        lines.append(f"{titles[name]:<{width}}{cells}")
    lines += ["", *(f"{name}: {dialect.about}" for name, dialect in DIALECTS.items())]
    return "\n".join([*lines, *(f"not computed: {text}" for text in missing)])


def _pixel_rows(dialect: Dialect) -> Iterator[Metric]:
    if dialect.pixel_side is None:
        yield from (METRICS[name] for name in ("pixcorr", "ssim") if dialect.ssim)
        return
    prepare = partial(pixel_pictures, dialect)
    compare: dict[str, Callable[..., NDArray[np.float64]]] = {
        "pixcorr": pixel_correlation,
        "ssim": partial(structural_similarity, columns=dialect.ssim == "columns"),
    }
    for name, function in compare.items():
        yield replace(
            METRICS[name], function=on_pictures(function, prepare), image_path=dialect.path(dialect.pixel_side)
        )


def pixel_pictures(dialect: Dialect, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    """Pictures (n, h, w, 3) as a dialect's pixel metrics see them: uint8, or float32 from 0 to 1."""
    side = dialect.pixel_side
    assert side is not None
    if dialect.resampling.startswith("pil"):
        return at_size(pictures, side, side)
    return _resized(_as_tensor(dialect, pictures), side, True).permute(0, 2, 3, 1).numpy()


def network_inputs(dialect: Dialect, network: str, pictures: NDArray[np.uint8]) -> "Iterator[torch.Tensor]":
    """Batches (b, 3, side, side), float32 from 0 to 1, as a dialect hands them to a network."""
    import torch

    side = dialect.sides[network]
    # Takagi's CLIP features come from its own processor: bicubic.
    bicubic = dialect.resampling == "pil-bicubic" or (dialect.crop and network.startswith("clip"))
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH]
        if dialect.resampling.startswith("pil"):
            resized = at_size(part, side, side, bicubic=bicubic, crop=dialect.crop)
            yield torch.tensor(resized).permute(0, 3, 1, 2).float() / 255
        else:
            yield _resized(_as_tensor(dialect, part), side, dialect.resampling == "tensor-antialias")


def _as_tensor(dialect: Dialect, pictures: NDArray[np.uint8]) -> "torch.Tensor":
    import torch

    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return x if dialect.bottleneck is None else _resized(x, dialect.bottleneck, dialect.resampling != "tensor")


def _resized(x: "torch.Tensor", side: int, antialias: bool) -> "torch.Tensor":
    from torch.nn.functional import interpolate

    if x.shape[2:] == (side, side):
        return x
    return interpolate(x, size=(side, side), mode="bilinear", antialias=antialias, align_corners=False)


def _network_rows(dialect: Dialect) -> Iterator[Metric]:
    for name, (network, layer) in dialect.layers.items():
        title, about = _NETWORK_TITLES[name]
        distance = name in _DISTANCES
        layer_name = "" if layer in ("avgpool", "image_embeds") else f", {layer}"
        way = "correlation distance" if distance else "two-way identification"
        yield Metric(
            name,
            f"{title}{layer_name}, {way}",
            title,
            "picture",
            "How far is it from the picture that was seen?" if distance else "Is it closer to its own picture?",
            f"Features of {title} ({about}): "
            + (
                "one minus their correlation; 0 is the same, 1 is unrelated."
                if distance
                else "how often a decoded picture is closer to its own true picture than to another one."
            ),
            partial(_network_measure, dialect, name),
            higher_is_better=not distance,
            bounds=(0.0, 2.0) if distance else (0.0, 1.0),
            optional=dialect.name == "standard",
            direction="" if distance else dialect.direction,
            image_path=dialect.path(dialect.sides[network]),
            network=network,
        )


def _network_measure(dialect: Dialect, name: str, items: Comparison) -> Measure:
    from unibrain.evaluation.networks.features import extract, load_network

    network, layer = dialect.layers[name]
    loaded = load_network(network)  # says what is missing, before anything is computed
    layers = [its for of, its in dialect.layers.values() if of == network]
    way = f"{network} {loaded.sha256} {' '.join(layers)} {dialect.path(dialect.sides[network])}"

    def compute(pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return list(extract(loaded, network_inputs(dialect, network, pictures), layers).values())

    def features(items: Comparison) -> tuple[Rows, Rows]:
        seen, decoded = (items.features.get(way, pictures, compute) for pictures in (items.seen, items.pictures))
        return seen[layers.index(layer)], decoded[layers.index(layer)]

    if name in _DISTANCES:
        return looked_up(1 - correlations(*features(items)))
    return two_way(features, dialect.direction, dialect.minus_one)(items)
