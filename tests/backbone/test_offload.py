"""Parts that take turns on a device."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unibrain.backbone import VersatileDiffusion, load_backbone
from unibrain.backbone.parts import Parts
from unibrain.errors import InputError

META = torch.device("meta")


def devices(module: nn.Module) -> set[str]:
    return {value.device.type for value in (*module.parameters(), *module.buffers())}


def test_at_most_one_part_is_on_the_device(tiny_folder: Path) -> None:
    # The meta device stands for a graphics card: it holds tensors, and says so.
    modules = {name: load_backbone(tiny_folder, device="cpu").parts.get(name) for name in ("flows", "optimus", "clip")}
    before = {name: [value.data_ptr() for value in module.parameters()] for name, module in modules.items()}
    parts = Parts(modules, META, offload=True)
    assert all(devices(module) == {"cpu"} for module in modules.values())
    for used in ("flows", "flows", "optimus", "clip", "flows"):
        with parts.use(used) as module:
            assert module is modules[used]
            for name, other in modules.items():
                assert devices(other) == {"meta" if name == used else "cpu"}, (used, name)
            gpt2 = modules["optimus"].gpt2
            assert gpt2.lm_head.weight is gpt2.transformer.wte.weight, "tied weights were torn apart"
    with parts.use("clip"):
        pass
    # Back home are the very same tensors: leaving copied nothing.
    assert [value.data_ptr() for value in modules["flows"].parameters()] == before["flows"]
    assert devices(modules["flows"]) == {"cpu"}


def test_without_offloading_nothing_moves(tiny: VersatileDiffusion) -> None:
    parts = Parts({"clip": tiny.clip}, META)
    with parts.use("clip") as clip:
        assert devices(clip) == {"cpu"}


def test_a_bringing_that_fails_leaves_the_part_at_home(tiny: VersatileDiffusion, monkeypatch: Any) -> None:
    parts = Parts({"clip": tiny.clip, "flows": tiny.flows}, META, offload=True)
    real, calls = torch.Tensor.to, []

    def limited(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise torch.OutOfMemoryError("full")
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", limited)
    with pytest.raises(torch.OutOfMemoryError), parts.use("clip"):
        pass
    monkeypatch.undo()
    assert devices(tiny.clip) == {"cpu"}
    with parts.use("clip") as clip:
        assert devices(clip) == {"meta"}
    with parts.use("flows"):
        assert devices(tiny.clip) == {"cpu"}
    parts.add({"flows": tiny.flows})
    assert devices(tiny.flows) == {"cpu"}


def test_parts_can_be_added(tiny: VersatileDiffusion, tiny_folder: Path, captions: tuple[str, ...]) -> None:
    backbone = load_backbone(tiny_folder, device="cpu", parts=["clip"])
    with pytest.raises(InputError, match="loaded without optimus"):
        backbone.encode("z_text", captions)
    backbone.extend(load_backbone(tiny_folder, device="cpu", parts=["optimus"]))
    assert backbone.parts.names == ("optimus", "clip")
    assert (backbone.encode("z_text", captions) == tiny.encode("z_text", captions)).all()
    assert (backbone.encode("c_text", captions) == tiny.encode("c_text", captions)).all()


def test_on_a_processor_offloading_means_nothing(tiny_folder: Path) -> None:
    assert not load_backbone(tiny_folder, device="cpu", parts=["clip"], offload=True).parts.offload


def test_a_fake_card_with_room_for_the_largest_part_only(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    sizes = {
        name: sum(
            weight.numel() * 4 for weight in load_backbone(tiny_folder, device="cpu").parts.get(name).parameters()
        )
        for name in ("flows", "autokl", "optimus", "clip")
    }
    room = {cpu: 10**9, META: int(1.12 * max(sizes.values()))}
    monkeypatch.setattr("unibrain.backbone.memory.free_memory", lambda device: room[device])
    monkeypatch.setattr("unibrain.backbone.loading.choose_device", lambda device: META)
    with pytest.raises(InputError, match=r"on the device meta.*let them take turns with offload"):
        load_backbone(tiny_folder, dtype="auto")
    backbone = load_backbone(tiny_folder, dtype="auto", offload=True)
    assert all(devices(backbone.parts.get(name)) == {"cpu"} for name in backbone.parts.names)
