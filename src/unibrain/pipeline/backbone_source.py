"""The backbone of a run: loaded when a stage first needs it, then kept for the others."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion

__all__ = ["BackboneSource"]


class BackboneSource:
    """Hands the stages of a run one backbone.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        Where it runs.
    loaded : VersatileDiffusion, optional
        A backbone to use whatever the settings name, instead of loading one.
    """

    def __init__(self, device: str = "auto", loaded: "VersatileDiffusion | None" = None) -> None:
        self.device = device
        self._injected = loaded
        self._kept: dict[str, VersatileDiffusion] = {}

    def load(self, name: str) -> "VersatileDiffusion":
        """Return the backbone called `name`; the second time, the same object."""
        if self._injected is not None:
            return self._injected
        if name not in self._kept:
            from unibrain.backbone import load_backbone

            self._kept[name] = load_backbone(name, device=self.device)
        return self._kept[name]

    def fingerprint(self, name: str) -> str:
        """Sha256 of the weights and configuration of the backbone called `name`.

        Raises
        ------
        InputError
            If it is not there, or incomplete.
        """
        if self._injected is not None or name in self._kept:
            return self.load(name).fingerprint
        from unibrain.backbone.storage import backbone_folder, folder_fingerprint

        # Known without loading the networks, so that a run in which all is done ends at once.
        return folder_fingerprint(backbone_folder(name))
