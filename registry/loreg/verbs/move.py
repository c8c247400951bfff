"""move: a registry to another database and store; the old one can then only be read. See docs/keeping.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from loreg.entities import MoveReport, Progress, no_progress
from loreg.errors import ConflictError, IntegrityError
from loreg.storage import Blob, BlobStore, digest_of
from loreg.upkeep import Upkeep
from loreg.verbs.restore import claim_store
from loreg.verbs.verify import First, store_of
from loreg.workspace.blob_copies import CopyCounts, Copying, LostBlob
from loreg.workspace.context import Context
from loreg.workspace.snapshots import read_blob_list
from loreg.workspace.stored_index import StoredIndex


def move(source: Context, target: Context, place: str, *, progress: Progress = no_progress) -> MoveReport:
    """Move the registry to the catalog and the store of ``target``, which are empty, and named ``place`` to people.

    Blobs are copied while others push; then the source is closed for writing, and what came meanwhile follows, and all
    rows, in one transaction. A second call finishes what a first, interrupted one began. Raises ConflictError if the
    target is not empty or its store another's, IntegrityError if the source is not whole, before it is closed.
    """
    ours, theirs = source.backend.upkeep(), target.backend.upkeep()
    store, new_store = store_of(source), target.store
    if not isinstance(new_store, BlobStore):
        raise ConflictError(f"{new_store.url} is a server: a registry moves to a database and a store")
    moved_to = ours.moved_to()
    if moved_to not in ("", place):
        raise ConflictError(f"this registry was moved to {moved_to} already", hint="loreg move --undo")
    counts = CopyCounts()
    is_loaded = bool(moved_to) and _is_loaded(ours, theirs)
    if not is_loaded:
        theirs.require_empty()
    with (
        tempfile.TemporaryDirectory(prefix="loreg-move-") as name,
        ours.hold_removals() as beat_ours,
        theirs.hold_removals() as beat_theirs,
    ):
        folder = Path(name)

        def heartbeat() -> None:
            beat_ours()
            beat_theirs()

        claim_store(new_store, ours.registry_id())
        if not moved_to:
            copying = Copying(store, new_store, checked=True)
            _require_whole(copying.copy(_references(ours), counts, on_chunk=heartbeat, progress=progress), "")
            ours.close_for(place, {"to": place, "storage": new_store.url})
        taken = ours.snapshot(folder / "catalog", folder / "blobs")
        copying = Copying(store, new_store, checked=bool(moved_to))
        lost = copying.copy(
            read_blob_list(folder / "blobs"), counts, total=taken.blobs, on_chunk=heartbeat, progress=progress
        )
        _require_whole(lost, "loreg move --undo opens this one again; ")
        if not is_loaded:
            theirs.load(folder / "catalog", taken.rows)
            copy = theirs.snapshot(folder / "copied-catalog", folder / "copied-blobs")
            _require_equal(folder, taken.rows == copy.rows)
        _require_stored(new_store, folder)
    known = taken.blobs - counts.new
    return MoveReport(place, new_store.url, taken.rows, taken.blobs, counts.new, counts.new_size, known, counts.seconds)


def undo_move(context: Context) -> str:
    """Open a registry again that was moved, or that a move had closed; return where it had moved.

    What was written there since is not here. Raises ConflictError if it has not moved.
    """
    upkeep = context.backend.upkeep()
    place = upkeep.moved_to()
    if not place:
        raise ConflictError("this registry has not moved: it can be written", hint="loreg doctor")
    upkeep.close_for("", {"undone": place})
    return place


def _is_loaded(ours: Upkeep, theirs: Upkeep) -> bool:
    """Whether an earlier call has loaded the rows, which it does in one transaction."""
    try:
        theirs.require_empty()
    except ConflictError:
        return theirs.registry_id() == ours.registry_id()
    return False


def _references(upkeep: Upkeep) -> Iterator[Blob]:
    for reference in upkeep.references((), None):
        if reference.size is None:
            raise IntegrityError(
                f"the catalog's rows do not make the manifest {reference.sha256[:12]}: nothing was moved",
                hint="loreg verify",
            )
        yield Blob(reference.sha256, reference.size)


def _require_whole(lost: Iterator[LostBlob], undo: str) -> None:
    """Raise IntegrityError if the source has not all blobs whole, when the others are copied."""
    listed: First[LostBlob] = First()
    for item in lost:
        listed.add(item)
    if listed.items:
        first = listed.items[0]
        raise IntegrityError(
            f"{listed.count:,} blobs of the registry are not whole, the first is {first.blob.sha256[:12]} "
            f"({first.kind}): a registry moves whole",
            hint=f"{undo}loreg verify --read-data names them, and what mends them",
        )


def _require_equal(folder: Path, has_equal_counts: bool) -> None:
    """Raise IntegrityError unless the target's rows, read back, make the same file as the source's."""
    pairs = (("catalog", "copied-catalog"), ("blobs", "copied-blobs"))
    if not has_equal_counts or any(digest_of(folder / one) != digest_of(folder / other) for one, other in pairs):
        raise IntegrityError(
            "the rows of the new catalog are not those of the old one",
            hint="loreg move --undo opens this one again; report it with both databases' versions",
        )


def _require_stored(store: BlobStore, folder: Path) -> None:
    """Raise IntegrityError unless the store lists every blob, with its size; each was hashed on its way there."""
    index = StoredIndex(folder / "stored", store.list())
    missing = [blob for blob in read_blob_list(folder / "blobs") if not index.contains(blob)]
    if missing:
        raise IntegrityError(
            f"{len(missing):,} blobs are not in {store.url} after they were copied, the first is "
            f"{missing[0].sha256[:12]}",
            hint="loreg move again",
        )
