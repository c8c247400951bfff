"""Verifying, collecting, backing up and moving a registry beside their floors, in one run: ``make bench-keep``.

With reading the peer is ``sha256sum`` on the same files, as many at once as there are cores. Without it, the floor is a
bare loop that asks for each file once, by stat. Each row is the median of ROUNDS, which alternate; every verify is of a
registry that is open already. On PostgreSQL and S3: ``keep_on_s3.py``.

Of a garbage collection the floor is a bare loop that lists the store and deletes as many objects, as many at once as gc
does. Every collection is a process of its own; its memory is that at the peak, above what it had when it had opened the
registry.

A backup stands beside ``cp -r`` of the same store and ``sync``, both into new folders, and a second backup,
which finds everything there, beside the first. A move is from SQLite and a folder to PostgreSQL and S3 on this machine.

    python benchmarks/keep.py [VERSIONS [MEGABYTES]]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psycopg
from keep_collecting import compare_gc
from keep_filling import folder_registry, put_below

from loreg.registry import Registry
from loreg.storage.blobs import key_of
from services import ACCESS_KEY, SECRET_KEY, postgres_server, s3_server

ROUNDS = 5
GC_ROUNDS = 3
LARGE, LARGE_COUNT = 32 * 1024 * 1024, 24
VERSIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
MEGABYTES = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
SAVED = 8 * 1000 * 1000  # bytes of a blob of the registry that is backed up: an adapter of rank 8 of a small model
MOVES = 3


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


def collecting(temporary: Path) -> None:
    """On a folder with SQLite: ten times fewer blobs first, whose memory must be about the same."""
    for versions in (VERSIONS // 2, VERSIONS * 9 // 2):
        home = temporary / f"garbage-{versions}"
        with folder_registry(home, (b"weights %d" % number for number in range(versions))) as (registry, blobs):
            registry.gc()  # the first run marks the store

        def clear(digests: list[str], store: Path = home / "store") -> None:
            for folder in (store / "sha256").iterdir():
                for path in folder.iterdir():
                    path.stat()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda digest: (store / key_of(digest)).unlink(), digests):
                    pass

        settings = {"home": str(home), "storage_url": str(home / "store"), "author": "bench"}
        compare_gc("a folder with SQLite", settings, blobs, put_below(home / "store"), clear, GC_ROUNDS)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as temporary:
        reading(Path(temporary))
        looking(Path(temporary))
        collecting(Path(temporary))
        backing_up(Path(temporary))
        moving(Path(temporary))


if __name__ == "__main__":
    main()
