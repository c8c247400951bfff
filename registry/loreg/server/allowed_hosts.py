"""Decide which requests a server without tokens answers: those that address it by its own name, not from another site.

A page open in a browser reaches what listens on the user's machine: directly (its requests name their origin), or by a
name of its own that resolves to 127.0.0.1 by now (DNS rebinding: the request then has that name as its Host).
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
    """The hosts that a server answers to: on ``loopback`` localhost; else any IP address, and the ``names``.

    Names without a dot are allowed too: like addresses, they cannot be the origin of a stranger's page.
    """

    loopback: bool
    names: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Return whether the server answers to this name."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            if name == "localhost":
                return True
            return not self.loopback and (name in self.names or "." not in name)
        return address.is_loopback or not self.loopback


def allowed_hosts(host: str) -> AllowedHosts:
    """Return the hosts that a server which listens on ``host`` answers to."""
    if is_loopback(host):
        return AllowedHosts(loopback=True)
    return AllowedHosts(loopback=False, names=frozenset(name.lower() for name in (host, socket.gethostname())))


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def why_refused(http_version: str, headers: Iterable[tuple[bytes, bytes]], allowed: AllowedHosts, is_page: bool) -> str:
    """Return why a request with these headers is not answered without a token; empty if it is.

    If it asks for a page, a link to that on another site may be followed: that site cannot read what its visitor then
    sees, or put it in a frame, and to look at a page changes nothing.

    nginx with nothing set but ``proxy_pass`` sends this server's name as Host and says nothing of its client. It is
    recognized by HTTP/1.0 (its default before 1.29.7), which no browser and no client of ours or the Hub speaks.
    """
    if http_version < "1.1":
        return f"HTTP/{http_version} says that a proxy sent this on"
    hosts, origins, is_other_site, fetch = [], [], False, {}
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin":
            origins.append(value)
        elif name in _FORWARDED or name.startswith(b"x-forwarded-"):
            return f"{name.decode()!r} says that a proxy sent this on"
        elif name == b"sec-fetch-site":
            is_other_site = value not in (b"same-origin", b"none")
        elif name.startswith(b"sec-fetch-"):
            fetch[name] = value
    is_link = is_page and fetch.get(b"sec-fetch-mode") == b"navigate" and fetch.get(b"sec-fetch-dest") == b"document"
    if is_other_site and not is_link:
        return "a page of another site asked for this"
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    if not allowed.has(_host_name(host)):
        return f"this server is not called {host[:80]!r}"
    if any(origin.decode("latin-1").lower().partition("://")[2] != host for origin in origins):
        return "a page of another origin asked for this"
    return ""


def _host_name(host: str) -> str:
    """Return a Host header without its port; empty for an invalid one (RFC 9110, 7.2)."""
    match = _HOST.fullmatch(host)
    if match is None:
        return ""
    return match["address"] or match["name"].removesuffix(".")
