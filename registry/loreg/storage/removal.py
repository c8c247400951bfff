"""Remove claimed blobs from a store while the claim holds: what is left then may be pushed by somebody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor, wait

from loreg.storage.blobs import BlobStore


def remove_claimed(
    store: BlobStore,
    pool: Executor,
    digests: Collection[str],
    deadline: float,
    settle: Callable[[Collection[str]], None],
) -> None:
    """Remove blobs until ``deadline``, in :func:`seconds`, and call ``settle`` with what is gone, also after an error.

    What is not gone by then stays claimed until nobody's request can reach the store any more.
    """
    gone: list[str] = []
    stop = threading.Event()

    def remove(sha256: str) -> None:
        if not stop.is_set() and seconds() < deadline:
            try:
                store.delete(sha256)
            except BaseException:
                stop.set()
                raise
            gone.append(sha256)

    futures = [pool.submit(remove, sha256) for sha256 in digests]
    try:
        for future in futures:
            future.result()
    finally:
        stop.set()  # after an interrupt of this thread
        wait(futures)
        if gone:
            settle(gone)


def seconds() -> float:
    """Return the seconds of a clock that goes on while the machine sleeps, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
