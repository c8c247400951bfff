"""Measure a probe over many versions beside a bare loop, and prove that kills leave nothing out and nothing twice.

``--versions`` small adapters (benchmarks/real_adapters.py) lie in a folder and a SQLite catalog, or with ``--postgres``
in the PostgreSQL that the tests run, there beside ``--others`` adapters without files. A bare loop reads the same files
and calls the same function in as many processes, without a catalog. With ``--ray`` also on a Ray of two nodes on
loopback. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from filling import fill as fill_others
from real_adapters import GROUPS, NAMES, Files, fill
from sqlalchemy import create_engine, text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fleet import ray_clusters
from fleet.writes import list_writes, record_writes
from loreg import Registry, connect
from loreg.adapters.structure import read_remote_structure
from loreg.catalog import Catalog
from loreg.probes.adapter import ProbedAdapter
from loreg.probes.probe import find_probe
from services import SECRET_KEY, postgres_server

_HEADER = 64 * 1024
_PROCESSES = 2
_MEASURED, _MORE, _ALL = "group0/*", ["group0/*", "group1/*", "group2/*"], "group*/*"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--others", type=int, default=0, metavar="ADAPTERS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-every", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    if options.others and not options.postgres:
        parser.error("--others needs --postgres")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loreg-fleet-")))
        url = stack.enter_context(postgres_server()) if options.postgres else f"sqlite:///{folder}/catalog.db"
        catalog = Catalog(url)
        catalog.upgrade()
        catalog.close()
        others = fill_others(url, options.others) if options.others else 0
        files = fill(url, folder / "store", options.versions)
        print(f"{len(files):,} versions with files beside {others:,} without\n", flush=True)
        registry = stack.enter_context(connect(database_url=url, storage_url=str(folder / "store"), author="bench"))
        cluster = stack.enter_context(ray_clusters.two_nodes()) if options.ray else None
        if options.rounds:
            print_throughput(registry, files[: len(files) // GROUPS], options.rounds, cluster)
            print_costs(registry, files[: 3 * len(files) // GROUPS], options.rounds)
        print_proof(registry, url, options.kill_every, cluster)
        if cluster is not None:
            print_exposure(cluster, SECRET_KEY, url, ray_clusters.TOKEN)


def read_bare(files: Files) -> None:
    """Read what a probe of the header reads, and nothing else."""
    config, weights = files
    config.read_bytes()
    with weights.open("rb") as stream:
        stream.read(_HEADER)


def run_bare(name: str, files: Files) -> None:
    """Read the files and call the probe's function: no digest is compared, nothing is recorded."""
    config, weights = files
    content = weights.read_bytes()
    structure = read_remote_structure(
        weights.parent, config.read_bytes(), len(content), lambda start, size: content[start : start + size]
    )
    find_probe(name).function(ProbedAdapter(replace(structure, weights=weights), NAMES))


def run_chunk(chunk: tuple[str, list[Files]]) -> None:
    name, files = chunk
    for pair in files:
        if name:
            run_bare(name, pair)
        else:
            read_bare(pair)


def bare_loop(name: str, files: list[Files]) -> float:
    """Return versions a second of a loop in as many processes, which run before the clock does."""
    chunks = [(name, files[start : start + 500]) for start in range(0, len(files), 500)]
    with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
        pool.map(run_chunk, [(name, files[:1])] * _PROCESSES)
        began = time.monotonic()
        pool.map(run_chunk, chunks, 1)
        return len(files) / (time.monotonic() - began)


def mapped(registry: Registry, probe: str, **options: Any) -> Callable[[], float]:
    def measure() -> float:
        report = registry.map(probe, _MEASURED, again=True, **options)
        assert report.ok
        return report.recorded / report.seconds

    return measure


def print_throughput(registry: Registry, files: list[Files], rounds: int, cluster: Any) -> None:
    """Print versions a second, the medians of rounds in which everything is measured in turn."""
    print(f"{len(files):,} of them, {_PROCESSES} processes, medians of {rounds} rounds\n")
    print("| probe | how | versions a second | of read + function | of reads |\n| --- | --- | --: | --: | --: |")
    for probe in ("check", "spectra"):
        ways = {
            "reads": lambda: bare_loop("", files),
            "read + function": lambda probe=probe: bare_loop(probe, files),
            "map, processes": mapped(registry, probe, processes=_PROCESSES),
        }
        if cluster is not None:
            ways["map, Ray"] = mapped(registry, probe, on=f"ray://{cluster.address}")
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, measure in ways.items():
                rates[way].append(measure())
        medians = {way: statistics.median(values) for way, values in rates.items()}
        for way, rate in medians.items():
            shares = [f"{rate / medians[floor]:.2f}" for floor in ("read + function", "reads")]
            print(f"| {probe} | {way} | {rate:,.0f} | {' | '.join(shares)} |", flush=True)


