import io
import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvicorn
from asking import follow, npy, picture_of
from starlette.testclient import TestClient

from unibrain.errors import InputError
from unibrain.explorer import Session, server
from unibrain.explorer.items import decode_item, item_key
from unibrain.explorer.worker import Worker
from unibrain.reconstruction import load_decoded


def test_the_run_and_its_pictures(client: TestClient, session: Session) -> None:
    about = client.get("/api/run").json()
    decoded = load_decoded(session.bench.run.artefact("decoded"))
    assert [row["id"] for row in about["scans"]] == decoded.stimulus_ids.tolist()
    assert [row["caption"] for row in about["scans"]] == list(decoded.captions or ())
    assert (about["simulated"], about["kinds"]) == (True, ["picture", "caption"])
    assert {control["name"] for control in about["controls"]} == {"random", "oracle"}
    assert sum(len(row["controls"]) for row in about["scans"]) == 4  # two of each, for two images
    first = about["scans"][0]["id"]
    shown = client.get(f"/api/pictures/{first}/decoded")
    assert shown.headers["content-type"] == "image/png"
    assert decoded.pictures is not None
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown.content))), decoded.pictures[0])


def test_as_the_run_decodes_it_is_what_the_run_decoded_and_is_computed_once(
    client: TestClient, session: Session
) -> None:
    ids, decoded = session.ids, session.decoded
    shutil.rmtree(session.bench.cache / "explorer", ignore_errors=True)  # what other tests decoded
    body = {"image": int(ids[3])}
    done = follow(client, client.post("/api/decode", json=body))
    assert done["state"] == "done"
    items = done["result"]["items"]
    assert decoded.pictures is not None
    assert decoded.captions is not None
    np.testing.assert_array_equal(picture_of(items["picture"]["item"]), decoded.pictures[3])
    assert items["caption"]["item"] == decoded.captions[3]
    steps = [frame["step"] for frame in items["picture"]["frames"]]
    assert (steps[0], steps[-1], len(steps) <= 8) == (1, items["picture"]["frames"][0]["steps"], True)
    frames = [(kind, frame["step"]) for kind, item in items.items() for frame in item["frames"]]
    assert [(event["kind"], event["step"]) for event in done["events"] if "step" in event] == frames
    finals = {event["kind"]: event["final"] for event in done["events"] if "final" in event}
    assert finals == {kind: item["item"] for kind, item in items.items()}
    calls = list(session.bench.network.calls)  # type: ignore[attr-defined]
    again = client.post("/api/decode", json=body).json()
    assert (again["state"], again["result"]["items"]) == ("done", items)
    assert session.bench.network.calls == calls  # type: ignore[attr-defined]
    # Settings of one kind leave the other as it was.
    other = {"image": int(ids[3]), "settings": {"sampling": {"caption": {"image_weight": 0}}}}
    follow(client, client.post("/api/decode", json=other))
    new = session.bench.network.calls[len(calls) :]  # type: ignore[attr-defined]
    assert {call for call in new if call.startswith("sample")} == {"sample caption 1"}


