"""gc: remove what nothing refers to and what nobody needs any more, while others push; see docs/keeping.md."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from loreg.entities import (
    GarbageCount,
    GarbageKind,
    GcReport,
    Progress,
    UpkeepAction,
    WaitingGarbage,
    no_progress,
)
from loreg.errors import LoregError
from loreg.storage import BlobStore, Leftover, SigningStore, foreign_store_error
from loreg.storage.removal import remove_claimed, seconds
from loreg.upkeep import CLAIM_SECONDS, Upkeep
from loreg.verbs.verify import batches, store_of
from loreg.workspace.context import Context
from loreg.workspace.temporary_folders import list_temporary

GRACE = timedelta(hours=24)  # longer than the longest push
_AT_WORK = timedelta(hours=1)  # a writer that wrote something since may be at work, and fails if it is taken from it
_WEEK = timedelta(days=7)  # after which an upload is forgotten
_BATCH = 1000  # blobs in one question to the catalog, and in one claim


@dataclass(frozen=True)
class _Rules:
    """How a run collects."""

    grace: timedelta
    caches: bool
    dry_run: bool


@dataclass
class _Tally:
    """What was freed and what waits, by kind and namespace: it does not grow with how much that is.

    ``may_remove`` is false in a store that was not known to be this registry's before.
    """

    may_remove: bool
    freed: dict[tuple[GarbageKind, str], GarbageCount] = field(default_factory=dict)
    waiting: dict[tuple[GarbageKind, str], WaitingGarbage] = field(default_factory=dict)

    def free(self, kind: GarbageKind, namespace: str, count: int, size: int) -> None:
        if count:
            before = self.freed.get((kind, namespace), GarbageCount(kind, namespace, 0, 0))
            total = GarbageCount(kind, namespace, before.count + count, before.size + size)
            self.freed[kind, namespace] = total

    def wait(self, item: WaitingGarbage) -> None:
        key = (item.kind, item.namespace)
        before = self.waiting.get(key)
        if before is not None:
            since, due = min(before.since, item.since), min(before.due, item.due)
            item = WaitingGarbage(*key, before.count + item.count, before.size + item.size, since, due)
        self.waiting[key] = item

    def is_due(self, item: WaitingGarbage, now: datetime) -> bool:
        """Return whether it may be removed now, and count it as freed or as waiting."""
        is_due = self.may_remove and item.due <= now
        if is_due:
            self.free(item.kind, item.namespace, item.count, item.size)
        else:
            self.wait(item)
        return is_due

    def report(self, new: int, *, dry_run: bool) -> GcReport:
        freed = tuple(self.freed[key] for key in sorted(self.freed))
        waiting = tuple(self.waiting[key] for key in sorted(self.waiting))
        return GcReport(freed, waiting, new, dry_run)


def gc(
    context: Context,
    *,
    grace: timedelta = GRACE,
    caches: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> GcReport:
    """Mark what nothing refers to, and remove what was marked longer than ``grace`` ago and still is garbage.

    What interrupted writers left, what expired and what is made again when it is lacking goes too; of the latter all
    that is older than ``grace`` with ``caches``. Raises ConflictError for a store that is marked as another registry's.
    Several may run at once, and be killed: the next run finishes the work.
    """
    upkeep, store = context.backend.upkeep(), store_of(context)
    # A store that nobody marked may be another registry's too, whose next push would be refused: that needs a grace.
    tally = _Tally(may_remove=_require_own(store, upkeep, dry_run=dry_run))
    rules = _Rules(grace, caches, dry_run)
    try:
        _expire(upkeep, rules, tally)
        new = _mark(store, upkeep, rules, tally, progress)
        _clear_store(store, upkeep, rules, tally, progress)
        _collect(store, upkeep, rules, tally, progress)
        _sweep(GarbageKind.TEMPORARY, list_temporary(context.base_cache.parent), datetime.now(UTC), rules, tally)
    except BaseException:
        with contextlib.suppress(LoregError):
            _log(upkeep, tally.report(0, dry_run=dry_run))
        raise
    report = tally.report(new, dry_run=dry_run)
    _log(upkeep, report)
    return report


def _require_own(store: BlobStore, upkeep: Upkeep, *, dry_run: bool) -> bool:
    """Mark the store, and return whether it was marked before. Raises ConflictError if it is another registry's."""
    registry_id, owner = upkeep.registry_id(), store.owner()
    if not owner and not dry_run and store.claim(registry_id) == registry_id:
        return False
    if owner not in ("", registry_id):
        raise foreign_store_error(store, owner, registry_id)
    return bool(owner)


def _log(upkeep: Upkeep, report: GcReport) -> None:
    """Record what was removed, by kind."""
    removed: dict[str, int] = {}
    for item in report.freed:
        removed[item.kind] = removed.get(item.kind, 0) + item.count
    if removed and not report.dry_run:
        upkeep.log(UpkeepAction.GC, {"removed": removed, "size": report.freed_size})


def _expire(upkeep: Upkeep, rules: _Rules, tally: _Tally) -> None:
    """Remove rows that nobody needs any more: their blobs are marked by this run."""
    before = upkeep.now() - rules.grace
    expired = upkeep.count_expired if rules.dry_run else upkeep.discard_expired
    for item in expired(before, with_live=rules.caches):
        tally.free(item.kind, item.namespace, item.count, item.size)


