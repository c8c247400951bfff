"""The upkeep of a registry on its catalog, for administrators."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from loreg.catalog import Catalog, admission, collection, dump, migrations, references
from loreg.catalog.references import Scope
from loreg.entities import Access, CatalogSnapshot, Garbage, Owners, Reference, Role, UpkeepAction
from loreg.local.authorization import require
from loreg.refs import Ref
from loreg.upkeep import Upkeep


class LocalUpkeep(Upkeep):
    """The upkeep, for a caller with ``access``. Raises NotAllowedError unless it is an administrator's."""

    def __init__(self, catalog: Catalog, access: Access) -> None:
        require(access, Role.ADMIN, "*")
        self._catalog = catalog
        self._access = access

    def registry_id(self) -> str:
        return self._catalog.registry_id

    def references(self, refs: Sequence[Ref], since: datetime | None, after: str = "") -> Iterator[Reference]:
        with self._catalog.read(self._access) as tx:
            scope = references.find_scope(tx, refs, since)
            uploads = [item for item in references.list_uploads(tx, scope) if item.sha256 > after]
        yield from references.merge(self._recorded_references(scope, after), uploads)

    def owners(self, digests: Collection[str]) -> Mapping[str, Owners]:
        with self._catalog.read(self._access) as tx:
            return references.find_owners(tx, digests)

    def unreferenced(self, digests: Collection[str]) -> frozenset[str]:
        with self._catalog.read(self._access) as tx:
            return references.find_unreferenced(tx, digests)

    def now(self) -> datetime:
        with self._catalog.read(self._access) as tx:
            return collection.database_time(tx)

    def mark_garbage(self, sizes: Mapping[str, int], listed_at: datetime) -> int:
        with self._catalog.write(self._access) as tx:
            return collection.mark(tx, sizes, listed_at)

    def claim_garbage(self, grace: timedelta, limit: int) -> tuple[Garbage, ...]:
        with self._catalog.write(self._access) as tx:
            return collection.claim(tx, grace, limit)

    def settle_garbage(self, digests: Collection[str]) -> None:
        with self._catalog.write(self._access) as tx:
            collection.settle(tx, digests)

    def marked_garbage(self) -> tuple[int, int]:
        with self._catalog.read(self._access) as tx:
            return collection.count_marked(tx)

    def hold_removals(self) -> AbstractContextManager[Callable[[], None]]:
        return self._catalog.hold_removals()

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

    def load(self, catalog: Path, rows: Mapping[str, int]) -> None:
        self._catalog.load(catalog, rows)

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
