"""backup: a snapshot of the catalog, and every blob that it refers to, while others push; see docs/keeping.md."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loreg.entities import (
    BackupReport,
    CatalogSnapshot,
    Damage,
    DamageKind,
    Progress,
    Reference,
    Snapshot,
    UpkeepAction,
    no_progress,
)
from loreg.errors import ConflictError, LoregError
from loreg.storage import BlobStore, DocumentStore
from loreg.upkeep import Upkeep
from loreg.verbs.verify import First, Look, store_of, to_damages
from loreg.workspace.blob_copies import CopyCounts, Copying
from loreg.workspace.context import Context
from loreg.workspace.snapshots import (
    claim_backup,
    delete_snapshot,
    list_snapshots,
    read_blob_list,
    write_snapshot,
)

_ATTEMPTS = 5  # snapshots that deletions may outdate


def backup(
    context: Context, target: DocumentStore, *, verify: bool = False, progress: Progress = no_progress
) -> BackupReport:
    """Add a snapshot to the backup in ``target``, and every blob of it that is not there yet.

    With ``verify`` what is there is hashed, and mended. What the registry itself has not whole is reported, and counted
    in the snapshot. A killed backup leaves no snapshot, and the next one goes on with its blobs. Raises ConflictError
    for a place that is no backup of this registry.
    """
    upkeep, store = context.backend.upkeep(), store_of(context)
    refuse_moved(upkeep)
    claim_backup(target, upkeep.registry_id())
    copying, counts = Copying(store, target, checked=verify), CopyCounts()
    for _ in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="loreg-backup-") as name:
            snapshot, damages = _take(context, target, copying, counts, Path(name), progress)
        if snapshot is not None:
            report = BackupReport(
                snapshot,
                target.url,
                counts.new,
                counts.new_size,
                counts.known,
                counts.seconds,
                tuple(damages.items),
                damages.count,
            )
            detail = {"to": target.url, "snapshot": snapshot.name, "blobs": snapshot.blobs, "new": counts.new}
            upkeep.log(UpkeepAction.BACKUP, {**detail, "missing": snapshot.missing})
            return report
        counts.known = 0
    raise ConflictError(f"versions were deleted during {_ATTEMPTS} snapshots", hint="loreg backup, when that is done")


def refuse_moved(upkeep: Upkeep) -> None:
    """Raise ConflictError for a registry that was moved: its backups are those of the new place."""
    if place := upkeep.moved_to():
        raise ConflictError(f"this registry was moved to {place}", hint="back it up where it is now")


def list_backup(target: DocumentStore) -> tuple[Snapshot, ...]:
    """Return the snapshots of a backup, the newest first. Raises NotFoundError if it has none."""
    return tuple(stored.snapshot for stored in reversed(list_snapshots(target)))


def _take(
    context: Context,
    target: DocumentStore,
    copying: Copying,
    counts: CopyCounts,
    folder: Path,
    progress: Progress,
) -> tuple[Snapshot | None, First[Damage]]:
    """Take a snapshot, and return it with what the registry has not whole; None if it refers to what was deleted since.

    Nothing is collected meanwhile. Deletions do not wait for that: then another snapshot is taken, without what was
    deleted.
    """
    catalog, blobs = folder / "catalog", folder / "blobs"
    damages: First[Damage] = First()
    upkeep = context.backend.upkeep()
    with upkeep.hold_removals(on_wait=partial(progress, "waiting for loreg backup --forget", 0, 1)) as beat:
        taken = upkeep.snapshot(catalog, blobs)
        lost = list(_inconsistent(taken))
        for item in copying.copy(read_blob_list(blobs), counts, total=taken.blobs, on_chunk=beat, progress=progress):
            reference = Reference(item.blob.sha256, item.blob.size)
            lost.append(Look(reference, item.kind, item.stored_size))
        for damage in to_damages(context, lost):
            damages.add(damage)
        if damages.count < len(lost) or any(_is_back(copying.source, look) for look in lost):
            return None, damages
        _require_hold(upkeep, beat)
        snapshot = write_snapshot(target, taken, catalog, blobs, damages.count)
        try:
            _require_hold(upkeep, beat)
        except LoregError:
            delete_snapshot(target, snapshot.name)
            raise
        return snapshot, damages


def _require_hold(upkeep: Upkeep, beat: Callable[[], None]) -> None:
    """Raise if snapshots may have been forgotten meanwhile, and blobs with them that this one refers to.

    UnavailableError is for a hold that was lost, ConflictError for a registry that was moved: who forgets then asks the
    new one.
    """
    beat()
    refuse_moved(upkeep)


def _is_back(store: BlobStore, look: Look) -> bool:
    """Return whether a blob that was missing is stored now: it was deleted with a version, and pushed with another."""
    return look.kind is DamageKind.MISSING and store.size(look.reference.sha256) is not None


def _inconsistent(taken: CatalogSnapshot) -> list[Look]:
    return [Look(Reference(sha256, None), DamageKind.INCONSISTENT, None) for sha256 in taken.inconsistent]
