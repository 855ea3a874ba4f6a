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
"""Bytes from which a file is stored as the hub stores large ones: known by its SHA-256, served from elsewhere."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


@dataclass
class FakeHub:
    """What is published, and how the server misbehaves. Repositories have one commit each, which is `main`."""

    files: dict[str, dict[str, bytes]]
    commits: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)  # repository to status
    page: bytes | None = None  # every answer, if set
    busy: int = 0  # so many answers are 503
    requests: list[str] = field(default_factory=list)  # method and path
    port: int = 0

    def __post_init__(self) -> None:
        for repository in self.files:
            self.commits.setdefault(repository, git_sha1(repository.encode()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def downloads(self) -> list[str]:
        return [request for request in self.requests if re.match("GET .*(/resolve/|/cdn/)", request)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for an answer: header and body sent apart wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 2**20
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if hub.busy:
            hub.busy -= 1
            return self._answer(503)
        if hub.page is not None:
            return self._answer(200, hub.page)
        if match := re.fullmatch(r"/cdn/(\w+)", path):
            contents = [content for files in hub.files.values() for content in files.values()]
            return self._answer(200, next(one for one in contents if hashlib.sha256(one).hexdigest() == match[1]))
        if match := re.fullmatch(r"/api/models/(.+?)/paths-info/(.+)", path):
            repository, revision, name = match[1], match[2], None
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = match[1], match[2], match[3]
        else:
            return self._answer(404)
        if repository in hub.refused:
            return self._answer(hub.refused[repository])
        if repository not in hub.files:
            return self._answer(404, X_Error_Code="RepoNotFound")
        if revision not in ("main", hub.commits[repository]):
            return self._answer(404, X_Error_Code="RevisionNotFound")
        if name is None:
            infos = [self._info(path, hub.files[repository][path]) for path in parse_qs(sent).get("paths", [])]
            return self._answer(200, json.dumps(infos).encode(), Content_Type="application/json")
        if name not in hub.files[repository]:
            return self._answer(404, X_Error_Code="EntryNotFound")
        content, commit = hub.files[repository][name], hub.commits[repository]
        if len(content) < LARGE:
            return self._answer(200, content, X_Repo_Commit=commit, ETag=f'"{git_sha1(content)}"')
        sha256 = hashlib.sha256(content).hexdigest()
        linked = {"X_Linked_Etag": f'"{sha256}"', "X_Linked_Size": str(len(content))}
        return self._answer(302, X_Repo_Commit=commit, Location=f"http://localhost:{hub.port}/cdn/{sha256}", **linked)

    def _info(self, path: str, content: bytes) -> dict[str, object]:
        info: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if len(content) >= LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            info["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return info

    do_HEAD = do_GET = do_POST = _serve  # noqa: N815


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