def spent() -> float:
    """Return the seconds that processors worked for this process and for all that it started, the database too."""
    seconds = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def cost_of(call: Callable[[], object]) -> float:
    before = spent()
    call()
    return spent() - before


def print_costs(registry: Registry, files: list[Files], rounds: int) -> None:
    """Print the time of processors that one version more takes: a run over three groups less one over the first.

    What starting costs is not in it, and others that are at work on the machine change it less than they change the
    versions a second.
    """
    print("\n| probe | how | ms of a processor a version | of read + function |\n| --- | --- | --: | --: |")
    first = len(files) // 3
    for probe in ("check", "spectra"):
        ways: dict[str, Callable[[bool], object]] = {
            "read + function": lambda all_, probe=probe: bare_loop(probe, files if all_ else files[:first]),
            "map, processes": lambda all_, probe=probe: registry.map(
                probe, _MORE if all_ else _MEASURED, again=True, processes=_PROCESSES
            ),
        }
        costs: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, run in ways.items():
                small, large = (cost_of(lambda all_=all_, run=run: run(all_)) for all_ in (False, True))
                costs[way].append((large - small) / (len(files) - first) * 1e3)
        floor = statistics.median(costs["read + function"])
        for way, values in costs.items():
            cost = statistics.median(values)
            print(f"| {probe} | {way} | {cost:.3f} | {floor / cost:.2f} |", flush=True)


@contextlib.contextmanager
def repeating(interval: float, call: Callable[[], object]) -> Iterator[list[Any]]:
    """Call again and again until the context ends; yields what the calls returned."""
    stop, returned = threading.Event(), list[Any]()

    def run() -> None:
        while not stop.wait(interval):
            returned.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield returned
    finally:
        stop.set()
        thread.join()


def kill_worker() -> None:
    """Kill the one that has been there for the longest."""
    workers = [p for p in psutil.Process().children() if any("spawn_main" in word for word in p.cmdline())]
    if workers:
        min(workers, key=psutil.Process.create_time).kill()


def kill_node(cluster: Any) -> None:
    """Kill a node, and start one in its place."""
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    with pytest.MonkeyPatch.context() as patch:  # the main thread alone may handle signals
        patch.setattr("ray._private.utils.set_sigterm_handler", lambda handler: None)
        ray_clusters.add_node(cluster)


def print_proof(registry: Registry, url: str, interval: float, cluster: Any) -> None:
    """Print, with and without kills, how many facts there are, how often each was written, and a digest of all.

    The memory is that of the process that drives, at each fifth of the time, in MB.
    """
    print("\n| run | seconds | kills | begun once more | facts | missing | written twice | digest of all | memory |")
    print("| --- | --: | --: | --: | --: | --: | --: | --- | --- |")
    runs: dict[str, tuple[dict[str, Any], Callable[[], None] | None]] = {
        "one process": ({"processes": 1}, None),
        "processes": ({"processes": _PROCESSES}, kill_worker),
    }
    if cluster is not None:
        runs["Ray, two nodes"] = ({"on": f"ray://{cluster.address}"}, lambda: kill_node(cluster))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    record_writes(engine)
    for name, (options, kill) in runs.items():
        with engine.begin() as connection:
            for table in ("facts", "findings", "writes"):
                connection.execute(text(f"DELETE FROM {table}"))
        killing = repeating(interval, kill) if kill else contextlib.nullcontext([])
        with killing as kills, repeating(0.5, lambda: psutil.Process().memory_info().rss >> 20) as memory:
            report = registry.map("spectra", _ALL, **options)
        writes = list_writes(engine)
        with engine.begin() as connection:
            query = "SELECT version_id, value FROM facts WHERE error = '' ORDER BY version_id"
            facts = [(row[0], row[1] if isinstance(row[1], str) else json.dumps(row[1])) for row in
                     connection.execute(text(query))]  # fmt: skip
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
        missing, twice = report.run.versions - len(facts), len(writes) - len(set(writes))
        fifths = " ".join(str(memory[len(memory) * i // 5]) for i in range(1, 5)) + f" {memory[-1]}"
        print(
            f"| {name} | {report.seconds:.0f} | {len(kills)} | {report.retries} | {len(facts):,} | {missing} | {twice} "
            f"| {digest} | {fifths} |",
            flush=True,
        )
    engine.dispose()


def print_exposure(cluster: Any, *secrets: str) -> None:
    """Print at which addresses the processes of this one listen, and where in Ray's state and files a secret is."""
    import ray

    with contextlib.redirect_stderr(None):
        ray.init(cluster.address, log_to_driver=False)
    print(f"\nlistening at: {', '.join(sorted(ray_clusters.listening_addresses()))}")
    print(f"secrets in Ray's state: {ray_clusters.state_with(*secrets)}")
    print(f"secrets in Ray's files: {ray_clusters.files_with(os.environ['RAY_TMPDIR'], *secrets)}")
    ray.shutdown()


if __name__ == "__main__":
    main()
