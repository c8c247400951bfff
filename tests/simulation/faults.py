"""Faults that a simulation must find: each breaks one thing that keeps blobs safe, as if somebody had forgotten it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta

from sqlalchemy import select

import loreg.verbs.gc
import loreg.verbs.push
import simulation.actors
from loreg.catalog import collection, garbage, versions
from loreg.catalog.clock import now
from loreg.catalog.garbage import OF_DIGESTS
from loreg.catalog.schema import garbage_table
from loreg.entities import Access, NewVersion, no_progress
from loreg.refs import parse_adapter_name


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
        gone = [garbage.Sighting(row.digest, row.collected_at or row.claimed_at) for row in rows if row.claimed_at]
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


FAULTS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    fault.__name__: fault
    for fault in (
        no_lease,
        no_grace,
        no_second_look,
        no_respect_for_claims,
        endless_claims,
        old_listings,
        no_look_for_references,
        catalog_before_blobs,
    )
}
