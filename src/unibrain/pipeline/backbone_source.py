"""The backbone of a run: loaded when a stage first needs it, part by part, then kept for the others."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unibrain.backbone import Backbone, VersatileDiffusion

EXTRACTING = ("autokl", "optimus", "clip")
"""Parts that make latents of pictures and captions."""

DECODING = ("flows", "autokl", "optimus", "clip")
"""Parts that make pictures and captions of latents; CLIP encodes the unconditional contexts."""

SCORING = ("clip",)
"""Parts that scores are computed with."""


class BackboneSource:
    """Hands the stages of a run one backbone.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        Where it runs.
    loaded : Backbone, optional
        A backbone to use whatever the settings name, instead of loading one.
    dtype : {"auto", "fp32", "bf16", "fp16"}
        Precision that it computes in.
    offload : bool
        A part is on the device only while it is used.
    """

    def __init__(
        self, device: str = "auto", loaded: "Backbone | None" = None, dtype: str = "auto", offload: bool = False
    ) -> None:
        self.device, self.dtype, self.offload = device, dtype, offload
        self._injected = loaded
        self._kept: dict[str, VersatileDiffusion] = {}

    def load(self, name: str, parts: Iterable[str] = DECODING) -> "Backbone":
        """Return the backbone called `name` with at least some parts; those that are there are kept.

        Raises
        ------
        InputError
            If it is not there, or incomplete, or does not fit into memory.
        """
        if self._injected is not None:
            return self._injected
        kept = self._kept.get(name)
        missing = tuple(part for part in parts if kept is None or part not in kept.parts)
        if missing:
            from unibrain.backbone import load_backbone

            new = load_backbone(name, device=self.device, parts=missing, dtype=self.dtype, offload=self.offload)
            if kept is None:
                self._kept[name] = new
            else:
                kept.extend(new)
        return self._kept[name]

    def fingerprint(self, name: str) -> str:
        """Fingerprint of the backbone called `name`, without loading it.

        Raises
        ------
        InputError
            If it is not there, or incomplete.
        """
        if self._injected is not None:
            return self._injected.fingerprint
        if name not in self._kept:
            from unibrain.backbone.storage import backbone_folder, folder_fingerprint

            return folder_fingerprint(backbone_folder(name))
        return self._kept[name].fingerprint

    def precision(self, name: str) -> str:
        """Precision that the backbone called `name` computes in here, without loading it.

        Raises
        ------
        InputError
            If it is not there, or the device has no such precision.
        """
        if self._injected is not None:
            return self._injected.precision
        if name not in self._kept:
            from unibrain.backbone.devices import precision_of
            from unibrain.backbone.loading import precision_in

            return precision_of(precision_in(name, self.device, self.dtype))
        return self._kept[name].precision
