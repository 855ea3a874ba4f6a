"""Batch sizes are found by themselves, and results do not depend on them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from unibrain.backbone import VersatileDiffusion
from unibrain.backbone.batches import Batches, is_out_of_memory
from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.backbone.memory import _container, _meminfo, free_memory, require_memory, total_memory
from unibrain.errors import InputError

CPU = torch.device("cpu")


def out_of_memory() -> RuntimeError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def test_a_batch_that_does_not_fit_is_halved_and_done_again(tiny_config: BackboneConfig, capsys: Any) -> None:
    batches = Batches(tiny_config, CPU, 4, 16)
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


def test_not_even_one_fits(tiny_config: BackboneConfig) -> None:
    def work(_: slice) -> None:
        raise out_of_memory()

    with pytest.raises(InputError, match=r"not enough memory on the device cpu for one row.*choose dtype bf16"):
        Batches(tiny_config, CPU, 4, 4).run("image flow", 3, work)


def test_other_errors_are_not_swallowed(tiny_config: BackboneConfig) -> None:
    def work(_: slice) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(tiny_config, CPU, 4, 4).run("clip", 3, work)


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


def test_guesses(tiny_config: BackboneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, sizes = torch.device("cuda"), {}
    for gigabytes in (1, 20, 70):
        monkeypatch.setattr("unibrain.backbone.batches.free_memory", lambda device, g=gigabytes: g * 2**30)
        sizes[gigabytes] = [Batches(OFFICIAL, cuda, 2).size(task) for task in ("image flow", "text flow", "autokl")]
        assert Batches(tiny_config, CPU, 4).size("image flow") == 64
    assert sizes[1] <= sizes[20] <= sizes[70]
    assert sizes[1][0] < sizes[70][0]
    assert min(sizes[1]) >= 1
    assert max(sizes[70]) <= 64
    # A processor is busy with a few large pictures; a lost batch is lost time. Captions gain from many rows.
    assert Batches(OFFICIAL, CPU, 2).size("image flow") == 4
    assert Batches(OFFICIAL, CPU, 2).size("text flow") == 64
    monkeypatch.setattr("unibrain.backbone.batches.free_memory", lambda device: None)
    assert Batches(OFFICIAL, cuda, 2).size("image flow") == 64
    with pytest.raises(InputError, match="batch_size is 0"):
        Batches(tiny_config, CPU, 4, 0)


def test_memory_of_this_machine() -> None:
    total, free = total_memory(CPU), free_memory(CPU)
    if total is not None and free is not None:
        assert 0 < free <= total


def test_memory_as_the_system_writes_it(tmp_path: Any) -> None:
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
    monkeypatch.setattr("unibrain.backbone.memory.free_memory", lambda device: 4 * 2**30)
    require_memory(3 * 2**30, CPU, "it", "buy more")
    with pytest.raises(InputError, match=r"it needs 4.4 GiB of memory on the device cpu, found 4.0 GiB free: buy more"):
        require_memory(4 * 2**30, CPU, "it", "buy more")
    monkeypatch.setattr("unibrain.backbone.memory.free_memory", lambda device: None)
    require_memory(2**50, CPU, "it", "buy more")


@pytest.mark.parametrize("start", ["latent", "noise"])
def test_one_seed_gives_one_result_in_batches_of_1_3_and_8(
    tiny: VersatileDiffusion, captions: tuple[str, ...], start: str
) -> None:
    seeds = np.arange(8, dtype=np.int64) + 5
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    contexts = tiny.encode("c_image", pictures), tiny.encode("c_text", captions[:8])
    z_image, z_text = (
        (tiny.encode("z_image", pictures), tiny.encode("z_text", captions[:8])) if start == "latent" else (None,) * 2
    )
    found = {}
    for size in (1, 3, 8, None):
        one = VersatileDiffusion(tiny.config, tiny.parts, tiny.tokenizers, tiny.fingerprint, tiny.dtype, size)
        found[size] = (
            one.sample("picture", z_image, *contexts, dataclasses.replace(tiny.sampling("picture"), eta=0.5), seeds),
            one.sample("caption", z_text, *contexts, tiny.sampling("caption"), seeds),
        )
    for size in (1, 3, None):
        assert np.abs(found[size][0].astype(int) - found[8][0]).max() <= 1, size
        assert found[size][1] == found[8][1], size
    # As a run that was stopped after three scans goes on.
    rest = slice(3, None)
    later = tiny.sample("caption", 
        None if z_text is None else z_text[rest],
        *(context[rest] for context in contexts),
        tiny.sampling("caption"),
        seeds[rest],
    )
    assert found[8][1][rest] == later


def test_out_of_memory_inside_sampling_changes_nothing(
    tiny: VersatileDiffusion, captions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = np.arange(6, dtype=np.int64)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    inputs = (None, tiny.encode("c_image", pictures), tiny.encode("c_text", captions[:6]), tiny.sampling("caption"), seeds)
    expected = tiny.sample("caption", *inputs)
    forward, sizes = tiny.flows.forward, []

    def limited(x: Any, timesteps: Any, contexts: Any, choices: Any = None) -> Any:
        sizes.append(len(x))
        if len(x) > 2:
            raise out_of_memory()
        return forward(x, timesteps, contexts, choices)

    monkeypatch.setattr(tiny.flows, "forward", limited)
    one = VersatileDiffusion(tiny.config, tiny.parts, tiny.tokenizers, tiny.fingerprint, tiny.dtype, 64)
    assert one.sample("caption", *inputs) == expected
    assert sizes[:3] == [6, 3, 1]
    assert one.scans_at_once("caption") == 1


def test_unconditional_contexts_are_computed_and_projected_once(
    tiny: VersatileDiffusion, captions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = VersatileDiffusion(tiny.config, tiny.parts, tiny.tokenizers, tiny.fingerprint, tiny.dtype, 2)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    contexts = tiny.encode("c_image", pictures), tiny.encode("c_text", captions[:4])
    rows: list[tuple[str, int]] = []
    prepare = tiny.flows.prepare

    def watch(kind: Any, context: torch.Tensor, weight: float = 1.0) -> Any:
        rows.append((kind, len(context)))
        return prepare(kind, context, weight)

    monkeypatch.setattr(tiny.flows, "prepare", watch)
    for _ in range(2):
        one.sample("picture", None, *contexts, tiny.sampling("picture"), np.arange(4))
        one.sample("caption", None, *contexts, tiny.sampling("caption"), np.arange(4))
    once = [entry for entry in rows if entry[1] == 1]
    assert sorted(once) == [("image", 1), ("text", 1)]
    # Two batches of two, two flows, two runs, two contexts; nothing per step.
    assert len(rows) - len(once) == 16
