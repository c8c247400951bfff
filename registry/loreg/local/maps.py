"""Drive one probe over many versions on this machine's catalog: claim chunks, and record what came of them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from loreg.catalog import Catalog, maps
from loreg.entities import Access, MapChunk, MapRun, NewFacts
from loreg.errors import ConflictError
from loreg.local.facts import record_all_facts
from loreg.refs import parse_adapter_pattern
from loreg.upkeep import Maps

_MAX_VERSIONS = 500  # in a chunk: a second of headers
_MAX_BYTES = 128 * 1024**2  # of the weights of a chunk, for a probe that reads them


class LocalMaps(Maps):
    """Runs of probes, for an administrator."""

    def __init__(self, catalog: Catalog, access: Access) -> None:
        self._catalog = catalog
        self._access = access

    def exclusive(self) -> AbstractContextManager[object]:
        return self._catalog.hold_maps(_refuse_second)

    def begin(self, wanted: MapRun, *, reads_weights: bool) -> MapRun:
        with self._catalog.write(self._access) as tx:
            if (run := maps.find_unfinished(tx, wanted)) is not None:
                return run
        ids = list(self._select(wanted))
        last = max((version_id for version_id, _ in ids), default=0)
        with self._catalog.write(self._access) as tx:
            return maps.begin(tx, wanted, last, _cut(ids, reads_weights=reads_weights))

    def claim(self, run: MapRun, limit: int) -> list[MapChunk]:
        with self._catalog.write(self._access) as tx:
            return maps.claim(tx, run.id, limit)

    def finish(self, chunk: MapChunk, facts: Mapping[int, NewFacts]) -> int | None:
        with self._catalog.write(self._access) as tx:
            if not maps.finish(tx, chunk):
                return None
            present = maps.lock_present(tx, facts.keys())
            record_all_facts(tx, {version_id: facts[version_id] for version_id in sorted(present)})
            return len(present)

    def give_back(self, chunk: MapChunk) -> None:
        with self._catalog.write(self._access) as tx:
            maps.give_back(tx, chunk)

    def split(self, chunk: MapChunk) -> None:
        with self._catalog.write(self._access) as tx:
            maps.split(tx, chunk)

    def close(self, run: MapRun) -> None:
        with self._catalog.write(self._access) as tx:
            maps.close(tx, run.id)

    def _select(self, wanted: MapRun) -> Iterator[tuple[int, int]]:
        """Yield the ids and bytes of the versions that there are now and that are to be probed."""
        pattern, after = parse_adapter_pattern(wanted.pattern), 0
        with self._catalog.read(self._access) as tx:
            last = maps.last_version_id(tx)
        while True:
            with self._catalog.read(self._access) as tx:
                page = maps.select_versions(tx, wanted, pattern, after, last)
            if not page:
                return
            yield from page
            after = page[-1][0]


def _cut(sizes: list[tuple[int, int]], *, reads_weights: bool) -> Iterator[list[int]]:
    """Yield chunks of ids that take about as long."""
    chunk: list[int] = []
    total = 0
    for version_id, size in sizes:
        if chunk and (len(chunk) == _MAX_VERSIONS or (reads_weights and total + size > _MAX_BYTES)):
            yield chunk
            chunk, total = [], 0
        chunk.append(version_id)
        total += size
    if chunk:
        yield chunk


def _refuse_second() -> None:
    raise ConflictError("another loreg map is at work on this registry", hint="wait for it: one probe runs at a time")
