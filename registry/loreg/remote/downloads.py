"""GET of what may be large, from URLs that are for whoever has them.

The bytes are taken as they were sent, whatever encoding they are said to have, and no more of them than were promised:
what a compressed body grows to is up to whoever stored it. urllib3 receives a large body in half the time of httpx,
which takes it apart into many small pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3


@dataclass(frozen=True)
class Response:
    """An answer: its status, and its body as it was sent."""

    status: int
    data: bytes


class Downloader:
    """Connections that stay open, for each proxy. Safe for threads."""

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str], most: int) -> Response:
        """The answer, by the proxy that the environment names; of its body ``most`` bytes, and one if there are more.

        Raises urllib3's HTTPError.
        """
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme, "")
        through = "" if proxy_bypass(parts.netloc) else proxy
        if through not in self._pools:
            self._pools.setdefault(through, _open(through))
        response = self._pools[through].request(
            "GET",
            url,
            headers={"Accept-Encoding": "identity", **headers},
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        pieces, left = [], most + 1
        try:
            while left and (piece := response.read(left)):  # the read that finds nothing says if the body was cut off
                pieces.append(piece)
                left -= len(piece)
        except BaseException:
            response.close()
            raise
        if left:
            response.release_conn()
        else:
            response.close()
        return Response(response.status, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Give the connections back."""
        for pool in self._pools.values():
            pool.clear()


def _open(proxy: str) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=10, read=60)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=16, timeout=timeout, retries=False)
    return urllib3.PoolManager(maxsize=16, timeout=timeout, retries=False)
