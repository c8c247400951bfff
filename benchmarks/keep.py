"""Verifying, collecting, backing up and moving a registry beside their floors, in one run: ``make bench-keep``.

With reading the peer is ``sha256sum`` on the same files, as many at once as there are cores. Without it, the floor is a
bare loop that asks for each object once: stat on a folder, HEAD on S3, as many at once as verify sends. Each row is the
median of ROUNDS, which alternate; every verify is of a registry that is open already.

Of a garbage collection the floor is a bare loop that lists the store and deletes as many objects, as many at once as gc
does. Every collection is a process of its own; its memory is that at the peak, above what it had when it had opened the
registry.

A backup stands beside ``cp -r`` of the same store and ``sync``, both into new folders, and a second backup,
which finds everything there, beside the first. A move is from SQLite and a folder to PostgreSQL and S3 on this machine.

    python benchmarks/keep.py [VERSIONS [MEGABYTES]]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import boto3
import psycopg

from loreg.catalog import Catalog
from loreg.catalog.engine import open_engine
from loreg.catalog.schema import adapter_table, blob_table, file_table, version_table
from loreg.manifest import File, Manifest
from loreg.registry import Registry, connect
from loreg.storage.blobs import key_of
from services import ACCESS_KEY, SECRET_KEY, postgres_server, s3_server

ROUNDS = 5
GC_ROUNDS = 3
LARGE, LARGE_COUNT = 32 * 1024 * 1024, 24
VERSIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
MEGABYTES = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
SAVED = 8 * 1000 * 1000  # bytes of a blob of the registry that is backed up: an adapter of rank 8 of a small model
MOVES = 3


def fill(home: Path, contents: Iterator[bytes], put: Callable[[str, bytes], None], database_url: str = "") -> int:
    """Record a version of one file for each content, and store file and manifest; returns how many blobs there are."""
    home.mkdir(parents=True, exist_ok=True)
    url = database_url or f"sqlite:///{home / 'catalog.db'}"
    catalog = Catalog(url)
    catalog.upgrade()
    catalog.close()
    common = {
        "base_hint": "", "variant": "lora", "task_type": "", "rank_min": 8, "rank_max": 8, "alpha": 16.0,
        "parameters": 1, "dtype": "F32", "author": "bench", "message": "", "card": "",
    }  # fmt: skip
    at = datetime.now(UTC)
    engine, blobs = open_engine(url), 0
    with engine.begin() as connection:
        connection.execute(adapter_table.insert(), {"id": 1, "namespace": "team", "name": "a", "created_at": at})
        for number, content in enumerate(contents, 1):
            file = File("adapter_model.safetensors", hashlib.sha256(content).hexdigest(), len(content))
            manifest = Manifest((file,))
            put(file.sha256, content)
            put(manifest.digest, manifest.to_bytes())
            blobs += 2
            connection.execute(blob_table.insert(), {"digest": file.sha256, "size": file.size})
            version = {"id": number, "adapter_id": 1, "number": number, "digest": manifest.digest, "bytes": file.size}
            connection.execute(version_table.insert(), {**common, **version, "created_at": at})
            row = {"version_id": number, "path": file.path, "digest": file.sha256, "size": file.size}
            connection.execute(file_table.insert(), row)
    engine.dispose()
    return blobs


def alternate(rows: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, run in rows.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def verify(registry: Registry, references: int, read_data: bool = False) -> None:
    report = registry.verify(read_data=read_data, since="2000-01-01")  # no list of the store: the floors have none
    if not report.ok or report.references != references:
        raise SystemExit("the registry of this benchmark is broken")


@contextmanager
def folder_registry(home: Path, contents: Iterator[bytes]) -> Iterator[tuple[Registry, int]]:
    def put(sha256: str, content: bytes) -> None:
        path = home / "store" / key_of(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    blobs = fill(home, contents, put)
    with connect(home=str(home), author="bench") as registry:
        yield registry, blobs


def reading(temporary: Path) -> None:
    contents = (os.urandom(LARGE) for _ in range(LARGE_COUNT))
    with folder_registry(temporary / "large", contents) as (registry, blobs):
        store, cores = temporary / "large" / "store", os.cpu_count() or 1
        files = [str(path) for path in store.rglob("*") if path.is_file()]
        command = ["xargs", "-0", "-n", "1", "-P", str(cores), "sha256sum"]

        def sums() -> None:
            subprocess.run(command, input="\0".join(files), text=True, stdout=subprocess.DEVNULL, check=True)

        rows = alternate({"sha256sum": sums, "verify": lambda: verify(registry, blobs, read_data=True)})
    size = LARGE * LARGE_COUNT / 1e6
    print(f"\nreading {size:,.0f} MB in {LARGE_COUNT} blobs on {cores} cores, warm cache")
    print(f"  sha256sum, {cores} at once   {rows['sha256sum']:8.3f} s  {size / rows['sha256sum']:8,.0f} MB/s")
    print(f"  loreg verify --read-data {rows['verify']:8.3f} s  {size / rows['verify']:8,.0f} MB/s")
    print(f"  share of sha256sum's rate: {rows['sha256sum'] / rows['verify']:.2f}")


def looking(temporary: Path) -> None:
    contents = (b"weights %d" % number for number in range(VERSIONS))
    with folder_registry(temporary / "many", contents) as (registry, blobs):
        files = [str(path) for path in (temporary / "many" / "store").rglob("*") if path.is_file()]

        def stat_all() -> None:
            for path in files:
                os.stat(path)  # noqa: PTH116  Path.stat would cost more than the question

        rows = alternate(
            {
                "stat": stat_all,
                "verify": lambda: verify(registry, blobs),
            }
        )
    report("a folder", "bare loop of stat", rows["stat"], rows["verify"], blobs)


def asking(temporary: Path) -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    count = min(VERSIONS, 2000)
    with s3_server("1GiB") as server, ThreadPoolExecutor(10) as pool:
        client = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1")
        keys: list[str] = []

        def put(sha256: str, content: bytes) -> None:
            keys.append(key_of(sha256))
            client.put_object(Bucket=server.bucket, Key=key_of(sha256), Body=content, ChecksumAlgorithm="SHA256")

        blobs = fill(temporary / "s3", (b"weights %d" % number for number in range(count)), put)
        settings = {"home": str(temporary / "s3"), "storage_url": f"s3://{server.bucket}"}
        with connect(**settings, storage_endpoint=server.endpoint, author="bench") as registry:

            def heads() -> None:
                for _ in pool.map(lambda key: client.head_object(Bucket=server.bucket, Key=key), keys):
                    pass

            rows = alternate({"head": heads, "verify": lambda: verify(registry, blobs)})
    report("S3 (SeaweedFS)", "bare loop of HEADs, 10 at once", rows["head"], rows["verify"], blobs)


def backing_up(temporary: Path) -> None:
    count = max(MEGABYTES * 1_000_000 // SAVED, 1)
    with folder_registry(temporary / "saved", (os.urandom(SAVED) for _ in range(count))) as (registry, blobs):
        times: dict[str, list[float]] = {"cp": [], "first": [], "second": []}
        for _ in range(ROUNDS):
            copy, backup = temporary / "copy", temporary / "backup"
            os.sync()
            began = time.perf_counter()
            subprocess.run(["cp", "-r", temporary / "saved" / "store", copy], check=True)
            os.sync()
            times["cp"].append(time.perf_counter() - began)
            shutil.rmtree(copy)
            os.sync()
            for which, expected in (("first", blobs), ("second", 0)):
                began = time.perf_counter()
                if registry.backup(backup).new != expected:
                    raise SystemExit("the backup of this benchmark copied other blobs than it should")
                times[which].append(time.perf_counter() - began)
            shutil.rmtree(backup)
    rows = {name: statistics.median(values) for name, values in times.items()}
    size = count * SAVED / 1e6
    print(f"\nbacking up {size:,.0f} MB in {blobs} blobs, folder to folder")
    for name, label in (("cp", "cp -r, sync"), ("first", "loreg backup"), ("second", "loreg backup again")):
        print(f"  {label:24} {rows[name]:8.3f} s  {size / rows[name]:8,.0f} MB/s")
    print(f"  ratio to cp: {rows['first'] / rows['cp']:.2f}; of the second to the first: ", end="")
    print(f"{rows['second'] / rows['first']:.3f}")


def moving(temporary: Path) -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    contents = (b"weights to move %d" % number for number in range(VERSIONS))
    with (
        folder_registry(temporary / "moved", contents) as (registry, blobs),
        postgres_server() as database,
        s3_server("1GiB") as server,
    ):
        times = []
        for number in range(MOVES):
            with psycopg.connect(database, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE moved_{number}")
            began = time.perf_counter()
            moved = registry.move(
                f"{database.rsplit('/', 1)[0]}/moved_{number}",
                f"s3://{server.bucket}/moved-{number}",
                storage_endpoint=server.endpoint,
            )
            times.append(time.perf_counter() - began)
            if moved.new != blobs:
                raise SystemExit("the move of this benchmark copied other blobs than it should")
            registry.undo_move()
    seconds = statistics.median(times)
    print(f"\nmoving {VERSIONS:,} versions, {blobs:,} blobs, from SQLite and a folder to PostgreSQL and S3 (SeaweedFS)")
    print(f"  loreg move {seconds:8.3f} s  {VERSIONS / seconds:8,.0f} versions a second")


def report(where: str, floor: str, floor_seconds: float, seconds: float, blobs: int) -> None:
    print(f"\nlooking at {blobs:,} blobs of {blobs // 2:,} versions on {where}, without reading")
    print(f"  {floor:32} {floor_seconds:8.3f} s  {blobs / floor_seconds:10,.0f} a second")
    print(f"  {'loreg verify':32} {seconds:8.3f} s  {blobs / seconds:10,.0f} a second")
    print(f"  ratio: {seconds / floor_seconds:.2f}")


_GC = """
import json, sys, time
from loreg import connect

