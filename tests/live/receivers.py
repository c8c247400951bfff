"""A program that is told of events: a real HTTP server on loopback that answers as a test wants it to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request: its headers by lower-case name, and its body."""

    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Where it listens, what it got, and the statuses that it answers with: the last one for ever."""

    url: str
    statuses: list[int] = field(default_factory=lambda: [204])
    requests: list[Received] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        return [f"{request.document['event']} {request.document['ref']}".strip() for request in self.requests]

    @property
    def distinct_events(self) -> list[str]:
        """What it is told as one who drops what he knows by its id: on a busy machine a message may come twice."""
        by_id = {request.id: event for request, event in zip(self.requests, self.events, strict=False)}
        return list(by_id.values())


@contextlib.contextmanager
def receiver(*statuses: int, headers: dict[str, str] | None = None) -> Iterator[Receiver]:
    """Answer with these statuses, one after the other, and these headers."""
    lock = threading.Lock()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                received.requests.append(Received({name.lower(): text for name, text in self.headers.items()}, body))
                status = received.statuses.pop(0) if len(received.statuses) > 1 else received.statuses[0]
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        received = Receiver(f"http://127.0.0.1:{server.server_port}/hook", list(statuses) or [204])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield received
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def raw_receiver(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what ``answer`` does; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    threading.Thread(target=run, args=(connection,), daemon=True).start()

        def run(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()
        thread.join()
