"""Networks of the scores from a server or from disk, and what the commands say."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.evaluation.networks.fetching import fetch_networks, import_networks, usual_names
from unibrain.evaluation.networks.weights import NETWORKS, Network, Published, metrics_home


class Server:
    """Every published file, as a few bytes on the disk: plain ones by ``file:``, the hub's through its library."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked = folder, list[tuple[str, str, str]]()
        folder.mkdir()
        for name, row in list(NETWORKS.items()):
            monkeypatch.setitem(NETWORKS, name, self._small(row))
        monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", self._download)

    def _small(self, row: Network) -> Network:
        def put(number: int, file: Published) -> Published:
            path, content = self.folder / f"{file.name}.there", f"{file.name} ".encode() * (5 + number)
            path.write_bytes(content)
            digits = len(file.sha256)
            known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()[:digits]}
            return replace(file, url=file.url if file.url.startswith("hf:") else path.as_uri(), **known)

        return replace(row, parts=tuple(tuple(put(*one) for one in enumerate(files)) for files in row.parts))

    def _download(self, repository: str, file: str, *, revision: str) -> str:
        self.asked.append((repository, file, revision))
        names = {
            ("openai/clip-vit-large-patch14", "model.safetensors"): "clip-vit-large-patch14.safetensors",
            ("openai/clip-vit-base-patch32", "model.safetensors"): "clip-vit-base-patch32.safetensors",
            ("openai/clip-vit-base-patch32", "vocab.json"): "clip-vocab.json",
            ("openai/clip-vit-large-patch14", "merges.txt"): "clip-merges.txt",
        }
        return str(self.folder / f"{names[repository, file]}.there")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path / "home"))
    return Server(tmp_path / "server", monkeypatch)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".json" and not path.name.startswith(".")}


def test_everything_is_fetched_checked_and_not_fetched_twice(server: Server) -> None:
    home, plans = metrics_home(), list[str]()
    assert fetch_networks(usual_names(), home, lambda plan: bool(plans.append(plan))) is None
    assert not home.exists()
    assert "SwAV" not in plans[0]
    for words in ("AlexNet", "licence: not settled", "licence: MIT", "BSD-3-Clause", " to download into ", " free)"):
        assert words in plans[0]
    got = fetch_networks(usual_names(), home)
    assert got is not None
    assert {path.name for path in got} == {
        "alexnet-owt-7be5be79.pth",
        "inception_v3_google-0cc3c7bd.pth",
        "efficientnet_b1_rwightman-bac287d4.pth",
        "efficientnet_b1-c27df63c.pth",
        "clip-vit-large-patch14.safetensors",
        "clip-vit-base-patch32.safetensors",
        "clip-vocab.json",
        "clip-merges.txt",
    }
    assert {len(revision) for _, _, revision in server.asked} == {40}
    assert fetch_networks(usual_names(), home, lambda _: pytest.fail("nothing is missing")) == []
    (home / "alexnet-owt-7be5be79.pth").write_bytes(b"cut off")
    again = fetch_networks(usual_names(with_swav=True), home, lambda plan: bool(plans.append(plan)) or True)
    assert again == [home / "alexnet-owt-7be5be79.pth", home / "swav_800ep_pretrain.pth.tar"]
    assert "CC BY-NC 4.0: Not for commercial use" in plans[1]
    assert "(is there)" in plans[1]


def test_what_comes_damaged_gets_no_place(server: Server) -> None:
    (server.folder / "alexnet-owt-7be5be79.pth.there").write_bytes(b"a login page of the hotel")
    with pytest.raises(InputError, match=r"alexnet.*what came has 25 bytes and a SHA-256 that begins with"):
        fetch_networks(["alexnet"], metrics_home())
    (server.folder / "inception_v3_google-0cc3c7bd.pth.there").unlink()
    with pytest.raises(InputError, match=r"inception.*could not be downloaded.*unibrain weights import --metrics"):
        fetch_networks(["inception"], metrics_home())
    assert names_in(metrics_home()) == set()


def test_files_on_disk_are_known_by_their_content(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "blobs"
    cache.mkdir(parents=True)
    wanted = ("clip-vit-large-patch14.bin", "efficientnet_b1_rwightman-533bc792.pth", "swav_800ep_pretrain.pth.tar")
    for number, name in enumerate(wanted):
        (cache / f"blob{number}").write_bytes((server.folder / f"{name}.there").read_bytes())
    (cache / "notes.txt").write_text("nothing of interest")
    (cache / "gone").symlink_to(tmp_path / "nowhere")
    assert {path.name for path in import_networks([tmp_path / "cache"], metrics_home())} == set(wanted)
    assert names_in(metrics_home()) == set(wanted)
    # What is in its place already may be looked at again.
    assert len(import_networks([metrics_home()], metrics_home())) == len(wanted)
    assert (cache / "blob0").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        (None, b"", "no such file or folder"),
        ("notes.txt", b"nothing", "no published network"),
        ("alexnet-owt-7be5be79.pth", b"cut off", "has the name of a published file, but not its content"),
    ],
)
def test_wrong_imports_are_one_sentence(
    server: Server, tmp_path: Path, name: str | None, content: bytes, named: str
) -> None:
    place = tmp_path / "downloads"
    if name is not None:
        place.mkdir()
        (place / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{place}.*{named}"):
        import_networks([place], metrics_home())


def test_the_commands(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "fetch", "metrics", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("licence: MIT") < shown.index("8 files were downloaded")
    assert main(["weights", "list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(NETWORKS))]
    assert [line.rsplit(", ")[-1] for line in lines if line.startswith("swav")] == [
        "not there: unibrain weights fetch metrics --with-swav"
    ]
    assert sum(line.endswith(", there") for line in lines) == len(NETWORKS) - 1
    swav = server.folder / "swav_800ep_pretrain.pth.tar.there"
    assert main(["weights", "import", "--metrics", str(swav)]) == 0
    assert capsys.readouterr().out.strip() == str(metrics_home() / "swav_800ep_pretrain.pth.tar")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fetch", "metrics"], "--yes"),
        (["fetch", "metrics", "--dtype", "fp32"], "--dtype has nothing to do with metrics"),
        (["fetch", "official", "--with-swav"], "--with-swav has nothing to do with official"),
        (["import", "--metrics"], "Give PATH"),
        (["import", "--metrics", "--name", "x", "y"], "--name has nothing to do with --metrics"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    server: Server, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(["weights", *arguments]) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
