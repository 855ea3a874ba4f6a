"""The networks of a backbone: which of them are loaded, and which of them is on the device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unibrain.backbone.folder_fingerprint import PARTS
from unibrain.errors import InputError

__all__ = ["Parts", "check_parts"]

_FOR = {
    "flows": "denoising latents",
    "autokl": "encoding and decoding pictures",
    "optimus": "encoding and decoding captions",
    "clip": "contexts and scores",
}


def check_parts(parts: object) -> tuple[str, ...]:
    """Return names of parts in their order; raise `InputError` if one is unknown, or there is none."""
    given = [parts] if isinstance(parts, str) else list(parts)  # type: ignore[call-overload]
    wrong = [name for name in given if name not in PARTS]
    if wrong or not given:
        raise InputError(
            f"parts names {wrong[0] if wrong else 'nothing'}, expected some of {', '.join(PARTS)}: name those that are "
            "needed"
        )
    return tuple(name for name in PARTS if name in given)


class Parts:
    """Networks by name.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        Some of `PARTS`; on `device`, or with `offload` on the processor.
    device : torch.device
    offload : bool
        At most one part is on the device at a time: it is brought there when it is used, and leaves when another one
        is. Its weights stay in the processor's memory, so leaving costs nothing.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device, offload: bool = False) -> None:
        self.device, self.offload = device, offload
        self._modules = dict(modules)
        self._here: str | None = None
        self._homes: list[tuple[dict[str, Any], str, Tensor]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    @property
    def names(self) -> tuple[str, ...]:
        """Parts that are loaded."""
        return tuple(name for name in PARTS if name in self._modules)

    def add(self, modules: Mapping[str, nn.Module]) -> None:
        """Take further parts in, in the place of those of the same names."""
        if self._here in modules:
            self._send_home()
        self._modules.update(modules)

    def get(self, name: str) -> Any:
        """Return a part, wherever it is.

        Raises
        ------
        InputError
            If it was not loaded.
        """
        if name not in self._modules:
            raise InputError(
                f"the backbone was loaded without {name}, which is needed for {_FOR[name]}, expected it among its "
                f"parts ({', '.join(self.names)}): load the backbone with it"
            )
        return self._modules[name]

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """Have a part on the device.

        Yields
        ------
        torch.nn.Module

        Raises
        ------
        InputError
            If it was not loaded.
        """
        module = self.get(name)
        if self.offload and self._here != name:
            self._send_home()
            self._bring(name, module)
        yield module

    def _bring(self, name: str, module: nn.Module) -> None:
        homes: list[tuple[dict[str, Any], str, Tensor]] = []
        moved: dict[int, Tensor] = {}
        for child in module.modules():
            holders: tuple[dict[str, Any], ...] = (child._parameters, child._buffers)
            for entries in holders:
                for key, value in entries.items():
                    if value is None:
                        continue
                    if id(value) not in moved:
                        there = value.detach().to(self.device, non_blocking=True)
                        is_weight = isinstance(value, nn.Parameter)
                        moved[id(value)] = nn.Parameter(there, requires_grad=False) if is_weight else there
                    homes.append((entries, key, value))
        # All are there: only now is anything changed, so that a failure leaves the part as it was.
        for entries, key, value in homes:
            entries[key] = moved[id(value)]
        self._homes, self._here = homes, name

    def _send_home(self) -> None:
        for entries, key, value in self._homes:
            entries[key] = value
        self._homes, self._here = [], None
