"""gc: remove from the store what nothing refers to, after a grace, while others push; see docs/keeping.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from loreg.entities import Garbage, GcReport, Progress, UpkeepAction, no_progress
from loreg.errors import ConflictError
from loreg.storage import BlobStore
from loreg.upkeep import CLAIM_SECONDS, Upkeep
from loreg.verbs.verify import batches, store_of
from loreg.workspace.context import Context

GRACE = timedelta(hours=24)  # longer than the longest push
_BATCH = 1000  # blobs in one question to the catalog, and in one claim


def gc(
    context: Context, *, grace: timedelta = GRACE, dry_run: bool = False, progress: Progress = no_progress
) -> GcReport:
    """Mark what nothing refers to, and remove what was marked longer than ``grace`` ago and still is garbage.

    Raises ConflictError for a store that is marked as another registry's. Several may run at once, and be killed.
    """
    upkeep, store = context.backend.upkeep(), store_of(context)
    is_known = _require_own(store, upkeep, dry_run=dry_run)
    new = _mark(store, upkeep, dry_run=dry_run, progress=progress)
    # A store that nobody marked may be another registry's too, whose next push would be refused: that needs a grace.
    removed = _collect(store, upkeep, grace, progress) if is_known and not dry_run else []
    marked, marked_size = upkeep.marked_garbage()
    report = GcReport(len(removed), sum(blob.size for blob in removed), marked, marked_size, new, dry_run)
    if removed:
        upkeep.log(UpkeepAction.GC, {"removed": report.removed, "size": report.removed_size})
    return report


def _require_own(store: BlobStore, upkeep: Upkeep, *, dry_run: bool) -> bool:
    """Mark the store, and return whether it was marked before. Raises ConflictError if it is another registry's."""
    registry_id, owner = upkeep.registry_id(), store.owner()
    if not owner and not dry_run and store.claim(registry_id) == registry_id:
        return False
    if owner not in ("", registry_id):
        raise ConflictError(
            f"the store {store.url} belongs to registry {owner[:8]}, this is {registry_id[:8]}: its garbage is not "
            "this registry's to remove",
            hint="loreg doctor shows which store is in force, and why",
        )
    return bool(owner)


def _mark(store: BlobStore, upkeep: Upkeep, *, dry_run: bool, progress: Progress) -> int:
    """Mark every stored blob that nothing refers to; return how many were not marked before."""
    listed_at = upkeep.now()
    seen = new = 0
    for batch in batches(store.list(), _BATCH):
        sizes = {blob.sha256: blob.size for blob in batch}
        garbage = upkeep.unreferenced(sizes.keys())
        if garbage and not dry_run:
            new += upkeep.mark_garbage({digest: sizes[digest] for digest in garbage}, listed_at)
        seen += len(batch)
        progress("listing the store", seen, seen + _BATCH)
    return new


def _collect(store: BlobStore, upkeep: Upkeep, grace: timedelta, progress: Progress) -> list[Garbage]:
    """Remove what was marked longer than ``grace`` ago; return it."""
    removed: list[Garbage] = []
    with ThreadPoolExecutor(store.parallelism) as pool:
        while True:
            deadline = time.monotonic() + CLAIM_SECONDS  # of the claim, whose answer may be late
            if not (claimed := upkeep.claim_garbage(grace, _BATCH)):
                break
            gone = _remove(store, pool, claimed, deadline)
            upkeep.settle_garbage(gone)
            removed += gone
            progress("removing", len(removed), len(removed) + _BATCH)
    return removed


def _remove(store: BlobStore, pool: ThreadPoolExecutor, claimed: Sequence[Garbage], deadline: float) -> list[Garbage]:
    """Remove the blobs while the claim holds; return those that are gone."""

    def remove(blob: Garbage) -> Garbage | None:
        if time.monotonic() > deadline:  # somebody may push it by now
            return None
        store.delete(blob.sha256)
        return blob

    return [blob for blob in pool.map(remove, claimed) if blob is not None]
