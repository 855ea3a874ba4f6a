"""From the hub to a converted backbone: what is asked for, what is checked, and what the command says."""

import errno
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_server import FakeHub, serving
from on_disk import Tiny

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.weights import Manifest, fetch, fetch_official, official_sources, published, verify
from unibrain.weights.fetch import Fetched
from unibrain.weights.manifest import Origin, SourceFile

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
    clip = {"model.safetensors": noise("clip", 40_000), "vocab.json": b"{}", "merges.txt": b"i n</w>"}
    return {
        FIRST: dict(weights),
        SECOND: dict(weights),
        CLIP: clip,
        BERT: {"vocab.txt": b"[PAD]\n[CLS]\n"},
        GPT2: {"vocab.json": b"{}", "merges.txt": b"#version: 0.2\ni n\n"},
    }


@pytest.fixture(autouse=True)
def _unpinned(hub_library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published hashes are those of the real files; what is served here stands for them."""
    monkeypatch.setattr(fetch, "PUBLISHED_SHA256", {})


class FakeConvert:
    """Checks and notes what it is given, as the real one does, and writes a manifest."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def __call__(
        self, files: Mapping[Any, Path], target: Path, *, dtype: str, origins: Mapping[Any, Origin], replace: bool
    ) -> None:
        self.files = {role: path.read_bytes() for role, path in files.items()}
        sources = []
        for role, path in files.items():
            found = hashlib.sha256(self.files[role]).hexdigest()
            if origins[role].sha256 not in (None, found):
                raise InputError(f"{path}: {found} {origins[role].sha256}")
            size = len(self.files[role])
            sources.append(SourceFile(role=role, name=path.name, size=size, sha256=found, origin=origins[role]))
        manifest = Manifest(unibrain="0", date="2026", dtype=dtype, sources=tuple(sources), parts={}, files={})
        target.mkdir(parents=True, exist_ok=True)
        (target / "manifest.json").write_text(manifest.model_dump_json())


