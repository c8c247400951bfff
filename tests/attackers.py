"""Strangers: a server of each kind, and connections that say what no client of HTTP would."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from deployments import SCIENCE, Deployment, empty_sqlite
from live_server import live_server
from loreg.registry import Registry, connect

TIMEOUT = 60.0  # seconds until a test gives up; nothing is expected to take so long


def without_convertors(path: str) -> str:
    """Return ``/{repository}/resolve`` for ``/{repository:path}/resolve``, which ``str.format`` fills in."""
    return re.sub(r":\w+\}", "}", path)


@dataclass(frozen=True)
class Attacked:
    """A server on SQLite or PostgreSQL and a folder, the registry behind it, and the tokens of a few."""

    endpoint: str
    behind: Registry
    tokens: dict[str, str]

    def http(self, role: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return httpx.Client(base_url=self.endpoint, headers=headers, timeout=TIMEOUT)

    def socket(self) -> socket.socket:
        return open_socket(self.endpoint)


SCOPES = {"reader": ["read:team"], "writer": ["write:team"], "stranger": ["write:other"], "root": ["admin:*"]}


@contextlib.contextmanager
def attacked(folder: Path, *, is_open: bool = False, database_url: str = "") -> Iterator[Attacked]:
    """A server with team/science in it; if it ``is_open`` there are no tokens."""
    deployment = Deployment(database_url or empty_sqlite(folder / "catalog.db"), str(folder / "store"))
    with (
        connect(database_url=deployment.database_url, storage_url=deployment.storage_url) as behind,
        live_server(deployment, is_open=is_open) as endpoint,
    ):
        tokens = {} if is_open else {role: behind.tokens.create(role, scopes)[1] for role, scopes in SCOPES.items()}
        behind.push(SCIENCE, "team/science", aliases=["prod"])
        yield Attacked(endpoint, behind, tokens)


def open_socket(endpoint: str) -> socket.socket:
    where = urlsplit(endpoint)
    return socket.create_connection((where.hostname, where.port), timeout=TIMEOUT)


def read_until_closed(connection: socket.socket) -> bytes:
    """All that the server says until it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def status_of(connection: socket.socket) -> int:
    """The status of the next answer, whose body is left where it is; 0 if the connection was closed instead."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n" not in received and (piece := connection.recv(1)):
            received += piece
    return int(received.split()[1]) if received.startswith(b"HTTP/") else 0
