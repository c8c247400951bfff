"""No webhook leads into the operator's network: in whatever spelling, by whatever name, at the moment of connecting."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from live.receivers import raw_receiver, receiver
from loreg.errors import NotAllowedError, UsageError
from loreg.local.webhook_transport import SendError, Transport, new_deadline, parse_networks, require_allowed

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%lo", "fc00::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "fec0::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str):
    with pytest.raises(NotAllowedError, match="no public address"):
        require_allowed(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not(address: str):
    require_allowed(address, ())


def test_the_operator_allows_networks():
    networks = parse_networks("10.0.0.0/8, fd00::/8 127.0.0.1")
    for address in ("10.1.2.3", "fd00::1", "127.0.0.1"):
        require_allowed(address, networks)
    for address in ("127.0.0.2", "192.168.1.1", "fe80::1", "::ffff:192.168.1.1"):
        with pytest.raises(NotAllowedError):
            require_allowed(address, networks)
    with pytest.raises(UsageError, match="no network"):
        parse_networks("10.0.0.0/40")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "[::1]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0", "LOCALHOST.", "127.0.0.1."],
)  # fmt: skip
def test_no_spelling_of_this_machine_is_connected_to(host: str):
    connections: list[socket.socket] = []
    with raw_receiver(connections.append) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        with pytest.raises(SendError):
            Transport().post(f"http://{host}:{port}/hook", {}, b"{}", new_deadline())
        with pytest.raises(SendError):
            Transport().post(f"https://{host}:{port}/hook", {}, b"{}", new_deadline())
    assert connections == []


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let a name mean these addresses, one after the other, as a rebinding server has it; returns who was asked for."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "receiver.example":
            return resolve(host, port, *args, **options)
        address = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [item for word in address.split() for item in resolve(word, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_name_that_means_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch):
    resolving(monkeypatch, "127.0.0.1")
    with pytest.raises(SendError, match=r"127.0.0.1 is no public address"):
        Transport().post("http://receiver.example/", {}, b"", new_deadline())


def test_a_name_that_means_a_public_and_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    resolving(monkeypatch, "8.8.8.8 127.0.0.1")
    with pytest.raises(SendError, match=r"127.0.0.1 is no public address"):
        Transport().post("http://receiver.example/", {}, b"", new_deadline())


def test_a_name_is_asked_for_once_so_that_it_cannot_change_its_meaning(monkeypatch: pytest.MonkeyPatch):
    with receiver() as hook:
        asked = resolving(monkeypatch, "127.0.0.1", "10.0.0.1")
        port = hook.url.rpartition(":")[2].partition("/")[0]
        status = Transport(parse_networks("127.0.0.1")).post(
            f"http://receiver.example:{port}/hook", {}, b"{}", new_deadline()
        )
    assert (status, asked) == (204, ["receiver.example"])
    assert hook.requests[0].headers["host"] == f"receiver.example:{port}"


@pytest.mark.parametrize(
    ("scheme", "start"),
    [("http", b"HTTP/1.1 200 OK\r\nX: "), ("https", b"\x16\x03\x03\x40\x00")],  # the header of a long record of TLS
)
def test_an_attempt_ends_in_time_whatever_comes_slowly(monkeypatch: pytest.MonkeyPatch, scheme: str, start: bytes):
    monkeypatch.setattr("loreg.local.webhook_transport._SECONDS", 0.3)
    is_over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(start)
        while not is_over.wait(0.02):
            connection.sendall(b"H")

    with raw_receiver(trickle) as url:
        with pytest.raises(SendError, match="timed out"):
            Transport(parse_networks("127.0.0.1")).post(url.replace("http", scheme), {}, b"{}", new_deadline())
        is_over.set()


def test_what_is_no_tls_is_an_error_that_shows_nothing():
    with receiver() as hook, pytest.raises(SendError, match="TLS"):
        Transport(parse_networks("127.0.0.1")).post(
            hook.url.replace("http", "https") + "?key=hunter2", {}, b"{}", new_deadline()
        )
