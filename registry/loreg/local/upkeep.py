"""The upkeep of a registry on its catalog, for administrators."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from loreg.catalog import (
    Catalog,
    Transaction,
    admission,
    collection,
    dump,
    events,
    exports,
    migrations,
    references,
    retention,
    sketches,
    uploads,
    versions,
    webhook_deliveries,
)
from loreg.catalog.references import Scope
from loreg.catalog.retention import PruneScope
from loreg.entities import (
    Access,
    CatalogSnapshot,
    Garbage,
    GarbageClaim,
    GarbageCount,
    MarkedGarbage,
    Owners,
    PruneDecision,
    Reference,
    Retention,
    Role,
    Sketch,
    UpkeepAction,
    Version,
    VersionContent,
)
from loreg.local.authorization import require
from loreg.local.expiry import count_expired, discard_expired
from loreg.refs import AdapterName, AdapterPattern, Ref
from loreg.storage import BlobStore
from loreg.upkeep import Maps, Upkeep

if TYPE_CHECKING:
    from loreg.local.made_files import CommitRecorder

_PAGE = 1000  # rows in one transaction


class LocalUpkeep(Upkeep):
    """The upkeep, for a caller with ``access``. Raises NotAllowedError unless it is an administrator's."""

    def __init__(self, catalog: Catalog, store: BlobStore, access: Access, commits: CommitRecorder) -> None:
        require(access, Role.ADMIN, "*")
        self._catalog, self._store, self._commits = catalog, store, commits
        self._access = access

    def registry_id(self) -> str:
        return self._catalog.registry_id

    def references(self, refs: Sequence[Ref], since: datetime | None, after: str = "") -> Iterator[Reference]:
        with self._catalog.read(self._access) as tx:
            scope = references.find_scope(tx, refs, since)
            listed = [item for item in references.list_uploads(tx, scope) if item.sha256 > after]
        yield from references.merge(self._recorded_references(scope, after), listed)

    def owners(self, digests: Collection[str]) -> Mapping[str, Owners]:
        with self._catalog.read(self._access) as tx:
            return references.find_owners(tx, digests)

    def unreferenced(self, digests: Collection[str]) -> frozenset[str]:
        with self._catalog.read(self._access) as tx:
            return references.find_unreferenced(tx, digests)

    def now(self) -> datetime:
        with self._catalog.read(self._access) as tx:
            return collection.database_time(tx)

    def find_new_garbage(self, digests: Collection[str], listed_at: datetime) -> frozenset[str]:
        with self._catalog.read(self._access) as tx:
            return collection.find_new(tx, digests, listed_at)

    def mark_garbage(self, sizes: Mapping[str, int], listed_at: datetime) -> int:
        with self._catalog.write(self._access) as tx:
            return collection.mark(tx, sizes, listed_at)

    def due_garbage(self, grace: timedelta) -> Iterator[Garbage]:
        after = ""
        while True:
            with self._catalog.read(self._access) as tx:
                page, after = collection.list_due(tx, grace, after, _PAGE)
            yield from page
            if not after:
                return

    def claim_garbage(self, grace: timedelta, limit: int) -> GarbageClaim | None:
        with self._catalog.write(self._access) as tx:
            return collection.claim(tx, grace, limit)

    def settle_garbage(self, digests: Collection[str], claimed_at: datetime) -> None:
        with self._catalog.write(self._access) as tx:
            collection.settle(tx, digests, claimed_at)

    def marked_garbage(self, within: timedelta | None = None) -> MarkedGarbage:
        with self._catalog.read(self._access) as tx:
            return collection.count_marked(tx, within)

    def count_expired(self, before: datetime, *, with_live: bool) -> tuple[GarbageCount, ...]:
        with self._catalog.read(self._access) as tx:
            stale = exports.count_stale(tx, before, with_live=with_live)
        return (*count_expired(self._catalog, self._access), *stale)

    def discard_expired(self, before: datetime, *, with_live: bool) -> Iterator[GarbageCount]:
        while counts := discard_expired(self._catalog, self._access).counts:
            yield from counts
        while True:
            with self._catalog.write(self._access) as tx:
                counts = exports.remove_stale(tx, before, _PAGE, with_live=with_live)
            yield from counts
            if not counts:
                return

    def known_uploads(self, upload_ids: Collection[str]) -> frozenset[str]:
        with self._catalog.read(self._access) as tx:
            return uploads.find_known(tx, upload_ids)

    def find_contents(self, digests: Collection[str]) -> Mapping[str, VersionContent]:
        with self._catalog.read(self._access) as tx:
            return versions.find_contents(tx, digests)

    def count_unsketched(self) -> int:
        with self._catalog.read(self._access) as tx:
            return sketches.count_unsketched(tx)

    def unsketched(self) -> Iterator[Version]:
        after = 0
        while True:
            with self._catalog.read(self._access) as tx:
                page = sketches.list_unsketched(tx, after, _PAGE)
            if not page:
                return
            yield from (version for _, version in page)
            after = page[-1][0]

    def record_sketch(self, ref: Ref, sketch: Sketch) -> bool:
        from loreg.local.sketches import signs_of

        signs = signs_of(sketch)
        with self._catalog.write(self._access) as tx:
            return sketches.record(tx, versions.resolve(tx, ref).id, sketch, signs)

    def maps(self) -> Maps:
        from loreg.local.maps import LocalMaps

        return LocalMaps(self._catalog, self._store, self._access, self._commits)

    def adapters(self, pattern: AdapterPattern) -> Iterator[AdapterName]:
        last: AdapterName | None = None
        while True:
            with self._catalog.read(self._access) as tx:
                page = retention.list_adapters(tx, pattern, last)
            if not page:
                return
            yield from page
            last = page[-1]

    def plan_pruning(
        self, adapter: AdapterName, rules: Retention, pattern: AdapterPattern, guarded: Collection[str]
    ) -> tuple[PruneDecision, ...]:
        with self._catalog.read(self._access) as tx:
            return retention.plan(tx, adapter, PruneScope(rules, pattern, guarded))

    def prune(
        self, adapter: AdapterName, rules: Retention, pattern: AdapterPattern, guarded: Collection[str], limit: int
    ) -> tuple[tuple[PruneDecision, ...], int]:
        from loreg.adapters.structure import WEIGHTS_NAME

        with self._catalog.write(self._access) as tx:
            return retention.prune(tx, adapter, PruneScope(rules, pattern, guarded), WEIGHTS_NAME, limit)

    def hold_removals(
        self, *, alone: bool = False, on_wait: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Callable[[], None]]:
        return self._catalog.hold_removals(alone=alone, on_wait=on_wait)

    def snapshot(self, catalog: Path, blobs: Path) -> CatalogSnapshot:
        with self._catalog.read_snapshot() as tx:
            at, registry_id = collection.database_time(tx), admission.registry_id(tx)
            rows = dump.write(tx.connection, catalog)
            count = size = 0
            inconsistent = []
            with blobs.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as sink:
                for reference in references.list_all(tx):
                    if reference.size is None:
                        inconsistent.append(reference.sha256)
                        continue
                    sink.write(f"{reference.sha256} {reference.size}\n".encode())
                    count += 1
                    size += reference.size
        return CatalogSnapshot(registry_id, migrations.HEAD, at, rows, count, size, tuple(inconsistent))

    def require_empty(self) -> None:
        self._catalog.refuse_content()

    def load(self, catalog: Path, rows: Mapping[str, int], restored: Mapping[str, object] | None = None) -> None:
        def log(tx: Transaction) -> None:
            if restored is not None:
                tx = replace(tx, access=self._access)
                webhook_deliveries.stop_all(tx, "the registry was restored from a backup")
                tx.log(UpkeepAction.RESTORE, None, None, **restored)

        self._catalog.load(catalog, rows, log)

    def restored_snapshot(self) -> str:
        with self._catalog.read(self._access) as tx:
            newest = events.list_page(tx, 1, None).items
        return str(newest[0].detail.get("snapshot", "")) if newest and newest[0].action == UpkeepAction.RESTORE else ""

    def moved_to(self) -> str:
        return self._catalog.moved_to()

    def close_for(self, place: str, detail: Mapping[str, object]) -> None:
        self._catalog.set_moved_to(self._access, place, **detail)

    def log(self, action: UpkeepAction, detail: Mapping[str, object]) -> None:
        with self._catalog.write(self._access) as tx:
            tx.log(action, None, None, **detail)

    def _recorded_references(self, scope: Scope, after: str) -> Iterator[Reference]:
        """Yield the references of everything but uploads, a transaction for each page."""
        while True:
            with self._catalog.read(self._access) as tx:
                page = references.list_page(tx, scope, after)
            if not page:
                return
            yield from page
            after = page[-1].sha256
