"""Write references to stored blobs into the catalog, while collectors remove from the store what nothing refers to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from loreg.catalog import Catalog, Transaction, garbage
from loreg.entities import Access
from loreg.errors import CollectedError
from loreg.storage import BlobStore, BlobTransfer, foreign_store_error

T = TypeVar("T")
_ATTEMPTS = 5


def write_references(catalog: Catalog, store: BlobStore, access: Access, action: Callable[[Transaction], T]) -> T:
    """Return what ``action`` returns, called with a transaction of a caller with ``access``.

    Blobs that were collected are looked for in the store once more: those that are there again, or still, may be
    referred to. Raises CollectedError for others, and ConflictError for a store of another registry; then nothing is
    recorded.
    """
    require_own_store(catalog, store)
    attempt = 1
    while True:
        try:
            with catalog.write(access) as tx:
                return action(tx)
        except garbage.StaleSightingError as error:
            if attempt == _ATTEMPTS or any(store.size(sighting.sha256) is None for sighting in error.sightings):
                raise CollectedError(str(error), hint="push again") from error
            with catalog.write(access) as tx:
                garbage.confirm(tx, error.sightings)
        attempt += 1


def rehearse_references(
    catalog: Catalog, store: BlobTransfer, access: Access, action: Callable[[Transaction], T]
) -> None:
    """Raise what :func:`write_references` would raise if it were called when the store has what ``store`` has now.

    Nothing is recorded, also not that blobs which were collected are there again: ``store`` may only be about to send
    them.
    """
    seen: set[garbage.Sighting] = set()
    for attempt in range(_ATTEMPTS):
        try:
            with catalog.write(access) as tx:
                garbage.confirm(tx, seen)
                action(tx)
                raise _RolledBackError
        except _RolledBackError:
            return
        except garbage.StaleSightingError as error:
            if attempt == _ATTEMPTS - 1 or any(store.size(item.sha256) is None for item in error.sightings):
                raise CollectedError(str(error), hint="push again") from error
            seen |= {*error.sightings}


class _RolledBackError(Exception):
    """Raised to roll a rehearsal back."""


def require_own_store(catalog: Catalog, store: BlobStore) -> None:
    """Mark the store as this registry's. Raises ConflictError if it is another's: each would clear away the other's."""
    owner = store.claim(catalog.registry_id)
    if owner != catalog.registry_id:
        raise foreign_store_error(store, owner, catalog.registry_id)
