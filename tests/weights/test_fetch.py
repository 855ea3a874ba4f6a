"""From the hub to a converted backbone: what is asked for, what is checked, and what the command says."""

import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hub_server import FakeHub, serving
from huggingface_hub import HfApi
from on_disk import Tiny

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.weights import fetch, published
from unibrain.weights.conversion import verify
from unibrain.weights.fetch import Fetched, fetch_official
from unibrain.weights.manifest import Manifest, Origin, SourceFile
from unibrain.weights.published import official_sources

FIRST, SECOND = "shi-labs/versatile-diffusion-model", "shi-labs/versatile-diffusion"
CLIP, BERT, GPT2 = "openai/clip-vit-large-patch14", "google-bert/bert-base-cased", "openai-community/gpt2"
PINS = {source.repositories[0]: source.revision for source in official_sources() if source.revision != "main"}
FLOWS = "pretrained_pth/vd-four-flow-v1-0-fp16.pth"


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def on_the_hub() -> dict[str, dict[str, bytes]]:
    weights = {
        FLOWS: noise("flows", 300_000),
        "pretrained_pth/vd-four-flow-v1-0.pth": noise("flows32", 600_000),
        "pretrained_pth/kl-f8.pth": noise("autokl", 50_000),
        "pretrained_pth/optimus-vae.pth": noise("optimus", 70_000),
    }
    return {
        FIRST: dict(weights),
        SECOND: dict(weights),
        CLIP: {"model.safetensors": noise("clip", 40_000), "vocab.json": b"{}", "merges.txt": b"i n</w>"},
        BERT: {"vocab.txt": b"[PAD]\n[CLS]\n"},
        GPT2: {"vocab.json": b"{}", "merges.txt": b"#version: 0.2\ni n\n"},
    }


