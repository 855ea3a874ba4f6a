import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_server import FakeHub, serving

from unibrain.errors import InputError
from unibrain.weights import download as download_module
from unibrain.weights import fetch as fetch_module
from unibrain.weights import plan as plan_module
from unibrain.weights.fetch import Choice, Fetched, fetch_official
from unibrain.weights.hub import Hub
from unibrain.weights.manifest import FileRecord, Manifest, Origin, SourceFile
from unibrain.weights.sources import official_sources

FIRST, SECOND = "shi-labs/versatile-diffusion-model", "shi-labs/versatile-diffusion"
CLIP, BERT, GPT2 = "openai/clip-vit-large-patch14", "google-bert/bert-base-cased", "openai-community/gpt2"
PINS = {source.repositories[0]: source.revision or "" for source in official_sources() if source.revision}


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def published() -> dict[str, dict[str, bytes]]:
    weights = {
        "pretrained_pth/vd-four-flow-v1-0-fp16.pth": noise("flows", 300_000),
        "pretrained_pth/vd-four-flow-v1-0.pth": noise("flows32", 600_000),
        "pretrained_pth/kl-f8.pth": noise("autokl", 50_000),
        "pretrained_pth/optimus-vae.pth": noise("optimus", 70_000),
        "README.md": b"# Versatile Diffusion",
    }
    return {
        FIRST: dict(weights),
        SECOND: dict(weights),
        CLIP: {
            "model.safetensors": noise("clip", 40_000),
            "vocab.json": b'{"<|startoftext|>": 0}',
            "merges.txt": b"i n</w>",
        },
        BERT: {"vocab.txt": b"[PAD]\n[CLS]\n"},
        GPT2: {"vocab.json": b'{"<|endoftext|>": 0}', "merges.txt": b"#version: 0.2\ni n\n"},
    }


@pytest.fixture(autouse=True)
def _hub(hub_library: None) -> None:
    """All tests here use the hub's library on the loopback interface."""


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with serving(FakeHub(published(), commits=dict(PINS))) as hub:
        yield hub


class FakeConvert:
    """Writes a folder with a manifest, and keeps what it was given."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.calls = 0

    def __call__(
        self, files: Mapping[Any, Path], target: Path, *, dtype: str, origins: Mapping[Any, Origin], replace: bool
    ) -> None:
        self.calls += 1
        self.files = {role: path.read_bytes() for role, path in files.items()}
        sources = tuple(
            SourceFile(
                role, path.name, path.stat().st_size, 0, hashlib.sha256(path.read_bytes()).hexdigest(), origins[role]
            )
            for role, path in files.items()
        )
        manifest = Manifest("0", "2026-01-01", "", dtype, sources, {}, {"config.json": FileRecord(2, "")})
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text("{}")
        (target / "manifest.json").write_text(manifest.to_json())


class Lab:
    """A user's machine beside the server."""

    def __init__(self, server: FakeHub, folder: Path) -> None:
        self.server = server
        self.home, self.cache = folder / "home", folder / "cache"
        self.convert = FakeConvert()
        self.shown: list[str] = []

    def fetch(self, choice: Choice = Choice(), *, tries: int = 2, token: str | None = None, **options: Any) -> Fetched:  # noqa: B008
        hub = Hub(endpoint=self.server.url, cache=self.cache, token=token, tries=tries, pause=0)

        def agree(plan: str) -> bool:
            self.shown.append(plan)
            return True

        return fetch_official(choice, self.home, **{"hub": hub, "agree": agree, "convert": self.convert, **options})


@pytest.fixture
def lab(server: FakeHub, tmp_path: Path) -> Lab:
    return Lab(server, tmp_path)


