"""Read bodies of requests within limits of size, time and depth, and only after the caller is authorized.

A :class:`BodyRoute` reads its JSON whole; a stream has no limit of time as a whole, but a least rate.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

import msgspec
import numpy as np
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from loreg.adapters.header import is_unicode
from loreg.entities import Role
from loreg.errors import UnauthenticatedError, UsageError
from loreg.local.authorization import require, require_somewhere
from loreg.refs import NO_NAMESPACE, parse_adapter_name
from loreg.server.state import get_access, get_async_backend
from loreg.strict_json import count_values, parse_finite

MAX_JSON = 1024 * 1024  # bytes
MAX_VALUES = 100_000
_MAX_VALUES_FOR_PYDANTIC = 2000  # JSON with more is checked up to its first error before
MAX_MANIFEST = 8 * 1024 * 1024  # bytes: some ten thousand files
_MAX_DEPTH = 64  # of nested brackets
BODY_TIMEOUT = 15.0  # seconds for the next byte of JSON
_MIN_JSON_RATE = 8 * 1024  # bytes of JSON a second, after BODY_TIMEOUT
STREAM_TIMEOUT = 60.0  # seconds for the next _MIN_STREAM_BYTES of a stream
_MIN_STREAM_BYTES = 64 * 1024
# How each byte changes the depth of nesting.
_DEPTH_CHANGE = np.zeros(256, np.int8)
_DEPTH_CHANGE[[ord("["), ord("{")]], _DEPTH_CHANGE[[ord("]"), ord("}")]] = 1, -1
_CHUNK_BYTES = 256 * 1024
#: JSON source of values that a database cannot store; also matches the same characters within a text.
_UNSTORABLE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\d{19}|[eE]\+?\d{3}|NaN|Infinity")
#: Free text, of which the commit removes NUL.
_SANITIZED_KEYS = ("message", "base_hint", "summary", "description")
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
#: Types that a browser sends across sites without a preflight (Fetch, 2.2.2, "CORS-safelisted request-header").
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


class BodyRoute(APIRoute):
    """A route whose JSON is read only after the caller is authorized for what the route does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """Return what answers requests: authorization, then limits, then the route itself."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        authorize = _AUTHORIZERS.get(self.path, _require_writer)
        max_bytes, max_values = (MAX_MANIFEST, 250_000) if self.path in _WITH_MANIFEST else (MAX_JSON, MAX_VALUES)
        decoder = msgspec.json.Decoder(self.body_field.field_info.annotation)

        async def answer(request: Request) -> Response:
            await authorize(request)
            if not _JSON.fullmatch(request.headers.get("Content-Type", "")):
                raise UsageError("the body is not said to be JSON", hint="Content-Type: application/json")
            body = await read_body(request, max_bytes)
            if _refuse_many_values(body, max_values) > _MAX_VALUES_FOR_PYDANTIC:
                _refuse_deep(body)
                _refuse_first_error(decoder, body)
            return await handle(_ParsedRequest(request, parse_json(body)))

        return answer


class _ParsedRequest(Request):
    """A request whose body is already read and parsed: FastAPI would hide the errors of doing so."""

    def __init__(self, request: Request, document: object) -> None:
        super().__init__(request.scope, request.receive)
        self._document = document

    async def body(self) -> bytes:
        """Return any non-empty body, which makes FastAPI call :meth:`json`."""
        return b"{}"

    async def json(self) -> Any:
        """Return the parsed document."""
        return self._document


async def read_json(request: Request) -> dict[str, object]:
    """Read a body as a JSON object, an empty one if there is no body. The route has authorized the caller already.

    Raises UsageError.
    """
    refuse_forms(request)
    body = await read_body(request, MAX_JSON) or b"{}"
    _refuse_many_values(body, MAX_VALUES)
    document = parse_json(body)
    if not isinstance(document, dict):
        raise UsageError("the body is not a JSON object", hint="Content-Type: application/json")
    return document


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the whole body. Raises HTTPException 413 if it is larger than ``max_bytes``, 408 if it comes too slowly."""
    content_length = request.headers.get("Content-Length", "")
    if content_length.isdecimal() and int(content_length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body, start = bytearray(), monotonic()
    async for chunk in _read_chunks(request, BODY_TIMEOUT):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if monotonic() - start > BODY_TIMEOUT + len(body) / _MIN_JSON_RATE:
            raise _too_slow()
    return bytes(body)


def _refuse_many_values(body: bytes, max_values: int) -> int:
    """Return about how many values the JSON has. Raises UsageError for more than ``max_values``: each costs memory."""
    count = count_values(body)
    if count > max_values:
        raise _invalid_json(f"it has {count:,} values, expected {max_values:,} at most")
    return count


def _refuse_first_error(decoder: msgspec.json.Decoder[Any], body: bytes) -> None:
    """Raise UsageError for the first value that breaks the schema: pydantic would collect an error for each."""
    try:
        decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _invalid_json(str(error)[:300]) from error


def _refuse_deep(body: bytes) -> None:
    if is_deep(body):
        raise UsageError(f"JSON may be nested {_MAX_DEPTH} deep", hint="/openapi.json says what is expected")


def parse_json(body: bytes) -> Any:
    """Parse JSON that a database can store: UTF-8, nested 64 deep at most, no NUL, numbers of 64 bits.

    Raises UsageError.
    """
    if b"\0" in body:
        raise _invalid_json("it is not in UTF-8")
    _refuse_deep(body)
    try:
        if not _UNSTORABLE.search(body):
            return json.loads(body)
        document = parse_finite(body)
    except ValueError as error:
        raise _invalid_json(str(error)) from error
    _refuse_unstorable_text(document)
    return document


async def read_stream(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises HTTPException 408 if less than 64 KiB come in a minute."""
    start, count = monotonic(), 0
    async for chunk in _read_chunks(request, STREAM_TIMEOUT):
        count += len(chunk)
        yield chunk
        if (now := monotonic()) - start > STREAM_TIMEOUT:
            if count < _MIN_STREAM_BYTES:
                raise _too_slow()
            start, count = now, 0


def refuse_forms(request: Request) -> None:
    """Raise UsageError for a body of a type that pages of other sites can send without a preflight."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_from_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if media_type in _FORM_TYPES or (not media_type and is_from_browser):
        raise UsageError(
            f"the body is {media_type or 'of no type'}, expected JSON", hint="Content-Type: application/json"
        )


def is_deep(body: bytes) -> bool:
    """Return whether brackets are nested deeper than 64, not counting those within text.

    A body of eight megabytes takes some 50 ms, whatever is in it.
    """
    if body.count(b"[") + body.count(b"{") <= _MAX_DEPTH:
        return False
    # Remove \\ first: then each \" that is left is an escaped quote.
    plain = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    depth, quotes = 0, 0
    for start in range(0, len(plain), _CHUNK_BYTES):
        chunk = plain[start : start + _CHUNK_BYTES]
        quote_counts = np.cumsum(chunk == ord('"'), dtype=np.int64) + quotes
        depths = np.cumsum(_DEPTH_CHANGE[chunk] * (quote_counts % 2 == 0), dtype=np.int64) + depth
        if depths.max() > _MAX_DEPTH:
            return True
        depth, quotes = int(depths[-1]), int(quote_counts[-1])
    return False


async def _read_chunks(request: Request, timeout_seconds: float) -> AsyncIterator[bytes]:
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), timeout_seconds)
        except TimeoutError as error:
            raise _too_slow() from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _refuse_unstorable_text(document: object, key: str = "") -> None:
    """Raise UsageError for half a surrogate pair, and for NUL where it is not removed later."""
    if isinstance(document, dict):
        for name, value in document.items():
            _refuse_unstorable_text(name)
            _refuse_unstorable_text(value, name)
    elif isinstance(document, list):
        for value in document:
            _refuse_unstorable_text(value)
    elif isinstance(document, str) and (("\0" in document and key not in _SANITIZED_KEYS) or not is_unicode(document)):
        raise _invalid_json(f"{document[:40]!a} holds a character that nobody can keep")