def test_where_parts_take_turns_steps_are_decoded_in_the_end(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, choice, order = session.latents(int(session.ids[0])), session.choose({"seed": 5}), list[str]()
    decode = session.bench.network.decode
    monkeypatch.setattr(session.bench.network, "decode", lambda *call: (order.append("decode"), decode(*call))[1])
    found = []
    for live in (False, True):
        order.clear()
        found.append(
            decode_item(session.bench, latents, choice, "picture", lambda _: None, lambda: order.append("step"), live)
        )
        assert (order.index("decode") > 7) != live  # seven steps
        (session.bench.cache / "explorer" / f"{item_key(session.bench, latents, choice, 'picture')}.json").unlink()
    assert [one["item"] for one in found] == [found[0]["item"]] * 2
    assert found[0]["frames"] == found[1]["frames"]


def test_a_damaged_entry_is_decoded_again(client: TestClient, session: Session) -> None:
    body = {"image": int(session.ids[2])}
    first = follow(client, client.post("/api/decode", json=body))["result"]
    for path in (session.bench.cache / "explorer").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"item": "another"}))
    assert (
        follow(client, client.post("/api/decode", json=body))["result"]["items"]["picture"]["item"]
        == (first["items"]["picture"]["item"])
    )


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("decode", {}, ["one image or one scan"]),
        ("decode", {"image": 99999999}, ["99999999", "no test image"]),
        ("decode", {"image": "../../etc"}, ["image", "integer"]),
        ("decode", {"scan": "../../etc/passwd"}, ["not here any more"]),
        ("decode", {"image": 0, "scan": "a"}, ["one image or one scan"]),
        ("decode", {"image": 0, "paint": 1}, ["paint"]),
        ("decode", {"settings": {"use": ["z_picture"]}}, ["z_picture", "z_image"]),
        ("decode", {"settings": {"use": []}}, ["Switch one on"]),
        ("decode", {"settings": {"seed": -1}}, ["seed is -1"]),
        ("decode", {"settings": {"sampling": {"sound": {}}}}, ["sound", "picture"]),
        ("decode", {"settings": {"sampling": {"picture": {"colour": 1}}}}, ["colour", "image_weight"]),
        ("decode", {"settings": {"sampling": {"picture": {"image_weight": 1.5}}}}, ["image_weight is 1.5"]),
        ("decode", {"settings": {"sampling": {"picture": {"steps": 2.5}}}}, ["steps is 2.5"]),
        ("decode", {"settings": {"sampling": {"picture": {"steps": 1, "strength": 0.1}}}}, ["less than one step"]),
        ("decode", {"settings": {"sampling": {"picture": {"sampler": "euler"}}}}, ["sampler is euler"]),
        ("activate", {"regions": {"V9": 1}}, ["V9", "V1"]),
        ("activate", {"regions": {"V1": 99}}, ["99", "-10 to 10"]),
        ("activate", {"painted": {"voxels": [10**9], "values": [1]}}, ["1000000000", "outside of the mask"]),
        ("activate", {"painted": {"voxels": [-1], "values": [1]}}, ["-1", "outside of the mask"]),
        ("activate", {"painted": {"voxels": [1, 2], "values": [1]}}, ["2 voxels", "1 values"]),
    ],
)
def test_a_wrong_request_is_one_sentence(
    client: TestClient, session: Session, path: str, body: dict[str, Any], named: list[str]
) -> None:
    if path == "decode" and "settings" in body:
        body = {"image": int(session.ids[0])} | body
    answer = client.post(f"/api/{path}", json=body)
    assert answer.status_code == 400, answer.text
    sentence = answer.json()["error"]
    assert [word for word in named if word not in sentence] == [], sentence


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/page/main.js", "/api/pictures/1/../../scores.json", "/docs"])
def test_no_path_of_a_request_is_looked_for_on_the_disk(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_pictures_and_jobs_have_names_of_their_own(client: TestClient, session: Session) -> None:
    first = int(session.ids[0])
    for path, status in (
        (f"pictures/{first}/..%2fscores", 404),
        (f"pictures/{first}/span", 404),
        ("pictures/99999999/seen", 400),
        ("pictures/x/seen", 400),
        ("jobs/..%2f..%2fx", 404),
        ("jobs/" + "0" * 64, 400),
        ("scans/" + "0" * 64, 400),
    ):
        assert client.get(f"/api/{path}").status_code == status, path


def test_a_scan_that_is_handed_over_is_decoded_as_image_0(client: TestClient, session: Session) -> None:
    scan = session.bench.test.betas[0]
    key = client.post("/api/uploads/scan", content=npy(scan)).json()["scan"]
    done = follow(client, client.post("/api/decode", json={"scan": key}))
    latents = session.bench.decoder.predict(scan, [0])
    expected = session.bench.network.decode("picture", latents["z_image"])[0]
    only_z = follow(client, client.post("/api/decode", json={"scan": key, "settings": {"use": ["z_image"]}}))
    np.testing.assert_array_equal(picture_of(only_z["result"]["items"]["picture"]["item"]), expected)
    assert set(only_z["result"]["items"]) == {"picture"}
    assert only_z["result"]["items"]["picture"]["frames"] == []
    assert set(done["result"]["items"]) == {"picture", "caption"}
    kept = client.get(f"/api/scans/{key}")
    np.testing.assert_array_equal(np.load(io.BytesIO(kept.content)), scan)


class Trap:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def huge(shape: str) -> bytes:
    """A small file that says it is large."""
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


@pytest.mark.parametrize(
    ("what", "content", "named"),
    [
        ("scan", lambda n, grid: b"PK\x03\x04", ["no .npy file"]),
        ("scan", lambda n, grid: b"\x93NUMPY\x01\x00\xff\xff{'x': __import__('os')}", ["no .npy file"]),
        ("scan", lambda n, grid: npy(np.zeros(n + 1)), ["{n1}", "{n} voxels"]),
        ("scan", lambda n, grid: npy(np.zeros((2, n))), ["2 x {n}"]),
        ("scan", lambda n, grid: npy(np.float64(1)), ["single number"]),
        ("scan", lambda n, grid: npy(np.full(n, np.nan)), ["{n} values that are not finite"]),
        ("scan", lambda n, grid: npy(np.array([Trap()] * n, dtype=object), allow_pickle=True), ["object"]),
        ("scan", lambda n, grid: npy(np.array(["a"] * n)), ["<U1"]),
        ("scan", lambda n, grid: huge("(99999999999,)"), ["99999999999"]),
        ("scan", lambda n, grid: huge(f"({n},)"), ["0 bytes"]),
        ("mask", lambda n, grid: npy(np.ones(grid)), ["outside of the mask", "{n} voxels"]),
        ("mask", lambda n, grid: npy(np.full(n, 99.0)), ["99 deviations"]),
    ],
)
def test_a_wrong_upload_is_one_sentence_and_runs_nothing(
    client: TestClient, session: Session, what: str, content: Callable[..., bytes], named: list[str]
) -> None:
    subject = session.bench.subject
    n = subject.betas.shape[1]
    answer = client.post(f"/api/uploads/{what}", content=content(n, subject.grid_shape))
    assert answer.status_code == 400
    sentence = answer.json()["error"]
    assert [word for word in named if word.format(n=n, n1=n + 1) not in sentence] == [], sentence


def test_a_mask_of_voxels_or_a_volume_is_painted(client: TestClient, session: Session) -> None:
    subject = session.bench.subject
    values = np.zeros(subject.betas.shape[1])
    values[[3, 8]] = 2, -1
    volume = np.zeros(subject.grid_shape, order="F")  # as volumes often are
    volume[np.unravel_index(subject.voxel_indices, subject.grid_shape)] = values
    for array in (values, values[:, None].astype(np.float32), volume):
        answer = client.post("/api/uploads/mask", content=npy(array)).json()
        assert answer["painted"] == {"voxels": [3, 8], "values": [2.0, -1.0]}


def test_settings_are_compared_on_the_same_scans(client: TestClient, few: None) -> None:
    body = {"images": 4, "second": {"sampling": {"picture": {"image_weight": 0.0}}}}
    done = follow(client, client.post("/api/compare", json=body))
    found = done["result"]
    assert [strip["label"] for strip in found["strips"]] == ["seen", "A", "B"]
    assert {len(strip["items"]) for strip in found["strips"]} == {4}
    cells = {(cell["setting"], cell["metric"]): cell for cell in found["cells"]}
    b = cells["B", "pixcorr"]
    assert b["difference"] == pytest.approx(b["value"] - cells["A", "pixcorr"]["value"])
    assert b["difference_low"] <= b["difference"] <= b["difference_high"]
    assert any("test images" in note for note in found["notes"])
    same = follow(client, client.post("/api/compare", json={"images": 4}))["result"]
    assert {cell["difference"] for cell in same["cells"] if cell["setting"] == "B"} == {0.0}
    assert "no score for sure" in same["answer"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"images": 1}, "1 images"),
        ({"first": {"use": ["z_image"]}, "second": {"use": ["z_text"]}}, "no kind of item in common"),
        ({"run": "../other"}, "--beside"),
    ],
)
def test_what_cannot_be_compared(client: TestClient, body: dict[str, Any], named: str) -> None:
    done = follow(client, client.post("/api/compare", json=body))
    assert (done["state"], named in done["error"]) == ("failed", True), done["error"]


