"""A client in haste: it does without an answer rather than wait, but is not misled by a connection that ended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import SCIENCE, empty_folders
from live_server import live_server
from loreg.errors import UnavailableError
from loreg.registry import connect
from loreg.remote.connections import Connections, NoResponseError
from loreg.remote.haste import in_haste


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_who_never_answers_is_given_up(silent: str):
    with connect(endpoint=silent) as registry, in_haste(0.05), pytest.raises(UnavailableError, match="does not answer"):
        registry.show("team/science")


def test_who_is_not_there_is_asked_twice_without_a_pause(monkeypatch: pytest.MonkeyPatch, silent: str):
    asked = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise NoResponseError("connection refused", connected=False)

    monkeypatch.setattr(Connections, "send", refuse)
    monkeypatch.setattr("tenacity.nap.time.sleep", asked.append)
    with connect(endpoint=silent) as registry, in_haste(60), pytest.raises(UnavailableError):
        registry.show("team/science")
    assert len([call for call in asked if isinstance(call, tuple)]) == 2
    assert sum(pause for pause in asked if isinstance(pause, float | int)) == 0


def test_a_connection_that_ended_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with live_server(empty_folders(tmp_path)) as endpoint, connect(endpoint=endpoint) as registry:
        version = registry.push(SCIENCE, "team/science").version
        send, broken = Connections.send, threading.Event()

        def send_after_a_break(connections: Connections, *arguments: object) -> object:
            if not broken.is_set():
                broken.set()
                raise NoResponseError("connection reset", connected=True)
            return send(connections, *arguments)

        monkeypatch.setattr(Connections, "send", send_after_a_break)
        with in_haste(60):
            assert registry.show("team/science").version == version
