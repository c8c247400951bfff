"""Download large blobs from URLs that need no token.

The bytes are taken as they were sent, whatever encoding a header names, and no more of them than were asked for: what
a compressed body grows to is up to its author. urllib3 receives a large body in half the time of httpx, which takes it
apart into many small pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:  # imported with the first download: a command that lists names needs no second HTTP library
    import urllib3


@dataclass(frozen=True)
class Response:
    """An answer: its status, and its body as it was sent."""

    status: int
    data: bytes


class DownloadError(Exception):
    """No answer came, or it broke off; the cause is urllib3's error."""


class Downloader:
    """Connections that stay open, one pool for each proxy. Safe for threads."""

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str], max_bytes: int) -> Response:
        """GET a URL by the proxy of the environment; return ``max_bytes`` of the body, and one if there is more.

        Raises DownloadError.
        """
        from urllib3.exceptions import HTTPError

        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme, "")
        proxy_url = "" if proxy_bypass(parts.netloc) else proxy
        if proxy_url not in self._pools:
            self._pools.setdefault(proxy_url, _open_pool(proxy_url))
        try:
            return _get(self._pools[proxy_url], url, {"Accept-Encoding": "identity", **headers}, max_bytes)
        except HTTPError as error:
            raise DownloadError(str(error)) from error

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()


def _get(pool: urllib3.PoolManager, url: str, headers: Mapping[str, str], max_bytes: int) -> Response:
    response = pool.request("GET", url, headers=headers, redirect=False, preload_content=False, decode_content=False)
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
    return Response(response.status, pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _open_pool(proxy: str) -> urllib3.PoolManager:
    import urllib3

    timeout = urllib3.Timeout(connect=10, read=60)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=16, timeout=timeout, retries=False)
    return urllib3.PoolManager(maxsize=16, timeout=timeout, retries=False)
