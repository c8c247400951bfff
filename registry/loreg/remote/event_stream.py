"""Events as a server sends them: server-sent events (WHATWG HTML, 9.2), one connection that stays open."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from loreg.entities import Event
from loreg.errors import UnavailableError
from loreg.refs import AdapterPattern
from loreg.remote.http import Parameters, Server

_SILENCE = 60.0  # seconds: the server sends a comment every 20 if there is nothing to tell
_PIECE = 64 * 1024
_MAX_PATTERNS = 20  # that a server takes; who follows more adapters is told of all


class RemoteEventStream:
    """The events of the adapters that match one of ``patterns``, or of all, after ``position`` or from now on.

    Those of pulls are among them if ``pulls``.
    """

    def __init__(self, server: Server, patterns: Sequence[AdapterPattern], position: str, *, pulls: bool) -> None:
        self._server, self._patterns, self._pulls = server, patterns, pulls
        self.position = position
        self._response: BaseHTTPResponse | None = None
        self._unread, self._events = b"", list[Event]()

    def read(self, seconds: float) -> tuple[Event, ...]:
        """Return what was committed since the last call. See :class:`loreg.backend.EventStream`.

        It waits for whole messages: where nothing happens, until the server says that it is there.
        """
        deadline = time.monotonic() + seconds
        is_new = self._response is None
        try:
            while True:
                events = self._read_message()
                if events or is_new or time.monotonic() >= deadline:
                    return events
        except (HTTPError, OSError) as error:
            self.close()
            raise self._server.unavailable_error(error) from error

    def close(self) -> None:
        """Close the connection."""
        response, self._response = self._response, None
        self._unread, self._events = b"", []
        if response is not None:
            response.close()

    def _read_message(self) -> tuple[Event, ...]:
        """Return the events up to the next message with an id, or none where a comment comes first."""
        if self._response is None:
            patterns = tuple(map(str, self._patterns)) if len(self._patterns) <= _MAX_PATTERNS else ()
            parameters: Parameters = {"pattern": patterns, "after": self.position, "pulls": self._pulls}
            self._response = self._server.stream("/api/v1/events/stream", parameters, _SILENCE)
        while True:
            message, is_whole, rest = self._unread.partition(b"\n\n")
            if not is_whole:
                piece = self._response.read1(_PIECE)
                if not piece:
                    raise HTTPError("the connection was closed")
                self._unread += piece
                continue
            self._unread = rest
            lines = [line for line in message.decode().split("\n") if not line.startswith(":")]
            fields = dict(line.split(": ", 1) for line in lines if ": " in line)
            if data := fields.get("data"):
                self._events.append(self._decode(data))
            if position := fields.get("id"):
                self.position = position
                events, self._events = tuple(self._events), []
                return events
            if not fields:  # a comment
                return ()

    def _decode(self, data: str) -> Event:
        try:
            return msgspec.json.decode(data, type=Event)
        except msgspec.MsgspecError as error:
            self.close()
            message = f"{self._server.endpoint} sent an event that this loreg does not understand: {error}"
            raise UnavailableError(message, hint="pip install -U loreg") from error
