"""A server on the loopback interface that speaks as much of the Hugging Face hub's protocol as its library needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 10_000
"""Bytes from which a file is stored as the hub stores large ones: known by its SHA-256, served from another host."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """What is published, and how the server misbehaves. Repositories have one commit each, which is `main`."""

    files: dict[str, dict[str, bytes]]
    commits: dict[str, str] = field(default_factory=dict)
    token: str | None = None  # needed for everything, if set
    refused: dict[str, int] = field(default_factory=dict)  # repository to status
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # file name to bytes sent, one entry per answer
    sent_instead: dict[str, bytes] = field(default_factory=dict)  # file name to a body of another length or content
    page: bytes | None = None  # every answer, if set
    busy: int = 0  # so many answers are 503
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        for repository in self.files:
            made = hashlib.sha1(repository.encode(), usedforsecurity=False).hexdigest()
            self.commits.setdefault(repository, made)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, part: str) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and part in request.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for an answer: header and body sent apart wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 2**20
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fail(self, status: int, code: str = "") -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else None)

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), token))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.hub.busy:
            self.hub.busy -= 1
            return self._fail(503)
        if self.hub.page is not None:
            return self._answer(200, self.hub.page)
        if match := re.fullmatch(r"/cdn/(\w+)/(.+)", path):
            return self._content(match[1], match[2])
        if match := re.fullmatch(r"/api/models/(.+?)/paths-info/(.+)", path):
            repository, revision, name = match[1], match[2], None
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = match[1], match[2], match[3]
        else:
            return self._fail(404)
        if repository in self.hub.refused:
            return self._fail(self.hub.refused[repository])
        if self.hub.token is not None and token != f"Bearer {self.hub.token}":
            return self._fail(401)
        if repository not in self.hub.files:
            return self._fail(404, "RepoNotFound")
        if revision not in ("main", self.hub.commits[repository]):
            return self._fail(404, "RevisionNotFound")
        if name is None:
            return self._info(repository, parse_qs(sent).get("paths", []))
        if name not in self.hub.files[repository]:
            return self._fail(404, "EntryNotFound")
        return self._resolve(repository, name)

    def _info(self, repository: str, paths: list[str]) -> None:
        infos = []
        for path in paths:
            content = self.hub.files[repository][path]
            info = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
            if len(content) >= LARGE:
                sha256 = hashlib.sha256(content).hexdigest()
                info["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            infos.append(info)
        self._answer(200, json.dumps(infos).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repository: str, name: str) -> None:
        content = self.hub.files[repository][name]
        headers = {"X-Repo-Commit": self.hub.commits[repository], "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            headers["ETag"] = f'"{git_sha1(content)}"'
            return self._answer(200, content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # Another host, as for the hub: the token must not go there.
        headers["Location"] = f"http://localhost:{self.hub.port}/cdn/{sha256}/{name}"
        return self._answer(302, b"", headers)

    def _content(self, sha256: str, path: str) -> None:
        everything = {
            hashlib.sha256(content).hexdigest(): content
            for files in self.hub.files.values()
            for content in files.values()
        }
        name = path.rsplit("/", 1)[-1]
        content = self.hub.sent_instead.get(name, everything[sha256])
        start = 0
        headers = {"Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(asked[1])
            if start >= len(content):
                return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        cuts = self.hub.cut_after.get(name)
        if not cuts:
            return self._answer(206 if start else 200, body, headers)
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: cuts.pop(0)])
        self.close_connection = True


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve until the block ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join(timeout=5)
