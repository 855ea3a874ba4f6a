import socket

import pytest
from starlette.testclient import TestClient

from unibrain.explorer import Session, make_app
from unibrain.explorer.guard import POLICY
from unibrain.explorer.worker import Worker

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({}, 400, "image"),  # let through: the request itself is wrong
        ({"host": "evil.example"}, 421, "evil.example"),
        ({"host": "localhost.evil.example:8421"}, 421, "localhost.evil.example"),
        ({"host": "10.0.0.7"}, 421, "10.0.0.7"),
        ({"host": "["}, 421, "''"),
        ({"host": "127.0.0.1:8421"}, 400, "image"),
        ({"host": "[::1]:8421"}, 400, "image"),
        ({"origin": "http://evil.example"}, 403, "another site"),
        ({"origin": "null"}, 403, "another site"),
        ({"origin": "http://localhost:9999"}, 403, "another site"),
        ({"origin": "http://localhost:8421"}, 400, "image"),
        ({"sec-fetch-site": "cross-site"}, 403, "another site"),
        ({"sec-fetch-site": "same-site"}, 403, "another site"),
        ({"sec-fetch-site": "same-origin"}, 400, "image"),
        ({"x-unibrain": ""}, 403, "x-unibrain"),
        ({"content-length": "999999999"}, 413, "bytes"),
        ({"content-length": "-1"}, 413, "bytes"),
    ],
)
def test_what_no_page_of_ours_sends_is_refused(
    client: TestClient, headers: dict[str, str], status: int, said: str
) -> None:
    answer = client.post("/api/decode", content=b"{}", headers=JSON | headers)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_a_body_is_counted_while_it_comes(client: TestClient) -> None:
    answer = client.post("/api/uploads/scan", content=(b"x" * 2**16 for _ in range(40)))
    assert (answer.status_code, "bytes" in answer.text) == (413, True)


def test_reading_needs_the_right_name_and_no_other_site(client: TestClient) -> None:
    for path in ("/", "/api/run", "/main.js"):
        assert client.get(path, headers={"host": "evil.example"}).status_code == 421
        assert client.get(path).status_code == 200
    assert client.get("/api/run", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link leads here


def test_policy_names_no_other_place_and_allows_nothing_inline() -> None:
    assert "default-src 'none'" in POLICY
    assert not {"unsafe-inline", "unsafe-eval", "*", "http:", "https:"} & set(POLICY.replace(";", " ").split())


def test_elsewhere_a_token_opens_the_page_and_nothing_else_does(session: Session, worker: Worker) -> None:
    app = make_app(session, worker, "0.0.0.0", "secret-token")
    plain = {"base_url": "http://192.168.0.5:8421", "headers": {"x-unibrain": "1"}, "follow_redirects": False}
    stranger, owner = TestClient(app, **plain), TestClient(app, **plain)
    for path in ("/", "/?token=", "/?token=wrong", "/api/run?token=secret-token", "/report"):
        assert stranger.get(path).status_code == 401, path
    assert stranger.get("/", headers={"cookie": "unibrain-8421=wrong"}).status_code == 401
    opened = owner.get("/?token=secret-token")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(opened.headers["set-cookie"].split("; "))
    assert owner.get("/api/run").status_code == 200
    assert owner.get("/api/run", headers={"host": socket.gethostname()}).status_code == 200
    assert owner.get("/api/run", headers={"host": "evil.example"}).status_code == 421