class Lab:
    """A user's machine beside the server."""

    def __init__(self, server: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.monkeypatch = server, monkeypatch
        self.home, self.cache = folder / "backbones", folder / "cache"
        self.converted: dict[str, bytes] = {}
        self.shown: list[str] = []
        self.hub(HF_HUB_CACHE=str(self.cache), HF_HUB_OFFLINE=False)
        self.ask(server.url)
        monkeypatch.setenv("UNIBRAIN_HOME", str(folder))

    def hub(self, **settings: Any) -> None:
        """Change what the hub's library takes from the environment."""
        from huggingface_hub import constants

        for name, value in settings.items():
            self.monkeypatch.setattr(constants, name, value)

    def ask(self, endpoint: str) -> None:
        """Do what HF_ENDPOINT does."""
        self.monkeypatch.setattr("huggingface_hub.HfApi", partial(HfApi, endpoint=endpoint))

    def convert(
        self, files: Mapping[Any, Path], target: Path, *, dtype: str, origins: Mapping[Any, Origin], replace: bool
    ) -> None:
        """Check and note what is given, as the real one does, and write a manifest."""
        self.converted = {role: path.read_bytes() for role, path in files.items()}
        sources = []
        for role, path in files.items():
            found = hashlib.sha256(self.converted[role]).hexdigest()
            if origins[role].sha256 not in (None, found):
                raise InputError(f"{path}: {found} {origins[role].sha256}")
            sources.append(SourceFile(role=role, name=path.name, size=0, sha256=found, origin=origins[role]))
        manifest = Manifest(unibrain="0", date="2026", dtype=dtype, sources=tuple(sources), parts={}, files={})
        target.mkdir(parents=True, exist_ok=True)
        (target / "manifest.json").write_text(manifest.model_dump_json())

    def fetch(self, precision: Any = "fp16", *, agreed: bool = True, replace: bool = False, **choice: Any) -> Fetched:
        def agree(plan: str) -> bool:
            self.shown.append(plan)
            return agreed

        return fetch_official(official_sources(precision, **choice), self.home, agree=agree, replace=replace)

    def origin(self, role: str) -> Origin | None:
        manifest = Manifest.model_validate_json((self.home / "official" / "manifest.json").read_text())
        return next(source.origin for source in manifest.sources if source.role == role)


@pytest.fixture
def lab(hub_library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    # Published hashes are those of the real files; what is served here stands for them.
    monkeypatch.setattr(fetch, "PUBLISHED_SHA256", {})
    with serving(FakeHub(on_the_hub(), commits=dict(PINS))) as server:
        lab = Lab(server, tmp_path, monkeypatch)
        monkeypatch.setattr(fetch, "convert", lab.convert)
        yield lab


def test_everything_is_fetched_named_and_converted_once(lab: Lab) -> None:
    assert lab.fetch(agreed=False).state == "declined"
    assert not lab.server.downloads()
    assert lab.fetch() == Fetched(lab.home / "official", "converted")
    files = on_the_hub()
    assert lab.converted == {
        "flows": files[FIRST][FLOWS],
        "autokl": files[FIRST]["pretrained_pth/kl-f8.pth"],
        "optimus": files[FIRST]["pretrained_pth/optimus-vae.pth"],
        "clip": files[CLIP]["model.safetensors"],
        "clip-vocab": files[CLIP]["vocab.json"],
        "clip-merges": files[CLIP]["merges.txt"],
        "bert-vocab": files[BERT]["vocab.txt"],
        "gpt2-vocab": files[GPT2]["vocab.json"],
        "gpt2-merges": files[GPT2]["merges.txt"],
    }
    flows = hashlib.sha256(files[FIRST][FLOWS]).hexdigest()
    assert lab.origin("flows") == Origin(repository=FIRST, revision=lab.server.commits[FIRST], sha256=flows)
    for role, repository in (("clip", CLIP), ("bert-vocab", BERT), ("gpt2-vocab", GPT2)):
        origin = lab.origin(role)
        assert origin is not None
        assert (origin.repository, origin.revision) == (repository, PINS[repository])
    for words in (FIRST, CLIP, BERT, GPT2, "MIT", "Apache-2.0", "300.0 kB", "460.0 kB to download", " free)"):
        assert words in lab.shown[0]
    lab.server.requests.clear()
    assert lab.fetch().state == "was there"
    assert lab.server.requests == []


def test_names_in_the_cache_say_nothing_about_content(lab: Lab) -> None:
    """The hub's library may name what it keeps by another hash of 64 digits (Xet) than the SHA-256."""
    lab.fetch()
    link = next(lab.cache.rglob("kl-f8.pth"))
    other = link.resolve().with_name(hashlib.sha256(b"another hash of the same content").hexdigest())
    link.resolve().rename(other)
    link.unlink()
    link.symlink_to(other)
    lab.server.requests.clear()
    assert lab.fetch(replace=True).state == "converted"
    assert "(in the cache)" in lab.shown[-1]
    assert " 0 B to download" in lab.shown[-1]
    assert not lab.server.downloads()
    # What is damaged is found by the hash that the hub tells.
    other.write_bytes(noise("damage", 50_000))
    with pytest.raises(InputError, match=f"kl-f8.pth: .*{hashlib.sha256(noise('autokl', 50_000)).hexdigest()}"):
        lab.fetch(replace=True)


def test_published_hashes_are_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PUBLISHED_SHA256", published.PUBLISHED_SHA256)
    with pytest.raises(InputError, match=r"model\.safetensors: .*a2bf730a0c7debf1"):
        lab.fetch()


@pytest.mark.parametrize(
    "trouble",
    [
        lambda hub: hub.files.pop(FIRST),
        lambda hub: hub.files[FIRST].pop("pretrained_pth/optimus-vae.pth"),
        lambda hub: hub.refused.update({FIRST: 403}),
    ],
)
def test_the_second_repository_is_tried(lab: Lab, trouble: Callable[[FakeHub], object]) -> None:
    trouble(lab.server)
    lab.fetch()
    assert f"Versatile Diffusion: {SECOND} at" in lab.shown[0]


def test_another_repository_and_revision_without_optimus(lab: Lab) -> None:
    lab.fetch()
    lab.server.files["lab/copy"] = {
        "pretrained_pth/vd-four-flow-v1-0-fp16-deprecated.pth": noise("old", 20_000),
        "pretrained_pth/kl-f8.pth": noise("autokl", 50_000),
    }
    lab.server.commits["lab/copy"] = "b" * 40
    choice: dict[str, Any] = {"pictures_only": True, "repository": "lab/copy", "revision": "b" * 40}
    with pytest.raises(InputError, match=r"--replace"):
        lab.fetch(**choice)
    lab.fetch(**choice, replace=True)
    assert lab.converted["flows"] == noise("old", 20_000)
    assert "optimus" not in lab.converted
    assert lab.fetch(**choice).state == "was there"


TROUBLES: dict[str, tuple[Callable[[Lab], object], dict[str, str], str]] = {
    "revision": (lambda lab: None, {"revision": "v9"}, "v9.*--revision"),
    "no name": (lambda lab: None, {"repository": "a b/c?"}, "a b/c.*--repository"),
    "nowhere": (lambda lab: None, {"repository": "no/such"}, "no/such.*{url} answered 404"),
    "busy": (lambda lab: setattr(lab.server, "busy", 1000), {}, "{url}.*HF_ENDPOINT.*unibrain weights import"),
    "a page": (lambda lab: setattr(lab.server, "page", b"<html>log in</html>"), {}, "{url}.*HF_ENDPOINT"),
    "no server": (lambda lab: lab.ask("http://127.0.0.1:9"), {}, "http://127.0.0.1:9.*HF_ENDPOINT"),
    "offline": (lambda lab: lab.hub(HF_HUB_OFFLINE=True), {}, r"fp16\.pth.*HF_HUB_OFFLINE.*unibrain weights import"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_the_hub_does_not_give(lab: Lab, trouble: str) -> None:
    change, choice, named = TROUBLES[trouble]
    change(lab)
    with pytest.raises(InputError, match=named.format(url=lab.server.url)) as caught:
        lab.fetch(**choice)
    assert "\n" not in str(caught.value)


def test_offline_mode_uses_the_cache(lab: Lab) -> None:
    lab.fetch()
    lab.server.requests.clear()
    lab.hub(HF_HUB_OFFLINE=True)
    assert lab.fetch(replace=True).state == "converted"
    assert lab.server.requests == []


def test_what_else_is_there_is_not_touched(lab: Lab) -> None:
    (lab.home / "official").mkdir(parents=True)
    (lab.home / "official" / "thesis.txt").touch()
    with pytest.raises(InputError, match=f"{lab.home / 'official'}: something else"):
        lab.fetch()
    (lab.home / "official" / "thesis.txt").unlink()
    left = lab.home / ".official.123-0123abcd.partial"
    left.mkdir()
    lab.fetch()
    assert not left.exists()


def test_a_full_disk_is_told_before_the_download(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.workspace.files.free_bytes", lambda path: 919_500)
    with pytest.raises(InputError, match=r"920\.1 kB are needed, but 919\.5 kB free.*HF_HOME"):
        lab.fetch()
    assert not lab.server.downloads()


def test_what_the_system_refuses_is_not_the_hubs_fault(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(lab.cache))

    monkeypatch.setattr(HfApi, "hf_hub_download", denied)
    with pytest.raises(PermissionError):
        lab.fetch()


def test_the_command_asks_and_is_quiet(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    lab.monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    assert main(["weights", "fetch", "official"]) == 2
    shown = capsys.readouterr()
    assert "licence MIT" in shown.out
    assert "--yes" in shown.err
    assert not lab.server.downloads()
    assert not are_progress_bars_disabled()
    assert main(["weights", "fetch", "official", "--yes", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert are_progress_bars_disabled()
    enable_progress_bars()


def test_a_fetched_backbone_is_the_model(
    model: Tiny, tiny_config: None, hub_library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    files = model.write(tmp_path / "published")
    files["clip"] = tmp_path / "published" / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in model.clip.items()}, files["clip"])
    hub = {
        source.repositories[0]: {names[0]: files[role].read_bytes() for role, names in source.files.items()}
        for source in official_sources("fp32")
    }
    monkeypatch.setattr(fetch, "PUBLISHED_SHA256", {})
    with serving(FakeHub(hub, dict(PINS))) as server:
        lab = Lab(server, tmp_path, monkeypatch)
        manifest = verify(lab.fetch("fp32").folder)
    assert manifest is not None
    assert len([source for source in manifest.sources if source.origin is not None]) == 9