def test_everything_is_fetched_named_and_converted(lab: Lab) -> None:
    fetched = lab.fetch()
    assert fetched == Fetched(lab.home / "official", "converted")
    files = published()
    assert lab.convert.files == {
        "flows": files[FIRST]["pretrained_pth/vd-four-flow-v1-0-fp16.pth"],
        "autokl": files[FIRST]["pretrained_pth/kl-f8.pth"],
        "optimus": files[FIRST]["pretrained_pth/optimus-vae.pth"],
        "clip": files[CLIP]["model.safetensors"],
        "clip-vocab": files[CLIP]["vocab.json"],
        "clip-merges": files[CLIP]["merges.txt"],
        "bert-vocab": files[BERT]["vocab.txt"],
        "gpt2-vocab": files[GPT2]["vocab.json"],
        "gpt2-merges": files[GPT2]["merges.txt"],
    }
    origins = {source.role: source.origin for source in Manifest.read(fetched.folder).sources}
    assert origins["flows"] == Origin(FIRST, lab.server.commits[FIRST])
    assert origins["clip"] == Origin(CLIP, "32bd64288804d66eefd0ccbe215aa642df71cc41")
    assert origins["bert-vocab"] == Origin(BERT, "cd5ef92a9fb2f889e972770a36d4ed042daf221e")
    assert origins["gpt2-vocab"] == Origin(GPT2, "607a30d783dfa663caf39e06633721c8d4cfcd7e")


def test_plan_names_repositories_licences_sizes_and_disk_before_anything_is_downloaded(lab: Lab) -> None:
    lab.fetch(agree=lambda plan: lab.shown.append(plan) or False)
    (plan,) = lab.shown
    for words in (FIRST, CLIP, BERT, GPT2, "MIT", "Apache-2.0", "300.00 kB", "460.08 kB to download", " free)"):
        assert words in plan
    assert not lab.server.gets("/resolve/")
    assert not (lab.home / "official").exists()


def test_second_fetch_asks_the_hub_nothing(lab: Lab) -> None:
    lab.fetch()
    lab.server.requests.clear()
    assert lab.fetch().state == "was there"
    assert lab.server.requests == []
    assert lab.convert.calls == 1


def test_replacing_uses_the_cache_and_the_same_commits(lab: Lab) -> None:
    lab.fetch()
    lab.server.requests.clear()
    assert lab.fetch(replace=True).state == "converted"
    assert lab.server.requests == []
    assert "(in the cache)" in lab.shown[-1]
    assert " 0 B to download" in lab.shown[-1]


def test_main_that_moved_is_followed_only_if_asked_for(lab: Lab) -> None:
    lab.fetch()
    old, new = lab.server.commits[FIRST], "a" * 40
    lab.server.commits[FIRST] = new
    lab.fetch(replace=True)
    assert Manifest.read(lab.home / "official").sources[0].origin == Origin(FIRST, old)
    lab.fetch(Choice(revision="main"), replace=True)
    assert Manifest.read(lab.home / "official").sources[0].origin == Origin(FIRST, new)


def test_cut_download_continues_within_the_same_fetch(lab: Lab) -> None:
    lab.server.cut_after["vd-four-flow-v1-0-fp16.pth"] = [100_000]
    lab.fetch()
    ranges = [request.range for request in lab.server.gets("/cdn/") if "fp16" in request.path]
    assert ranges[0] is None
    assert ranges[1] is not None
    start = int(ranges[1].removeprefix("bytes=").rstrip("-"))
    assert 90_000 < start <= 100_000
    assert lab.convert.files["flows"] == published()[FIRST]["pretrained_pth/vd-four-flow-v1-0-fp16.pth"]


def test_stopped_download_continues_in_a_later_fetch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.server.cut_after["vd-four-flow-v1-0-fp16.pth"] = [200_000, *[0] * 40]
    with pytest.raises(InputError, match=r"196,608 of 300,000 bytes are kept.*cannot be reached"):
        lab.fetch()
    assert not (lab.home / "official").exists()
    lab.server.cut_after.clear()
    lab.server.requests.clear()
    lab.fetch()
    ranges = [request.range for request in lab.server.gets("/cdn/") if "fp16" in request.path]
    assert ranges == ["bytes=196608-"]
    assert lab.convert.files["flows"] == published()[FIRST]["pretrained_pth/vd-four-flow-v1-0-fp16.pth"]
    assert not list(lab.cache.rglob("*.incomplete"))


