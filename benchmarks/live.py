"""How soon a change reaches those who follow, and what they cost who do nothing: ``make bench-live``.

A real server on PostgreSQL and SeaweedFS. Ten ``loreg sync --watch``, each a process with a folder of its own: the
time from the moment that ``tag`` has returned until the link leads to the new version, all of its files there and
hashed, for each folder and each move. A version is new to every folder. One pull alone stands beside it. Then a
thousand followers with nothing to follow: the server's processor over a minute. Then a trainer that publishes a version
each interval, with one who follows it: the server's memory, and what lies in the folder.

    python benchmarks/live.py [PUBLISHES [INTERVAL]]
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import urllib3
from shapes import write

from loreg.registry import Registry, connect
from services import ACCESS_KEY, SECRET_KEY, postgres_server, s3_server

PUBLISHES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
INTERVAL = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
FOLLOWERS, IDLE, IDLE_SECONDS = 10, 1000, 60
PORT = 8476
ENDPOINT = f"http://127.0.0.1:{PORT}"
LOREG = str(Path(sys.executable).with_name("loreg"))
KEEP = 2
TICKS = os.sysconf("SC_CLK_TCK")


def adapter(folder: Path, megabytes: float, seed: int) -> Path:
    side, layers = (512, 4) if megabytes < 10 else (4096, 32)
    rank = max(1, int(megabytes * 1e6 / (4 * layers * 2 * side * 2)))
    shapes = {f"model.layers.{layer}.self_attn.{name}_proj": (side, side) for layer in range(layers) for name in "qkvo"}
    return write(folder, shapes, rank, seed)


@contextlib.contextmanager
def server(environment: dict[str, str]) -> Iterator[int]:
    """Run ``loreg serve``; yields its process id."""
    with subprocess.Popen(
        [LOREG, "serve", "--port", str(PORT)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(is_ready)
        try:
            yield process.pid
        finally:
            process.terminate()


def is_ready() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)


@contextlib.contextmanager
def followers(name: str, root: Path, count: int) -> Iterator[list[Path]]:
    """Run ``loreg sync --watch`` so many times; yields the link that each writes."""
    environment = {**os.environ, "LOREG_ENDPOINT": ENDPOINT, "LOREG_HOME": str(root / "home"), "LOREG_AUTHOR": "bench"}
    folders = [root / f"follower{number}" for number in range(count)]
    options = ["--watch", "--keep", str(KEEP)]
    processes = [
        subprocess.Popen(
            [LOREG, "sync", f"{name}:live", str(folder), *options, "--server-name", folder.name],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    links = [folder / name for folder in folders]
    try:
        wait_until(lambda: all(link.exists() for link in links))
        time.sleep(2)  # all of them listen
        yield links
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def latencies(registry: Registry, root: Path, megabytes: float, moves: int) -> None:
    name = f"team/size{megabytes:g}"
    folder = root / f"size{megabytes:g}"
    registry.push(adapter(folder / "v0", megabytes, 0), name, aliases=["live"])
    times, copies = [], []
    with followers(name, folder, FOLLOWERS) as links:
        for move in range(1, moves + 1):
            source = adapter(folder / f"v{move}", megabytes, move)
            size = sum(path.stat().st_size for path in source.iterdir())
            pushed = registry.push(source, name)
            registry.tag(pushed.version.ref, "live")
            begin = time.perf_counter()
            waiting = dict.fromkeys(links)
            while waiting:
                for link in list(waiting):
                    if link.resolve().name == pushed.version.digest:
                        times.append(time.perf_counter() - begin)
                        del waiting[link]
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


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def publishes(registry: Registry, root: Path, process: int) -> None:
    source = adapter(root / "policy", 2, 0)
    weights = source / "adapter_model.safetensors"
    content = weights.read_bytes()
    registry.publish(source, "team/policy", step=0, aliases=["live"])
    times, memory, largest = [], [resident(process)], 0
    with followers("team/policy", root / "stream", 1) as (link,):
        for step in range(1, PUBLISHES + 1):
            due = time.perf_counter() + INTERVAL
            weights.write_bytes(content[:-8] + step.to_bytes(8, "little"))
            begin = time.perf_counter()
            pushed = registry.publish(source, "team/policy", step=step, aliases=["live"])
            times.append(time.perf_counter() - begin)
            largest = max(largest, sum(path.stat().st_size for path in link.parents[1].rglob("*") if path.is_file()))
            if step % max(1, PUBLISHES // 10) == 0:
                memory.append(resident(process))
            time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        wait_until(lambda: link.resolve().name == pushed.version.digest)
        last = time.perf_counter() - begin
    milliseconds = [1000 * took for took in times]
    p50, p95 = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=20)[-1]
    print(
        f"  {PUBLISHES} publishes of 2 MB, one each {INTERVAL:g} s: publish p50 {p50:.0f} ms, p95 {p95:.0f} ms;\n"
        f"  the follower had the last {last:.2f} s later; its folder {largest / 1e6:.1f} MB at most;\n"
        f"  the server's memory {memory[0]} MiB before, {', '.join(map(str, memory[1:]))} after each tenth"
    )


def main() -> None:
    with postgres_server() as database, s3_server() as s3, tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        environment = {
            **os.environ,
            "LOREG_DATABASE_URL": database,
            "LOREG_STORAGE_URL": f"s3://{s3.bucket}/live",
            "LOREG_STORAGE_ENDPOINT": s3.endpoint,
            "LOREG_HOME": str(root / "served"),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        subprocess.run([LOREG, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        with server(environment) as process, connect(endpoint=ENDPOINT, author="bench", home=None) as registry:
            print("from the moment that tag has returned until every file is there under its name\n")
            latencies(registry, root, 2, 20)
            latencies(registry, root, 200, 4)
            idle(process)
            publishes(registry, root, process)


if __name__ == "__main__":
    main()
