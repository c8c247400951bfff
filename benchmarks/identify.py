"""Measure what identifying costs: sketching adapters, and finding the nearest of a million versions.

``--versions`` is how many sketches the catalog has, a SQLite file of random ones; beside it pgvector of the PostgreSQL
that the tests run is asked for the same. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from loreg.adapters.structure import read_structure
from loreg.catalog import Catalog
from loreg.checking.policy import Policy
from loreg.entities import Access
from loreg.identity.sketch import encode_vector, sign_words, sketch_adapter
from loreg.local.backend import LocalBackend
from loreg.local.sketch_index import SketchIndex
from loreg.storage import open_store
from services import postgres_server

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
_AT = "2026-01-01 00:00:00.000000"
_BATCH = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--large", action="store_true", help="also sketch an adapter of 200 MB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_sketching(Path(folder), with_large=options.large)
        print_search(Path(folder), options.versions, options.queries)
    print_pgvector(options.versions, options.queries, with_index=False)
    print_pgvector(options.versions // 10, options.queries, with_index=True)  # which is a millisecond a row to build


def print_sketching(folder: Path, *, with_large: bool) -> None:
    print("| adapter | file, MB | sketch, ms | of which CPU |\n| --- | ---: | ---: | ---: |")
    folders = [EXAMPLES / "minilm-news-topics-r8", EXAMPLES / "smollm2-science-r8"]
    if with_large:
        folders.append(write_large(folder / "llama-8b-r38"))
    for path in folders:
        structure = read_structure(path)
        wall, cpu = zip(*(timed(lambda structure=structure: sketch_adapter(structure)) for _ in range(5)), strict=True)
        size = structure.weights.stat().st_size / 1e6
        print(f"| {path.name} | {size:.1f} | {1e3 * min(wall):.1f} | {1e3 * min(cpu):.1f} |")


def write_large(folder: Path) -> Path:
    """Every linear layer of an 8B Llama at rank 38 in float16: 200 MB."""
    folder.mkdir()
    hidden, wide, small, rank = 4096, 14336, 1024, 38
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (small, hidden), "self_attn.v_proj": (small, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {}
    for layer in range(32):
        for name, (out, in_) in shapes.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = rng.standard_normal((rank, in_), np.float32).astype(np.float16)
            tensors[f"{key}.lora_B.weight"] = rng.standard_normal((out, rank), np.float32).astype(np.float16)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "r": {rank}, "lora_alpha": {rank}, "target_modules": "all-linear"}}'
    )
    return folder


def print_search(folder: Path, versions: int, queries: int) -> None:
    """Ask the backend itself, from the text of a sketch to versions as an answer has them."""
    url = f"sqlite:///{folder}/catalog.db"
    empty = Catalog(url)
    empty.upgrade()
    empty.close()
    fill(folder / "catalog.db", versions)
    catalog = Catalog(url)
    index = SketchIndex()
    store = open_store(str(folder / "store"))
    backend = LocalBackend(catalog, store, Access.superuser("bench"), Policy(), {}, index)
    reader = LocalBackend(catalog, store, Access("ada", {"team1": "read"}), Policy(), {}, index)
    rng = np.random.default_rng(7)

    def ask(backend: LocalBackend) -> Callable[[], object]:
        vector = encode_vector(rng.standard_normal(256))
        return lambda: backend.candidates([], vector, 20)

    load, _ = timed(ask(backend))
    print(f"\n{versions:,} versions in SQLite; the first answer, which fills the index, after {load:.1f} s\n")
    print("| question | p50, ms | p95, ms |\n| --- | ---: | ---: |")
    for title, asked in (("all namespaces", backend), ("one of a hundred namespaces", reader)):
        print_row(f"20 nearest, {title}", [timed(ask(asked))[0] for _ in range(queries)])
    words = [sign_words(rng.standard_normal(256)) for _ in range(queries)]
    print_row("of which counting signs in memory", [timed(lambda w=w: index.nearest(w, 512, None))[0] for w in words])
    matrix = rng.standard_normal((versions, 64), np.float32)
    vectors = rng.standard_normal((queries, 64), np.float32)
    print_row(
        "beside it: float32 product with 64 numbers (256 bytes a version) and argpartition",
        [timed(lambda v=v: np.argpartition(-np.abs(matrix @ v), 512))[0] for v in vectors],
    )


def print_pgvector(versions: int, queries: int, *, with_index: bool) -> None:
    """Ask pgvector for the nearest 512 by Hamming distance: comparing every row, and by an index that is built for it.

    What is asked for are signs of the table of which one in twenty is turned over, many more than in a copy of another
    precision; those of the table have to come first.
    """
    rng = np.random.default_rng(0)
    with (
        postgres_server(shared_buffers="2GB", max_parallel_workers_per_gather="0") as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        connection.execute(
            "CREATE EXTENSION vector; CREATE UNLOGGED TABLE signs (id bigint PRIMARY KEY, bits bit(256))"
        )
        words = rng.integers(0, 256, (versions, 32), np.uint8)
        with connection.cursor().copy("COPY signs FROM STDIN") as copy:
            for number, row in enumerate(words):
                copy.write_row((number, "".join(f"{byte:08b}" for byte in row)))
        connection.execute("VACUUM ANALYZE signs")
        asked = rng.integers(0, versions, queries)
        flipped = np.packbits(rng.random((queries, 256)) < 0.05, axis=1)

        def ask(index: int) -> tuple[float, bool]:
            bits = "".join(f"{byte:08b}" for byte in words[asked[index]] ^ flipped[index])
            query = f"SELECT id FROM signs ORDER BY bits <~> B'{bits}' LIMIT 512"
            begin = time.perf_counter()
            rows = connection.execute(query).fetchall()
            return time.perf_counter() - begin, rows[0][0] == asked[index]

        def print_asked(title: str) -> None:
            answers = [ask(index) for index in range(queries)]
            right = sum(is_first for _, is_first in answers)
            print_row(
                f"pgvector, {versions:,}, {title}; {right} of {queries} first", [seconds for seconds, _ in answers]
            )

        print_asked("every row compared")
        if not with_index:
            return
        connection.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 1")
        build, _ = timed(lambda: connection.execute("CREATE INDEX ON signs USING hnsw (bits bit_hamming_ops)"))
        connection.execute("SET hnsw.ef_search = 512")
        print_asked(f"HNSW, built in {build:.0f} s")


def print_row(title: str, seconds: list[float]) -> None:
    high = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    print(f"| {title} | {1e3 * statistics.median(seconds):.1f} | {1e3 * high:.1f} |", flush=True)


def fill(path: Path, versions: int) -> None:
    """Insert versions with random sketches, in a hundred namespaces: 20,000 different ones, again and again."""
    rng = np.random.default_rng(0)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO adapters (id, namespace, name, created_at) VALUES (?, ?, ?, ?)",
            ((number, f"team{number}", "adapter", _AT) for number in range(1, 101)),
        )
        vectors = rng.standard_normal((_BATCH, 256), np.float32)
        drawn = [(encode_vector(vector), *sign_words(vector)) for vector in vectors]
        columns = (
            "id, adapter_id, number, digest, base_hint, variant, task_type, rank_min, rank_max, alpha, parameters,"
            " bytes, dtype, author, message, card, created_at"
        )
        for start in range(0, versions, _BATCH):
            ids = range(start + 1, min(start + _BATCH, versions) + 1)
            connection.executemany(
                f"INSERT INTO versions ({columns})"
                " VALUES (?, ?, ?, ?, '', 'lora', '', 8, 8, 8, 1, 1, 'F32', 'ada', '', '', ?)",
                ((i, 1 + i % 100, 1 + i // 100, f"{i:064x}", _AT) for i in ids),
            )
            connection.executemany(
                "INSERT INTO sketches (id, version_id, data, norm, vector, signs_1, signs_2, signs_3, signs_4)"
                " VALUES (?, ?, ?, 16.0, ?, ?, ?, ?, ?)",
                ((i, i, f"{i:064x}", *row) for i, row in zip(ids, drawn, strict=False)),
            )


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a call takes, and those of the processor."""
    begin, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - cpu


if __name__ == "__main__":
    main()
