"""Measure a probe over many versions beside a bare loop, and prove that kills leave nothing out and nothing twice.

The adapters are synthetic: twelve modules of rank 4. ``--versions`` of them lie in a SQLite catalog and a folder, or
with ``--postgres`` in the PostgreSQL that the tests run. A bare loop reads the same files and calls the same function
in as many processes, without a catalog. With ``--ray`` also on a Ray of two nodes on loopback. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import save
from sqlalchemy import create_engine, insert, text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fleet import ray_clusters
from fleet.conftest import list_writes, record_writes
from loreg import Registry, connect
from loreg.adapters.structure import read_remote_structure
from loreg.catalog import Catalog, schema
from loreg.probes.adapter import ProbedAdapter
from loreg.probes.probe import find_probe
from services import postgres_server

NAMES = ("adapter_config.json", "adapter_model.safetensors")
_CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
_HEADER = 64 * 1024
_PROCESSES = 2
_AT = "2026-01-01 00:00:00+00:00"

Files = tuple[Path, Path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-every", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loreg-fleet-")))
        url = stack.enter_context(postgres_server()) if options.postgres else f"sqlite:///{folder}/catalog.db"
        files = fill(url, folder / "store", options.versions)
        registry = stack.enter_context(connect(database_url=url, storage_url=str(folder / "store"), author="bench"))
        cluster = stack.enter_context(ray_clusters.two_nodes()) if options.ray else None
        print_throughput(registry, files, options.rounds, cluster)
        print_proof(registry, url, options.kill_every, cluster)


def fill(url: str, store: Path, count: int) -> list[Files]:
    """Write the files of ``count`` versions and the rows that a push would have written; return the paths."""
    catalog = Catalog(url)
    catalog.upgrade()
    catalog.close()
    config = write_blob(store, json.dumps(_CONFIG).encode())
    weights = [write_blob(store, make_weights(seed)) for seed in range(count)]
    sizes = {path.name: path.stat().st_size for path in (config, *weights)}
    ids = range(1, count + 1)
    rows: list[tuple[Any, list[dict[str, object]]]] = [
        (schema.adapter_table, [{"id": i, "namespace": "team", "name": f"a{i}", "created_at": now()} for i in ids]),
        (schema.blob_table, [{"digest": digest, "size": size} for digest, size in sizes.items()]),
        (schema.version_table, [version_row(i, sizes[path.name]) for i, path in zip(ids, weights, strict=True)]),
        (
            schema.file_table,
            [
                {"version_id": i, "path": name, "digest": path.name, "size": sizes[path.name]}
                for i, path in zip(ids, weights, strict=True)
                for name, path in zip(NAMES, (config, path), strict=True)
            ],
        ),
    ]
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for table, values in rows:
            connection.execute(insert(table), values)
    record_writes(engine)
    engine.dispose()
    return [(config, path) for path in weights]


def now() -> Any:
    from datetime import datetime

    return datetime.fromisoformat(_AT)


def version_row(i: int, size: int) -> dict[str, object]:
    return {
        "id": i, "adapter_id": i, "number": 1, "digest": f"{i:064x}", "base_hint": "", "variant": "lora",
        "task_type": "", "rank_min": 4, "rank_max": 4, "alpha": 8.0, "parameters": 1, "bytes": size, "dtype": "F32",
        "author": "bench", "message": "", "card": "", "created_at": now(),
    }  # fmt: skip


def make_weights(seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}.weight": generator.standard_normal(
            (4, 128) if part == "A" else (128, 4), np.float32
        )
        for layer in range(6)
        for module in ("q_proj", "v_proj")
        for part in "AB"
    }
    return bytes(save(tensors))


def write_blob(store: Path, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    path = store / "sha256" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


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
        report = registry.map(probe, again=True, **options)
        assert report.ok
        return report.recorded / report.seconds

    return measure


def print_throughput(registry: Registry, files: list[Files], rounds: int, cluster: Any) -> None:
    """Print versions a second, the medians of rounds in which everything is measured in turn."""
    print(f"{len(files):,} versions, {_PROCESSES} processes, medians of {rounds} rounds\n")
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


@contextlib.contextmanager
def killing(interval: float, kill: Callable[[], None]) -> Iterator[list[float]]:
    """Call ``kill`` again and again until the context ends; yields when it was called."""
    stop, times = threading.Event(), [0.0][:0]

    def run() -> None:
        while not stop.wait(interval):
            kill()
            times.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


def kill_worker() -> None:
    workers = [p for p in psutil.Process().children() if any("spawn_main" in word for word in p.cmdline())]
    if workers:
        random.choice(workers).kill()


def kill_node(cluster: Any) -> None:
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    ray_clusters.add_node(cluster)


def print_proof(registry: Registry, url: str, interval: float, cluster: Any) -> None:
    """Print, with and without kills, how many facts there are, how often each was written, and a digest of all."""
    print("\n| run | kills | begun once more | facts | missing | written twice | digest of all |")
    print("| --- | --: | --: | --: | --: | --: | --- |")
    runs: dict[str, tuple[dict[str, Any], Callable[[], None] | None]] = {
        "one process": ({"processes": 1}, None),
        "processes": ({"processes": _PROCESSES}, kill_worker),
    }
    if cluster is not None:
        runs["Ray, two nodes"] = ({"on": f"ray://{cluster.address}"}, lambda: kill_node(cluster))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    for name, (options, kill) in runs.items():
        with engine.begin() as connection:
            for table in ("facts", "findings", "writes"):
                connection.execute(text(f"DELETE FROM {table}"))
        with killing(interval, kill) if kill else contextlib.nullcontext([]) as times:
            report = registry.map("spectra", **options)
        writes = list_writes(engine)
        with engine.begin() as connection:
            query = "SELECT version_id, value FROM facts WHERE error = '' ORDER BY version_id"
            facts = [(row[0], row[1] if isinstance(row[1], str) else json.dumps(row[1])) for row in
                     connection.execute(text(query))]  # fmt: skip
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
        missing, twice = report.run.versions - len(facts), len(writes) - len(set(writes))
        print(
            f"| {name} | {len(times)} | {report.retries} | {len(facts):,} | {missing} | {twice} | {digest} |",
            flush=True,
        )
    engine.dispose()


if __name__ == "__main__":
    main()
