"""Limit connections: how many there may be, how large a header may be, and how long each may take.

uvicorn with httptools limits neither the size of a header nor its time. With h11 it limits the size, and is slower.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import MutableMapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

_MAX_CONNECTIONS = 2000
_MAX_BACKLOG = 2048
_RESERVED_DESCRIPTORS = 256  # file descriptors kept for the catalog, the store and files


def _connection_limits() -> tuple[int, int]:
    """Return how many connections there may be, and how many are accepted at once, before surplus ones can be closed.

    These are as many as the process has file descriptors for, beside those that answering needs.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS, _MAX_BACKLOG
    free = max(descriptors - _RESERVED_DESCRIPTORS, descriptors // 2)
    backlog = min(_MAX_BACKLOG, free // 4)
    return min(_MAX_CONNECTIONS, free - 2 * backlog), backlog


@dataclass
class Limits:
    """What one process grants to strangers: sizes in bytes, times in seconds."""

    connections: int
    #: connections that are accepted at once
    backlog: int
    #: of the request line and the headers, of the trailers, and of anything else that is no part of a body
    header: int = 64 * 1024
    #: from the connection, or from the first byte of a later request, to the end of the header
    header_seconds: float = 10.0
    #: for the rest of a body after the answer, when it is not read any more
    rest_seconds: float = 10.0
    #: for the client to take the next byte of an answer
    answer_seconds: float = 60.0
    #: requests that one client may send before the first of them is answered
    ahead: int = 16


LIMITS = Limits(*_connection_limits())
_WAITING: MutableMapping[ServerState, dict[Connection, None]] = WeakKeyDictionary()


class Connection(HttpToolsProtocol):
    """One connection within :data:`LIMITS`.

    It is *waiting* from its beginning, or the end of an answer, to the end of the next header. Where there are too many
    connections, the one that has waited longest is closed: a client that left it idle makes another.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._waiting = _WAITING.setdefault(server_state, {})
        self._overhead = 0  # bytes since the end of the last header or the last byte of a body
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._refusal_status = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first header; close the longest waiting connection if there are too many."""
        super().connection_made(transport)
        self._waiting[self] = None
        self._close_in(LIMITS.header_seconds)
        if len(self.connections) > LIMITS.connections:
            next(iter(self._waiting))._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel its timers."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a header that is too large, and start the time for the rest of one."""
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > LIMITS.header and not self.transport.is_closing():
            self._refusal_status = 431
            self.send_400_response("The header is too large.")
        elif self in self._waiting and self._deadline is None:
            self._close_in(LIMITS.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; ignore a trailer, which comes after the body."""
        if self in self._waiting or self.cycle is None or self.cycle.more_body is False:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer, unless the header is too large or too many requests are pipelined."""
        if self._overhead > LIMITS.header and self._header_size() > LIMITS.header:
            self._refusal_status = 431
            raise ValueError("the header is too large")
        if len(self.pipeline) >= LIMITS.ahead:
            self._refusal_status = 429
            raise ValueError("too many requests ahead of their answers")
        self._overhead = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request if this one was answered before all of it came."""
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._start_waiting()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that is not read any more."""
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if has_next or self.transport.is_closing():
            return
        if self.cycle.more_body:
            self._close_in(LIMITS.rest_seconds)
        else:
            self._start_waiting()

    def pause_writing(self) -> None:
        """Start the time for the client to take more of its answer; the connection is aborted when it is over."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(LIMITS.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that time: the client has taken some of its answer."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def shutdown(self) -> None:
        """End the answer to a request that goes on for ever, because the server ends; let every other one finish."""
        end_stream: object = self.cycle.scope.get("end_stream") if self.cycle is not None else None
        if callable(end_stream):
            end_stream()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no valid request, and close the connection."""
        content = msg.encode()
        self.transport.write(
            STATUS_LINE[self._refusal_status]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(content)
            + content
        )
        self._close()

    def _header_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _start_waiting(self) -> None:
        self._stop_waiting()
        self._overhead = 0
        self._waiting[self] = None

    def _stop_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_in(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._close)

    def _close(self) -> None:
        self._stop_waiting()
        self.transport.close()
