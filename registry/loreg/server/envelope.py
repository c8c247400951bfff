"""What holds for every request and answer: an id, a log line, a measurement, limits, headers that browsers heed."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loreg.server.logs import REQUESTS
from loreg.server.measures import measured
from loreg.server.problems import answer

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_JSON = 8 * 1024 * 1024
_DEEPEST = 64
_STREAMED = re.compile(r"/api/v1/uploads/.+|/api/models/.+/commit/[^/]+")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Envelope:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        begin, status, written = time.perf_counter(), 500, False

        async def send_on(message: Message) -> None:
            nonlocal status, written
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *_HEADERS]
            elif not message.get("more_body", False):
                _write_down(scope, request_id, status, time.perf_counter() - begin)
                written = True
            await send(message)

        try:
            if _STREAMED.fullmatch(scope["path"]):
                await self._app(scope, receive, send_on)
            else:
                await self._with_small_body(scope, headers, receive, send_on)
        finally:
            if not written:  # nobody waited for the end
                _write_down(scope, request_id, status, time.perf_counter() - begin)

    async def _with_small_body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Read the body first; refuse one that is too large or too deep before anything parses it."""
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _MOST_JSON:
                await answer(413, "too-large", f"a body may have {_MOST_JSON:,} bytes")(scope, receive, send)
                return
        if _depth(body) > _DEEPEST:
            await answer(400, "usage", f"JSON may be nested {_DEEPEST} deep")(scope, receive, send)
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


def _depth(body: bytes) -> int:
    """How deep brackets are nested; those within text are counted too, which can only be more."""
    depth = deepest = 0
    for byte in re.findall(rb"[\[{\]}]", body):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _write_down(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "(none)")
    measured(scope["method"], route, status, seconds)
    line: dict[str, Any] = {
        "request": request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(1000 * seconds, 1),
        "author": scope.get("state", {}).get("author", ""),
    }
    REQUESTS.info(msgspec.json.encode(line).decode())
