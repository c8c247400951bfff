"""forget: let old snapshots of a backup go, and the blobs that only they refer to; see docs/keeping.md."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path

from loreg.entities import (
    ForgetReport,
    Progress,
    SnapshotDecision,
    SnapshotRules,
    UpkeepAction,
    no_progress,
)
from loreg.errors import IntegrityError, LoregError, NotFoundError
from loreg.manifest import is_digest
from loreg.parsing import format_span
from loreg.requests import require_snapshot_rule
from loreg.storage import Blob, DocumentStore
from loreg.upkeep import Upkeep
from loreg.verbs.backup import refuse_moved
from loreg.verbs.verify import batches
from loreg.workspace.context import Context
from loreg.workspace.snapshots import (
    StoredSnapshot,
    delete_snapshot,
    list_names,
    load_snapshot,
    read_blob_list,
    refuse_unknown_documents,
    require_backup,
    taken_at,
)
from loreg.workspace.stored_index import StoredIndex

_LISTS_AT_ONCE = 32  # lists of blobs that are open, and on this machine's disk, at a time
_BATCH = 1000  # blobs that are looked at together
_AT_WORK = timedelta(hours=1)  # a writer without the lock, of an older release, may be at work for so long


@dataclass
class _Tally:
    """What was removed so far."""

    snapshots: int = 0
    removed: int = 0
    removed_size: int = 0
    leftovers: int = 0


def forget(
    context: Context,
    target: DocumentStore,
    rules: SnapshotRules,
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> ForgetReport:
    """Forget the snapshots of a backup that the rules do not keep, then remove what no snapshot refers to any more.

    The newest one always stays. No backup of this registry is made meanwhile. A killed call is finished by the next:
    what it had not removed, no snapshot refers to. Raises IntegrityError, and removes nothing, if it cannot be read
    what a kept snapshot refers to; ConflictError for a backup of another registry.
    """
    require_snapshot_rule(rules)
    upkeep = context.backend.upkeep()
    refuse_moved(upkeep)
    require_backup(target, upkeep.registry_id())
    tally = _Tally()
    try:
        with upkeep.hold_removals(alone=True, on_wait=partial(progress, "waiting for a backup", 0, 1)) as beat:
            refuse_moved(upkeep)  # it may have waited for a move
            refuse_unknown_documents(target)
            decisions = _decide(target, rules, upkeep.now())
            _remove(target, decisions, tally, beat, dry_run=dry_run, progress=progress)
    except BaseException:
        with contextlib.suppress(LoregError):
            _log(upkeep, target, tally, dry_run=dry_run)
        raise
    _log(upkeep, target, tally, dry_run=dry_run)
    going = sum(decision.goes for decision in decisions)
    return ForgetReport(
        target.url,
        tuple(decisions),
        going,
        len(decisions) - going,
        tally.removed,
        tally.removed_size,
        tally.leftovers,
        dry_run,
    )


def _log(upkeep: Upkeep, target: DocumentStore, tally: _Tally, *, dry_run: bool) -> None:
    """Record what was removed, if anything was."""
    if (tally.snapshots or tally.removed or tally.leftovers) and not dry_run:
        detail = {"from": target.url, "snapshots": tally.snapshots}
        upkeep.log(UpkeepAction.FORGET, {**detail, "removed": tally.removed, "size": tally.removed_size})


def _decide(target: DocumentStore, rules: SnapshotRules, now: datetime) -> list[SnapshotDecision]:
    """Return what becomes of each snapshot, the newest first."""
    names = list_names(target)[::-1]
    decisions = []
    for position, name in enumerate(names):
        kept_by = []
        if rules.keep_last is not None:
            kept_by.append((f"keep_last = {rules.keep_last}", position < rules.keep_last))
        if rules.keep_newer is not None:
            is_newer = taken_at(name) > now - rules.keep_newer
            kept_by.append((f"keep_newer = {format_span(rules.keep_newer)}", is_newer))
        keeps = next((rule for rule, keeps in kept_by if keeps), "")
        if position == 0:
            keeps = "the newest"
        reason = keeps or ", ".join(rule for rule, _ in kept_by)
        decisions.append(SnapshotDecision(name, not keeps, reason))
    return decisions


def _remove(
    target: DocumentStore,
    decisions: Sequence[SnapshotDecision],
    tally: _Tally,
    beat: Callable[[], None],
    *,
    dry_run: bool,
    progress: Progress,
) -> None:
    """Remove the documents of the snapshots that go, and then every blob that those which stay do not refer to."""
    kept = [load_snapshot(target, decision.name) for decision in decisions if not decision.goes]
    with tempfile.TemporaryDirectory(prefix="loreg-forget-") as name:
        folder = Path(name)
        needed = StoredIndex(folder / "index", _list_needed(target, kept, folder, progress))
        beat()
        for decision in decisions:
            if decision.goes and not dry_run:
                delete_snapshot(target, decision.name)
                tally.snapshots += 1
        _remove_blobs(target, needed, tally, beat, dry_run=dry_run, progress=progress)
    _remove_leftovers(target, tally, dry_run=dry_run)


def _list_needed(
    target: DocumentStore, kept: Sequence[StoredSnapshot], folder: Path, progress: Progress
) -> Iterator[Blob]:
    """Yield what the snapshots are made of and what they refer to; few lists are on the disk at a time."""
    for stored in kept:
        yield from (stored.catalog, stored.blobs)
    lists = {stored.blobs.sha256: stored for stored in kept}
    done = 0
    for group in batches(lists.values(), _LISTS_AT_ONCE):
        paths = [folder / stored.blobs.sha256 for stored in group]
        for stored, path in zip(group, paths, strict=True):
            _fetch_list(target, stored, path)
            done += 1
            progress("reading snapshots", done, len(lists))
        by_digest = attrgetter("sha256")
        merged = heapq.merge(*map(read_blob_list, paths), key=by_digest)
        for _, same in itertools.groupby(merged, by_digest):
            yield next(same)
        for path in paths:
            path.unlink()


def _fetch_list(target: DocumentStore, stored: StoredSnapshot, path: Path) -> None:
    try:
        target.get(stored.blobs, path)
    except (NotFoundError, IntegrityError) as error:
        raise IntegrityError(
            f"snapshot {stored.snapshot.name} in {target.url} is to stay, and the list of its blobs is missing or "
            "damaged: nothing was forgotten",
            hint="take another snapshot, and let this one go: the same with --keep-last 1",
        ) from error


def _remove_blobs(
    target: DocumentStore,
    needed: StoredIndex,
    tally: _Tally,
    beat: Callable[[], None],
    *,
    dry_run: bool,
    progress: Progress,
) -> None:
    """Remove the blobs that are not needed; a file of another name than a digest is none of ours."""
    seen = 0
    with ThreadPoolExecutor(target.parallelism) as pool:
        for batch in batches(target.list(), _BATCH):
            garbage = [blob for blob in batch if is_digest(blob.sha256) and needed.size(blob.sha256) is None]
            if garbage and not dry_run:
                for group in batches(garbage, target.parallelism):
                    beat()  # no more than what is on its way is removed without the lock
                    for _ in pool.map(target.delete, [blob.sha256 for blob in group]):
                        pass
            tally.removed += len(garbage)
            tally.removed_size += sum(blob.size for blob in garbage)
            seen += len(batch)
            progress("clearing the backup", seen, seen + _BATCH)


def _remove_leftovers(target: DocumentStore, tally: _Tally, *, dry_run: bool) -> None:
    """Remove what killed backups had begun to write."""
    before = datetime.now(UTC) - _AT_WORK
    for leftover in target.list_leftovers():
        if leftover.at < before:
            if not dry_run:
                leftover.remove()
            tally.leftovers += 1
            tally.removed_size += leftover.size
