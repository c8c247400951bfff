"""How soon a change reaches those who follow, and what they cost who do nothing: ``make bench-live``.

A real server on PostgreSQL and SeaweedFS. Ten ``loreg sync --watch``, each a process with a folder of its own: the
time from the moment that ``tag`` has returned until the link leads to the new version, all of its files there and
hashed, for each folder and each move. A version is new to every folder. One pull alone stands beside it. Then a
thousand followers with nothing to follow: the server's processor over a minute. live_stream.py has a trainer that
publishes a version each second, live_vllm.py what vLLM adds.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import time
from pathlib import Path

import urllib3
from live_processes import ENDPOINT, adapter, followers, processor_seconds, registry_on_postgres_and_s3, resident

from loreg.registry import Registry, connect

FOLLOWERS, IDLE, IDLE_SECONDS = 10, 1000, 60


def latencies(registry: Registry, root: Path, megabytes: float, moves: int) -> None:
    name = f"team/size{megabytes:g}"
    folder = root / f"size{megabytes:g}"
    registry.push(adapter(folder / "v0", megabytes, 0), name, aliases=["live"])
    times, copies = [], []
    with followers(name, folder, FOLLOWERS) as running:
        for move in range(1, moves + 1):
            source = adapter(folder / f"v{move}", megabytes, move)
            size = sum(path.stat().st_size for path in source.iterdir())
            pushed = registry.push(source, name)
            registry.tag(pushed.version.ref, "live")
            begin = time.perf_counter()
            waiting = {follower.link for follower in running}
            while waiting:
                for link in tuple(waiting):
                    if link.resolve().name == pushed.version.digest:
                        times.append(time.perf_counter() - begin)
                        waiting.remove(link)
                time.sleep(0.001)
            begin = time.perf_counter()
            registry.pull(pushed.version.ref, folder / "copy")
            copies.append(time.perf_counter() - begin)
            shutil.rmtree(folder / "copy")
            shutil.rmtree(source)
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"  {size / 1e6:6.1f} MB, {moves} moves, {FOLLOWERS} followers   p50 {statistics.median(times):5.2f} s   "
        f"p95 {p95:5.2f} s   beside one pull alone {statistics.median(copies):5.2f} s",
        flush=True,
    )


def idle(process: int) -> None:
    pool = urllib3.PoolManager(maxsize=IDLE, num_pools=IDLE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    streams = [
        pool.request("GET", f"{ENDPOINT}/api/v1/events/stream?pattern=team/idle{number}", preload_content=False)
        for number in range(IDLE)
    ]
    for stream in streams:
        stream.read1(16)
    before = processor_seconds(process)
    time.sleep(IDLE_SECONDS)
    share = (processor_seconds(process) - before) / IDLE_SECONDS
    print(
        f"  {len(streams)} idle followers: {100 * share:.2f} % of a core over {IDLE_SECONDS} s, {resident(process)} MiB"
    )
    for stream in streams:
        stream.close()


def main() -> None:
    with (
        registry_on_postgres_and_s3() as backed,
        connect(endpoint=ENDPOINT, author="bench", home=None) as registry,
    ):
        print("from the moment that tag has returned until every file is there under its name\n")
        latencies(registry, backed.root, 2, 20)
        latencies(registry, backed.root, 200, 4)
        idle(backed.pid)


if __name__ == "__main__":
    main()
