"""A trainer that publishes a version each second, with one who follows it, and upkeep: ``make bench-live``.

A real server on PostgreSQL and SeaweedFS; and, each a process of its own, the publisher, ``loreg sync --watch``, and
each minute ``loreg prune`` (keep_last = 10, keep_every = 100) and ``loreg gc``. Printed are the memory of server,
follower and publisher, the bytes in the followed folder and in the store, as listings of the folder and of the bucket
have them, and how long a publish took in the median and at the 95th percentile of the last hundred.

    python benchmarks/live_stream.py [PUBLISHES [INTERVAL]]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
from live_processes import (
    ENDPOINT,
    LOREG,
    Backed,
    adapter,
    followers,
    registry_on_postgres_and_s3,
    resident,
    wait_until,
)

from loreg.registry import Registry, connect
from services import ACCESS_KEY, SECRET_KEY

PUBLISHES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
INTERVAL = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
UPKEEP_MINUTES = 1  # between two rounds; also the grace, so that the store has what two rounds bring
RETENTION = "[retention]\nkeep_last = 10\nkeep_every = 100\n"
KEYS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
SHOWN = sorted({1, 10, 50, *range(100, PUBLISHES, 100), PUBLISHES})
HEADS = (
    "after",
    "server",
    "follower",
    "publisher",
    "folder",
    "folder at most",
    "store",
    "versions",
    "publish p50",
    "p95",
)


class Upkeep:
    """Prunes and collects each minute, in processes of its own beside the server, until the block ends."""

    def __init__(self, backed: Backed) -> None:
        self._environment, self._folder, self._end = backed.environment, backed.root / "upkeep", threading.Event()
        self._folder.mkdir()
        (self._folder / "loreg.toml").write_text(RETENTION)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(60 * UPKEEP_MINUTES):
            self.run_once()

    def run_once(self) -> None:
        for arguments in (["prune", "--yes"], ["gc", "--grace", f"{UPKEEP_MINUTES}m"]):
            command = [LOREG, *arguments]
            subprocess.run(command, env=self._environment, cwd=self._folder, check=True, capture_output=True)


class Stored:
    """The bytes in the bucket, as a program without loreg sees them."""

    def __init__(self, backed: Backed) -> None:
        self._bucket = backed.s3.bucket
        self._client = boto3.client("s3", endpoint_url=backed.s3.endpoint, region_name="us-east-1", **KEYS)

    def megabytes(self) -> float:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return sum(item["Size"] for page in pages for item in page.get("Contents", [])) / 1e6


def size(folder: Path) -> float:
    """The megabytes of the files in a folder that somebody else writes."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{root}/{name}").st_size
            except FileNotFoundError:
                continue
    return total / 1e6


def stream(registry: Registry, backed: Backed) -> None:
    source = adapter(backed.root / "policy", 2, 0)
    weights, stored, upkeep = source / "adapter_model.safetensors", Stored(backed), Upkeep(backed)
    content = weights.read_bytes()
    registry.publish(source, "team/policy", step=0, aliases=["live"])
    times, largest = list[float](), 0.0
    print("  ".join(HEADS))
    with followers("team/policy", backed.root / "stream", 1) as (follower,), upkeep:
        folder = follower.link.parents[1]
        for step in range(1, PUBLISHES + 1):
            due = time.perf_counter() + INTERVAL
            weights.write_bytes(content[:-8] + step.to_bytes(8, "little"))
            begin = time.perf_counter()
            pushed = registry.publish(source, "team/policy", step=step, aliases=["live"])
            times.append(1000 * (time.perf_counter() - begin))
            largest = max(largest, size(folder))
            if step in SHOWN:
                processes = [f"{resident(pid)} MiB" for pid in (backed.pid, follower.pid, os.getpid())]
                sizes = [f"{megabytes:.1f} MB" for megabytes in (size(folder), largest, stored.megabytes())]
                count = len(registry.versions("team/policy", limit=500))
                last = times[-100:]
                p95 = statistics.quantiles([*last, *last], n=20)[-1]
                took = [f"{milliseconds:.0f} ms" for milliseconds in (statistics.median(last), p95)]
                cells = (str(step), *processes, *sizes, str(count), *took)
                print("  ".join(cell.rjust(len(head)) for cell, head in zip(cells, HEADS, strict=True)), flush=True)
            time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        wait_until(lambda: follower.link.resolve().name == pushed.version.digest)
        late = time.perf_counter() - begin
    upkeep.run_once()
    time.sleep(60 * UPKEEP_MINUTES)
    upkeep.run_once()
    print(f"the follower had the last {late:.2f} s later; after upkeep the store has {stored.megabytes():.1f} MB")


def main() -> None:
    with registry_on_postgres_and_s3() as backed, connect(endpoint=ENDPOINT, author="bench", home=None) as registry:
        stream(registry, backed)


if __name__ == "__main__":
    main()
