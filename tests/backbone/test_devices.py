"""Precisions, memory, and batch sizes that are found by themselves."""

from typing import Any

import pytest
import torch

from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.backbone.devices import (
    Batches,
    _container,
    _meminfo,
    choose_device,
    choose_dtype,
    free_memory,
    is_out_of_memory,
    require_memory,
    total_memory,
    unusable,
)
from unibrain.errors import InputError

CPU = torch.device("cpu")


def out_of_memory() -> RuntimeError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize(("memory", "expected"), [(23, torch.bfloat16), (64, torch.float32), (None, torch.float32)])
def test_auto_follows_the_memory_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, expected: torch.dtype
) -> None:
    assert torch.zeros(1, device=choose_device("auto")).device.type == choose_device("auto").type
    total = None if memory is None else memory * 2**30
    monkeypatch.setattr("unibrain.backbone.devices.total_memory", lambda device: total)
    assert choose_dtype("auto", CPU, 3_320_000_000, torch.float16) == expected


def test_types_that_a_device_has_and_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {torch.float16: "not implemented for 'Half'"}
    monkeypatch.setattr("unibrain.backbone.devices.unusable", lambda dtype, device: missing.get(dtype))
    monkeypatch.setattr("unibrain.backbone.devices.total_memory", lambda device: 10**10)
    for name, says in (
        ("fp16", r"there is no fp16 on the device cpu .*Choose fp32 or bf16"),
        ("int8", "dtype is 'int8'.*auto, fp32"),
    ):
        with pytest.raises(InputError, match=says):
            choose_dtype(name, CPU, 10, torch.float32)
    # Off the processor, a large model takes the type of its file if the device has that.
    assert choose_dtype("auto", torch.device("meta"), 10**9, torch.float16) == torch.bfloat16
    missing.clear()
    for stored in (torch.float16, torch.bfloat16):
        assert choose_dtype("auto", torch.device("meta"), 10**9, stored) == stored


def test_the_check_of_a_type_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unusable(torch.float32, CPU) is None

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'\nand more")

    monkeypatch.setattr("torch.nn.functional.linear", refuse)
    assert unusable(torch.float32, CPU) == "\"addmm_impl_cpu_\" not implemented for 'Half'"


def test_a_batch_that_does_not_fit_is_halved_and_done_again(tiny_config: BackboneConfig, capsys: Any) -> None:
    batches = Batches(tiny_config, CPU, 4, fixed=16)
    tried: list[tuple[int, int]] = []

    def work(rows: slice) -> list[int]:
        tried.append((rows.start, rows.stop))
        if rows.stop - rows.start > 5:
            raise out_of_memory()
        return list(range(rows.start, rows.stop))

    found = batches.run("clip", 13, work)
    assert [number for part in found for number in part] == list(range(13))
    # The first batch held 13 of the 16 that were allowed, and its half did not fit either.
    assert tried == [(0, 13), (0, 6), (0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]
    assert batches.size("clip") == 3, "what was found is kept"
    assert batches.size("autokl") == 16
    assert "memory is short: 6 at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "raised", "names"),
    [
        (out_of_memory(), InputError, "not enough memory on the device cpu for one row.*bf16"),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError, "shapes"),
    ],
)
def test_errors_of_batches(tiny_config: BackboneConfig, error: Exception, raised: type[Exception], names: str) -> None:
    def work(_: slice) -> None:
        raise error

    with pytest.raises(raised, match=names):
        Batches(tiny_config, CPU, 4, fixed=4).run("image flow", 3, work)
    with pytest.raises(InputError, match="batch_size is 0"):
        Batches(tiny_config, CPU, 4, fixed=0)


def test_every_device_says_it_in_its_own_words() -> None:
    told = (
        out_of_memory(),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    )
    assert all(map(is_out_of_memory, told))
    assert not is_out_of_memory(RuntimeError("memory format"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_guesses_depend_on_the_machine_alone(tiny_config: BackboneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, sizes = torch.device("cuda"), {}
    # What happens to be free differs when a run is continued; its batches have to be the same ones.
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: pytest.fail("free memory was asked"))
    for gigabytes in (8, 20, 70):
        monkeypatch.setattr("unibrain.backbone.devices.total_memory", lambda device, g=gigabytes: g * 2**30)
        batches = Batches(OFFICIAL, cuda, 2, 7 * 2**30)
        sizes[gigabytes] = [batches.size(task) for task in ("image flow", "text flow", "autokl")]
        assert Batches(tiny_config, CPU, 4).size("image flow") == 64
    assert sizes[8] <= sizes[20] <= sizes[70]
    assert sizes[8][0] < sizes[70][0]
    assert min(sizes[8]) >= 1
    assert max(sizes[70]) <= 64
    # A processor is busy with a few large pictures; a lost batch is lost time. Captions gain from many rows.
    assert Batches(OFFICIAL, CPU, 2).size("image flow") == 4
    assert Batches(OFFICIAL, CPU, 2).size("text flow") == 64
    assert Batches(OFFICIAL, cuda, 2, 2**40).size("image flow") == 1
    monkeypatch.setattr("unibrain.backbone.devices.total_memory", lambda device: None)
    assert Batches(OFFICIAL, cuda, 2).size("image flow") == 64


def test_memory_as_the_system_writes_it(tmp_path: Any) -> None:
    total, free = total_memory(CPU), free_memory(CPU)
    assert total is None or free is None or 0 < free <= total
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       24000000 kB\nMemFree:  100 kB\nMemAvailable:   20000000 kB\n")
    assert _meminfo("MemAvailable", file) == 20000000 * 1024
    assert _meminfo("MemAvailable", tmp_path / "absent") is None
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 250000\nactive_file 150000\n")
    assert _container(tmp_path) == (1000000, 300000), "cached files can be dropped"
    (tmp_path / "memory.max").write_text("max\n")
    assert _container(tmp_path)[0] is None
    assert _container(tmp_path / "absent") == (None, 0)


def test_memory_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: 4 * 2**30)
    require_memory(3 * 2**30, CPU, "it", "Buy more.")
    with pytest.raises(InputError, match=r"it needs 4.4 GiB .* cpu, and 4.0 GiB are free. Buy more."):
        require_memory(4 * 2**30, CPU, "it", "Buy more.")
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: None)
    require_memory(2**50, CPU, "it", "Buy more.")
