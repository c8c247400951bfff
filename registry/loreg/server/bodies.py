"""Bodies of requests, read by none before it is known who asks and that he may: within limits of size, time and depth.

A route of :class:`BodyRoute` reads its JSON whole; what is streamed has no limit of time as a whole, but must move.
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
from loreg.errors import UsageError
from loreg.local.authorization import require, require_somewhere
from loreg.refs import NO_NAMESPACE, parse_adapter_name
from loreg.server.state import access_of, backend_of
from loreg.strict_json import count_values, parse_finite

MAX_JSON = 1024 * 1024
MAX_VALUES = 100_000
_FEW = 2000
MAX_MANIFEST = 8 * 1024 * 1024  # some ten thousand files
_MAX_DEPTH = 64
BODY_TIMEOUT = 15.0  # seconds for the next byte of JSON
_FLOOR = 8 * 1024  # bytes of JSON a second, after the first of these
STREAM_TIMEOUT = 60.0  # seconds for so many bytes of a stream:
_STREAM_FLOOR = 64 * 1024
_STRUCTURE = np.zeros(256, np.int8)
_STRUCTURE[[ord("["), ord("{")]], _STRUCTURE[[ord("]"), ord("}")]] = 1, -1
_PIECE = 256 * 1024
#: What JSON may hold and a database may not, as it is written: also where it is only part of a text.
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\d{19}|[eE]\+?\d{3}|NaN|Infinity")
#: Text that strangers wrote: the commit takes NUL out of it.
_CLEANED = ("message", "base_hint", "summary", "description")
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
#: What a browser sends across sites without asking first (Fetch, 2.2.2, "CORS-safelisted request-header").
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


class BodyRoute(APIRoute):
    """A route whose JSON is read when it is known who asks, and that he may what the route is for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with what comes before it."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        refuse = _REFUSING.get(self.path, _refuse_readers)
        most, values = (MAX_MANIFEST, 250_000) if self.path in _WITH_MANIFEST else (MAX_JSON, MAX_VALUES)
        decoder = msgspec.json.Decoder(self.body_field.field_info.annotation)

        async def answer(request: Request) -> Response:
            await refuse(request)
            if not _JSON.fullmatch(request.headers.get("Content-Type", "")):
                raise UsageError("the body is not said to be JSON", hint="Content-Type: application/json")
            body = await read_body(request, most)
            if _refuse_many(body, values) > _FEW:
                _refuse_deep(body)
                _refuse_first_mistake(decoder, body)
            return await handle(_ParsedRequest(request, parse(body)))

        return answer


