"""Send a delivery to its receiver: one request, to an address that was checked, within a time, with no redirect.

Whoever may make a webhook chooses where this machine connects to. What is not public is refused, at the address that is
connected to and not at the name: a name may mean another address a moment later (DNS rebinding). Of the answer the
status alone is read.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from loreg.errors import NotAllowedError, UsageError
from loreg.version import VERSION

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_SECONDS = 15.0  # for all of an attempt
_CONNECT_SECONDS = 5.0  # for one address
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): the last 32 bits are an IPv4 address


class SendError(Exception):
    """Raised when no answer came; the text says why, and nothing of URL or secret."""


def parse_networks(text: str) -> tuple[IpNetwork, ...]:
    """Parse networks as ``10.0.0.0/8, 127.0.0.1``. Raises UsageError."""
    try:
        return tuple(ipaddress.ip_network(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise UsageError(f"no network of webhooks: {error}", hint="--webhook-network 10.0.0.0/8") from error


def require_allowed(address: str, allowed: Sequence[IpNetwork]) -> None:
    """Raise NotAllowedError for an address that is not public, nor in one of the networks ``allowed``.

    What an IPv6 address stands for counts: IPv4-mapped, 6to4, Teredo and NAT64 ones are taken for the IPv4 address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    for meaning in _meanings(ip):
        if any(meaning in network for network in allowed):
            continue
        if not meaning.is_global or meaning.is_multicast or meaning.is_reserved or _is_site_local(meaning):
            raise NotAllowedError(
                f"{ip} is no public address", hint="whoever runs the server allows it: loreg serve --webhook-network"
            )


def _meanings(ip: IpAddress) -> tuple[IpAddress, ...]:
    """Return the addresses that a connection to ``ip`` may end at."""
    if isinstance(ip, ipaddress.IPv4Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    embedded: list[IpAddress | None] = [ip, ip.sixtofour, *(ip.teredo or ())]
    if ip in _TRANSLATED or 1 < int(ip) < 2**32:  # ::a.b.c.d is an old spelling of an IPv4 address
        embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return tuple(address for address in embedded if address is not None)


def _is_site_local(ip: IpAddress) -> bool:
    return isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local


def new_deadline() -> float:
    """Return when an attempt that begins now is to have ended, by the monotonic clock."""
    return time.monotonic() + _SECONDS


class Transport:
    """Sends deliveries; several threads may at once. ``allowed`` are networks that are not public, and fine."""

    def __init__(self, allowed: Sequence[IpNetwork] = ()) -> None:
        self._allowed = allowed
        self._sockets: set[socket.socket] = set()
        self._is_aborted = False

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> int:
        """Send ``body`` to ``url``; return the status of the answer. After the deadline nothing is sent.

        Raises SendError.
        """
        parts = urlsplit(url)
        with contextlib.ExitStack() as stack:

            def connect() -> socket.socket:
                return self._connect(parts.hostname or "", parts.port or _default_port(parts.scheme), deadline, stack)

            connection = _Https(connect) if parts.scheme == "https" else _Http(connect)
            connection.host, connection.port = parts.hostname or "", parts.port or _default_port(parts.scheme)
            stack.callback(connection.close)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                connection.request("POST", target, body, {**headers, "User-Agent": f"loreg/{VERSION}"})
                status = connection.getresponse().status
            except NotAllowedError as error:
                raise SendError(error.message) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise SendError("timed out" if time.monotonic() >= deadline else _reason(error)) from error
            if time.monotonic() >= deadline:  # the header was broken off
                raise SendError("timed out")
            return status

    def abort(self) -> None:
        """Break off what is being sent, and send nothing more."""
        self._is_aborted = True
        for connected in tuple(self._sockets):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _connect(self, host: str, port: int, deadline: float, stack: contextlib.ExitStack) -> socket.socket:
        """Return a socket to the first address of the host that answers; it is shut at the deadline."""
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for *_, place in addresses:
            require_allowed(str(place[0]), self._allowed)  # each: a name that means one that is not public is refused
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, place in addresses:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self._is_aborted:
                raise TimeoutError("timed out")
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(min(_CONNECT_SECONDS, remaining))
                connected.connect(place)
            except OSError as error:
                connected.close()
                failure = error
                continue
            connected.settimeout(max(deadline - time.monotonic(), 0.01))
            self._shut_at(connected, deadline, stack)
            return connected
        raise failure

    def _shut_at(self, connected: socket.socket, deadline: float, stack: contextlib.ExitStack) -> None:
        """Shut the connection at the deadline: a timeout is for one piece, and a receiver may send many, slowly."""
        shared = stack.enter_context(connected.dup())  # TLS takes the other one over

        def shut() -> None:
            with contextlib.suppress(OSError):
                shared.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(deadline - time.monotonic(), shut)
        timer.daemon = True
        timer.start()
        self._sockets.add(shared)
        stack.callback(timer.cancel)
        stack.callback(self._sockets.discard, shared)


class _Http(http.client.HTTPConnection):
    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__("receiver")
        self._connect = connect

    def connect(self) -> None:
        self.sock = self._connect()


class _Https(http.client.HTTPSConnection):
    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._tls = ssl.create_default_context()
        super().__init__("receiver", context=self._tls)
        self._connect = connect

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(self._connect(), server_hostname=self.host)


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _reason(error: Exception) -> str:
    """Return why no answer came, in words that hold nothing of what was sent or received."""
    match error:
        case TimeoutError():
            return "timed out"
        case ssl.SSLError():
            return f"no TLS: {error.reason or 'it was broken off'}"[:200]
        case socket.gaierror() | UnicodeError():
            return "there is no such host"
        case http.client.RemoteDisconnected():
            return "the connection was closed without an answer"
        case OSError():
            return error.strerror or "the connection was broken off"
        case _:
            return "what was answered is no HTTP"