def test_ctrl_c_keeps_what_came(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def stopped(url: str, file: Any, **options: Any) -> None:
        file.write(noise("flows", 300_000)[:123_456])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(file_download, "http_get", stopped)
        lab.fetch()
    lab.fetch()
    assert [request.range for request in lab.server.gets("fp16.pth") if "/cdn/" in request.path] == ["bytes=123456-"]


@pytest.mark.parametrize("body", [noise("flows", 300_000)[:250_000], noise("flows", 300_000) + b"more"])
def test_wrong_size_is_refused_and_nothing_is_kept(lab: Lab, body: bytes) -> None:
    lab.server.sent_instead["vd-four-flow-v1-0-fp16.pth"] = body
    with pytest.raises(InputError, match=rf"fp16\.pth: the hub at .* sent {len(body):,} bytes, expected 300,000: run"):
        lab.fetch()
    assert not [path for path in lab.cache.rglob("*.incomplete") if path.stat().st_size]
    assert not (lab.home / "official").exists()


def test_wrong_content_of_the_right_size_is_refused(lab: Lab) -> None:
    lab.server.sent_instead["kl-f8.pth"] = noise("another", 50_000)
    with pytest.raises(InputError, match=r"kl-f8\.pth: .* sent content with the hash [0-9a-f]{64}, expected"):
        lab.fetch()
    lab.server.sent_instead.clear()
    lab.fetch()
    assert lab.convert.files["autokl"] == noise("autokl", 50_000)


def test_content_of_a_published_hash_is_checked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "official_sources", official_sources)
    with pytest.raises(InputError, match=r"model\.safetensors: .*expected a2bf730a0c7debf1"):
        lab.fetch()


def test_damaged_cache_is_found(lab: Lab) -> None:
    lab.fetch()
    held = next(lab.cache.rglob("snapshots/*/pretrained_pth/kl-f8.pth")).resolve()
    held.write_bytes(noise("damage", 50_000))
    with pytest.raises(InputError, match=f"{held}: its content has the hash .*: delete it and run again"):
        lab.fetch(replace=True)


def test_second_repository_is_tried(lab: Lab) -> None:
    del lab.server.files[FIRST]
    lab.fetch()
    assert f"Versatile Diffusion: {SECOND} at" in lab.shown[0]
    lab.server.requests.clear()
    lab.server.files[FIRST] = published()[FIRST]
    lab.fetch(replace=True)
    assert Manifest.read(lab.home / "official").sources[0].origin == Origin(SECOND, lab.server.commits[SECOND])


@pytest.mark.parametrize("status", [401, 403])
def test_refused_first_repository_falls_back_too(lab: Lab, status: int) -> None:
    lab.server.refused[FIRST] = status
    lab.fetch()
    assert f"Versatile Diffusion: {SECOND} at" in lab.shown[0]


def test_repository_that_lacks_a_file_falls_back(lab: Lab) -> None:
    del lab.server.files[FIRST]["pretrained_pth/optimus-vae.pth"]
    lab.fetch()
    assert f"Versatile Diffusion: {SECOND} at" in lab.shown[0]


def test_missing_file_is_named(lab: Lab) -> None:
    for repository in (FIRST, SECOND):
        del lab.server.files[repository]["pretrained_pth/optimus-vae.pth"]
    with pytest.raises(InputError, match=r"has no optimus-vae\.pth there, expected it in pretrained_pth"):
        lab.fetch()
    assert lab.fetch(Choice(pictures_only=True)).state == "converted"
    assert {"flows", "autokl", "clip"} < set(lab.convert.files)
    assert "optimus" not in lab.convert.files


def test_listed_file_that_is_not_there(lab: Lab) -> None:
    lab.server.unlisted.add("pretrained_pth/kl-f8.pth")
    with pytest.raises(InputError, match=r"kl-f8\.pth: not found on the hub at .* \(404\)"):
        lab.fetch()


def test_files_in_another_folder_and_only_the_deprecated_one(lab: Lab) -> None:
    lab.server.files["lab/copy"] = {
        "old/vd-four-flow-v1-0-fp16-deprecated.pth": noise("old", 20_000),
        "kl-f8.pth": noise("autokl", 50_000),
        "x/optimus-vae.pth": noise("optimus", 70_000),
    }
    lab.server.commits["lab/copy"] = "b" * 40
    lab.fetch(Choice(repository="lab/copy"))
    assert lab.convert.files["flows"] == noise("old", 20_000)


def test_precision_takes_the_other_file(lab: Lab) -> None:
    lab.fetch(Choice(precision="fp32"))
    assert lab.convert.files["flows"] == noise("flows32", 600_000)


def test_backbone_made_otherwise_is_not_replaced_unasked(lab: Lab) -> None:
    lab.fetch()
    lab.server.requests.clear()
    with pytest.raises(InputError, match=r"already holds a backbone made from other files.*--replace"):
        lab.fetch(Choice(precision="fp32"))
    assert not lab.server.gets("/resolve/")
    assert lab.fetch(Choice(precision="fp32"), replace=True).state == "converted"