class _ParsedRequest(Request):
    """A request whose body was read and parsed already: FastAPI hides what is raised while it does so."""

    def __init__(self, request: Request, document: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._document = document

    async def body(self) -> bytes:
        """Something, so that :meth:`json` is asked for."""
        return b"{}"

    async def json(self) -> Any:
        """The document."""
        return self._document


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object that a body is, of a route that has seen already that whoever asks may; no body is an empty one.

    Raises UsageError.
    """
    refuse_forms(request)
    body = await read_body(request, MAX_JSON) or b"{}"
    _refuse_many(body, MAX_VALUES)
    document = parse(body)
    if not isinstance(document, dict):
        raise UsageError("the body is not a JSON object", hint="Content-Type: application/json")
    return document


async def read_body(request: Request, most: int) -> bytes:
    """The whole body. Raises HTTPException 408 or 413."""
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise _too_large(most)
    body, begin = bytearray(), monotonic()
    async for piece in _pieces(request, BODY_TIMEOUT):
        body += piece
        if len(body) > most:
            raise _too_large(most)
        if monotonic() - begin > BODY_TIMEOUT + len(body) / _FLOOR:
            raise _too_slow()
    return bytes(body)


def _refuse_many(body: bytes, most: int) -> int:
    """How many values the JSON has at most. Raises UsageError for more than ``most``, each of which costs memory."""
    count = count_values(body)
    if count > most:
        raise _no_json(f"it has {count:,} values, expected {most:,} at most")
    return count


def _refuse_first_mistake(decoder: msgspec.json.Decoder[Any], body: bytes) -> None:
    """Raise UsageError for the first value that is not as described: pydantic, which sees it then, would tell all."""
    try:
        decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _no_json(str(error)[:300]) from None


def _refuse_deep(body: bytes) -> None:
    if is_deep(body):
        raise UsageError(f"JSON may be nested {_MAX_DEPTH} deep", hint="/openapi.json says what is expected")


def parse(body: bytes) -> Any:
    """The JSON document, if it can be kept: UTF-8, not nested deep, its text and numbers those of a database.

    Raises UsageError.
    """
    if b"\0" in body:
        raise _no_json("it is not in UTF-8")
    _refuse_deep(body)
    try:
        if not _SUSPECT.search(body):
            return json.loads(body)
        document = parse_finite(body)
    except ValueError as error:
        raise _no_json(str(error)) from None
    _refuse_text(document)
    return document


async def read_stream(request: Request) -> AsyncIterator[bytes]:
    """The body, piece by piece, as long as it moves: 64 KiB a minute. Raises HTTPException 408."""
    begin, count = monotonic(), 0
    async for piece in _pieces(request, STREAM_TIMEOUT):
        count += len(piece)
        yield piece
        if (now := monotonic()) - begin > STREAM_TIMEOUT:
            if count < _STREAM_FLOOR:
                raise _too_slow()
            begin, count = now, 0


def refuse_forms(request: Request) -> None:
    """Raise UsageError for a body as pages of other sites can send it, with no question of the browser's before."""
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    by_a_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if given in _FORMS or (not given and by_a_browser):
        raise UsageError(f"the body is {given or 'of no type'}, expected JSON", hint="Content-Type: application/json")


def is_deep(body: bytes) -> bool:
    """Whether brackets are nested deeper than 64, those within text not counted.

    A body of eight megabytes takes some 50 ms, whatever is in it.
    """
    if body.count(b"[") + body.count(b"{") <= _MAX_DEPTH:
        return False
    # \\ first: what then is left of \" is an escaped quote.
    plain = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    depth, quotes = 0, 0
    for start in range(0, len(plain), _PIECE):
        piece = plain[start : start + _PIECE]
        inside = np.cumsum(piece == ord('"'), dtype=np.int64) + quotes
        depths = np.cumsum(_STRUCTURE[piece] * (inside % 2 == 0), dtype=np.int64) + depth
        if depths.max() > _MAX_DEPTH:
            return True
        depth, quotes = int(depths[-1]), int(inside[-1])
    return False


async def _pieces(request: Request, patience: float) -> AsyncIterator[bytes]:
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), patience)
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _refuse_text(document: Any, key: str = "") -> None:
    """Raise UsageError for half a character, and for NUL where nobody takes it out later."""
    if isinstance(document, dict):
        for name, value in document.items():
            _refuse_text(name)
            _refuse_text(value, name)
    elif isinstance(document, list):
        for value in document:
            _refuse_text(value)
    elif isinstance(document, str) and (("\0" in document and key not in _CLEANED) or not is_unicode(document)):
        raise _no_json(f"{document[:40]!a} holds a character that nobody can keep")


async def _refuse_readers(request: Request) -> None:
    require_somewhere(await access_of(request), "write")


async def _refuse_readers_of_namespace(request: Request) -> None:
    require(await access_of(request), "write", _namespace(request))


async def _refuse_readers_of_adapter(request: Request) -> None:
    """What may not even be read is not found."""
    access, namespace = await access_of(request), _namespace(request)
    if not access.may("write", namespace):
        backend = await backend_of(request)
        name = parse_adapter_name(f"{namespace}/{request.path_params['name']}".removeprefix("/"))
        await backend.catalog.run_async(backend.versions, name, 1, None)
        require(access, "write", namespace)


async def _refuse_all_but_owners(request: Request) -> None:
    require(await access_of(request), "admin", _namespace(request))


async def _refuse_all_but_administrators(request: Request) -> None:
    require(await access_of(request), "admin", "*")


def _namespace(request: Request) -> str:
    given = str(request.path_params["namespace"])
    return "" if given == NO_NAMESPACE else given


_ADAPTER = "/api/v1/adapters/{namespace}/{name}"
_VERSION = _ADAPTER + "/versions/{selector}"
_WITH_MANIFEST = (_ADAPTER + "/versions", _VERSION + "/exports/{request}")
_REFUSING: dict[str, Callable[[Request], Awaitable[None]]] = {
    _ADAPTER + "/versions": _refuse_readers_of_namespace,
    _VERSION + "/exports/{request}": _refuse_readers_of_adapter,
    _VERSION + "/metrics": _refuse_readers_of_adapter,
    _VERSION + "/yanked": _refuse_readers_of_adapter,
    _ADAPTER + "/aliases/{alias}": _refuse_readers_of_adapter,
    "/api/v1/namespaces/{namespace}": _refuse_all_but_owners,
    "/api/v1/tokens": _refuse_all_but_administrators,
}


def _no_json(reason: str) -> UsageError:
    return UsageError(f"the body is no JSON that can be kept: {reason}", hint="/openapi.json says what is expected")


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"a body may have {most:,} bytes here")


def _too_slow() -> HTTPException:
    return HTTPException(408, "the body comes too slowly", {"Connection": "close"})
