"""Send requests over connections that stay open: to the server, and to the store that it names URLs of.

Nothing here knows of tokens: what is sent is what the caller gives. Redirects are answers as any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError

from loreg.remote.haste import time_limit

_CONNECT, _WAIT = 10, 60  # seconds, to connect and for each piece that is sent or received
_MAX_CONNECTIONS = 16
_SMALL = 64 * 1024  # bytes that are sent at once
_MAX_ERROR_BYTES = 64 * 1024


@dataclass(frozen=True)
class Response:
    """An answer: its status, its headers by lower-case name, and its body."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def is_success(self) -> bool:
        """Whether what was asked was done."""
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        """Whether the answer is at another URL."""
        return 300 <= self.status < 400 and "location" in self.headers

    @property
    def is_error(self) -> bool:
        """Whether it was refused, or failed."""
        return self.status >= 400


class NoResponseError(Exception):
    """No answer came, or it broke off; the cause is urllib3's error. ``connected`` is False if nothing was sent."""

    def __init__(self, reason: str, connected: bool) -> None:
        super().__init__(reason)
        self.connected = connected


class Connections:
    """Connections that stay open, one pool for each proxy. Safe for threads."""

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        max_bytes: int | None = None,
    ) -> Response:
        """Send one request by the proxy of the environment, and return the answer. Raises NoResponseError.

        With ``max_bytes`` the body is taken as it was sent, whatever encoding a header names, and no more of it than
        so many bytes, and one if there is more: what a compressed body grows to is up to its author. What an error
        says is taken whole.
        """
        encoding = "gzip, deflate" if max_bytes is None else "identity"
        # urllib3 gives a piece of a body as long as it gives a connection
        is_small = body is None or (isinstance(body, bytes) and len(body) < _SMALL)
        connect, limit = _CONNECT if is_small else _WAIT, time_limit()
        timeout = urllib3.Timeout(connect=connect, read=_WAIT, total=limit)
        try:
            response = self._pool(url).request(
                method,
                url,
                headers={"Accept-Encoding": encoding, **headers},
                body=body,
                redirect=False,
                preload_content=max_bytes is None,
                decode_content=max_bytes is None,
                timeout=timeout,
            )
            if max_bytes is None:
                data = response.data
            else:
                data = _read(response, max_bytes if response.status < 400 else _MAX_ERROR_BYTES)
        except HTTPError as error:
            raise _no_response(error) from error
        except ValueError:  # of http.client, which shows the header: it may be the one with the token
            raise NoResponseError("a header holds what HTTP does not allow there", connected=True) from None
        return Response(response.status, {name.lower(): value for name, value in response.headers.items()}, data)

    def stream(self, url: str, headers: Mapping[str, str], timeout: float) -> urllib3.BaseHTTPResponse:
        """Send a GET whose answer goes on, and return it unread; ``timeout`` seconds for each piece of it.

        Raises NoResponseError.
        """
        try:
            return self._pool(url).request(
                "GET",
                url,
                headers=headers,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=timeout),
            )
        except HTTPError as error:
            raise _no_response(error) from error

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all", "")
        if proxy and proxy_bypass(parts.netloc):
            proxy = ""
        key = f"{parts.scheme} {proxy}"
        if key not in self._pools:
            self._pools.setdefault(key, _open_pool(parts.scheme, proxy))
        return self._pools[key]


def _no_response(error: HTTPError) -> NoResponseError:
    reason = error.__cause__ or error.__context__ or error
    connected = not isinstance(error, ConnectTimeoutError | NewConnectionError | ProxyError)
    return NoResponseError(" ".join(str(reason).split()) or type(reason).__name__, connected)


def basic_auth(url: str) -> dict[str, str]:
    """Return the header for the user and password that lie in a URL; none if there are none."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    return urllib3.make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")


def _read(response: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    pieces, remaining = [], max_bytes + 1
    try:
        while remaining and (piece := response.read(remaining)):  # the last, empty read raises for a cut-off body
            pieces.append(piece)
            remaining -= len(piece)
    except BaseException:
        response.close()
        raise
    if remaining:
        response.release_conn()
    else:
        response.close()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _open_pool(scheme: str, proxy: str) -> urllib3.PoolManager:
    """Return a pool for URLs of a scheme; certificates are read only where they are needed, it takes its time."""
    ca_certs = None
    if scheme == "https" and not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys():
        import certifi

        ca_certs = certifi.where()
    if not proxy:
        return urllib3.PoolManager(maxsize=_MAX_CONNECTIONS, retries=False, ca_certs=ca_certs)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = basic_auth(proxy)
    headers = {"Proxy-Authorization": login["authorization"]} if login else None
    return urllib3.ProxyManager(
        proxy, proxy_headers=headers, maxsize=_MAX_CONNECTIONS, retries=False, ca_certs=ca_certs
    )
