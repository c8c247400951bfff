"""Doing several things at the same moment, and waiting for what is done meanwhile."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import psycopg

T = TypeVar("T")


def all_at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make every call in a thread of its own, all from the same moment; the first error is raised."""
    start = Barrier(len(calls))

    def call_at_start(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call_at_start, calls))


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds; a minute is too long."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def somebody_waits(url: str) -> bool:
    """Whether PostgreSQL has somebody who waits for a lock. SQLite lets nobody in who would write, and tells nobody."""
    if not url.startswith("postgresql"):
        return True
    with psycopg.connect(url, autocommit=True) as observer:
        return bool(
            observer.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall()
        )


def wait_until_ended(process: int) -> None:
    """Wait until a process that is no child of ours has ended, whether or not anybody has asked how."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], f"process {process} goes on"
    finally:
        os.close(descriptor)
