"""Send requests to a loreg server: with its token, timeouts and retries, and its errors as those of loreg."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from typing import TypeVar

import httpx
import msgspec

from loreg.entities import Access
from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError, of_code
from loreg.remote.retries import RetryableError, with_retries
from loreg.schemas import Whoami
from loreg.settings import mask_url
from loreg.version import VERSION

_log = logging.getLogger("loreg.remote")
T = TypeVar("T")
_RETRYABLE_STATUS = (429, 502, 503, 504)
_NO_SUCH_RANGE = 416
_MAX_ERROR_BYTES = 64 * 1024
_TIMEOUT = httpx.Timeout(60, connect=10)
Parameters = Mapping[str, str | int | bool | Sequence[str] | None]


class Server:
    """A loreg server at ``endpoint``. ``author`` is the caller's name where the server asks for no token."""

    def __init__(self, endpoint: str, token: str, author: str) -> None:
        try:
            url = httpx.URL(endpoint)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(
                f"the endpoint {mask_url(endpoint)!r} is no http:// or https:// URL", hint="export LOREG_ENDPOINT=…"
            )
        #: For people to read: a proxy in front may ask for a password, which lies in the URL.
        self.endpoint = mask_url(endpoint)
        headers = {
            "User-Agent": f"loreg/{VERSION}",
            "X-Loreg-Author": author.encode("ascii", "replace").decode(),
        }
        self.client = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT, auth=_BearerAuth(url, token) if token else None
        )

    def get(self, path: str, type_: type[T], parameters: Parameters | None = None) -> T:
        """Return what the server has at ``path``, decoded as ``type_``."""
        return self._decode(self.send("GET", path, parameters=parameters), type_)

    def post(self, path: str, type_: type[T], body: object, *, retry: bool = True) -> T:
        """Send a body and return the answer; ``retry`` says that sending it twice does no harm."""
        return self._decode(self.send("POST", path, body=body, retry=retry), type_)

    def put(
        self, path: str, type_: type[T], body: object, headers: Mapping[str, str] | None = None, *, retry: bool = True
    ) -> T:
        """Store a body at ``path`` and return the answer."""
        return self._decode(self.send("PUT", path, body=body, headers=headers, retry=retry), type_)

    def delete(self, path: str, type_: type[T], headers: Mapping[str, str] | None = None) -> T:
        """Remove what is at ``path`` and return the answer. Never sent twice: the second would find nothing."""
        return self._decode(self.send("DELETE", path, headers=headers, retry=False), type_)

    def send(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
        max_bytes: int | None = None,
    ) -> httpx.Response:
        """Send one request, repeated with growing, random pauses while nobody answers. Raises the server's error.

        With ``max_bytes`` the body is taken as it was sent, so many bytes of it, and one if there are more; that a
        blob ends before the range that was asked for (416) is then an answer too.
        """
        content = None if body is None else _encode_json(body)
        content_type = {"Content-Type": "application/json"} if content is not None else {}
        query = {name: value for name, value in (parameters or {}).items() if value not in (None, "", ())}

        def attempt() -> httpx.Response:
            request = self.client.build_request(
                method, path, params=query, content=content, headers={**content_type, **(headers or {})}
            )
            try:
                response = self._send_once(request, max_bytes)
            except httpx.HTTPError as error:
                unavailable = self.unavailable_error(error)
                # A connection that was never made has carried nothing: asking again is always right.
                if retry or isinstance(error, httpx.ConnectError):
                    raise RetryableError(unavailable) from error
                raise unavailable from error
            if response.status_code in _RETRYABLE_STATUS and retry:
                raise RetryableError(self.response_error(response), response.headers.get("Retry-After", ""))
            if response.is_error and not (max_bytes is not None and response.status_code == _NO_SUCH_RANGE):
                raise self.response_error(response)
            return response

        return with_retries(attempt)

    def whoami(self) -> Access:
        """Return the caller's name and permissions as the server knows them. Raises UnauthenticatedError."""
        caller = self.get("/api/v1/whoami", Whoami)
        return Access(caller.author, caller.grants)

    def unavailable_error(self, error: Exception) -> UnavailableError:
        """Return the error for a server that does not answer."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return UnavailableError(f"the server {self.endpoint} does not answer: {reason}", hint="loreg doctor")

    def response_error(self, response: httpx.Response) -> LoregError:
        """Return the server's error as one of loreg."""
        try:
            document = response.json()
            return of_code(document["code"])(str(document["detail"]), hint=str(document.get("hint", "")))
        except (ValueError, KeyError, TypeError):
            if response.status_code == 404 and response.request.method == "HEAD":  # whose answers have no body
                return NotFoundError(f"{self.endpoint} has no {response.request.url.path}", hint="loreg ls")
            return UnavailableError(
                f"{self.endpoint} answered {response.status_code}, not like a loreg server", hint="loreg doctor"
            )

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def _send_once(self, request: httpx.Request, max_bytes: int | None) -> httpx.Response:
        """Send a request and log it with its time."""
        begin = time.monotonic()
        response = self.client.send(request) if max_bytes is None else self._send_raw(request, max_bytes)
        took = 1000 * (time.monotonic() - begin)
        _log.debug("%s %s: %s in %.0f ms", request.method, request.url.raw_path.decode(), response.status_code, took)
        return response

    def _send_raw(self, request: httpx.Request, max_bytes: int) -> httpx.Response:
        """Send a request; return the answer with its body as it was sent, cut after ``max_bytes`` and one more."""
        request.headers["Accept-Encoding"] = "identity"
        response = self.client.send(request, stream=True)
        max_bytes = _MAX_ERROR_BYTES if response.is_error else max_bytes
        try:
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if len(body) > max_bytes:
                    break
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.items() if name != "content-encoding"]
        content = bytes(body[: max_bytes + 1])
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)

    def _decode(self, response: httpx.Response, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content or b"null", type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"{self.endpoint} answered what this loreg does not understand: {error}", hint="pip install -U loreg"
            ) from error


class _BearerAuth(httpx.Auth):
    """Sends a token to the server that it is for, and to no other that a URL may name."""

    def __init__(self, endpoint: httpx.URL, token: str) -> None:
        self._origin = _origin(endpoint)
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token to a request."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


def _encode_json(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError("what was asked holds half a character, a lone surrogate", hint="leave it out") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port; httpx leaves out a port that is the scheme's own."""
    return url.scheme, url.host, url.port
