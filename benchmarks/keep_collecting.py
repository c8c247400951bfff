"""A garbage collection beside a bare loop that lists the store and deletes as many objects."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from keep_filling import Put
from keep_measuring import measure


def compare_gc(
    where: str, settings: dict[str, str], blobs: int, put: Put, clear: Callable[[list[str]], None], rounds: int
) -> None:
    """Store garbage, let ``clear`` list the store and delete it; store as much again, and let gc mark and remove it.

    A tenth of what the store has then is garbage.
    """
    marking, removing, floor, memory = [], [], [], []
    count = blobs // 9
    for number in range(rounds):
        garbage = _store_garbage(f"bare {number}", count, put)
        began = perf_counter()
        clear(garbage)
        floor.append(perf_counter() - began)
        _store_garbage(f"gc {number}", count, put)
        marked, removed = measure(settings, "gc", grace="24h"), measure(settings, "gc", grace="0h")
        if (marked.counts["new"], removed.counts["removed"]) != (count, count):
            raise SystemExit(
                f"of {count} blobs {marked.counts['new']} were marked, {removed.counts['removed']} removed"
            )
        marking.append(marked.seconds)
        removing.append(removed.seconds)
        memory.append(max(call.peak - call.before for call in (marked, removed)))
    print(f"\ncollecting {count:,} of {blobs + count:,} blobs on {where}")
    rows = {"bare listing and deleting": floor, "gc that marks": marking, "gc that removes": removing}
    for name, seconds in rows.items():
        print(f"  {name:32} {statistics.median(seconds):8.3f} s")
    print(f"  memory at the peak, above the start: {statistics.median(memory) / 1024:.0f} MiB")
    print(f"  ratio of removing to the bare loop: {statistics.median(removing) / statistics.median(floor):.2f}")


def _store_garbage(name: str, count: int, put: Put) -> list[str]:
    """Store as many blobs that nothing refers to; returns their digests."""
    contents = [f"garbage {name} {index}".encode() for index in range(count)]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(put, digests, contents))
    return digests
