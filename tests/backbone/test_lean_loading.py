"""Loading: the same weights as plainly built networks, no second copy, only the parts that are asked for."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unibrain.backbone import BackboneConfig, VersatileDiffusion, load_backbone
from unibrain.backbone import folder_fingerprint as fingerprints
from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.devices import choose_dtype, unusable
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.lean import build_empty, look_into, take_weights
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.storage import PARTS, fill, folder_fingerprint, read_part
from unibrain.errors import InputError

CPU = torch.device("cpu")
PICTURES = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


def plainly_built(config: BackboneConfig, part: str) -> torch.nn.Module:
    builders: dict[str, Any] = {
        "flows": lambda: FourFlows(config.flows),
        "autokl": lambda: make_autokl(config.autokl),
        "optimus": lambda: Optimus(config.optimus),
        "clip": lambda: make_clip(config.clip),
    }
    module: torch.nn.Module = builders[part]()
    return module


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def rewritten(folder: Path, dtype: torch.dtype) -> None:
    for part in PARTS:
        file = folder / f"{part}.safetensors"
        save_file({key: value.to(dtype) for key, value in load_file(file).items()}, file)


@pytest.mark.parametrize("part", PARTS)
def test_equal_to_a_plainly_built_network_bit_for_bit(
    tiny: VersatileDiffusion, tiny_config: BackboneConfig, tiny_folder: Path, part: str
) -> None:
    expected = plainly_built(tiny_config, part)
    fill(expected, read_part(tiny_folder, part), part)
    found = tiny.parts.get(part)
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


def test_an_empty_network_has_no_memory_but_its_buffers(tiny_config: BackboneConfig) -> None:
    for part in PARTS:
        module = build_empty(lambda part=part: plainly_built(tiny_config, part))
        large = [weight for weight in module.parameters() if weight.ndim > 1]
        assert large
        assert all(weight.is_meta for weight in large), part
        assert not any(buffer.is_meta for buffer in module.buffers()), part


def test_tied_weights_stay_one_tensor(tiny: VersatileDiffusion) -> None:
    gpt2 = tiny.optimus.gpt2
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the system's list of mapped files")
def test_in_the_precision_of_the_file_the_weights_are_the_file(folder: Path) -> None:
    rewritten(folder, torch.bfloat16)
    backbone = load_backbone(folder, device="cpu", dtype="bf16")
    for part in PARTS:
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        mapped = [line[0].split("-") for line in lines if line[-1] == str(folder / f"{part}.safetensors")]
        assert mapped, part
        spans = [(int(first, 16), int(last, 16)) for first, last in mapped]
        for key, weight in backbone.parts.get(part).named_parameters():
            assert any(first <= weight.data_ptr() < last for first, last in spans), (part, key)


MEASURE = """
import json, resource, sys
from pathlib import Path
import torch, diffusers
from diffusers import AutoencoderKL
from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.lean import build_empty, take_weights
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
folder, config = Path(sys.argv[1]), FlowsConfig(**json.loads(sys.argv[2]))
take = lambda: take_weights(flows, folder, "flows", torch.bfloat16, torch.device("cpu"))
flows = build_empty(lambda: FourFlows(config))
before = peak()
take()
weights = sum(weight.numel() * weight.element_size() for weight in flows.parameters())
for weight in flows.parameters():
    weight.sum()
