"""Connections: how many there may be, how large a header may be, and how long each may take to say what it wants.

uvicorn with httptools has no limit on a header and no time for one. With h11 it has the first, and is slower.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

_MAX_CONNECTIONS = 2000
_MOST_AT_ONCE = 2048
_OF_ITS_OWN = 256  # descriptors that are kept for the catalog, the store and files


def _connections() -> tuple[int, int]:
    """How many there may be, and how many are taken at once, before one that is too much can be closed.

    As many as there are descriptors for, beside those that answering needs.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS, _MOST_AT_ONCE
    free = max(descriptors - _OF_ITS_OWN, descriptors // 2)
    at_once = min(_MOST_AT_ONCE, free // 4)
    return min(_MAX_CONNECTIONS, free - 2 * at_once), at_once


@dataclass
class Limits:
    """What one process grants to strangers. Sizes in bytes, times in seconds."""

    connections: int
    at_once: int
    #: of the first line, the headers, the trailers; and of whatever else comes with no byte of a body in it
    header: int = 64 * 1024
    #: from the connection, or from the first byte of a later request, to the end of the header
    header_seconds: float = 10.0
    #: for the rest of a body that nobody reads any more, because the answer is given
    rest_seconds: float = 10.0
    #: for the next byte of an answer to be taken
    answer_seconds: float = 60.0
    #: requests that one client may send before the first of them is answered
    ahead: int = 16


LIMITS = Limits(*_connections())
_WAITING: MutableMapping[ServerState, dict[Connection, None]] = WeakKeyDictionary()


class Connection(HttpToolsProtocol):
    """One connection within :data:`LIMITS`.

    It is *waiting* from its beginning, or the end of an answer, to the end of the next header. Where there are too many
    connections, the one that has waited longest goes: a client whose connection lay idle makes another.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._waiting = _WAITING.setdefault(server_state, {})
        self._loose = 0  # bytes since the last header or the last byte of a body
        self._end: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._refusal = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, and give it its time."""
        super().connection_made(transport)
        self._waiting[self] = None
        self._end_in(LIMITS.header_seconds)
        if len(self.connections) > LIMITS.connections:
            next(iter(self._waiting))._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._go_on()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse what only grows, and give the rest of a header its time."""
        self._loose += len(data)
        super().data_received(data)
        if self._loose > LIMITS.header and not self.transport.is_closing():
            self._refusal = 431
            self.send_400_response("The header is too large.")
        elif self in self._waiting and self._end is None:
            self._end_in(LIMITS.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer, which comes after the body, is for nobody here."""
        if self in self._waiting or self.cycle is None or self.cycle.more_body is False:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self._loose > LIMITS.header and self._header_size() > LIMITS.header:
            self._refusal = 431
            raise ValueError("the header is too large")
        if len(self.pipeline) >= LIMITS.ahead:
            self._refusal = 429
            raise ValueError("too many requests ahead of their answers")
        self._loose = 0
        self._go_on()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, if this one was answered before it had come whole."""
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._wait()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that nobody will read."""
        others = bool(self.pipeline)
        super().on_response_complete()
        if others or self.transport.is_closing():
            return
        if self.cycle.more_body:
            self._end_in(LIMITS.rest_seconds)
        else:
            self._wait()

    def pause_writing(self) -> None:
        """Whoever takes nothing of his answer for long gets no more of it."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(LIMITS.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Something of the answer was taken."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be a request, and close the connection."""
        content = msg.encode()
        self.transport.write(
            STATUS_LINE[self._refusal]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(content)
            + content
        )
        self._drop()

    def _header_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _wait(self) -> None:
        self._go_on()
        self._loose = 0
        self._waiting[self] = None

    def _go_on(self) -> None:
        self._waiting.pop(self, None)
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _end_in(self, seconds: float) -> None:
        self._end = self.loop.call_later(seconds, self._drop)

    def _drop(self) -> None:
        self._go_on()
        self.transport.close()
