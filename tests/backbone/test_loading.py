"""Loading: the same weights as plainly built networks, no second copy, only what is used, parts in turn."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unibrain.backbone import BackboneConfig, VersatileDiffusion
from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.devices import Parts
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.folder import OPTIMUS_FILES, PARTS
from unibrain.backbone.loading import build_empty, load_folder, look_into
from unibrain.errors import InputError

META = torch.device("meta")
PICTURES = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
SEEDS = np.array([1, 2])


BUILDERS: dict[str, Any] = {"flows": FourFlows, "autokl": make_autokl, "optimus": Optimus, "clip": make_clip}


def devices(module: nn.Module) -> set[str]:
    return {value.device.type for value in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize(("part", "copies"), [*((part, 1) for part in PARTS), ("optimus", 2)])
def test_equal_to_a_plainly_built_network_bit_for_bit(
    folder: Path, tiny_config: BackboneConfig, part: str, copies: int
) -> None:
    expected, file = BUILDERS[part](getattr(tiny_config, part)), folder / f"{part}.safetensors"
    weights = load_file(file)
    if copies == 2:
        save_file({**weights, "gpt2.lm_head.weight": weights["gpt2.transformer.wte.weight"].clone()}, file)
    left = expected.load_state_dict(weights, strict=False)
    assert left.missing_keys == (["gpt2.lm_head.weight"] if part == "optimus" else [])
    assert not left.unexpected_keys
    backbone = load_folder(folder, device="cpu")
    found = getattr(backbone, part)
    assert not found.training
    for entries, others in (
        (dict(found.named_parameters()), dict(expected.named_parameters())),
        # Positions and masks are in no file: they have to come out of the building.
        (dict(found.named_buffers()), dict(expected.named_buffers())),
    ):
        assert entries.keys() == others.keys()
        for key, value in entries.items():
            assert value.device.type == "cpu", key
            assert value.dtype == others[key].dtype, key
            assert not value.requires_grad, key
            assert torch.equal(value, others[key]), key
    gpt2 = backbone.optimus.gpt2
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight


def test_an_empty_network_has_no_memory_but_its_buffers(tiny_config: BackboneConfig, tiny_folder: Path) -> None:
    for part in PARTS:
        module, header = build_empty(tiny_config, part), look_into(tiny_folder / f"{part}.safetensors")
        assert header.dtype == torch.float16
        assert header.numbers() == sum(weight.numel() for weight in module.parameters())
        large = [weight for weight in module.parameters() if weight.ndim > 1]
        assert large
        assert all(weight.is_meta for weight in large), part
        assert not any(buffer.is_meta for buffer in module.buffers()), part


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the system's list of mapped files")
def test_in_the_precision_of_the_file_the_weights_are_the_file(folder: Path) -> None:
    for part in PARTS:
        file = folder / f"{part}.safetensors"
        save_file({key: value.to(torch.bfloat16) for key, value in load_file(file).items()}, file)
    backbone = load_folder(folder, device="cpu", dtype="bf16")
    for part in PARTS:
        module = getattr(backbone, part)
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        mapped = [line[0].split("-") for line in lines if line[-1] == str(folder / f"{part}.safetensors")]
        assert mapped, part
        spans = [(int(first, 16), int(last, 16)) for first, last in mapped]
        for key, weight in module.named_parameters():
            assert any(first <= weight.data_ptr() < last for first, last in spans), (part, key)


MEASURE = """
import json, sys
from pathlib import Path
import torch, diffusers
from diffusers import AutoencoderKL
from unibrain.backbone import loading
from unibrain.backbone.config import BackboneConfig, FlowsConfig
loading._WINDOW = 2**22
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
folder, config = Path(sys.argv[1]), BackboneConfig(flows=FlowsConfig(**json.loads(sys.argv[2])))
flows = loading.build_empty(config, "flows")
before = peak()
loading.take_weights(flows, folder / "flows.safetensors", torch.bfloat16, torch.device("cpu"))
weights = sum(weight.numel() * weight.element_size() for weight in flows.parameters())
for weight in flows.parameters():
    weight.sum()
