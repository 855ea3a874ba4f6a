"""What a request has to pass before anything looks at it: under which name, from which page, which token, how large."""

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADER = "x-unibrain"
"""Every request that changes something has this header: another site cannot send it without being asked first."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names() -> tuple[str, ...]:
    """Names of this machine."""
    return tuple({name.lower() for name in (socket.gethostname(), socket.getfqdn()) if name})


class Guard:
    """Refuses what no page of ours sends.

    Parameters
    ----------
    app : ASGI application
    names : collection of str
        Host names under which the page may be asked for: a page of somebody else whose name was made to lead here (DNS
        rebinding) asks under its own name.
    addresses : bool
        Whether any number of an address is allowed as well.
    token : str or None
        What a browser has to bring, in the address of the page at first and in a cookie from then on.
    most : int
        Bytes that a request may have.
    """

    def __init__(self, app: App, names: Collection[str], addresses: bool, token: str | None, most: int) -> None:
        self.app, self.names, self.addresses, self.token, self.most = app, set(names), addresses, token, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, or hand it on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in ("host", "origin", HEADER) and key in headers:
                return await _refuse(send, 400, f"the header {key} is there twice.")
            headers[key] = value.decode("latin-1")
        refused = self._refused(scope, headers)
        if refused is not None:
            return await _refuse(send, *refused)
        if self.token is not None:
            cookie = f"unibrain-{scope['server'][1] if scope.get('server') else 0}"
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if scope["path"] == "/" and secrets.compare_digest(given.encode(), self.token.encode()):
                keep = f"{cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                return await _answer(send, 303, b"", {"location": "/", "set-cookie": keep})
            if not secrets.compare_digest(_cookie(headers.get("cookie", ""), cookie).encode(), self.token.encode()):
                return await _refuse(send, 401, "open the address that `unibrain explore` printed, with its token.")
        body = await self._body(headers, receive)
        if body is None:
            return await _refuse(send, 413, f"the request has more than {self.most} bytes.")
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self.app(scope, again, guarded)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason, for a request that no page of ours would send."""
        host = headers.get("host", "")
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if not (name in self.names or (self.addresses and _is_address(name))):
            return 421, f"this page is not served under the name {name[:80]!r}."
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and scope["path"] != "/":
            return 403, "another site asks."
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope.get('scheme', 'http')}://{host}":
            return 403, "another site asks."
        if scope["method"] not in ("GET", "HEAD") and headers.get(HEADER) != "1":
            return 403, f"the header {HEADER} is missing."
        return None

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes | None:
        """The whole body; None if it is too large."""
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.most:
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b""
            size += len(message.get("body", b""))
            if size > self.most:
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


async def _refuse(send: Send, status: int, reason: str) -> None:
    await _answer(send, status, f"Refused: {reason}\n".encode(), {"content-type": "text/plain; charset=utf-8"})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    every = [(k.encode(), v.encode()) for k, v in (_HEADERS | headers).items()]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})
