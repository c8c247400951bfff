"""Record what a probe made of the versions of a chunk: all with the chunk, or nothing; what is refused is a fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from msgspec.structs import replace

from loreg.catalog import Catalog, Transaction, blobs, exports, maps, versions
from loreg.catalog.version_details import version_details
from loreg.entities import Access, Commit, Committed, MapChunk, NewExport, NewFacts
from loreg.errors import CollectedError, LoregError, NotFoundError, UnavailableError
from loreg.local.commit import ParsedCommit
from loreg.local.facts import record_all_facts, record_facts
from loreg.local.reference_writes import write_references
from loreg.refs import Ref, parse_ref
from loreg.storage import BlobStore

_READERS = 4  # new versions that are read at once
#: A commit that was read, and the digests of bases that its base is.
_Parsed = tuple[ParsedCommit, Sequence[str]]
#: Of these the adapter is not to blame.
_TRANSIENT = (CollectedError, UnavailableError)


class CommitRecorder(Protocol):
    """Reads new versions and records them; see :class:`loreg.local.backend.LocalBackend`."""

    def parse(self, commit: Commit) -> _Parsed:
        """Read the stored blobs of a commit."""
        ...

    def record(self, tx: Transaction, parsed: ParsedCommit, proven: Sequence[str]) -> Committed:
        """Record a commit that was read."""
        ...


class _RefusedError(Exception):
    """What was made of a version is refused: its transaction is rolled back, and begun again without it."""

    def __init__(self, version_id: int, reason: LoregError) -> None:
        super().__init__(reason.message)
        self.version_id, self.reason = version_id, reason


class MadeFiles:
    """What a probe says of the versions of ``chunk``, by their ids, and what it made of them, which is stored."""

    def __init__(self, chunk: MapChunk, facts: Mapping[int, NewFacts], made: Mapping[int, NewExport | Commit]) -> None:
        self._chunk, self._facts, self._made = chunk, facts, made
        self._sources: Mapping[int, Ref] = {version.id: parse_ref(version.ref) for version in chunk.versions}
        self._parsed: dict[int, _Parsed] = {}
        self._refused: dict[int, LoregError] = {}

    def record(
        self, catalog: Catalog, store: BlobStore, access: Access, commits: CommitRecorder
    ) -> Mapping[int, NewFacts] | None:
        """Record it all; see :meth:`loreg.upkeep.Maps.finish`."""
        with ThreadPoolExecutor(_READERS) as pool:
            items = [(version_id, item) for version_id, item in self._made.items() if isinstance(item, Commit)]
            for reading in [pool.submit(self._parse, catalog, access, commits, *item) for item in items]:
                reading.result()
        while True:
            try:
                return self._write(catalog, store, access, commits)
            except _RefusedError as error:
                self._refused[error.version_id] = error.reason

    def _parse(
        self, catalog: Catalog, access: Access, commits: CommitRecorder, version_id: int, commit: Commit
    ) -> None:
        """Read a new version, and give it tasks and labels of its source."""
        try:
            with catalog.read(access) as tx:
                source = version_details(tx, self._sources[version_id]).version
            self._parsed[version_id] = commits.parse(replace(commit, tasks=source.tasks, labels=source.labels))
        except _TRANSIENT:
            raise
        except LoregError as error:
            self._refused[version_id] = error

    def _write(
        self, catalog: Catalog, store: BlobStore, access: Access, commits: CommitRecorder
    ) -> Mapping[int, NewFacts] | None:
        recorded: Mapping[int, NewFacts] | None = None
        for attempt in write_references(catalog, store, access):
            with attempt as tx:
                recorded = self._record_chunk(tx, commits)
        return recorded

    def _record_chunk(self, tx: Transaction, commits: CommitRecorder) -> Mapping[int, NewFacts] | None:
        if not maps.finish(tx, self._chunk):
            return None
        present = self._lock(tx)
        facts = {version_id: self._facts[version_id] for version_id in present}
        for version_id, adapter_id in present.items():
            if version_id in self._refused:
                facts[version_id] = replace(facts[version_id], value={}, error=self._refused[version_id].message)
            elif version_id in self._made:
                facts[version_id] = self._record_one(tx, commits, adapter_id, version_id)
        record_all_facts(tx, facts)
        return facts

    def _lock(self, tx: Transaction) -> Mapping[int, int]:
        """Lock all adapters, then all versions, then all blobs, each in one order; return the versions that are there.

        Each has the id of its adapter. Raises _RefusedError for what was made of one that is not there any more: with
        the transaction the name of its adapter is rolled back, which is there without a version.
        """
        accepted = {version_id: item for version_id, item in self._made.items() if version_id not in self._refused}
        for adapter in sorted({item.adapter for item in accepted.values() if isinstance(item, Commit)}, key=str):
            versions.lock_adapter_name(tx, adapter, make=True)
        unnamed = [version.id for version in self._chunk.versions if not version.is_named]
        present = maps.lock_present(tx, self._facts.keys(), unless_yanked=unnamed)
        for version_id in accepted.keys() - present.keys():
            gone = f"{self._sources[version_id]} was deleted or yanked"
            raise _RefusedError(version_id, NotFoundError(gone, hint=f"loreg ls {self._sources[version_id].adapter}"))
        blobs.record(tx, {file.sha256: file.size for item in accepted.values() for file in item.manifest.files})
        return present

    def _record_one(self, tx: Transaction, commits: CommitRecorder, adapter_id: int, version_id: int) -> NewFacts:
        """Record what was made of one version; return what is said of that. Raises _RefusedError."""
        item, facts = self._made[version_id], self._facts[version_id]
        try:
            if isinstance(item, NewExport):
                exports.record(tx, adapter_id, version_id, item)
                return facts
            ref = commits.record(tx, *self._parsed[version_id]).version.ref
        except _TRANSIENT:
            raise
        except LoregError as error:
            raise _RefusedError(version_id, error) from error
        # The next run knows what is made, and makes nothing of it. Which is made of which only the lineage says: to
        # those alone who may read both.
        record_facts(tx, versions.resolve(tx, parse_ref(ref)).id, replace(facts, value={}))
        return facts
