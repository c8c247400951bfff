"""The upkeep of a registry on its catalog, for administrators."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from loreg.catalog import Catalog, collection, references
from loreg.catalog.references import Scope
from loreg.entities import Access, Garbage, Owners, Reference, Role, UpkeepAction
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
        last = ""
        merged = heapq.merge(self._recorded_references(scope, after), uploads, key=lambda item: item.sha256)
        for reference in merged:
            if reference.sha256 != last:
                yield reference
            last = reference.sha256

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

    def settle_garbage(self, garbage: Collection[Garbage]) -> None:
        with self._catalog.write(self._access) as tx:
            collection.settle(tx, garbage)

    def marked_garbage(self) -> tuple[int, int]:
        with self._catalog.read(self._access) as tx:
            return collection.count_marked(tx)

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