class Lab:
    """A user's machine beside the server."""

    def __init__(self, server: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.home, self.cache = folder / "home", folder / "cache"
        self.convert = FakeConvert()
        self.shown: list[str] = []
        monkeypatch.setattr(fetch, "convert", self.convert)

    def fetch(
        self, precision: Any = "fp16", *, token: str | None = None, replace: bool = False, **choice: Any
    ) -> Fetched:
        from huggingface_hub import HfApi

        return fetch_official(
            official_sources(precision, **choice),
            self.home,
            agree=lambda plan: self.shown.append(plan) is None,
            replace=replace,
            api=HfApi(endpoint=self.server.url, token=token),
            cache=self.cache,
        )

    def origin(self, role: str) -> Origin | None:
        manifest = Manifest.model_validate_json((self.home / "official" / "manifest.json").read_text())
        return next(source.origin for source in manifest.sources if source.role == role)

    def content(self, name: str) -> Path:
        """The cache's own copy of a file."""
        return next(self.cache.rglob(name)).resolve()


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with serving(FakeHub(on_the_hub(), commits=dict(PINS))) as hub:
        yield hub


@pytest.fixture
def lab(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(server, tmp_path, monkeypatch)


def test_everything_is_fetched_named_and_converted_once(lab: Lab) -> None:
    assert lab.fetch() == Fetched(lab.home / "official", "converted")
    files = on_the_hub()
    assert lab.convert.files == {
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


def test_nothing_is_downloaded_without_agreement(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=lab.server.url)
    fetched = fetch_official(official_sources(), lab.home, agree=lambda plan: False, api=api, cache=lab.cache)
    assert fetched.state == "declined"
    assert not lab.server.gets("/resolve/")
    assert not (lab.home / "official").exists()


def test_names_in_the_cache_say_nothing_about_content(lab: Lab) -> None:
    """The hub's library may name what it keeps by another hash of 64 digits (Xet) than the SHA-256."""
    lab.fetch()
    link = next(lab.cache.rglob("kl-f8.pth"))
    content = link.resolve()
    other = content.with_name(hashlib.sha256(b"another hash of the same content").hexdigest())
    content.rename(other)
    link.unlink()
    link.symlink_to(other)
    lab.server.requests.clear()
    assert lab.fetch(replace=True).state == "converted"
    assert "(in the cache)" in lab.shown[-1]
    assert " 0 B to download" in lab.shown[-1]
    assert not lab.server.gets("/resolve/")


def test_damage_in_the_cache_is_found_by_the_hash_that_the_hub_tells(lab: Lab) -> None:
    lab.fetch()
    lab.content("kl-f8.pth").write_bytes(noise("damage", 50_000))
    with pytest.raises(InputError, match=f"kl-f8.pth: .*{hashlib.sha256(noise('autokl', 50_000)).hexdigest()}"):
        lab.fetch(replace=True)


def test_a_cut_download_continues_and_a_stopped_one_leaves_nothing(lab: Lab) -> None:
    lab.server.cut_after["vd-four-flow-v1-0-fp16.pth"] = [100_000]
    lab.fetch()
    assert lab.convert.files["flows"] == noise("flows", 300_000)
    assert not list(lab.cache.rglob("*.incomplete"))
    lab.server.cut_after["vd-four-flow-v1-0.pth"] = [200_000, *[0] * 40]
    with pytest.raises(InputError, match=r"vd-four-flow-v1-0\.pth: .*run again"):
        lab.fetch("fp32", replace=True)
    assert not list(lab.cache.rglob("*.incomplete"))
    lab.server.cut_after.clear()
    lab.server.requests.clear()
    lab.fetch("fp32", replace=True)
    assert {Path(request.path).name for request in lab.server.gets("/cdn/")} == {"vd-four-flow-v1-0.pth"}
    assert lab.convert.files["flows"] == noise("flows32", 600_000)


@pytest.mark.parametrize("body", [noise("flows", 300_000)[:250_000], noise("another", 300_000)])
def test_wrong_content_is_refused(lab: Lab, body: bytes) -> None:
    lab.server.sent_instead["vd-four-flow-v1-0-fp16.pth"] = body
    with pytest.raises(InputError, match=r"vd-four-flow-v1-0-fp16\.pth"):
        lab.fetch()
    assert not (lab.home / "official").exists()


def test_published_hashes_are_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PUBLISHED_SHA256", published.PUBLISHED_SHA256)
    with pytest.raises(InputError, match=r"model\.safetensors: .*a2bf730a0c7debf1"):
        lab.fetch()


@pytest.mark.parametrize("trouble", ["gone", 401, 403, "file"])
def test_the_second_repository_is_tried(lab: Lab, trouble: Any) -> None:
    if trouble == "gone":
        del lab.server.files[FIRST]
    elif trouble == "file":
        del lab.server.files[FIRST]["pretrained_pth/optimus-vae.pth"]
    else:
        lab.server.refused[FIRST] = trouble
    lab.fetch()
    assert f"Versatile Diffusion: {SECOND} at" in lab.shown[0]


def test_choices(lab: Lab) -> None:
    for repository in (FIRST, SECOND):
        del lab.server.files[repository]["pretrained_pth/optimus-vae.pth"]
    with pytest.raises(InputError, match=r"optimus-vae\.pth"):
        lab.fetch()
    lab.fetch(pictures_only=True)
    assert "optimus" not in lab.convert.files
    lab.server.files["lab/copy"] = {
        "pretrained_pth/vd-four-flow-v1-0-fp16-deprecated.pth": noise("old", 20_000),
        "pretrained_pth/kl-f8.pth": noise("autokl", 50_000),
    }
    lab.server.commits["lab/copy"] = "b" * 40
    with pytest.raises(InputError, match=r"--replace"):
        lab.fetch(pictures_only=True, repository="lab/copy")
    lab.fetch(pictures_only=True, repository="lab/copy", revision="b" * 40, replace=True)
    assert lab.convert.files["flows"] == noise("old", 20_000)
    assert lab.fetch(pictures_only=True, repository="lab/copy", revision="b" * 40).state == "was there"


def test_the_token_is_sent_and_kept_from_other_hosts(lab: Lab) -> None:
    lab.server.token = "hf_secret"
    with pytest.raises(InputError, match=r"401.*HF_TOKEN.*--repository"):
        lab.fetch()
    lab.server.requests.clear()
    lab.fetch(token="hf_secret")
    assert {request.token for request in lab.server.requests if "/paths-info/" in request.path} == {"Bearer hf_secret"}
    assert {request.token for request in lab.server.gets("/cdn/")} == {None}


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"revision": "v9"}, "v9.*--revision"),
        ({"repository": "a b/c?"}, "a b/c.*--repository"),
        ({"repository": "no/such"}, "no/such.*404"),
    ],
)
def test_wrong_names(lab: Lab, choice: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        lab.fetch(**choice)


@pytest.mark.parametrize("trouble", ["busy", "page", "nowhere"])
def test_no_usable_answer(lab: Lab, trouble: str) -> None:
    if trouble == "busy":
        lab.server.busy = 1000
    elif trouble == "page":
        lab.server.page = b"<html>Please log in</html>"
    else:
        lab.server = FakeHub({}, port=9)
    with pytest.raises(InputError, match=r"HF_ENDPOINT.*unibrain weights import") as caught:
        lab.fetch()
    assert lab.server.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_mode_uses_the_cache_and_says_what_it_lacks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"fp16\.pth.*HF_HUB_OFFLINE.*unibrain weights import"):
        lab.fetch()
    assert lab.server.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    lab.fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lab.server.requests.clear()
    assert lab.fetch(replace=True).state == "converted"
    assert lab.server.requests == []


