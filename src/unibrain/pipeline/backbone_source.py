"""The backbone of a run: opened when a stage first needs it, then kept for the others."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unibrain.backbone import Backbone


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
        self._kept: dict[str, Backbone] = {}
        self._fingerprints: dict[str, str] = {}

    def load(self, name: str) -> "Backbone":
        """Return the backbone called `name`; its networks are loaded when they are first used.

        Raises
        ------
        InputError
            If it is not there, or incomplete.
        """
        if self._injected is not None:
            return self._injected
        if name not in self._kept:
            from unibrain.backbone import load_backbone

            self._kept[name] = load_backbone(name, device=self.device, dtype=self.dtype, offload=self.offload)
        return self._kept[name]

    def fingerprint(self, name: str) -> str:
        """Fingerprint of the backbone called `name`; one that lies in a folder is not opened for it.

        Raises
        ------
        InputError
            If it is not there, or incomplete.
        """
        if self._injected is not None:
            return self._injected.fingerprint
        if name not in self._fingerprints:
            from unibrain.backbone.folder import backbone_folder, folder_fingerprint

            folder = backbone_folder(name)
            in_folder = name not in self._kept and (folder / "config.json").is_file()
            self._fingerprints[name] = folder_fingerprint(folder) if in_folder else self.load(name).fingerprint
        return self._fingerprints[name]

    def precision(self, name: str) -> str:
        """Precision that the backbone called `name` computes in here."""
        return self.load(name).precision
