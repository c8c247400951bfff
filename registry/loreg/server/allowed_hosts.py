"""Who may ask a server that asks for no token: whoever addresses it by its own name, and no page of another site.

A page that a person looks at reaches what listens on his machine: straight (its requests say where they come from), or
under a name of its own that means 127.0.0.1 by now (DNS rebinding: the request then names that host).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

_FORWARDED = frozenset({b"forwarded", b"via", b"x-real-ip"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]*)?")


@dataclass(frozen=True)
class AllowedHosts:
    """What a server is called. On ``loopback`` that is localhost; else it is any address, or one of the ``names``.

    No stranger can make a page that has an address, or a name without a dot, as its origin.
    """

    loopback: bool
    names: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Whether the server is called so."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            if name == "localhost":
                return True
            return not self.loopback and (name in self.names or "." not in name)
        return address.is_loopback or not self.loopback


def allowed_hosts(host: str) -> AllowedHosts:
    """What a server is called that listens on ``host``."""
    if is_loopback(host):
        return AllowedHosts(loopback=True)
    return AllowedHosts(loopback=False, names=frozenset(name.lower() for name in (host, socket.gethostname())))


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def why_refused(http_version: str, headers: Iterable[tuple[bytes, bytes]], own: AllowedHosts) -> str:
    """Why a request with these headers is not answered without a token, in words; empty if it is.

    nginx with nothing set but ``proxy_pass`` names this server as its own Host, and says nothing of who asked. It is
    known by HTTP/1.0 (its default before 1.29.7), which no browser and no client of ours or the Hub speaks.
    """
    if http_version < "1.1":
        return f"HTTP/{http_version} says that a proxy sent this on"
    hosts, origins = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin":
            origins.append(value)
        elif name in _FORWARDED or name.startswith(b"x-forwarded-"):
            return f"{name.decode()!r} says that a proxy sent this on"
        elif name == b"sec-fetch-site" and value not in (b"same-origin", b"none"):
            return "a page of another site asked for this"
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    if not own.has(_name_of(host)):
        return f"this server is not called {host[:80]!r}"
    if any(origin.decode("latin-1").lower().partition("://")[2] != host for origin in origins):
        return "a page of another origin asked for this"
    return ""


def _name_of(host: str) -> str:
    """A Host header without its port; empty for one that is none (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(host)
    if found is None:
        return ""
    return found["address"] or found["name"].removesuffix(".")
