"""The server beside its floors and its peers, in one run, on PostgreSQL and SeaweedFS: ``make bench-serve``.

A catalog of 10,000 and one of 1,000,000 adapters, filled within PostgreSQL. Search in both, and in the large one in
every way that there is. Transfers: one adapter of 200 MB to and from the same S3 server, by plain boto3 and through
loreg, and down by huggingface_hub from loreg. Requests from several processes with connections that stay open, beside
a route of FastAPI that does nothing. Small pushes from eight clients. The server's memory over all of it, and over 2
GB that pass through it. Medians.
"""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from filling import BASES, TASKS, fill
from searches import print_searches

from services import ACCESS_KEY, SECRET_KEY, S3Server, postgres_server, s3_server

SMALL, LARGE = 10_000, int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
MEGABYTES, ROUNDS = 200, 7
CLIENTS, REQUESTS = 4, 2500
PUSHERS, PUSHES = 8, 25
SEARCHES = 400
PORT, TOKEN_PORT, EMPTY_PORT = 8479, 8478, 8477
LOREG = str(Path(sys.executable).with_name("loreg"))


def endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def searches(url: str, label: str) -> tuple[float, float]:
    """Median and 95th percentile in ms; tasks and bases are asked for as often as the data have them."""
    from loreg.catalog import Catalog
    from loreg.catalog.search import search
    from loreg.entities import Query
    from loreg.parsing import parse_metric_condition

    catalog, times, hits = Catalog(url), [], 0
    for seed in (1, 2, 3):  # the first two warm what PostgreSQL keeps in memory
        drawn, times, hits = random.Random(seed), [], 0
        for _ in range(SEARCHES):
            task, base = (1 + int(n * drawn.random() ** 2) for n in (TASKS, BASES))
            metric = parse_metric_condition(f"accuracy>={drawn.uniform(0.5, 0.99):.3f}")
            query = Query(tasks=(f"task{task}",), base=f"org/base{base}", metrics=(metric,))
            begin = time.perf_counter()
            with catalog.read() as tx:
                hits += len(search(tx, query).items)
            times.append(1000 * (time.perf_counter() - begin))
    catalog.close()
    p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    print(f"  {label:20} p50 {p50:5.1f} ms   p95 {p95:5.1f} ms   {hits / SEARCHES:4.0f} found", flush=True)
    return p50, p95