async def _require_writer(request: Request) -> None:
    require_somewhere(await get_access(request), Role.WRITE)


async def _require_name(request: Request) -> None:
    """Raise UnauthenticatedError for a caller that nobody knows."""
    access = await get_access(request)
    if access.token_id is None and not access.while_open:
        raise UnauthenticatedError("who tells of a deployment has a token", hint="loreg login")


async def _require_namespace_writer(request: Request) -> None:
    require(await get_access(request), Role.WRITE, _namespace(request))


async def _require_adapter_writer(request: Request) -> None:
    """Raise NotFoundError, not NotAllowedError, for an adapter that the caller may not even read."""
    access, namespace = await get_access(request), _namespace(request)
    if not access.may(Role.WRITE, namespace):
        backend = await get_async_backend(request)
        name = parse_adapter_name(f"{namespace}/{request.path_params['name']}".removeprefix("/"))
        await backend.versions(name, 1, None)
        require(access, Role.WRITE, namespace)


async def _require_namespace_owner(request: Request) -> None:
    require(await get_access(request), Role.ADMIN, _namespace(request))


async def _require_administrator(request: Request) -> None:
    require(await get_access(request), Role.ADMIN, "*")


def _namespace(request: Request) -> str:
    namespace = str(request.path_params["namespace"])
    return "" if namespace == NO_NAMESPACE else namespace


_ADAPTER = "/api/v1/adapters/{namespace}/{name}"
_VERSION = _ADAPTER + "/versions/{selector}"
_WITH_MANIFEST = (_ADAPTER + "/versions", _VERSION + "/exports/{request}")
_AUTHORIZERS: dict[str, Callable[[Request], Awaitable[None]]] = {
    _ADAPTER + "/versions": _require_namespace_writer,
    _VERSION + "/exports/{request}": _require_adapter_writer,
    _VERSION + "/metrics": _require_adapter_writer,
    _VERSION + "/yanked": _require_adapter_writer,
    _ADAPTER + "/aliases/{alias}": _require_adapter_writer,
    "/api/v1/deployments": _require_name,
    "/api/v1/namespaces/{namespace}": _require_namespace_owner,
    "/api/v1/tokens": _require_administrator,
}


def _invalid_json(reason: str) -> UsageError:
    return UsageError(f"the body is no JSON that can be kept: {reason}", hint="/openapi.json says what is expected")


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"a body may have {max_bytes:,} bytes here")


def _too_slow() -> HTTPException:
    return HTTPException(408, "the body comes too slowly", {"Connection": "close"})
