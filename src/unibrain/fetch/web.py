"""One request over HTTP, with one sentence for everything that can go wrong and a way to stop them all."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from unibrain.errors import InputError

if TYPE_CHECKING:
    from requests import Response

__all__ = ["CancelledError", "RemoteError", "Web"]

T = TypeVar("T")

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 2**16
_ERROR_BODY = 2**14


class RemoteError(InputError):
    """What a server, or the way to it, answered.

    Attributes
    ----------
    status : int or None
        HTTP status; None if there was no answer.
    temporary : bool
        Whether asking again may help.
    """

    def __init__(self, message: str, status: int | None = None, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.temporary = temporary


class CancelledError(Exception):
    """The download was stopped because another one failed, or the user stopped the command."""


class Web:
    """Requests over HTTP(S). Proxies, certificates and exceptions to proxies are those of the environment.

    Parameters
    ----------
    tries : int
        How often in a row something may fail without progress.
    pause : float
        Seconds before the second try; doubled before each further one, to at most 30.
    timeouts : tuple of float
        Seconds to wait for a connection, and for the next bytes.
    """

    def __init__(self, tries: int = 6, pause: float = 1.0, timeouts: tuple[float, float] = (20.0, 60.0)) -> None:
        self.tries = tries
        self.pause = pause
        self.timeouts = timeouts
        self._stop = threading.Event()
        self._open: set[Response] = set()
        self._lock = threading.Lock()
        # A session of requests is not promised to be safe in several threads at once.
        self._local = threading.local()

    def cancel(self) -> None:
        """Stop every request, in every thread: each raises `CancelledError`."""
        self._stop.set()
        with self._lock:
            responses = list(self._open)
        for response in responses:
            # Wakes a thread that waits for bytes. What is being stopped may just have ended by itself.
            with suppress(Exception):
                response.raw.shutdown()

    def check(self) -> None:
        """Raise `CancelledError` if everything was stopped."""
        if self._stop.is_set():
            raise CancelledError

    def wait(self, failures: int) -> None:
        """Wait before the next try.

        Parameters
        ----------
        failures : int
            How many there were, 1 or more.
        """
        self._stop.wait(min(self.pause * 2 ** (failures - 1), 30.0))
        self.check()

    def patiently(self, ask: Callable[[], T]) -> T:
        """Call `ask`, again after failures that may pass."""
        for failures in range(1, self.tries):
            try:
                return ask()
            except RemoteError as error:
                if not error.temporary:
                    raise
                self.wait(failures)
        return ask()

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Iterator["Response"]:
        """Make one request, once; its body is not read yet.

        Parameters
        ----------
        method : {"GET", "HEAD"}
        url : str
        headers, parameters : mapping of str to str, optional

        Yields
        ------
        requests.Response
            With a status below 400. Read its body with `blocks`.

        Raises
        ------
        RemoteError
            If there is no connection, or the server refuses.
        CancelledError
            If everything was stopped.
        """
        import requests

        self.check()
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        # Compressed answers could not be continued at a byte of the file.
        sent = {"Accept-Encoding": "identity", "User-Agent": "unibrain", **(headers or {})}
        try:
            response: Response = self._local.session.request(
                method,
                url,
                headers=sent,
                params=parameters,
                stream=True,
                timeout=self.timeouts,
                allow_redirects=True,
            )
        except requests.RequestException as error:
            self.check()
            raise _no_answer(url, error) from error
        with self._lock:
            self._open.add(response)
        try:
            self.check()
            if response.status_code >= 400:
                raise _refusal(url, response.status_code, self._error_code(response))
            yield response
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def blocks(self, response: "Response") -> Iterator[bytes]:
        """Read a body in blocks, as it was stored.

        Raises
        ------
        RemoteError
            If the connection is cut; it is marked as temporary.
        CancelledError
            If everything was stopped.
        """
        import urllib3

        try:
            # What has come is handed on at once: nothing of it is lost if the download is stopped.
            while block := response.raw.read1(_BLOCK, decode_content=False):
                self.check()
                yield block
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
                raise
            self.check()
            raise RemoteError(
                f"{_plain(response.url)}: the connection was cut ({_reason(error)}): "
                "check the network and run the same command again, it continues where it was",
                temporary=True,
            ) from error
        self.check()

    def text(self, response: "Response", limit: int) -> bytes:
        """Read a whole body of at most `limit` bytes."""
        body = bytearray()
        for block in self.blocks(response):
            body += block
            if len(body) > limit:
                raise RemoteError(
                    f"{_plain(response.url)}: found an answer of more than {limit:,} bytes, expected a short one: "
                    "check the address"
                )
        return bytes(body)

    def _error_code(self, response: "Response") -> str:
        """S3's own word for an error, such as AccessDenied, or nothing."""
        try:
            body = self.text(response, _ERROR_BODY)
        except RemoteError:
            return ""
        start, end = body.find(b"<Code>"), body.find(b"</Code>")
        code = body[start + 6 : end].decode("ascii", "replace") if 0 <= start < end else ""
        return code if code.isalnum() else ""


def _plain(url: str) -> str:
    return url.partition("?")[0]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _no_answer(url: str, error: Exception) -> RemoteError:
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        what, todo, temporary = "no trusted connection", "check the address, the clock and the certificates", False
    elif isinstance(error, (requests.ConnectionError, requests.Timeout)):
        what, todo, temporary = "no connection", "check the network, the proxy and the address", True
    elif isinstance(error, (ValueError, requests.TooManyRedirects)):
        what, todo, temporary = "no address that can be asked", "check the address, it starts with https://", False
    else:
        what, todo, temporary = "no readable answer", "check the network, the proxy and the address", True
    message = f"{_plain(url)}: found {what} ({_reason(error)}), expected an answer: {todo}, then run again"
    return RemoteError(message, temporary=temporary)


def _refusal(url: str, status: int, code: str) -> RemoteError:
    found = f"{status} {code}".strip()
    if status in (401, 403):
        return RemoteError(
            f"{_plain(url)}: the server refused access ({found}), expected a public file: check whether it is public "
            "at this address, and whether a proxy stands between",
            status,
        )
    if status in (404, 410):
        return RemoteError(f"{_plain(url)}: found no such file there ({found}): check the address", status)
    if status in _BUSY:
        return RemoteError(
            f"{_plain(url)}: the server is busy or broken ({found}): run the same command again later, it continues "
            "where it was",
            status,
            temporary=True,
        )
    return RemoteError(f"{_plain(url)}: the server answered {found}, expected the file: check the address", status)
