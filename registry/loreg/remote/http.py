"""Send requests to a loreg server: with its token, timeouts and retries, and its errors as those of loreg."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from loreg.entities import Access
from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError, of_code
from loreg.remote.connections import Connections, NoResponseError, Response, basic_auth
from loreg.remote.retries import RetryableError, with_retries
from loreg.schemas import Whoami
from loreg.settings import mask_url
from loreg.suggestions import Suggestion
from loreg.version import VERSION

_log = logging.getLogger("loreg.remote")
T = TypeVar("T")
_RETRYABLE_STATUS = (429, 502, 503, 504)
_NO_SUCH_RANGE = 416
_MAX_ERROR_BYTES = 64 * 1024
Parameters = Mapping[str, str | int | bool | Sequence[str] | None]


class Server:
    """A loreg server at ``endpoint``. ``author`` is the caller's name where the server asks for no token."""

    def __init__(self, endpoint: str, token: str, author: str) -> None:
        try:
            url = parse_url(endpoint)
        except LocationParseError:
            url = Url()
        if url.scheme not in ("http", "https") or not url.host:
            # What has a password is not said again, not even with a scheme.
            is_bare = "://" not in endpoint and url.host != "" and mask_url(endpoint) == endpoint
            raise UsageError(
                f"the endpoint {mask_url(endpoint)!r} is no http:// or https:// URL",
                hint="export LOREG_ENDPOINT=…",
                suggestion=Suggestion(endpoint, f"http://{endpoint}") if is_bare else None,
            )
        #: For people to read: a proxy in front may ask for a password, which lies in the URL.
        self.endpoint = mask_url(endpoint)
        self._url = f"{url.scheme}://{url.netloc}{(url.path or '').rstrip('/')}"
        self._headers = {
            "User-Agent": f"loreg/{VERSION}",
            "X-Loreg-Author": author.encode("ascii", "replace").decode(),
            **({"Authorization": f"Bearer {token}"} if token else basic_auth(endpoint)),
        }
        #: Connections to the server and to its store, for requests that carry what their caller gives and no token.
        self.connections = Connections()

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

    def delete(
        self,
        path: str,
        type_: type[T],
        headers: Mapping[str, str] | None = None,
        parameters: Parameters | None = None,
    ) -> T:
        """Remove what is at ``path`` and return the answer. Never sent twice: the second would find nothing."""
        return self._decode(self.send("DELETE", path, parameters=parameters, headers=headers, retry=False), type_)

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
    ) -> Response:
        """Send one request, repeated with growing, random pauses while nobody answers. Raises the server's error.

        With ``max_bytes`` the body is taken as it was sent, so many bytes of it, and one if there are more; that a
        blob ends before the range that was asked for (416) is then an answer too.
        """
        content = None if body is None else _encode_json(body)
        content_type = {"Content-Type": "application/json"} if content is not None else {}
        query = _encode_query(parameters or {})
        url = f"{path}?{query}" if query else path

        def attempt() -> Response:
            try:
                response = self.send_once(method, url, {**content_type, **(headers or {})}, content, max_bytes)
            except NoResponseError as error:
                unavailable = self.unavailable_error(error)
                # A connection that was never made has carried nothing: asking again is always right.
                if retry or not error.connected:
                    raise RetryableError(unavailable) from error
                raise unavailable from error
            if response.status in _RETRYABLE_STATUS and retry:
                raise RetryableError(self.response_error(response), response.headers.get("retry-after", ""))
            if response.is_error and not (max_bytes is not None and response.status == _NO_SUCH_RANGE):
                raise self.response_error(response)
            return response

        return with_retries(attempt)

    def send_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        max_bytes: int | None = None,
    ) -> Response:
        """Send one request, and log it with its time. Raises NoResponseError.

        The token goes with a path of this server, and with no other URL: the server may name one of its store.
        """
        own = url.startswith("/") and not url.startswith("//")
        headers = {**self._headers, **headers} if own else headers
        begin = time.monotonic()
        response = self.connections.send(method, f"{self._url}{url}" if own else url, headers, body, max_bytes)
        took = 1000 * (time.monotonic() - begin)
        _log.debug("%s %s: %s in %.0f ms", method, url, response.status, took)
        return response

    def stream(self, path: str, parameters: Parameters, timeout: float) -> BaseHTTPResponse:
        """Return an answer that goes on, unread; ``timeout`` seconds for each piece. Raises the server's error."""
        query = _encode_query(parameters)
        url = f"{self._url}{path}?{query}" if query else f"{self._url}{path}"
        try:
            response = self.connections.stream(url, self._headers, timeout)
            if response.status < 300:
                return response
            data = response.read(_MAX_ERROR_BYTES)
        except (NoResponseError, HTTPError) as error:
            raise self.unavailable_error(error) from error
        response.close()
        raise self.response_error(Response(response.status, dict(response.headers), data))

    def whoami(self) -> Access:
        """Return the caller's name and permissions as the server knows them. Raises UnauthenticatedError."""
        caller = self.get("/api/v1/whoami", Whoami)
        return Access(caller.author, caller.grants)

    def unavailable_error(self, error: Exception) -> UnavailableError:
        """Return the error for a server that does not answer."""
        reason = " ".join(str(error).split()) or type(error).__name__
        has_no_tls = "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason
        if self._url.startswith("https://") and has_no_tls:
            plain = Suggestion(self.endpoint, self.endpoint.replace("https://", "http://", 1))
            message = f"the server {self.endpoint} does not speak TLS"
            return UnavailableError(message, hint="loreg doctor", suggestion=plain)
        return UnavailableError(f"the server {self.endpoint} does not answer: {reason}", hint="loreg doctor")

    def response_error(self, response: Response) -> LoregError:
        """Return the server's error as one of loreg."""
        try:
            document = msgspec.json.decode(response.data)
            suggestion = document.get("suggestion")
            return of_code(document["code"])(
                str(document["detail"]),
                hint=str(document.get("hint", "")),
                suggestion=Suggestion(*map(str, suggestion)) if suggestion else None,
            )
        except (ValueError, KeyError, TypeError):
            if response.status == 404 and not response.data:  # the answer to a HEAD request has no body
                return NotFoundError(f"{self.endpoint} does not have what was asked for", hint="loreg ls")
            return UnavailableError(
                f"{self.endpoint} answered {response.status}, not like a loreg server", hint="loreg doctor"
            )

    def close(self) -> None:
        """Close all connections."""
        self.connections.close()

    def _decode(self, response: Response, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(response.data or b"null", type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"{self.endpoint} answered what this loreg does not understand: {error}", hint="pip install -U loreg"
            ) from error


def _encode_query(parameters: Parameters) -> str:
    """Return parameters as a query, a list as its name again and again; those that say nothing are left out."""
    filled = {name: value for name, value in parameters.items() if value not in (None, "", ())}
    return urlencode(
        {name: str(value).lower() if isinstance(value, bool) else value for name, value in filled.items()}, doseq=True
    )


def _encode_json(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError("what was asked holds half a character, a lone surrogate", hint="leave it out") from error
