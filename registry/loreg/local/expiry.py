"""Discard what clients began and never finished: a server does it every hour, and a garbage collection too."""

from __future__ import annotations

from dataclasses import dataclass

from loreg.catalog import Catalog, pending_uploads, uploads
from loreg.entities import Access, GarbageCount, GarbageKind

_BATCH = 1000  # uploads in one transaction


@dataclass(frozen=True)
class Discarded:
    """What was discarded, by kind and namespace; under ``upload_ids`` the store may still have something."""

    counts: tuple[GarbageCount, ...]
    upload_ids: tuple[str, ...]


def discard_expired(catalog: Catalog, access: Access) -> Discarded:
    """Discard pending uploads untouched for 30 days, and up to a thousand uploads announced over a week ago.

    Another call discards the next of these; when there are none, nothing is returned.
    """
    with catalog.write(access) as tx:
        counts = pending_uploads.discard_expired(tx)
        expired = uploads.discard_expired(tx, _BATCH)
    if expired:
        size = sum(upload.size for upload in expired)
        counts = (*counts, GarbageCount(GarbageKind.UPLOAD, "", len(expired), size))
    return Discarded(counts, tuple(upload.id for upload in expired))


def count_expired(catalog: Catalog, access: Access) -> tuple[GarbageCount, ...]:
    """Return what :func:`discard_expired` would discard if it were called until nothing is left."""
    with catalog.read(access) as tx:
        counts = (*pending_uploads.count_expired(tx), uploads.count_expired(tx))
    return tuple(item for item in counts if item.count)
