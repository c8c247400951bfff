"""Call a function side by side for more items than fit in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(
    pool: ThreadPoolExecutor, parallelism: int, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """Yield the results in the order of the items, of which no more are taken than are worked on or wait for it."""
    remaining = iter(items)
    futures: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(remaining, 2 * parallelism))
    try:
        while futures:
            result = futures.popleft().result()
            for item in islice(remaining, 1):
                futures.append(pool.submit(function, item))
            yield result
    finally:
        for future in futures:
            future.cancel()
