"""The backbone of a run: loaded when a stage first needs it, part by part, then kept for the others."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion

__all__ = ["DECODING", "EXTRACTING", "SCORING", "BackboneSource"]

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
    loaded : VersatileDiffusion, optional
        A backbone to use whatever the settings name, instead of loading one.
    dtype : {"auto", "fp32", "bf16", "fp16"}
        Precision that it computes in.
    offload : bool
        A part is on the device only while it is used.
    """

    def __init__(
        self,
        device: str = "auto",
        loaded: "VersatileDiffusion | None" = None,
        dtype: str = "auto",
        offload: bool = False,
    ) -> None:
        self.device, self.dtype, self.offload = device, dtype, offload
        self._injected = loaded
        self._kept: dict[str, VersatileDiffusion] = {}

    def load(self, name: str, parts: Iterable[str] = DECODING) -> "VersatileDiffusion":
        """Return the backbone called `name` with at least some parts.

        Parts that an earlier stage loaded are kept; only what is missing is loaded.

        Raises
        ------
        InputError
            If it is not there, or incomplete, or does not fit into memory.
        """
        if self._injected is not None:
            return self._injected
        kept = self._kept.get(name)
        missing = [part for part in parts if kept is None or part not in kept.parts]
        if missing:
            from unibrain.backbone import load_backbone

            options = {"device": self.device, "dtype": self.dtype, "offload": self.offload}
            if kept is None:
                self._kept[name] = load_backbone(name, parts=missing, **options)  # type: ignore[arg-type]
            else:
                kept.extend(load_backbone(name, parts=missing, **options))  # type: ignore[arg-type]
        return self._kept[name]

    def facts(self, name: str) -> dict[str, str]:
        """What of the backbone called `name` decides results: its fingerprint, and the precision if it is not fp32.

        Raises
        ------
        InputError
            If it is not there, or incomplete, or the device has no such precision.
        """
        if self._injected is not None:
            return {"backbone": self._injected.fingerprint}
        from unibrain.backbone.storage import backbone_folder, folder_fingerprint

        # Known without loading the networks, so that a run in which all is done ends at once.
        kept = self._kept.get(name)
        facts = {"backbone": kept.fingerprint if kept else folder_fingerprint(backbone_folder(name))}
        precision = kept.precision if kept else self._precision(name)
        return facts if precision == "fp32" else {**facts, "precision": precision}

    def _precision(self, name: str) -> str:
        from unibrain.backbone.devices import precision_of
        from unibrain.backbone.loading import precision_in

        return precision_of(precision_in(name, self.device, self.dtype))
