"""Give every request an id, a log line, a measurement, and headers that browsers heed.

A server without tokens refuses here what may come from a web page, or from another machine.
"""

from __future__ import annotations

import re
import secrets
import time

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loreg.server.allowed_hosts import why_refused
from loreg.server.logs import REQUESTS
from loreg.server.metrics import count_request
from loreg.server.pages.bare_errors import answers_person, bare_error_page
from loreg.server.pages.paths import is_for_programs
from loreg.server.problems import build_problem
from loreg.server.state import Service

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HINT = "without tokens only programs on this machine are answered: loreg serve --init, and --require-tokens"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        client_id = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = client_id if _ID.fullmatch(client_id) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        start, status, is_logged = time.perf_counter(), 500, False

        async def send_on(message: Message) -> None:
            nonlocal status, is_logged
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name.lower() for name, _ in message["headers"]}
                added = [(name, value) for name, value in _HEADERS if name not in names]  # a page has its own policy
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *added]
            elif not message.get("more_body", False):
                _log_request(scope, request_id, status, time.perf_counter() - start)
                is_logged = True
            await send(message)

        try:
            if (reason := self._why_refused(scope)) and await self._service.is_without_tokens():
                await _refuse(scope, 403, "not-allowed", reason, _HINT)(scope, receive, send_on)
            elif b"%00" in scope["query_string"] or "\0" in scope["path"]:
                await _refuse(scope, 400, "usage", "a NUL is no part of a name or a text")(scope, receive, send_on)
            else:
                await self._app(scope, receive, send_on)
        except ClientDisconnect:
            status = 499  # nginx's status for a client that has gone
        finally:
            if not is_logged:  # the client did not wait for the end
                _log_request(scope, request_id, status, time.perf_counter() - start)

    def _why_refused(self, scope: Scope) -> str:
        hosts = self._service.open_to
        if hosts is None:
            return ""
        is_page = scope["method"] == "GET" and not is_for_programs(scope["path"])
        return why_refused(scope["http_version"], scope["headers"], hosts, is_page)


def _refuse(scope: Scope, status: int, code: str, message: str, hint: str = "") -> Response:
    """Return a refusal: to a browser as a page, to programs as problem details."""
    if answers_person(Request(scope)):
        return bare_error_page(status, message, hint)
    return build_problem(status, code, message, hint)


def _log_request(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "(none)")
    count_request(scope["method"], route, status, seconds)
    line: dict[str, object] = {
        "request": request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(1000 * seconds, 1),
        "author": scope.get("state", {}).get("author", ""),
    }
    REQUESTS.info(msgspec.json.encode(line).decode())
