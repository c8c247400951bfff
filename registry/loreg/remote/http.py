"""Requests to a server: who asks, how long to wait, when to ask again, and its errors as ours."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import version
from typing import TypeVar

import httpx
import msgspec

from loreg.entities import Access
from loreg.errors import LoregError, UnavailableError, UsageError, of_code
from loreg.schemas import Whoami
from loreg.settings import mask_url

_log = logging.getLogger("loreg.remote")
T = TypeVar("T")
MAX_ATTEMPTS = 5
_LONGEST_WAIT = 30.0
_RETRYABLE_STATUS = (429, 502, 503, 504)
_NO_SUCH_RANGE = 416
_MAX_ERROR_BYTES = 64 * 1024
_TIMEOUT = httpx.Timeout(60, connect=10)
Parameters = Mapping[str, str | int | bool | Sequence[str] | None]


class Server:
    """A loreg server at ``endpoint``. ``author`` is who acts where the server asks for no token."""

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
            "User-Agent": f"loreg/{version('loreg')}",
            "X-Loreg-Author": author.encode("ascii", "replace").decode(),
        }
        self.client = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT, auth=_BearerAuth(url, token) if token else None
        )

    def get(self, path: str, type_: type[T], parameters: Parameters | None = None) -> T:
        """A value of the server."""
        return self._decoded(self.send("GET", path, parameters=parameters), type_)

    def post(self, path: str, type_: type[T], body: object, *, retry: bool = True) -> T:
        """What the server answers to a body; ``again`` says that asking twice does no harm."""
        return self._decoded(self.send("POST", path, body=body, retry=retry), type_)

    def put(
        self, path: str, type_: type[T], body: object, headers: Mapping[str, str] | None = None, *, retry: bool = True
    ) -> T:
        """Set something; what the server then answers."""
        return self._decoded(self.send("PUT", path, body=body, headers=headers, retry=retry), type_)

    def delete(self, path: str, type_: type[T], headers: Mapping[str, str] | None = None) -> T:
        """Remove something; what the server then answers. Asking twice would find nothing the second time."""
        return self._decoded(self.send("DELETE", path, headers=headers, retry=False), type_)

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
        """One request, repeated with growing, random pauses while nobody answers. Raises what the server answers.

        With ``max_bytes`` the body is taken as it was sent, so many bytes of it, and one if there are more; that a
        blob ends before the range that was asked for (416) is then an answer too.
        """
        content = None if body is None else _json(body)
        more = {"Content-Type": "application/json"} if content is not None else {}
        given = {name: value for name, value in (parameters or {}).items() if value not in (None, "", ())}
        for attempt in range(MAX_ATTEMPTS):
            last = attempt + 1 == MAX_ATTEMPTS
            try:
                request = self.client.build_request(
                    method, path, params=given, content=content, headers={**more, **(headers or {})}
                )
                begin = time.monotonic()
                response = self.client.send(request) if max_bytes is None else self._as_sent(request, max_bytes)
                took = 1000 * (time.monotonic() - begin)
                _log.debug("%s %s: %s in %.0f ms", method, request.url.raw_path.decode(), response.status_code, took)
            except httpx.HTTPError as error:
                # A connection that was never made has carried nothing: asking again is always right.
                if last or not (retry or isinstance(error, httpx.ConnectError)):
                    raise self.unavailable(error) from error
                sleep_before_retry(attempt)
                continue
            if response.status_code in _RETRYABLE_STATUS and retry and not last:
                sleep_before_retry(attempt, response.headers.get("Retry-After", ""))
                continue
            if response.is_error and not (max_bytes is not None and response.status_code == _NO_SUCH_RANGE):
                raise self.error(response)
            return response
        raise AssertionError("unreachable")

    def whoami(self) -> Access:
        """Return who the server takes the caller for, and what that may do. Raises UnauthenticatedError."""
        caller = self.get("/api/v1/whoami", Whoami)
        return Access(caller.author, caller.grants)

    def unavailable(self, error: Exception) -> UnavailableError:
        """The error for a server that does not answer."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return UnavailableError(f"the server {self.endpoint} does not answer: {reason}", hint="loreg doctor")

    def error(self, response: httpx.Response) -> LoregError:
        """The server's error as ours."""
        try:
            document = response.json()
            return of_code(document["code"])(str(document["detail"]), hint=str(document.get("hint", "")))
        except (ValueError, KeyError, TypeError):
            return UnavailableError(
                f"{self.endpoint} answered {response.status_code}, not like a loreg server", hint="loreg doctor"
            )

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def _as_sent(self, request: httpx.Request, most: int) -> httpx.Response:
        """The answer to a request, its body not decoded and not longer than it may be."""
        request.headers["Accept-Encoding"] = "identity"
        response = self.client.send(request, stream=True)
        most = _MAX_ERROR_BYTES if response.is_error else most
        try:
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if len(body) > most:
                    break
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.items() if name != "content-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=bytes(body[: most + 1]), request=request)

    def _decoded(self, response: httpx.Response, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content or b"null", type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"{self.endpoint} answered what this loreg does not understand: {error}", hint="pip install -U loreg"
            ) from error


class _BearerAuth(httpx.Auth):
    """Shows a token to the server that it was given for, and to no other that a URL may name."""

    def __init__(self, endpoint: httpx.URL, token: str) -> None:
        self._origin = _origin(endpoint)
        self._shown = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token to a request."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = self._shown
        yield request


def _json(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError("what was asked holds half a character, a lone surrogate", hint="leave it out") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port; httpx leaves out a port that is the scheme's own."""
    return url.scheme, url.host, url.port


def sleep_before_retry(attempt: int, retry_after: str = "") -> None:
    """Wait as long as the server asked for, else longer each time; a random share keeps clients apart."""
    asked = float(retry_after) if retry_after.isdecimal() else 0.2 * 2**attempt
    time.sleep(min(asked, _LONGEST_WAIT) * random.uniform(0.5, 1.0))  # noqa: S311  nothing secret
