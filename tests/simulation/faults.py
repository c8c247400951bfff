"""Faults that a simulation must find: each breaks one thing that keeps blobs safe, as if somebody had forgotten it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace

from msgspec.structs import replace
from sqlalchemy import bindparam, delete, func, insert, select, update

import loreg.verbs.backup
import loreg.verbs.gc
import loreg.verbs.push
import simulation.actors
from loreg.catalog import collection, deletion, garbage, removal_lock, retention, tombstones, versions
from loreg.catalog.clock import now
from loreg.catalog.garbage import OF_DIGESTS
from loreg.catalog.schema import garbage_table, version_table
from loreg.catalog.transaction import Sighting
from loreg.entities import Access, Damage, Garbage, GarbageClaim, NewVersion, no_progress
from loreg.local.upkeep import LocalUpkeep
from loreg.refs import parse_adapter_name
from loreg.upkeep import CLAIM_SECONDS
from loreg.verbs.verify import First
from loreg.workspace.snapshots import read_blob_list, write_snapshot


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def no_lease():
    """A push does not save what it finds marked."""
    return replaced(garbage, "lease", lambda tx, digests: None)


def no_grace():
    """What was marked a moment ago is claimed."""
    claim = collection.claim
    return replaced(collection, "claim", lambda tx, grace, limit: claim(tx, timedelta(0), limit))


def _protect(*, asks_again: bool, respects_claims: bool):
    """Protect as catalog/garbage.py does, without one of its two refusals."""

    def protect(tx, digests):
        is_busy = (garbage_table.c.collected_at.is_(None)) & (garbage_table.c.claimed_at > now(tx, -garbage.CLAIM))
        query = select(garbage_table).where(OF_DIGESTS)
        values = {"digests": sorted(digests)}
        busy = tx.connection.execute(query.where(is_busy), values).all()
        if busy and respects_claims:
            raise garbage.CollectedError(f"blob {busy[0].digest[:12]} is being removed", hint="")
        rows = [row for row in tx.connection.execute(query, values) if row not in busy]
        seen = [Sighting(row.digest, row.collected_at or row.claimed_at) for row in rows if row.claimed_at]
        gone = [sighting for sighting in seen if sighting not in tx.confirmed]
        if gone and asks_again:
            raise garbage.StaleSightingError(tuple(gone))
        garbage.unmark(tx, digests)

    return replaced(garbage, "protect", protect)


def no_second_look():
    """What was collected since the push looked is committed without another look."""
    return _protect(asks_again=False, respects_claims=True)


def no_respect_for_claims():
    """What a collector is removing is committed."""
    return _protect(asks_again=True, respects_claims=False)


def endless_claims():
    """A collector goes on removing when its claim has run out."""
    return replaced(loreg.verbs.gc, "CLAIM_SECONDS", 1e9)


def old_listings():
    """A listing from before a blob was collected counts as a sighting of it afterwards."""
    mark = collection.mark
    return replaced(collection, "mark", lambda tx, sizes, listed_at: mark(tx, sizes, listed_at + timedelta(days=365)))


def no_look_for_references():
    """A collector claims what was garbage when it was marked."""
    return replaced(collection.references, "find_unreferenced", lambda tx, digests: frozenset(digests))


@contextlib.contextmanager
def catalog_before_blobs():
    """A push records its version first, and sends its files then."""

    def push(context, folder, name, metadata=None, *, base=None):
        with loreg.verbs.push.inspect_adapter(folder, no_progress) as inspected:
            structure, manifest = inspected.structure, inspected.manifest
            new = NewVersion(parse_adapter_name(name), manifest, structure.facts(""))
            with context.backend.catalog.write(Access.superuser("ada")) as tx:
                versions.record(tx, new)
            loreg.verbs.push._store(context, inspected, None, no_progress)
            loreg.verbs.push.put_bytes(context.store, manifest.to_bytes())

    with replaced(simulation.actors, "push", push):
        yield


def no_condition_of_a_confirmation():
    """A sighting of a blob is believed, whatever was claimed since."""

    def confirm(tx, sightings):
        for sighting in sightings:
            tx.connection.execute(delete(garbage_table).where(garbage_table.c.digest == sighting.sha256))

    return replaced(garbage, "confirm", confirm)


def late_deadlines():
    """The time of a claim is counted from when its answer came, and not from before it was asked for."""
    remove, seconds = loreg.verbs.gc.remove_claimed, loreg.verbs.gc.seconds

    def remove_claimed(store, pool, digests, deadline, settle):
        remove(store, pool, digests, seconds() + CLAIM_SECONDS, settle)

    return replaced(loreg.verbs.gc, "remove_claimed", remove_claimed)


def no_condition_of_a_settlement():
    """A collector settles what another one has claimed since."""

    def settle(tx, digests, claimed_at):
        statement = update(garbage_table).where(OF_DIGESTS).values(collected_at=now(tx))
        tx.connection.execute(statement, {"digests": sorted(digests)})

    return replaced(collection, "settle", settle)


def no_ban():
    """What was deleted may be pushed again."""
    return replaced(tombstones, "refuse_banned", lambda tx, digests, manifest="": None)


def no_ban_recorded():
    """A deletion leaves the tombstone of a version that was pruned."""
    put = tombstones.put
    return replaced(tombstones, "put", lambda tx, adapter_id, tomb: put(tx, adapter_id, replace(tomb, is_banned=False)))


@contextlib.contextmanager
def shared_blobs_are_deleted():
    """A deletion removes all blobs of its version, whoever else has them."""

    def claim_deleted(tx, limit):
        query = select(garbage_table).where(collection._IS_DELETED, collection._is_free(tx))
        rows = tx.connection.execute(query).all()
        at = collection.database_time(tx)
        digests = {"digests": [row.digest for row in rows]}
        tx.connection.execute(update(garbage_table).where(OF_DIGESTS).values(claimed_at=at), digests)
        return GarbageClaim(at, tuple(Garbage(row.digest, row.size) for row in rows)) if rows else None

    nothing_shared = SimpleNamespace(
        find_unreferenced=lambda tx, digests: frozenset(digests), find_owners=lambda *_: {}
    )
    with replaced(deletion, "references", nothing_shared), replaced(collection, "claim_deleted", claim_deleted):
        yield


def deleted_blobs_wait_for_a_grace():
    """A deletion leaves its blobs to be found by a garbage collection."""
    return replaced(collection, "mark_deleted", lambda tx, sizes: None)


def numbers_are_given_again():
    """The number after the last is counted without versions that are gone."""
    of_versions = select(func.coalesce(func.max(version_table.c.number), 0) + 1)
    number = of_versions.where(version_table.c.adapter_id == bindparam("adapter")).scalar_subquery()
    return replaced(versions, "_INSERT", insert(version_table).values(number=number).returning(version_table.c.id))


def parents_are_pruned():
    """A version goes before what descends from it, which may stay."""
    return replaced(retention, "_find_children", lambda tx, digests: {digest: [] for digest in digests})


def aliases_are_pruned():
    """A version goes, whatever an alias means, and whatever a job needs."""
    return replaced(retention._Planner, "_protect", lambda self, adapter_id, adapter, states: {})


def yanked_are_pruned_at_once():
    """A version that is yanked goes with the next pruning."""
    apply = retention._Planner._apply_rule

    def apply_rule(self, adapter, state, position):
        return (True, "yanked") if state.yanked_at is not None else apply(self, adapter, state, position)

    return replaced(retention._Planner, "_apply_rule", apply_rule)


def blobs_are_listed_before_the_snapshot():
    """A backup takes the list of blobs first, and the rows in a later transaction."""
    snapshot = LocalUpkeep.snapshot

    def twice(self, catalog, blobs):
        listed = snapshot(self, catalog, blobs)
        taken = snapshot(self, catalog, blobs.with_name("unused"))
        return replace(taken, blobs=listed.blobs, size=listed.size)

    return replaced(LocalUpkeep, "snapshot", twice)


def no_hold_on_removals():
    """A collector claims what a backup is about to copy."""
    return replaced(removal_lock, "_hold_file", lambda engine, lock, on_wait, *, alone: contextlib.nullcontext())


def snapshots_lack_what_was_deleted():
    """A snapshot that refers to what was deleted meanwhile is written all the same."""

    def to_damages(context, looks):
        return (Damage(look.kind, look.reference.sha256, None, None, (), 1, "") for look in looks)

    return replaced(loreg.verbs.backup, "to_damages", to_damages)


def what_came_back_is_lost():
    """A snapshot lacks what was deleted meanwhile, and pushed with another version since."""
    return replaced(loreg.verbs.backup, "_is_back", lambda store, look: False)


def the_document_is_written_first():
    """A backup writes the document of its snapshot before it copies the blobs."""

    def take(context, target, copying, counts, folder, progress):
        catalog, blobs = folder / "catalog", folder / "blobs"
        upkeep = context.backend.upkeep()
        with upkeep.hold_removals():
            taken = upkeep.snapshot(catalog, blobs)
            snapshot = write_snapshot(target, taken, catalog, blobs, 0)
            list(copying.copy(read_blob_list(blobs), counts))
        return snapshot, First()

    return replaced(loreg.verbs.backup, "_take", take)


_OF_PUSHES = (
    no_lease,
    no_grace,
    no_second_look,
    no_respect_for_claims,
    endless_claims,
    old_listings,
    no_look_for_references,
    catalog_before_blobs,
    no_condition_of_a_confirmation,
    late_deadlines,
    no_condition_of_a_settlement,
)
_OF_DEPARTURES = (
    no_ban,
    no_ban_recorded,
    shared_blobs_are_deleted,
    deleted_blobs_wait_for_a_grace,
    numbers_are_given_again,
    parents_are_pruned,
    aliases_are_pruned,
    yanked_are_pruned_at_once,
    blobs_are_listed_before_the_snapshot,
    no_hold_on_removals,
    snapshots_lack_what_was_deleted,
    the_document_is_written_first,
    what_came_back_is_lost,
)
FAULTS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    fault.__name__: fault for fault in (*_OF_PUSHES, *_OF_DEPARTURES)
}
#: Those that only a schedule shows in which versions go, or are backed up.
OF_DEPARTURES = {fault.__name__ for fault in _OF_DEPARTURES}
