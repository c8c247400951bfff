"""Strangers' servers on loopback that write down what they are sent: HTTP, and PostgreSQL that asks for a password."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_SSL, _GSS = (80877103).to_bytes(4, "big"), (80877104).to_bytes(4, "big")
CLEARTEXT = b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big")
MD5 = b"R" + (12).to_bytes(4, "big") + (5).to_bytes(4, "big") + b"salt"


@dataclass
class Listener:
    """A server of somebody else: its port, and all that it was sent."""

    port: int
    heard: bytearray = field(default_factory=bytearray)


@contextlib.contextmanager
def http_listener(body: bytes = b"") -> Iterator[Listener]:
    """It answers every request with 404, or with the JSON ``body``."""
    status = b"200 OK\r\nContent-Type: application/json" if body else b"404 Not Found"

    def answer(connection: socket.socket, listener: Listener) -> None:
        listener.heard += connection.recv(65536)
        header = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
        connection.sendall(header + body)

    with _listening(answer) as listener:
        yield listener


@contextlib.contextmanager
def postgres_listener(asks: bytes = CLEARTEXT) -> Iterator[Listener]:
    """It speaks no TLS, and asks to be shown the password."""

    def answer(connection: socket.socket, listener: Listener) -> None:
        while (start := connection.recv(65536))[4:8] in (_SSL, _GSS):
            connection.sendall(b"N")
        listener.heard += start
        connection.sendall(asks)
        listener.heard += connection.recv(65536)

    with _listening(answer) as listener:
        yield listener


@contextlib.contextmanager
def _listening(answer: Callable[[socket.socket, Listener], None]) -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the end
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    answer(connection, listener)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