print(json.dumps([before, peak(), weights]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the system's account of a process")
def test_peak_memory_is_that_of_the_weights(tmp_path: Path) -> None:
    sizes = {"model_channels": 128, "channel_mult": (1, 2, 3), "res_blocks": (1, 1, 1), "attention": (True,) * 3}
    with torch.device("meta"):
        flows = FourFlows(FlowsConfig(**sizes))  # type: ignore[arg-type]
    weights = {key: torch.zeros(value.shape, dtype=torch.float16) for key, value in flows.state_dict().items()}
    save_file(weights, tmp_path / "flows.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path), json.dumps(sizes)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after, size = json.loads(found.stdout)
    assert size > 150 * 2**20
    assert after - before < 1.15 * size
    assert after - before > 0.8 * size, "what was measured is not the loading"


def test_precisions(tiny: VersatileDiffusion, tiny_folder: Path, captions: tuple[str, ...]) -> None:
    backbone = load_folder(tiny_folder, device="cpu", dtype="bf16")
    assert (backbone.precision, tiny.precision) == ("bf16", "fp32"), "auto keeps a small model in float32"
    for part in PARTS:
        weights = [w for w in getattr(backbone, part).parameters() if w.is_floating_point()]
        assert {weight.dtype for weight in weights} == {backbone.dtype}, part
    results = []
    for one in (tiny, backbone):
        z_image, z_text = one.encode("z_image", PICTURES), one.encode("z_text", captions[:2])
        contexts = {"c_image": one.encode("c_image", PICTURES), "c_text": one.encode("c_text", captions[:2])}
        pictures = one.sample("picture", z_image, contexts, one.sampling("picture"), SEEDS)
        results.append((z_image, z_text, *contexts.values(), np.asarray(pictures, dtype=np.float32)))
        words = one.sample("caption", None, contexts, one.sampling("caption"), SEEDS)
        assert all(isinstance(text, str) for text in words)
    for exact, rough in zip(*results, strict=True):
        assert rough.dtype == np.float32
        assert rough.shape == exact.shape
        assert np.abs(rough - exact).mean() < 0.05 * np.abs(exact).mean() + 1e-6
        assert (rough != exact).any()


def test_networks_are_read_when_they_are_used(tiny: VersatileDiffusion, folder: Path, captions: Any) -> None:
    content = (folder / "optimus.safetensors").read_bytes()
    backbone = load_folder(folder, device="cpu")
    (folder / "optimus.safetensors").write_bytes(b"damaged")
    assert backbone.parts.loaded == ()
    backbone.embed("caption", captions)
    assert backbone.parts.loaded == ("clip",)
    contexts = {"c_image": tiny.encode("c_image", PICTURES)}
    inputs = (tiny.encode("z_image", PICTURES), contexts, tiny.sampling("picture"), SEEDS)
    np.testing.assert_array_equal(backbone.sample("picture", *inputs), tiny.sample("picture", *inputs))
    assert backbone.parts.loaded == ("flows", "autokl", "clip", "image flow")
    flows = backbone.parts.get("flows")
    assert all(weight.is_meta for weight in flows.text.data_blocks.parameters()), "captions' half was read"
    with pytest.raises(InputError, match=r"optimus\.safetensors: not a readable"):
        backbone.encode("z_text", captions)
    (folder / "optimus.safetensors").write_bytes(content)
    inputs = (None, contexts, tiny.sampling("caption"), SEEDS)
    assert backbone.sample("caption", *inputs) == tiny.sample("caption", *inputs)
    assert not any(weight.is_meta for weight in flows.parameters())


def test_a_backbone_without_optimus_decodes_pictures(
    tiny: VersatileDiffusion, folder: Path, captions: tuple[str, ...]
) -> None:
    for name in OPTIMUS_FILES:
        (folder / name).unlink()
    backbone = load_folder(folder, device="cpu")
    assert backbone.kinds == ("picture",)
    assert backbone.fingerprint != tiny.fingerprint
    contexts = {"c_image": tiny.encode("c_image", PICTURES), "c_text": tiny.encode("c_text", captions[:2])}
    inputs = (None, contexts, tiny.sampling("picture"), SEEDS)
    np.testing.assert_array_equal(backbone.sample("picture", *inputs), tiny.sample("picture", *inputs))
    for call in (
        lambda: backbone.sample("caption", None, contexts, tiny.sampling("caption"), SEEDS),
        lambda: backbone.encode("z_text", captions),
    ):
        with pytest.raises(InputError, match="made without optimus"):
            call()


def test_not_enough_memory_is_said_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {part: 2 * look_into(folder / f"{part}.safetensors").numbers() for part in ("clip", "optimus")}
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: int(1.2 * max(sizes.values())))
    monkeypatch.setattr("unibrain.backbone.devices.unusable", lambda dtype, device: None)
    backbone = load_folder(folder, device="cpu", dtype="fp16")
    backbone.encode("c_text", ["a dog"])
    # What is mapped counts, although the system calls it free.
    monkeypatch.setattr("unibrain.backbone.loading.take_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(InputError, match=r"\(optimus\) needs"):
        backbone.encode("z_text", ["a dog"])
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"\(clip\) needs .* GiB of memory on the device cpu.*bf16"):
        load_folder(folder, device="cpu").encode("c_text", ["a dog"])


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"device": ""}, "device '' cannot be used"),
        ({"device": "cpu", "compile": True}, "compile is for graphics cards"),
    ],
)
def test_devices_that_will_not_do(tiny_folder: Path, wrong: dict[str, Any], names: str) -> None:
    with pytest.raises(InputError, match=names):
        load_folder(tiny_folder, **wrong)


