"""Drive one probe over many versions on this machine's catalog: claim chunks, and record what came of them once."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType

from msgspec.structs import replace

from loreg.catalog import Catalog, map_names, map_selection, maps
from loreg.catalog.map_selection import SizedId
from loreg.entities import Access, Commit, MapChunk, MapRun, NewExport, NewFacts, Query
from loreg.errors import UnderWayError, UsageError
from loreg.local.facts import record_all_facts
from loreg.local.loading import with_findings_of_server
from loreg.local.made_files import CommitRecorder, MadeFiles
from loreg.selectors import parse_selector
from loreg.storage import BlobStore
from loreg.upkeep import Maps

_MAX_VERSIONS = 500  # in a chunk: a second of headers
_MAX_MADE = 20  # in a chunk that makes versions or exports, which one transaction records
_MAX_BYTES = 128 * 1024**2  # of the weights of a chunk, for a probe that reads them


class LocalMaps(Maps):
    """Runs of probes, for an administrator."""

    def __init__(self, catalog: Catalog, store: BlobStore, access: Access, commits: CommitRecorder) -> None:
        self._catalog, self._store, self._commits = catalog, store, commits
        self._access = access

    def exclusive(self) -> AbstractContextManager[object]:
        return self._catalog.hold_maps(_refuse_second)

    def begin(self, wanted: MapRun, *, reads_weights: bool) -> MapRun:
        with self._catalog.write(self._access) as tx:
            if (run := maps.find_unfinished(tx, wanted)) is not None:
                return run
        with self._catalog.read(self._access) as tx:
            last = map_selection.last_version_id(tx)
        sizes = dict(self._select(wanted, last))
        if wanted.options.name:
            self._refuse_shared_name(wanted.options.name, sizes)
        with self._catalog.write(self._access) as tx:
            most = _MAX_MADE if wanted.makes_something else _MAX_VERSIONS
            return maps.begin(tx, wanted, last, _cut(sorted(sizes.items()), most, reads_weights=reads_weights))

    def claim(self, run: MapRun, limit: int) -> list[MapChunk]:
        with self._catalog.write(self._access) as tx:
            return maps.claim(tx, run, limit)

    def finish(
        self,
        chunk: MapChunk,
        facts: Mapping[int, NewFacts],
        made: Mapping[int, NewExport | Commit] = MappingProxyType({}),
    ) -> Mapping[int, NewFacts] | None:
        if made:
            return MadeFiles(chunk, facts, made).record(self._catalog, self._store, self._access, self._commits)
        with self._catalog.write(self._access) as tx:
            if not maps.finish(tx, chunk):
                return None
            present = maps.lock_present(tx, facts.keys())
            recorded = {version_id: facts[version_id] for version_id in present}
            record_all_facts(tx, recorded)
            return recorded

    def give_back(self, chunk: MapChunk) -> None:
        with self._catalog.write(self._access) as tx:
            maps.give_back(tx, chunk)

    def split(self, chunk: MapChunk) -> None:
        with self._catalog.write(self._access) as tx:
            maps.split(tx, chunk)

    def close(self, run: MapRun) -> None:
        with self._catalog.write(self._access) as tx:
            maps.close(tx, run.id)

    def _select(self, wanted: MapRun, last: int) -> Iterator[SizedId]:
        """Yield the versions up to the id ``last`` that are to be probed, some of them more than once."""
        if wanted.selection.search is not None:
            yield from self._search(wanted, with_findings_of_server(wanted.selection.search), last)
        for text in wanted.selection.selectors:
            with self._catalog.read(self._access) as tx:
                # Of what is yanked nothing new is made.
                condition = map_selection.condition_of(tx, parse_selector(text), with_yanked=not wanted.makes_something)
            after = 0
            while True:
                with self._catalog.read(self._access) as tx:
                    page = map_selection.select_by_condition(tx, wanted, condition, after, last)
                if not page:
                    break
                yield from page
                after = page[-1][0]

    def _refuse_shared_name(self, template: str, selected: Container[int]) -> None:
        """Raise UsageError if the template means one adapter for what is made of two."""
        with self._catalog.read(self._access) as tx:
            shared = map_names.find_shared_name(tx, template, selected)
        if shared is not None:
            name, one, other = shared
            raise UsageError(
                f"what is made of {one} and of {other} would both be called {name.removeprefix('/')}",
                hint="--name '{namespace}/{name}-r8', or select one of them",
            )

    def _search(self, wanted: MapRun, query: Query, last: int) -> Iterator[SizedId]:
        cursor: str | None = None
        while True:
            with self._catalog.read(self._access) as tx:
                page, cursor = map_selection.select_by_search(tx, wanted, replace(query, cursor=cursor), last)
            yield from page
            if cursor is None:
                return


def _cut(sizes: Sequence[SizedId], most: int, *, reads_weights: bool) -> Iterator[list[int]]:
    """Yield chunks of ids that take about as long, of as many as ``most``."""
    chunk: list[int] = []
    total = 0
    for version_id, size in sizes:
        if chunk and (len(chunk) == most or (reads_weights and total + size > _MAX_BYTES)):
            yield chunk
            chunk, total = [], 0
        chunk.append(version_id)
        total += size
    if chunk:
        yield chunk


def _refuse_second() -> None:
    raise UnderWayError("another loreg map is at work on this registry", hint="wait for it: one probe runs at a time")