def test_the_numbers_are_those_of_the_run(client: TestClient, session: Session) -> None:
    found, scores = client.get("/api/numbers").json(), session.scores
    assert scores is not None
    assert [row["value"] for row in found["scores"]] == [score.value for score in scores.scores]
    assert found["scores"][0]["interval"] == list(scores.scores[0].interval or ())
    assert found["scores"][0]["dialect"] == "standard"
    assert found["regions"][0]["name"] == "all"
    assert [one["name"] for one in found["experiments"]] == ["sweep"]
    assert found["experiments"][0]["figures"][0].startswith("data:image/svg+xml;base64,")


def test_the_report_is_a_stranger_to_the_page(client: TestClient) -> None:
    answer = client.get("/report")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].endswith("sandbox")
    assert '<a href="/report">' in client.get("/").text.split("<noscript>")[1].split("</noscript>")[0]


def test_serving(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append(sockets[0].getsockname()))
    addresses: list[str] = []
    server.serve(session, "127.0.0.1", 0, addresses.append)
    server.serve(session, "0.0.0.0", 0, addresses.append)
    assert addresses[0] == f"http://127.0.0.1:{served[0][1]}/"
    assert len(addresses[1].partition("?token=")[2]) >= 32
    with server.bind("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} of 127.0.0.1 cannot be used .*in use.*--port 0"):
            server.serve(session, "127.0.0.1", port, addresses.append)


def test_two_requests_share_a_job(client: TestClient, worker: Worker, session: Session) -> None:
    body = {"image": int(session.ids[1]), "settings": {"seed": 77}}
    one, two = (client.post("/api/decode", json=body).json() for _ in range(2))
    assert one["job"] == two["job"]
    left = client.delete(f"/api/jobs/{one['job']}").json()
    assert left["state"] in ("waiting", "running", "done")
    assert follow(client, client.post("/api/decode", json=body))["state"] == "done"