def large_adapter(folder: Path, megabytes: int, seed: int) -> Path:
    """A LoRA of random numbers on 32 × 4 square modules, about so large."""
    from shapes import write

    side = 4096
    rank = max(1, megabytes * 1_000_000 // (128 * 2 * side * 2))  # two bytes a number
    shapes = {f"model.layers.{layer}.self_attn.{name}_proj": (side, side) for layer in range(32) for name in "qkvo"}
    return write(folder, shapes, rank, seed)


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def transfers(folder: Path, s3: S3Server) -> None:
    """In every round the order of those who download is another; the first round is not counted."""
    import boto3
    from botocore.config import Config

    from loreg.registry import connect

    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1", config=config)
    rows: dict[str, list[float]] = {name: [] for name in ("boto up", "loreg up", "boto down", "loreg down", "hub down")}
    size = 0
    with connect(endpoint=endpoint(PORT)) as registry:
        for number in range(ROUNDS + 1):
            source = large_adapter(folder / f"a{number}", MEGABYTES, number)
            weights, key, name = str(source / "adapter_model.safetensors"), f"plain/{number}", f"team/large{number}"
            size, down = Path(weights).stat().st_size, folder / "down"
            sends: list[tuple[str, Callable[[], object]]] = [
                ("boto up", lambda w=weights, k=key: client.upload_file(w, s3.bucket, k)),
                ("loreg up", lambda s=source, n=name: registry.push(s, n)),
            ]
            gets: list[tuple[str, Callable[[], object]]] = [
                ("boto down", lambda k=key, d=down: client.download_file(s3.bucket, k, str(d / "boto"))),
                ("loreg down", lambda n=name, d=down: registry.pull(n, d / "loreg")),
                ("hub down", lambda n=name, d=down: hub(n, d / "hub")),
            ]
            for label, call in (*sends[number % 2 :], *sends[: number % 2], *gets[number % 3 :], *gets[: number % 3]):
                down.mkdir()
                took = timed(call)
                shutil.rmtree(down)
                if number:
                    rows[label].append(took)
            shutil.rmtree(source)
    print(f"one adapter of {size / 1e6:.0f} MB, median of {ROUNDS}\n")
    median = {name: statistics.median(times) for name, times in rows.items()}
    for name, peer in (("boto up", ""), ("loreg up", "boto up"), ("boto down", ""), ("loreg down", "boto down"),
                       ("hub down", "boto down")):  # fmt: skip
        beside = f"   {median[peer] / median[name]:5.2f} of {peer}" if peer else ""
        print(f"  {name:12} {median[name]:6.2f} s {size / median[name] / 1e6:6.0f} MB/s{beside}")
    print(f"\n  aims: 0.85 up, 0.85 down; loreg down is {median['hub down'] / median['loreg down']:.2f} of hub down\n")


def hub(name: str, folder: Path) -> None:
    """In a process that is up already huggingface_hub would read its endpoint too early: so it is told here."""
    from huggingface_hub import HfApi

    HfApi(endpoint=endpoint(PORT), token=False).snapshot_download(name, cache_dir=folder)


def ask(port: int, paths: Sequence[str], count: int, token: str, times: multiprocessing.Queue[list[float]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    latencies = []
    for number in range(count):
        begin = time.perf_counter()
        connection.request("GET", paths[number % len(paths)], headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        latencies.append(time.perf_counter() - begin)
    times.put(latencies)


def requests(label: str, paths: Sequence[str], floor: float = 0, *, port: int = PORT, token: str = "") -> float:
    """Requests a second from all clients together, the better of two rounds; each client asks for other paths."""
    best = p50 = p99 = 0.0
    for _ in range(2):
        times: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
        parts = [paths[number::CLIENTS] or paths for number in range(CLIENTS)]
        processes = [
            multiprocessing.Process(target=ask, args=(port, part, REQUESTS // 2, token, times), daemon=True)
            for part in parts
        ]
        begin = time.perf_counter()
        for process in processes:
            process.start()
        latencies = sorted(one for _ in processes for one in times.get())
        rate = len(latencies) / (time.perf_counter() - begin)
        for process in processes:
            process.join()
        if rate > best:
            best, p50, p99 = rate, latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    beside = f"   {best / floor:5.2f} of the empty route" if floor else ""
    print(
        f"  {label:38} {best:6.0f} a second   p50 {1000 * p50:5.1f} ms   p99 {1000 * p99:5.1f} ms{beside}", flush=True
    )
    return best


def push_some(number: int, folder: str, prefix: str, environment: dict[str, str], barrier: Any) -> None:
    os.environ |= environment
    from loreg.registry import connect

    with connect() as registry:
        registry.adapters()
        barrier.wait()
        for index in range(PUSHES):
            registry.push(Path(folder) / f"{prefix}{number}-{index}", f"{prefix}{number}/small{index}")


def small_pushes(folder: Path, label: str, prefix: str, environment: dict[str, str]) -> None:
    from shapes import SQUARE, write

    for number in range(PUSHERS):
        for index in range(PUSHES):
            write(folder / f"{prefix}{number}-{index}", SQUARE, 1, hash((prefix, number, index)) % 2**32)
    barrier = multiprocessing.Barrier(PUSHERS + 1)
    processes = [
        multiprocessing.Process(target=push_some, args=(number, str(folder), prefix, environment, barrier))
        for number in range(PUSHERS)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    begin = time.perf_counter()
    for process in processes:
        process.join()
    rate = PUSHERS * PUSHES / (time.perf_counter() - begin)
    print(
        f"  {PUSHERS} clients push {PUSHERS * PUSHES} small adapters, {label}: {rate:.0f} a second (aim 50)", flush=True
    )


def memory(process: subprocess.Popen[bytes], row: str = "VmRSS") -> float:
    """Resident megabytes of the server: now, or the most that it ever had (VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(row)) / 1024


def through_the_server(folder: Path) -> None:
    """2 GB up to and down from a folder that only the server reaches."""
    from loreg.registry import connect

    place = {"LOREG_DATABASE_URL": f"sqlite:///{folder}/c.db", "LOREG_STORAGE_URL": str(folder / "store")}
    with serving(PORT, place) as process, connect(endpoint=endpoint(PORT)) as registry:
        registry.push(large_adapter(folder / "first", 20, 1), "first")
        begin = memory(process)
        source = large_adapter(folder / "huge", 2000, 2)
        registry.push(source, "huge")
        registry.pull("huge", folder / "pulled")
        print(
            f"  2 GB through the server, up and down: {begin:.0f} MB before, {memory(process, 'VmHWM'):.0f} MB at most"
        )
    for name in ("huge", "pulled", "store"):
        shutil.rmtree(folder / name)


EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
app = FastAPI()
@app.get("/empty")
def empty(): return Response(b"{}", media_type="application/json")
@app.get("/async")
async def empty_async(): return Response(b"{}", media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), http=sys.argv[2], loop="asyncio", log_config=None, access_log=False)
"""


@contextlib.contextmanager
def process_at(port: int, command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with socket.socket() as free:  # else an earlier run's process would be measured
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/readyz")
                connection.getresponse()
                break
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def serving(
    port: int, place: dict[str, str], *options: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process_at(port, [LOREG, "serve", "--port", str(port), *options], place)


_SOME = """
SELECT namespace, name FROM adapters WHERE id % 17 = 3 AND NOT EXISTS (
  SELECT FROM versions WHERE adapter_id = adapters.id AND yanked_at IS NOT NULL) LIMIT 20000
"""


def rates(url: str, process: subprocess.Popen[bytes]) -> tuple[list[str], float]:
    """Returns the paths of versions, and how many requests a second the empty route answered."""
    import psycopg

    with psycopg.connect(url) as connection:
        rows = connection.execute(_SOME).fetchall()
    random.Random(1).shuffle(rows)
    shown = [f"/api/v1/adapters/{namespace}/{name}/versions/latest" for namespace, name in rows]
    print(f"metadata, {CLIENTS} client processes, one server process, every request for another adapter\n")
    for http_parser in ("h11", "httptools"):
        with process_at(EMPTY_PORT, [sys.executable, "-c", EMPTY, str(EMPTY_PORT), http_parser], {}):
            floor = requests(f"an empty route of FastAPI, {http_parser}", ["/empty"], port=EMPTY_PORT)
            requests("the same, async def", ["/async"], port=EMPTY_PORT)
            requests("show a version", shown, floor)
    of_the_hub = [f"/api/models/{namespace}/{name}/revision/main" for namespace, name in rows]
    requests("a version, as the Hub tells it", of_the_hub, floor)
    requests("show by the alias prod", [path.replace("latest", "prod") for path in shown], floor)
    requests("a page of 50 adapters", ["/api/v1/adapters"], floor)
    queries = [
        f"/api/v1/search?task=task{n}&base=org/base{1 + n % BASES}&metric=accuracy>=0.8" for n in range(1, TASKS)
    ]
    requests("search by task, base and metric", queries, floor)
    before = memory(process)
    requests("show a version, 10,000 times more", shown)
    after = memory(process)
    print(f"\n  the server's memory: {before:.0f} MB before the last 10,000 requests, {after:.0f} MB after them\n")
    return shown, floor


def rate_with_a_token(place: dict[str, str], shown: Sequence[str], floor: float) -> None:
    """Comes last: where a token exists, the servers that ask for none answer no more."""
    token = "lrg_" + secrets.token_urlsafe(32)
    with serving(TOKEN_PORT, {**place, "LOREG_ADMIN_TOKEN": token}, "--require-tokens"):
        requests("show a version, with a token", shown, floor, port=TOKEN_PORT, token=token)


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="loreg-bench-") as name,
        postgres_server(shared_buffers="3GB", max_wal_size="2GB") as large,
        s3_server("1GiB") as s3,
    ):
        folder = Path(name)
        os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "HF_HUB_DISABLE_XET": "1"}
        os.environ |= {"LOREG_HOME": str(folder / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        small = database(large, "small")
        fill(small, SMALL)
        took = timed(lambda: fill(migrated(large), LARGE))
        print(f"search by task, base and metric; {LARGE:,} adapters were made in {took:.0f} s\n")
        (p50, p95), (more50, more95) = searches(small, f"{SMALL:,} adapters"), searches(large, f"{LARGE:,} adapters")
        print(f"\n  growth: p50 {more50 / p50:.1f} ×, p95 {more95 / p95:.1f} × (aim: p95 under 15 ms)\n")
        print_searches(large)
        place = {
            "LOREG_DATABASE_URL": large,
            "LOREG_STORAGE_URL": f"s3://{s3.bucket}/bench",
            "LOREG_STORAGE_ENDPOINT": s3.endpoint,
        }
        with serving(PORT, place) as process:
            shown, floor = rates(large, process)
            transfers(folder, s3)
            small_pushes(folder, "through one server process", "s", {"LOREG_ENDPOINT": endpoint(PORT)})
        with serving(PORT, place, "--processes", "2"):
            small_pushes(folder, "through two processes of it", "p", {"LOREG_ENDPOINT": endpoint(PORT)})
        small_pushes(folder, "straight to database and store", "d", place)
        print()
        rate_with_a_token(place, shown, floor)
        print()
        through_the_server(folder)


def database(url: str, name: str) -> str:
    """Another database beside that one, with the schema."""
    import psycopg

    beside = url.rsplit("/", 1)[0]
    with psycopg.connect(f"{beside}/template1", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return migrated(f"{beside}/{name}")


def migrated(url: str) -> str:
    subprocess.run(
        [LOREG, "db", "upgrade"], env={**os.environ, "LOREG_DATABASE_URL": url}, check=True, stdout=subprocess.DEVNULL
    )
    return url


if __name__ == "__main__":
    main()