def test_what_else_is_there_is_not_touched(lab: Lab) -> None:
    (lab.home / "official").mkdir(parents=True)
    with pytest.raises(InputError, match=f"{lab.home / 'official'}: something else"):
        lab.fetch()
    (lab.home / "official").rmdir()
    left = lab.home / ".official.123-0123abcd.partial"
    left.mkdir()
    lab.fetch()
    assert not left.exists()


def test_a_full_disk_is_told_before_the_download(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.workspace.disk.free_bytes", lambda path: 919_500)
    with pytest.raises(InputError, match=r"920\.1 kB are needed, but 919\.5 kB free.*HF_HOME"):
        lab.fetch()
    assert not lab.server.gets("/resolve/")


def test_what_the_system_refuses_is_not_the_hubs_fault(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def denied(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(lab.cache))

    monkeypatch.setattr(HfApi, "hf_hub_download", denied)
    with pytest.raises(PermissionError):
        lab.fetch()


def test_a_fetched_backbone_is_the_model(
    model: Tiny, tiny_config: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi
    from safetensors.torch import save_file

    files = model.write(tmp_path / "published")
    files["clip"] = tmp_path / "published" / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in model.clip.items()}, files["clip"])
    hub = {
        source.repositories[0]: {names[0]: files[role].read_bytes() for role, names in source.files.items()}
        for source in official_sources("fp32")
    }
    with serving(FakeHub(hub, dict(PINS))) as server:
        api = HfApi(endpoint=server.url)
        fetched = fetch_official(official_sources("fp32"), tmp_path / "home", api=api, cache=tmp_path / "cache")
    manifest = verify(fetched.folder)
    assert manifest is not None
    assert len([source for source in manifest.sources if source.origin is not None]) == 9


def test_the_hubs_variables_are_followed_and_nothing_is_downloaded_unasked(server: FakeHub, tmp_path: Path) -> None:
    server.token = "hf_lab"
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    variables |= {"HF_HOME": str(tmp_path / "hf"), "UNIBRAIN_HOME": str(tmp_path), "HF_ENDPOINT": server.url}
    done = subprocess.run(
        [sys.executable, "-m", "unibrain", "weights", "fetch", "official"],
        env={**variables, "HF_TOKEN": "hf_lab"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert {request.token for request in server.requests if "/paths-info/" in request.path} == {"Bearer hf_lab"}
    assert str(tmp_path / "hf") in done.stdout
    assert "licence MIT" in done.stdout
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "--yes" in line] == done.stderr.splitlines()
    assert not server.gets("/resolve/")


def test_a_wrong_repository_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "fetch", "official", "--repository", "x/y/z"]) == 2
    assert "x/y/z" in capsys.readouterr().err