def test_foreign_folder_is_not_touched(lab: Lab) -> None:
    (lab.home / "official").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no converted backbone, expected a free place"):
        lab.fetch()


def test_token_is_asked_for_sent_and_kept_from_other_hosts(lab: Lab) -> None:
    lab.server.token = "hf_secret"
    with pytest.raises(InputError, match=r"refused access \(401\).*HF_TOKEN.*--repository"):
        lab.fetch()
    lab.server.requests.clear()
    lab.fetch(token="hf_secret")
    assert {request.token for request in lab.server.gets("/api/models/")} == {"Bearer hf_secret"}
    assert {request.token for request in lab.server.gets("/cdn/")} == {None}


def test_unknown_revision_and_bad_repository_names(lab: Lab) -> None:
    with pytest.raises(InputError, match=r"at v9: the hub at .* knows no such revision \(404\)"):
        lab.fetch(Choice(revision="v9"))
    for name in ("nothing", "a/b/c", "a b/c?"):
        with pytest.raises(InputError, match="expected owner/name"):
            lab.fetch(Choice(repository=name))


def test_busy_server_is_asked_again_within_a_limit(lab: Lab) -> None:
    lab.server.busy = 1
    assert lab.fetch().state == "converted"
    lab.server.busy = 1000
    with pytest.raises(InputError, match=r"answered with status 503 after 2 tries: try again later"):
        lab.fetch(Choice(revision="main"), replace=True)


def test_no_connection_is_one_sentence(lab: Lab, tmp_path: Path) -> None:
    nowhere = Hub(endpoint="http://127.0.0.1:9", cache=tmp_path / "cache", tries=2, pause=0)
    with pytest.raises(InputError, match=r"cannot be reached .*HF_ENDPOINT.*unibrain weights import"):
        lab.fetch(hub=nowhere)


def test_web_page_instead_of_a_hub(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def portal(*arguments: Any, **options: Any) -> None:
        json.loads("<html>Please log in</html>")

    monkeypatch.setattr(HfApi, "model_info", portal)
    with pytest.raises(InputError, match=r"could not be read .*expected a hub: check HF_ENDPOINT"):
        lab.fetch()


def test_offline_mode_uses_the_cache_and_says_what_it_lacks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"not complete in the cache .*HF_HUB_OFFLINE.*unibrain weights import"):
        lab.fetch()
    assert lab.server.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    lab.fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lab.server.requests.clear()
    assert lab.fetch(replace=True).state == "converted"
    assert lab.server.requests == []


def test_offline_mode_takes_what_the_hubs_own_tool_has_cached(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    for source in official_sources():
        for file in source.files:
            name = f"{source.folder}/{file.names[0]}" if source.folder else file.names[0]
            hf_hub_download(
                source.repositories[0],
                name,
                revision=source.revision,
                cache_dir=lab.cache,
                endpoint=lab.server.url,
            )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert lab.fetch().state == "converted"
    origin = Manifest.read(lab.home / "official").sources[0].origin
    assert origin == Origin(FIRST, lab.server.commits[FIRST])


@pytest.mark.parametrize(("free", "needed"), [(500_000, "920.16 kB"), (919_500, "920.16 kB")])
def test_full_disk_is_told_before_the_download(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, free: int, needed: str
) -> None:
    usage = type("usage", (), {"free": free})
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=f"are free on this disk, .* need {needed}: free some space"):
        lab.fetch()
    assert not lab.server.gets("/resolve/")


def test_disk_that_fills_during_the_download(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module, "_append", full)
    with pytest.raises(InputError, match=r"no space left on the disk, 0 of .* bytes are kept: free some space"):
        lab.fetch()


def test_two_downloads_of_one_file_at_once_are_refused(tmp_path: Path) -> None:
    partial = tmp_path / "x.incomplete"
    with (
        download_module._alone(partial),
        pytest.raises(InputError, match="another process is downloading this file"),
        download_module._alone(partial),
    ):
        pass


def test_damaged_record_of_commits(lab: Lab) -> None:
    lab.home.mkdir(parents=True)
    (lab.home / ".official.commits.json").write_text("{")
    with pytest.raises(InputError, match=r"\.official\.commits\.json: not readable .*: delete it"):
        lab.fetch()
