"""restore: an empty registry becomes what a snapshot says, blobs first; see docs/keeping.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loreg.entities import Progress, RestoreReport, no_progress
from loreg.errors import ConflictError, IntegrityError, NotFoundError
from loreg.storage import Blob, BlobStore, DocumentStore
from loreg.upkeep import Upkeep
from loreg.verbs.verify import First, Selection, store_of, verify
from loreg.workspace.blob_copies import CopyCounts, Copying, LostBlob
from loreg.workspace.context import Context
from loreg.workspace.snapshots import StoredSnapshot, find_snapshot, read_blob_list

_MAX_NAMED = 5  # lost blobs in a message


def restore(
    context: Context,
    source: DocumentStore,
    snapshot: str = "",
    *,
    incomplete: bool = False,
    progress: Progress = no_progress,
) -> RestoreReport:
    """Fill the empty registry with a snapshot of a backup, the newest by default, and verify it.

    Raises ConflictError if the registry or its store is another's, IntegrityError if blobs of the snapshot are missing
    or damaged in the backup, unless ``incomplete`` takes the rest: in both cases the registry stays empty, and a second
    call goes on with the blobs.
    """
    upkeep, store = context.backend.upkeep(), store_of(context)
    stored, counts = find_snapshot(source, snapshot), CopyCounts()
    if _is_restored(upkeep, stored.snapshot.name):  # by a call that was killed before it had verified it
        counts.known = stored.snapshot.blobs
    else:
        _load(source, stored, upkeep, store, counts, incomplete, progress)
    return RestoreReport(
        stored.snapshot,
        source.url,
        counts.new,
        counts.new_size,
        counts.known,
        counts.seconds,
        verify(context, Selection(), progress),
        tuple(webhook.id for webhook in reversed(context.backend.webhooks()) if webhook.disabled_at is not None),
    )


def _is_restored(upkeep: Upkeep, snapshot: str) -> bool:
    """Whether an earlier call has loaded the snapshot. Raises ConflictError if there is anything else."""
    try:
        upkeep.require_empty()
    except ConflictError:
        if upkeep.restored_snapshot() != snapshot:
            raise
        return True
    return False


def _load(
    source: DocumentStore,
    stored: StoredSnapshot,
    upkeep: Upkeep,
    store: BlobStore,
    counts: CopyCounts,
    incomplete: bool,
    progress: Progress,
) -> None:
    """Copy the blobs of the snapshot, then load its rows."""
    claim_store(store, stored.snapshot.registry_id)
    lost = First[LostBlob]()
    with tempfile.TemporaryDirectory(prefix="loreg-restore-") as name, upkeep.hold_removals() as beat:
        catalog, blobs = Path(name) / "catalog", Path(name) / "blobs"
        _fetch(source, stored, stored.blobs, blobs)
        _fetch(source, stored, stored.catalog, catalog)
        copying, total = Copying(source, store, checked=True), stored.snapshot.blobs
        for item in copying.copy(read_blob_list(blobs), counts, total=total, on_chunk=beat, progress=progress):
            lost.add(item)
        if (lost.count or stored.snapshot.missing) and not incomplete:
            raise _incomplete_error(source, stored, lost)
        claim_store(store, stored.snapshot.registry_id)
        upkeep.load(catalog, stored.snapshot.rows, {"from": source.url, "snapshot": stored.snapshot.name})


def claim_store(store: BlobStore, registry_id: str) -> None:
    """Mark the store as that registry's. Raises ConflictError if it is another's."""
    if isinstance(store, DocumentStore):
        store.create()
    owner = store.claim(registry_id)
    if owner != registry_id:
        raise ConflictError(
            f"the store {store.url} belongs to registry {owner[:8]}, and what comes is of {registry_id[:8]}",
            hint="choose a store of its own: --storage-url; if that registry is gone for good, remove the mark "
            f"{store.url}/owner",
        )


def _fetch(source: DocumentStore, stored: StoredSnapshot, blob: Blob, path: Path) -> None:
    """Get one of the blobs that the snapshot itself is made of."""
    try:
        source.get(blob, path)
    except (NotFoundError, IntegrityError) as error:
        raise IntegrityError(
            f"snapshot {stored.snapshot.name} in {source.url} is not whole: blob {blob.sha256[:12]} is missing or "
            "damaged",
            hint=f"take another snapshot: loreg restore {source.url} --list",
        ) from error


def _incomplete_error(source: DocumentStore, stored: StoredSnapshot, lost: First[LostBlob]) -> IntegrityError:
    named = ", ".join(f"{item.blob.sha256[:12]} {item.kind}" for item in lost.items[:_MAX_NAMED])
    more = f" and {lost.count - _MAX_NAMED:,} more" if lost.count > _MAX_NAMED else ""
    count = max(lost.count, stored.snapshot.missing)
    return IntegrityError(
        f"{count:,} blobs of snapshot {stored.snapshot.name} are not whole in {source.url}"
        f"{': ' if named else ''}{named}{more}; nothing was restored but blobs, the registry is empty",
        hint=f"loreg backup {source.url} --verify from the registry itself mends them, if it is there still; "
        f"loreg restore {source.url} --incomplete takes all the rest",
    )
