"""GET of what may be large, from URLs that are for whoever has them.

urllib3 receives a large body in half the time of httpx, which takes it apart into many small pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3


class Fetcher:
    """Connections that stay open, for each proxy. Safe for threads."""

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer, its body read, by the proxy that the environment names. Raises urllib3's HTTPError."""
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme, "")
        through = "" if proxy_bypass(parts.netloc) else proxy
        if through not in self._pools:
            self._pools.setdefault(through, _open(through))
        return self._pools[through].request("GET", url, headers=headers, redirect=False)

    def close(self) -> None:
        """Give the connections back."""
        for pool in self._pools.values():
            pool.clear()


def _open(proxy: str) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=10, read=60)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=16, timeout=timeout, retries=False)
    return urllib3.PoolManager(maxsize=16, timeout=timeout, retries=False)
