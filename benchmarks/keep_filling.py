"""Registries of many versions, filled in bulk: the rows as no push would write them, the objects by threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from loreg.catalog import Catalog
from loreg.catalog.engine import open_engine
from loreg.catalog.schema import adapter_table, blob_table, file_table, version_table
from loreg.manifest import File, Manifest
from loreg.registry import Registry, connect
from loreg.storage.blobs import key_of

Put = Callable[[str, bytes], None]
_THREADS = 10  # as many as a client of S3 has connections
_BATCH = 1000  # versions in one statement
_VERSIONS_OF_ADAPTER = 100
_FACTS = {
    "base_hint": "", "variant": "lora", "task_type": "", "rank_min": 8, "rank_max": 8, "alpha": 16.0,
    "parameters": 1, "dtype": "F32", "author": "bench", "message": "", "card": "",
}  # fmt: skip


def fill(url: str, contents: Iterable[bytes], put: Put) -> int:
    """Record a version of one file for each content, and store file and manifest; returns how many blobs there are."""
    catalog = Catalog(url)
    catalog.upgrade()
    catalog.close()
    engine, versions, remaining = open_engine(url), 0, iter(contents)
    with ThreadPoolExecutor(_THREADS) as pool, engine.begin() as connection:
        while batch := list(islice(remaining, _BATCH)):
            files = list(pool.map(lambda content: _store(content, put), batch))
            for table, rows in _rows(files, versions).items():
                connection.execute(table.insert(), rows)
            versions += len(files)
    engine.dispose()
    return 2 * versions


def _store(content: bytes, put: Put) -> File:
    file = File("adapter_model.safetensors", hashlib.sha256(content).hexdigest(), len(content))
    manifest = Manifest((file,))
    put(file.sha256, content)
    put(manifest.digest, manifest.to_bytes())
    return file


def _rows(files: list[File], before: int) -> dict:
    """The rows of a version for each of the files, which follow on ``before`` others."""
    at = datetime.now(UTC)
    numbered = list(enumerate(files, before))
    first, last = (number // _VERSIONS_OF_ADAPTER for number in (before, before + len(files) - 1))
    adapters = [
        {"id": 1 + index, "namespace": "team", "name": f"adapter{index}", "created_at": at}
        for index in range(first, last + 1)
    ]
    versions = [
        {
            **_FACTS,
            "id": 1 + number,
            "adapter_id": 1 + number // _VERSIONS_OF_ADAPTER,
            "number": 1 + number % _VERSIONS_OF_ADAPTER,
            "digest": Manifest((file,)).digest,
            "bytes": file.size,
            "created_at": at,
        }
        for number, file in numbered
    ]
    return {
        adapter_table: adapters,
        blob_table: [{"digest": file.sha256, "size": file.size} for file in files],
        version_table: versions,
        file_table: [
            {"version_id": 1 + number, "path": file.path, "digest": file.sha256, "size": file.size}
            for number, file in numbered
        ],
    }


def put_below(store: Path) -> Put:
    """What puts a blob into the folder of a store."""

    def put(sha256: str, content: bytes) -> None:
        path = store / key_of(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return put


@contextmanager
def folder_registry(home: Path, contents: Iterable[bytes]) -> Iterator[tuple[Registry, int]]:
    """A registry with SQLite and a folder, and how many blobs it has."""
    home.mkdir(parents=True, exist_ok=True)
    blobs = fill(f"sqlite:///{home / 'catalog.db'}", contents, put_below(home / "store"))
    with connect(home=str(home), author="bench") as registry:
        yield registry, blobs