def status(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0])

with connect(**json.loads(sys.argv[1])) as registry:
    registry.adapters()
    before, began = status("VmRSS"), time.perf_counter()
    report = registry.gc(grace=sys.argv[2])
    print(json.dumps([time.perf_counter() - began, status("VmHWM") - before, report.new, report.removed]))
"""


def collect(settings: dict[str, str], grace: str) -> tuple[float, int, int, int]:
    """Seconds, kB of memory above the start, blobs that were newly marked, and blobs that were removed."""
    command = [sys.executable, "-c", _GC, json.dumps(settings), grace]
    seconds, memory, new, removed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return seconds, memory, new, removed


def compare_gc(
    settings: dict[str, str], blobs: int, put: Callable[[str, bytes], None], clear: Callable[[list[str]], None]
) -> None:
    """Store garbage, let ``clear`` list the store and delete it; store as much again, and let gc mark and remove it."""
    marking, removing, floor, memory = [], [], [], []
    count = blobs // 9
    for number in range(GC_ROUNDS):
        for part in ("bare", "gc"):
            digests = []
            for index in range(count):
                content = b"garbage %s %d %d" % (part.encode(), number, index)
                digests.append(hashlib.sha256(content).hexdigest())
                put(digests[-1], content)
            if part == "bare":
                began = time.perf_counter()
                clear(digests)
                floor.append(time.perf_counter() - began)
        marked, removed = collect(settings, "24h"), collect(settings, "0h")
        if (marked[2], removed[3]) != (count, count):
            raise SystemExit(f"of {count} blobs {marked[2]} were marked and {removed[3]} removed")
        marking.append(marked[0])
        removing.append(removed[0])
        memory.append(max(marked[1], removed[1]))
    rows = {"bare listing and deleting": floor, "gc that marks": marking, "gc that removes": removing}
    where = "S3 (SeaweedFS) with PostgreSQL" if "storage_endpoint" in settings else "a folder with SQLite"
    print(f"\ncollecting {count:,} of {blobs + count:,} blobs on {where}")
    for name, seconds in rows.items():
        print(f"  {name:32} {statistics.median(seconds):8.3f} s")
    print(f"  memory at the peak, above the start: {statistics.median(memory) / 1024:.0f} MiB")
    print(f"  ratio of removing to the bare loop: {statistics.median(removing) / statistics.median(floor):.2f}")


def collecting(temporary: Path) -> None:
    """On a folder with SQLite: ten times fewer blobs first, whose memory must be about the same."""
    for versions in (VERSIONS // 2, VERSIONS * 9 // 2):
        home = temporary / f"garbage-{versions}"
        with folder_registry(home, (b"weights %d" % number for number in range(versions))) as (registry, blobs):
            registry.gc()  # the first run marks the store

        def put(sha256: str, content: bytes, store: Path = home / "store") -> None:
            path = store / key_of(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        def clear(digests: list[str], store: Path = home / "store") -> None:
            for folder in (store / "sha256").iterdir():
                for path in folder.iterdir():
                    path.stat()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda digest: (store / key_of(digest)).unlink(), digests):
                    pass

        settings = {"home": str(home), "storage_url": str(home / "store"), "author": "bench"}
        compare_gc(settings, blobs, put, clear)


def collecting_on_s3(temporary: Path) -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    versions = min(VERSIONS, 2000)
    with postgres_server() as url, s3_server("1GiB") as server, ThreadPoolExecutor(10) as pool:
        client = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1")

        def put(sha256: str, content: bytes) -> None:
            client.put_object(Bucket=server.bucket, Key=key_of(sha256), Body=content, ChecksumAlgorithm="SHA256")

        def clear(digests: list[str]) -> None:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=server.bucket, Prefix="sha256/"):
                page.get("Contents")
            for _ in pool.map(lambda digest: client.delete_object(Bucket=server.bucket, Key=key_of(digest)), digests):
                pass

        blobs = fill(temporary / "gc-s3", (b"weights %d" % number for number in range(versions)), put, url)
        settings = {"database_url": url, "storage_url": f"s3://{server.bucket}", "storage_endpoint": server.endpoint}
        with connect(**settings, author="bench") as registry:
            registry.gc()
        compare_gc({**settings, "author": "bench"}, blobs, put, clear)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as temporary:
        reading(Path(temporary))
        looking(Path(temporary))
        asking(Path(temporary))
        collecting(Path(temporary))
        collecting_on_s3(Path(temporary))
        backing_up(Path(temporary))
        moving(Path(temporary))


if __name__ == "__main__":
    main()
