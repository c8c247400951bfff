"""Delete a version for good: one transaction of the catalog, then its blobs leave the store, without a grace.

Killed in between, the marks of what must go stay in the catalog: the next deletion, and every garbage collection,
removes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from msgspec.structs import replace

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.catalog import Catalog, Transaction, collection, deletion, garbage, tombstones, versions
from loreg.catalog.deletion import Removal
from loreg.decoding import decode
from loreg.entities import Access, Deletion, Role
from loreg.errors import IntegrityError, NotFoundError
from loreg.local.authorization import require
from loreg.local.reference_writes import require_own_store
from loreg.manifest import File
from loreg.parsing import parse_reason
from loreg.refs import Ref
from loreg.storage import BlobStore, SigningStore
from loreg.storage.removal import remove_claimed, seconds
from loreg.strict_json import parse_finite
from loreg.upkeep import CLAIM_SECONDS

_BATCH = 1000  # blobs in one claim


def preview(catalog: Catalog, store: BlobStore, access: Access, ref: Ref) -> Deletion:
    """Return what :func:`delete` would remove now; nothing changes. For administrators of everything."""
    require(access, Role.ADMIN, "*")
    return replace(_rehearse(catalog, store, access, ref).deletion, dry_run=True)


def delete(catalog: Catalog, store: BlobStore, access: Access, ref: Ref, reason: str) -> Deletion:
    """Delete the version of ``ref`` for good, because of ``reason``; return what was removed.

    Of one that is gone already, what is left of it. For administrators of everything. Raises UsageError for a reason
    that is empty or too long, ConflictError for a store of another registry; then nothing is deleted.
    """
    require(access, Role.ADMIN, "*")
    reason = parse_reason(reason)
    require_own_store(catalog, store)
    if isinstance(store, SigningStore):  # their ids are known until the transaction is committed
        store.forget_uploads(_rehearse(catalog, store, access, ref).upload_ids)
    while True:
        left = _find_left(catalog, store, access, ref)
        with contextlib.suppress(_GoneError), catalog.write(access) as tx:
            removal = _remove(tx, ref, reason, left)
            break
    removed, waiting = _remove_marked(catalog, store, access)
    if isinstance(store, SigningStore):
        store.forget_uploads(removal.upload_ids)
        with catalog.read(access) as tx:
            is_shared = deletion.has_content(tx, removal.deletion.digest)
        if not is_shared:  # the copies for servers come last: they are made of the blobs
            store.remove_copy(removal.deletion.digest)
    return replace(removal.deletion, removed=removed, waiting=waiting)


def _rehearse(catalog: Catalog, store: BlobStore, access: Access, ref: Ref) -> Removal:
    """Return what a deletion would remove: it is done, and rolled back."""
    while True:
        left = _find_left(catalog, store, access, ref)
        try:
            with contextlib.suppress(_GoneError), catalog.write(access) as tx:
                raise _RolledBackError(_remove(tx, ref, "rehearsal", left))
        except _RolledBackError as rehearsed:
            return rehearsed.removal


class _RolledBackError(Exception):
    """Raised to roll back a rehearsal; has what it removed."""

    def __init__(self, removal: Removal) -> None:
        super().__init__()
        self.removal = removal


class _GoneError(Exception):
    """Raised if the version went since the store was asked what is left of it: it must be asked again."""


def _remove(tx: Transaction, ref: Ref, reason: str, left: Mapping[str, int] | None) -> Removal:
    adapter_id = versions.find_adapter_id(tx, ref.adapter)
    versions.lock_adapter(tx, adapter_id)
    garbage.lock(tx, shared=False)
    try:
        record = versions.resolve(tx, ref)
    except NotFoundError:
        tombstone = tombstones.find(tx, adapter_id, ref)
        if tombstone is None:
            raise
        if left is None:
            raise _GoneError from None
        return deletion.remove_rest(tx, ref.adapter, tombstone, left, reason)
    return deletion.remove_for_good(tx, record, WEIGHTS_NAME, reason)


def _find_left(catalog: Catalog, store: BlobStore, access: Access, ref: Ref) -> dict[str, int] | None:
    """Return what the store still has of a version that is gone, sizes by digest, as far as its manifest names it.

    None for one that is not gone.
    """
    with catalog.read(access) as tx:
        tombstone = tombstones.find(tx, versions.find_adapter_id(tx, ref.adapter), ref)
    if tombstone is None:
        return None
    digests = {tombstone.digest, tombstone.weights, *_read_manifest(store, tombstone.digest)} - {""}
    sizes = {digest: store.size(digest) for digest in sorted(digests)}
    return {digest: size for digest, size in sizes.items() if size is not None}


def _read_manifest(store: BlobStore, digest: str) -> tuple[str, ...]:
    """Return the digests of the files that a manifest names; none if the store does not have it."""
    try:
        files = decode(parse_finite(store.read(digest))["files"], tuple[File, ...])
    except (NotFoundError, IntegrityError, ValueError, KeyError, TypeError):
        return ()
    return tuple(file.sha256 for file in files)


def _remove_marked(catalog: Catalog, store: BlobStore, access: Access) -> tuple[int, int]:
    """Remove what deletions marked, this one's and what others left; return how much is gone, and how much is not."""
    removed = 0
    with ThreadPoolExecutor(store.parallelism) as pool:
        while True:
            deadline = seconds() + CLAIM_SECONDS  # from before the claim: its answer may be late
            with catalog.write(access) as tx:
                claim = collection.claim_deleted(tx, _BATCH)
            if claim is None:
                break

            def settle(gone: Collection[str], claimed_at: datetime = claim.at) -> None:
                nonlocal removed
                with catalog.write(access) as tx:
                    collection.settle(tx, gone, claimed_at)
                removed += len(gone)

            remove_claimed(store, pool, [blob.sha256 for blob in claim.blobs], deadline, settle)
    with catalog.read(access) as tx:
        return removed, collection.count_deleted(tx)