print(json.dumps([before, peak(), weights]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the system's account of a process")
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_peak_memory_is_that_of_the_weights(tmp_path: Path, stored: torch.dtype, monkeypatch: Any) -> None:
    sizes = {"model_channels": 128, "channel_mult": (1, 2, 3), "res_blocks": (1, 1, 1), "attention": (True,) * 3}
    from unibrain.backbone.config import FlowsConfig

    with torch.device("meta"):
        flows = FourFlows(FlowsConfig(**sizes))  # type: ignore[arg-type]
    weights = {key: torch.zeros(value.shape, dtype=stored) for key, value in flows.state_dict().items()}
    save_file(weights, tmp_path / "flows.safetensors")
    # A window of the file is converted at a time: make it small beside these weights.
    program = MEASURE.replace("def peak", "import unibrain.backbone.lean as lean\nlean._WINDOW = 2**22\ndef peak")
    command = [sys.executable, "-c", program, str(tmp_path), json.dumps(sizes)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after, size = json.loads(found.stdout)
    assert size > 150 * 2**20
    assert after - before < 1.15 * size
    assert after - before > 0.8 * size, "what was measured is not the loading"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_precisions(tiny: VersatileDiffusion, tiny_folder: Path, captions: tuple[str, ...], dtype: str) -> None:
    backbone = load_backbone(tiny_folder, device="cpu", dtype=dtype)
    assert backbone.precision == dtype
    for part in PARTS:
        weights = [w for w in backbone.parts.get(part).parameters() if w.is_floating_point()]
        assert {weight.dtype for weight in weights} == {backbone.dtype}, part
    seeds = np.array([1, 2], dtype=np.int64)
    results = []
    for one in (tiny, backbone):
        z_image, c_image = one.encode("z_image", PICTURES), one.encode("c_image", PICTURES)
        z_text, c_text = one.encode("z_text", captions[:2]), one.encode("c_text", captions[:2])
        pictures = one.sample("picture", z_image, c_image, c_text, one.sampling("picture"), seeds)
        results.append((z_image, c_image, z_text, c_text, pictures.astype(np.float32)))
        assert all(
            isinstance(text, str) for text in one.sample("caption", None, c_image, c_text, one.sampling("caption"), seeds)
        )
    for exact, rough in zip(*results, strict=True):
        assert rough.dtype == np.float32
        assert rough.shape == exact.shape
        assert np.abs(rough - exact).mean() < 0.05 * np.abs(exact).mean() + 1e-6
        assert (rough != exact).any()


def test_auto_keeps_a_small_model_in_float32(tiny_folder: Path) -> None:
    assert load_backbone("small", device="cpu", parts=["clip"]).precision == "fp32"
    assert load_backbone(tiny_folder, device="cpu").precision == "fp32"


@pytest.mark.parametrize(("memory", "expected"), [(23, torch.bfloat16), (64, torch.float32), (None, torch.float32)])
def test_auto_follows_the_memory_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, expected: torch.dtype
) -> None:
    total = None if memory is None else memory * 2**30
    monkeypatch.setattr("unibrain.backbone.devices.total_memory", lambda device: total)
    assert choose_dtype("auto", CPU, 3_320_000_000, torch.float16) == expected


def test_auto_takes_the_type_of_the_file_on_other_devices() -> None:
    meta = torch.device("meta")
    for stored in (torch.float16, torch.bfloat16):
        # The meta device computes nothing, in any type.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unibrain.backbone.devices.unusable", lambda dtype, device: None)
            patch.setattr("unibrain.backbone.devices.total_memory", lambda device: 10**10)
            assert choose_dtype("auto", meta, 10**9, stored) == stored


def test_a_type_that_the_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "unibrain.backbone.devices.unusable",
        lambda dtype, device: "not implemented for 'Half'" if dtype == torch.float16 else None,
    )
    with pytest.raises(InputError, match=r"there is no fp16 on the device cpu .*choose fp32 or bf16"):
        choose_dtype("fp16", CPU, 10, torch.float32)
    with pytest.raises(InputError, match="dtype is 'int8', expected auto, fp32, bf16 or fp16"):
        choose_dtype("int8", CPU, 10, torch.float32)


def test_the_check_of_a_type_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unusable(torch.float32, CPU) is None

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'\nand more")

    monkeypatch.setattr("torch.nn.functional.linear", refuse)
    assert unusable(torch.float32, CPU) == "\"addmm_impl_cpu_\" not implemented for 'Half'"


@pytest.mark.parametrize(
    ("parts", "image", "text"),
    [
        (("flows", "autokl", "clip"), True, False),
        (("flows", "optimus", "clip"), False, True),
        (("flows",), True, True),
        (PARTS, True, True),
    ],
)
def test_flows_are_loaded_for_the_latents_that_can_be_decoded(
    tiny_folder: Path, parts: tuple[str, ...], image: bool, text: bool
) -> None:
    backbone = load_backbone(tiny_folder, device="cpu", parts=parts)
    assert backbone.parts.names == tuple(part for part in PARTS if part in parts)
    assert bool(len(backbone.flows.image.data_blocks)) == image
    assert bool(len(backbone.flows.text.data_blocks)) == text
    assert not any(weight.is_meta for weight in backbone.flows.parameters())


def test_parts_give_the_same_results_and_say_what_they_lack(
    tiny: VersatileDiffusion, tiny_folder: Path, captions: tuple[str, ...]
) -> None:
    seeds = np.array([1, 2], dtype=np.int64)
    z_image, c_image = tiny.encode("z_image", PICTURES), tiny.encode("c_image", PICTURES)
    c_text = tiny.encode("c_text", captions[:2])
    pictures = load_backbone(tiny_folder, device="cpu", parts=("flows", "autokl", "clip"))
    inputs = (z_image, c_image, c_text, tiny.sampling("picture"), seeds)
    np.testing.assert_array_equal(pictures.sample("picture", *inputs), tiny.sample("picture", *inputs))
    with pytest.raises(InputError, match="loaded without optimus, which is needed for encoding and decoding captions"):
        pictures.sample("caption", None, c_image, c_text, tiny.sampling("caption"), seeds)
    writer = load_backbone(tiny_folder, device="cpu", parts=("flows", "optimus", "clip"))
    words = (None, c_image, c_text, tiny.sampling("caption"), seeds)
    assert writer.sample("caption", *words) == tiny.sample("caption", *words)
    with pytest.raises(InputError, match="loaded without autokl"):
        writer.sample("picture", *inputs)
    encoder = load_backbone(tiny_folder, device="cpu", parts=("autokl", "optimus", "clip"))
    np.testing.assert_array_equal(encoder.encode("z_image", PICTURES), z_image)
    with pytest.raises(InputError, match="loaded without flows, which is needed for denoising"):
        encoder.sample("picture", *inputs)
    with pytest.raises(InputError, match="loaded without clip"):
        load_backbone(tiny_folder, device="cpu", parts=["autokl"]).picture_contexts(PICTURES)


@pytest.mark.parametrize(("parts", "words"), [(["unet"], "parts names unet"), ([], "parts names nothing")])
def test_parts_that_do_not_exist(tiny_folder: Path, parts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=f"{words}, expected some of flows, autokl, optimus, clip"):
        load_backbone(tiny_folder, device="cpu", parts=parts)


def test_a_part_that_is_not_asked_for_is_not_read(folder: Path) -> None:
    file = folder / "flows.safetensors"
    content = bytearray(file.read_bytes())
    weights = load_file(file)
    weights["image.time_embed.0.weight"] = torch.zeros(3, 3)
    save_file(weights, file)
    assert load_backbone(folder, device="cpu", parts=["clip"]).parts.names == ("clip",)
    with pytest.raises(InputError, match=r"has shape \(3, 3\)"):
        load_backbone(folder, device="cpu")
    file.write_bytes(content)


def test_a_backbone_without_optimus_decodes_pictures(
    tiny: VersatileDiffusion, folder: Path, captions: tuple[str, ...]
) -> None:
    for name in ("optimus.safetensors", "bert-vocab.txt", "gpt2-vocab.json", "gpt2-merges.txt"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"optimus\.safetensors: no such file.*for pictures alone"):
        load_backbone(folder, device="cpu")
    backbone = load_backbone(folder, device="cpu", parts=("flows", "autokl", "clip"))
    assert len(backbone.fingerprint) == 64
    assert backbone.fingerprint != tiny.fingerprint
    context = (tiny.encode("c_image", PICTURES), tiny.encode("c_text", captions[:2]))
    inputs = (None, *context, tiny.sampling("picture"), np.array([1, 2]))
    np.testing.assert_array_equal(backbone.sample("picture", *inputs), tiny.sample("picture", *inputs))


def test_not_enough_memory_is_said_before_anything_is_read(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("unibrain.backbone.memory.free_memory", lambda device: 1000)
    monkeypatch.setattr("unibrain.backbone.loading.take_weights", read)
    with pytest.raises(InputError, match=r"needs .* GiB of memory on the device cpu.*choose dtype bf16") as caught:
        load_backbone(tiny_folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_compile_is_for_graphics_cards(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="compile was asked for on the device cpu"):
        load_backbone(tiny_folder, device="cpu", compile=True)


def test_headers_are_enough_to_know_a_file(tiny_folder: Path, tiny_config: BackboneConfig) -> None:
    found = look_into(tiny_folder, "flows")
    assert found.dtype == torch.float16
    expected = sum(weight.numel() for weight in FourFlows(tiny_config.flows).parameters())
    assert found.numbers() == expected
    blocks = sum(weight.numel() for weight in FourFlows(tiny_config.flows).text.data_blocks.parameters())
    assert found.numbers(("text.data_blocks.",)) == expected - blocks


def test_left_out_blocks_only(tiny_folder: Path, tiny_config: BackboneConfig) -> None:
    flows = build_empty(lambda: FourFlows(tiny_config.flows, ("image",)))
    with pytest.raises(InputError, match=r"holds text\.data_blocks"):
        take_weights(flows, tiny_folder, "flows", torch.float32, CPU)
    take_weights(flows, tiny_folder, "flows", torch.float32, CPU, ("text.data_blocks.",))


def test_a_recorded_hash_is_taken_for_a_large_unchanged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = folder_fingerprint(folder)
    hashes = {}
    for file in folder.iterdir():
        hashes[file.name] = {"size": file.stat().st_size, "sha256": fingerprints._hashed(file)}
    (folder / "manifest.json").write_text(json.dumps({"files": hashes}))
    monkeypatch.setattr(fingerprints, "LARGE", 1)
    monkeypatch.setattr(fingerprints, "_hashed", lambda path: pytest.fail(f"{path} was read"))
    assert folder_fingerprint(folder) == expected
    monkeypatch.undo()
    monkeypatch.setattr(fingerprints, "LARGE", 1)
    # Changed afterwards, of the same size: the record no longer counts.
    file = folder / "clip.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    file.write_bytes(content)
    assert folder_fingerprint(folder) != expected
    for damaged in ("[]", "{", '{"files": {"clip.safetensors": {"size": 1}}}'):
        (folder / "manifest.json").write_text(damaged)
        assert folder_fingerprint(folder) != expected