def _mark(store: BlobStore, upkeep: Upkeep, rules: _Rules, tally: _Tally, progress: Progress) -> int:
    """Mark every stored blob that nothing refers to; return how many were not marked before."""
    listed_at = upkeep.now()
    seen = new = new_size = 0
    for batch in batches(store.list(), _BATCH):
        sizes = {blob.sha256: blob.size for blob in batch}
        garbage = {digest: sizes[digest] for digest in upkeep.unreferenced(sizes.keys())}
        if garbage and rules.dry_run:
            unmarked = upkeep.find_new_garbage(garbage.keys(), listed_at)
            new, new_size = new + len(unmarked), new_size + sum(garbage[digest] for digest in unmarked)
        elif garbage:
            new += upkeep.mark_garbage(garbage, listed_at)
        seen += len(batch)
        progress("listing the store", seen, seen + _BATCH)
    if rules.dry_run and new and tally.may_remove and not rules.grace:
        tally.free(GarbageKind.BLOB, "", new, new_size)
    elif rules.dry_run and new:
        tally.wait(WaitingGarbage(GarbageKind.BLOB, "", new, new_size, listed_at, listed_at + rules.grace))
    return new


def _clear_store(store: BlobStore, upkeep: Upkeep, rules: _Rules, tally: _Tally, progress: Progress) -> None:
    """Remove from the store what is no blob and what nobody waits for."""
    now = upkeep.now()
    progress("clearing the store", 0, 3)
    _sweep(GarbageKind.UNFINISHED, store.list_leftovers(), now, rules, tally)
    if isinstance(store, SigningStore):
        progress("clearing the store", 1, 3)
        _clear_incoming(store, upkeep, now, rules, tally)
        progress("clearing the store", 2, 3)
        _clear_copies(store, upkeep, now, rules, tally)
    progress("clearing the store", 3, 3)


def _sweep(kind: GarbageKind, leftovers: Iterable[Leftover], now: datetime, rules: _Rules, tally: _Tally) -> None:
    """Remove what no writer has touched for the grace, and for an hour, however short the grace is."""
    for leftover in leftovers:
        due = leftover.at + max(rules.grace, _AT_WORK)
        item = WaitingGarbage(kind, "", 1, leftover.size, leftover.at, due)
        if tally.is_due(item, now) and not rules.dry_run:
            leftover.remove()


def _clear_incoming(store: SigningStore, upkeep: Upkeep, now: datetime, rules: _Rules, tally: _Tally) -> None:
    """Remove what was sent for uploads that are forgotten; the store was listed before the catalog is asked."""
    for batch in batches(store.list_uploads(), _BATCH):
        known = upkeep.known_uploads([upload.upload_id for upload in batch])
        gone = []
        for upload in batch:
            due = upload.at + min(rules.grace, _WEEK)
            item = WaitingGarbage(GarbageKind.INCOMING, "", 1, upload.size, upload.at, due)
            if upload.upload_id not in known and tally.is_due(item, now):
                gone.append(upload.upload_id)
        if not rules.dry_run:
            store.forget_uploads(gone)


def _clear_copies(store: SigningStore, upkeep: Upkeep, now: datetime, rules: _Rules, tally: _Tally) -> None:
    """Remove the copies of versions that are yanked or not there; with ``caches`` of all. They are made again."""
    folders = itertools.groupby(store.list_copied_files(), lambda file: file.name)
    for batch in batches(((name, [*files]) for name, files in folders), _BATCH):
        contents = upkeep.find_contents([name for name, _ in batch])
        for name, files in batch:
            content = contents.get(name)
            if content is not None and content.is_live and not rules.caches:
                continue
            namespace = content.namespace if content is not None else ""
            at, size = max(file.at for file in files), sum(file.size for file in files)
            item = WaitingGarbage(GarbageKind.COPY, namespace, 1, size, at, at + rules.grace)
            if tally.is_due(item, now) and not rules.dry_run:
                store.remove_copy(name)


def _collect(store: BlobStore, upkeep: Upkeep, rules: _Rules, tally: _Tally, progress: Progress) -> None:
    """Remove the blobs that were marked longer than the grace ago, claimed batch by batch."""
    if rules.dry_run and tally.may_remove:
        for blob in upkeep.due_garbage(rules.grace):
            tally.free(GarbageKind.BLOB, "", 1, blob.size)
    elif tally.may_remove:
        removed = 0
        with ThreadPoolExecutor(store.parallelism) as pool:
            while True:
                deadline = seconds() + CLAIM_SECONDS  # from before the claim: its answer may be late
                claim = upkeep.claim_garbage(rules.grace, _BATCH)
                if claim is None:
                    break
                sizes = {blob.sha256: blob.size for blob in claim.blobs}
                remove_claimed(store, pool, sizes, deadline, partial(_settle, upkeep, tally, claim.at, sizes))
                removed += len(claim.blobs)
                progress("removing", removed, removed + _BATCH)
    marked = upkeep.marked_garbage(rules.grace if rules.dry_run and tally.may_remove else None)
    if marked.since is not None:
        due = marked.since + rules.grace
        tally.wait(WaitingGarbage(GarbageKind.BLOB, "", marked.count, marked.size, marked.since, due))


def _settle(
    upkeep: Upkeep, tally: _Tally, claimed_at: datetime, sizes: Mapping[str, int], gone: Collection[str]
) -> None:
    tally.free(GarbageKind.BLOB, "", len(gone), sum(sizes[sha256] for sha256 in gone))
    upkeep.settle_garbage(gone, claimed_at)
