"""Write references to stored blobs into the catalog, while collectors remove from the store what nothing refers to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from msgspec.structs import replace

from loreg.catalog import Catalog, Transaction, garbage
from loreg.catalog.transaction import Sighting
from loreg.entities import Access
from loreg.errors import CollectedError
from loreg.storage import BlobStore, BlobTransfer, foreign_store_error

_ATTEMPTS = 5


def write_references(
    catalog: Catalog, store: BlobStore, access: Access
) -> Iterator[AbstractContextManager[Transaction]]:
    """Yield transactions of a caller with ``access`` that add references to blobs, until one is committed.

    ``for attempt in write_references(…): with attempt as tx: …`` has another attempt if one refers to a blob that was
    collected since it was seen. Such blobs are looked for in the store once more: those that are there again, or
    still, may be referred to. Raises CollectedError for others, and ConflictError for a store of another registry;
    then nothing is recorded.
    """
    require_own_store(catalog, store)
    for number in range(1, _ATTEMPTS + 1):
        stale: list[garbage.StaleSightingError] = []
        yield _write(catalog, access, stale)
        if not stale:
            return
        _require_another_attempt(store, stale[0], number)
        with catalog.write(access) as tx:
            garbage.confirm(tx, stale[0].sightings)


@contextlib.contextmanager
def _write(catalog: Catalog, access: Access, stale: list[garbage.StaleSightingError]) -> Iterator[Transaction]:
    """Yield a transaction; one that raises StaleSightingError is rolled back, and the error put into ``stale``."""
    try:
        with catalog.write(access) as tx:
            yield tx
    except garbage.StaleSightingError as error:
        stale.append(error)


def rehearse_references(
    catalog: Catalog, store: BlobTransfer, access: Access, action: Callable[[Transaction], object]
) -> None:
    """Raise what :func:`write_references` would raise if it were called when the store has what ``store`` has now.

    Nothing is recorded, also not that blobs which were collected are there again: ``store`` may only be about to send
    them. Locks are taken in the order in which ``action`` takes them when it is meant.
    """
    seen: frozenset[Sighting] = frozenset()
    for number in range(1, _ATTEMPTS + 1):
        try:
            with catalog.write(access) as tx:
                action(replace(tx, confirmed=seen))
                raise _RolledBackError
        except _RolledBackError:
            return
        except garbage.StaleSightingError as error:
            _require_another_attempt(store, error, number)
            seen |= {*error.sightings}


def _require_another_attempt(store: BlobTransfer, error: garbage.StaleSightingError, number: int) -> None:
    """Raise CollectedError if the store has not all that was collected, or attempt ``number`` was the last."""
    if number == _ATTEMPTS or any(store.size(sighting.sha256) is None for sighting in error.sightings):
        raise CollectedError(str(error), hint="push again") from error


class _RolledBackError(Exception):
    """Raised to roll a rehearsal back."""


def require_own_store(catalog: Catalog, store: BlobStore) -> None:
    """Mark the store as this registry's. Raises ConflictError if it is another's: each would clear away the other's."""
    owner = store.claim(catalog.registry_id)
    if owner != catalog.registry_id:
        raise foreign_store_error(store, owner, catalog.registry_id)
