"""From the hub, or from files on disk, to a backbone that decodes: nothing but the model's size is unreal."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import FakeHub, serving
from on_disk import Tiny
from safetensors.torch import save_file

from unibrain.backbone import load_backbone
from unibrain.cli.main import main
from unibrain.weights import convert as convert_module
from unibrain.weights.convert import convert
from unibrain.weights.fetch import Choice, fetch_official
from unibrain.weights.hub import Hub
from unibrain.weights.sources import official_sources
from unibrain.weights.verify import verify


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path / "unibrain"))
    return tmp_path / "unibrain" / "backbones"


@pytest.fixture
def tiny_convert(model: Tiny, monkeypatch: pytest.MonkeyPatch) -> Any:
    tiny = partial(convert, config=model.config)
    monkeypatch.setattr(convert_module, "convert", tiny)
    return tiny


@pytest.mark.usefixtures("hub_library")
def test_fetched_backbone_decodes(
    model: Tiny, tiny_convert: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)
    files = model.write(tmp_path / "published", model.current())
    save_file(
        {key: value.contiguous() for key, value in model.clip.items()}, tmp_path / "published" / "clip.safetensors"
    )
    files["clip"] = tmp_path / "published" / "clip.safetensors"
    published: dict[str, dict[str, bytes]] = {}
    commits = {}
    for source in official_sources("fp32"):
        repository = source.repositories[0]
        folder = f"{source.folder}/" if source.folder else ""
        published[repository] = {f"{folder}{file.names[0]}": files[file.role].read_bytes() for file in source.files}
        if source.revision is not None:
            commits[repository] = source.revision
    with serving(FakeHub(published, commits)) as server:
        server.cut_after["vd-four-flow-v1-0.pth"] = [200_000]
        hub = Hub(endpoint=server.url, cache=tmp_path / "cache", tries=2, pause=0)
        fetched = fetch_official(Choice("fp32"), home, hub=hub)
    assert fetched.state == "converted"
    manifest = verify(fetched.folder)
    assert manifest is not None
    origins = {entry.role: entry.origin.repository for entry in manifest.sources if entry.origin is not None}
    assert origins["clip"] == "openai/clip-vit-large-patch14"
    assert len(origins) == 9

    tiny_convert(files, tmp_path / "direct")
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    ours, direct = load_backbone("official", "cpu"), load_backbone(tmp_path / "direct", "cpu")
    np.testing.assert_array_equal(ours.encode("c_image", noise), direct.encode("c_image", noise))


def test_import_list_and_verify(
    model: Tiny, tiny_convert: Any, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.write(tmp_path / "downloads", model.current())
    assert main(["weights", "verify"]) == 2
    assert "the official backbone is not there: unibrain weights fetch official" in capsys.readouterr().err
    command = ["weights", "import", str(tmp_path / "downloads"), str(model.vocabularies), "--dtype", "bf16"]
    # CLIP is known by its content, AutoKL by its name; this CLIP is tiny, but has both towers.
    assert main([*command, "--name", "lab"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "downloads" / "pytorch_model.bin") in shown
    assert "unibrain weights verify lab" in shown

    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert "bfloat16; pictures and captions; from files; converted 2" in listed
    assert listed.splitlines()[0].startswith("small")
    assert "official is not in" in listed
    assert main(["weights", "verify", "lab"]) == 0
    assert "all 10 files are as they were written" in capsys.readouterr().out

    path = home / "lab" / "autokl.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["weights", "verify", "lab"]) == 2
    assert "autokl.safetensors has another content" in capsys.readouterr().err


def test_pictures_only_import_has_no_captions(model: Tiny, tiny_convert: Any, home: Path, tmp_path: Path) -> None:
    model.write(tmp_path / "downloads", model.current())
    command = ["weights", "import", str(tmp_path / "downloads"), str(model.vocabularies), "--pictures-only"]
    assert main(command) == 0
    assert not (home / "official" / "optimus.safetensors").exists()
    assert verify(home / "official") is not None