def test_at_most_one_network_is_on_the_device(tiny_folder: Path) -> None:
    # The meta device stands for a graphics card: it holds tensors, and says so.
    backbone = load_folder(tiny_folder, device="cpu", offload=True)
    assert not backbone.parts.offload, "there is nothing to leave a processor for"
    modules = {name: getattr(backbone, name) for name in ("flows", "optimus", "clip")}
    before = {name: [value.data_ptr() for value in module.parameters()] for name, module in modules.items()}
    parts = Parts({name: lambda module=module: module for name, module in modules.items()}, META, offload=True)
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


def test_what_is_loaded_while_its_network_is_on_the_device_comes_there_too(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unibrain.backbone.loading.choose_device", lambda device: META)
    backbone = load_folder(tiny_folder, dtype="auto", offload=True)
    with backbone.parts.use("image flow") as flows:
        assert {weight.device.type for weight in flows.image.parameters()} == {"meta"}
    with backbone.parts.use("text flow"):
        brought = flows.text.data_blocks[0][0].weight
    with backbone.parts.use("autokl"):
        assert devices(flows) == {"cpu"}
    with backbone.parts.use("text flow"):
        assert flows.text.data_blocks[0][0].weight.is_meta
    assert brought.is_meta


def test_a_bringing_that_fails_leaves_the_part_at_home(tiny: VersatileDiffusion, monkeypatch: Any) -> None:
    parts = Parts({"clip": lambda: tiny.clip, "flows": lambda: tiny.flows}, META, offload=True)
    real, calls = torch.Tensor.to, []

    def limited(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise torch.OutOfMemoryError("full")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", limited)
        with pytest.raises(torch.OutOfMemoryError), parts.use("clip"):
            pass
    assert devices(tiny.clip) == {"cpu"}
    with parts.use("flows"):
        assert devices(tiny.flows) == {"meta"}
        assert devices(tiny.clip) == {"cpu"}
    with parts.use("clip"):
        assert devices(tiny.flows) == {"cpu"}
    parts._send_home()
    assert devices(tiny.clip) == {"cpu"}


def test_a_fake_card_with_room_for_the_largest_part_only(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {part: 4 * look_into(tiny_folder / f"{part}.safetensors").numbers() for part in PARTS}
    room = {torch.device("cpu"): 10**9, META: int(1.05 * sizes["optimus"])}
    monkeypatch.setattr("unibrain.backbone.devices.free_memory", lambda device: room[device])
    monkeypatch.setattr("unibrain.backbone.loading.choose_device", lambda device: META)
    with pytest.raises(InputError, match=r"\(optimus\) needs.*on the device meta.*or offload"):
        _ = load_folder(tiny_folder, dtype="auto").optimus
    room[META] = int(1.15 * sizes["optimus"])
    assert devices(load_folder(tiny_folder, dtype="auto", offload=True).optimus) == {"cpu"}
