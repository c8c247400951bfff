"""Record versions as another registry has them: under their numbers, with their authors, times and history."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec.structs import replace
from sqlalchemy import func, insert, select, update

from loreg.catalog import aliases, canaries, metric_declarations, metrics, promotions, rollbacks
from loreg.catalog.attachments import ATTACH, DETACH, forget_base
from loreg.catalog.bases import find_base_id
from loreg.catalog.schema import alias_move_table, base_table, event_table, metric_table, tombstone_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.catalog.versions import (
    ChangePolicy,
    by_id,
    describe,
    fill_in_base,
    find_same_content,
    get_or_create_adapter_locked,
    insert_version,
    refuse_other_base,
)
from loreg.entities import MIRRORED_FROM, AliasMove, Canary, Metric, NewVersion, Origin, OriginEvent
from loreg.errors import ConflictError, StaleError

_ALIAS_ACTIONS = ("tag", "untag")


def as_author(tx: Transaction, origin: Origin) -> Transaction:
    """Return the transaction in which the adapter, the version and its first event are the author's, at that time."""
    return replace(tx, access=replace(tx.access, author=origin.author), at=origin.created_at)


def record(tx: Transaction, new: NewVersion, origin: Origin, policy: ChangePolicy) -> tuple[VersionRecord, bool]:
    """Record a version as ``origin`` has it; return it, and False if the adapter had it already.

    What is said of it is recorded in both cases: tasks, labels and metrics are added or replaced. Events of the origin
    that are not recorded yet are added. What they say of an alias becomes its history when the alias itself follows, in
    the same transaction. What was changed is an event of the caller.
    Raises ConflictError for a number that other content has, that was deleted, or that leaves a gap; StaleError for an
    alias that means another version than expected.
    """
    authored = as_author(tx, origin)
    adapter_id = get_or_create_adapter_locked(authored, new.adapter)
    base_id = find_base_id(tx, new.base.digest) if new.base else None
    changes: dict[str, Any] = {}
    existing = find_same_content(tx, adapter_id, new.manifest.digest)
    ref = f"{new.adapter}:v{origin.number}"
    if existing is None:
        _refuse_number(tx, adapter_id, new, origin)
        mark = {MIRRORED_FROM: origin.registry}
        version_id = insert_version(authored, adapter_id, base_id, new, origin.number, **mark)
        describe(tx, version_id, new)
    else:
        version_id = existing.id
        if existing.number != origin.number:
            raise ConflictError(
                f"{origin.registry} has this content as {ref}, here it is {new.adapter}:v{existing.number}",
                hint=f"loreg show {new.adapter}:v{existing.number}",
            )
        refuse_other_base(ref, existing.base_id, base_id)
        if base_id is not None and existing.base_id is None:
            changes["base"] = fill_in_base(tx, version_id, base_id, new)
        changes |= describe(tx, version_id, new)
    version_record = VersionRecord(version_id, adapter_id, by_id(tx, version_id))
    changes |= _put_metrics(tx, version_record, new, origin, policy, created=existing is None)
    changes |= _set_yanked(tx, version_id, origin)
    changes |= _add_events(tx, adapter_id, origin, skip_push=existing is None)
    changes |= _set_aliases(tx, adapter_id, origin, policy)
    changes |= _set_canaries(tx, adapter_id, origin, policy)
    if changes or existing is None:
        tx.log("mirror", adapter_id, version_id, **{MIRRORED_FROM: origin.registry, **changes})
    return VersionRecord(version_id, adapter_id, by_id(tx, version_id)), existing is None


def _refuse_number(tx: Transaction, adapter_id: int, new: NewVersion, origin: Origin) -> None:
    """Raise ConflictError unless the number is free, and the version before it is here, or was."""
    ref = f"{new.adapter}:v{origin.number}"
    of_adapter = version_table.c.adapter_id == adapter_id
    query = select(version_table.c.digest).where(of_adapter, version_table.c.number == origin.number)
    if taken := tx.connection.execute(query).scalar():
        raise ConflictError(
            f"{ref} is sha256:{taken[:12]} here, and sha256:{new.manifest.digest[:12]} in {origin.registry}",
            hint=f"loreg show {ref}",
        )
    buried = tombstone_table.c.adapter_id == adapter_id
    if tx.connection.execute(select(tombstone_table).where(buried, tombstone_table.c.number == origin.number)).first():
        raise ConflictError(f"{ref} was deleted here: its number is never given again", hint="loreg events")
    digests = [new.manifest.digest, *(file.sha256 for file in new.manifest.files)]
    banned = tombstone_table.c.digest.in_(digests) | tombstone_table.c.weights.in_(digests)
    if tx.connection.execute(select(tombstone_table).where(tombstone_table.c.is_banned, banned)).first():
        raise ConflictError(f"{ref} has content that was deleted here for good", hint="loreg events")
    last_version = select(func.max(version_table.c.number)).where(of_adapter, version_table.c.number < origin.number)
    last_buried = select(func.max(tombstone_table.c.number)).where(buried, tombstone_table.c.number < origin.number)
    last = max(tx.connection.execute(query).scalar() or 0 for query in (last_version, last_buried))
    if last < origin.previous:
        raise ConflictError(
            f"{ref} comes after v{origin.previous} in {origin.registry}, here the last before it is "
            f"{f'v{last}' if last else 'none'}: a gap",
            hint=f"loreg mirror {new.adapter} brings them in order",
        )


def _put_metrics(
    tx: Transaction,
    version_record: VersionRecord,
    new: NewVersion,
    origin: Origin,
    policy: ChangePolicy,
    *,
    created: bool,
) -> dict[str, Any]:
    """Record the metrics, each with the author and time of its event; return those that changed.

    Which direction is better is what this registry declares, whatever the other one does.
    """
    new_metrics = metric_declarations.turn_as_declared(tx, new.metrics)
    if new_metrics and not created:
        policy.check_metrics(version_record, new_metrics)
    events = {event.detail.get("metric"): event for event in origin.events if event.action == "metric"}
    changed: list[Metric] = []
    for metric in sorted(new_metrics, key=lambda m: (m.name, m.dataset, m.split)):
        event = events.get(metric.exact) or events.get(str(metric))  # older events have six digits
        measured = replace(tx, access=replace(tx.access, author=event.author), at=event.at) if event else tx
        if metrics.put_unlogged(measured, version_record.id, metric)[0]:
            changed.append(metric)
            rollbacks.roll_back(tx, version_record.id, metric)  # what this registry watches itself
    return {"metrics": [metric.exact for metric in changed]} if changed and not created else {}


def _set_yanked(tx: Transaction, version_id: int, origin: Origin) -> dict[str, Any]:
    if origin.is_yanked is None:
        return {}
    is_yanked = version_table.c.yanked_at.is_not(None)
    differs = version_table.c.yanked_at.is_(None) if origin.is_yanked else is_yanked
    yanked_at = (origin.yanked_at or tx.at) if origin.is_yanked else None
    statement = update(version_table).where(version_table.c.id == version_id, differs).values(yanked_at=yanked_at)
    if not tx.connection.execute(statement).rowcount:
        return {}
    if origin.is_yanked:
        canaries.end_of_version(tx, version_id, "the version was yanked")
        promotions.end_of_version(tx, version_id, f"v{origin.number} was yanked")
    return {"yanked": origin.is_yanked}


def _add_events(tx: Transaction, adapter_id: int, origin: Origin, *, skip_push: bool) -> dict[str, Any]:
    """Add the events that are not recorded yet, in order; return their number.

    With ``skip_push`` that of the version is there already, whatever it says.
    """
    recorded = set(_recorded_keys(tx, adapter_id, origin.events))
    ids = _version_ids(tx, adapter_id)
    bases: dict[int, OriginEvent] = {}  # the last of each version that attached one, or took it back
    added = 0
    for event in origin.events:
        if event.is_in(recorded) or (skip_push and event.action == "push" and event.number == origin.number):
            continue
        if event.number is not None and event.number not in ids:
            raise ConflictError(
                f"{event.action!r} of {event.at:%Y-%m-%d} is of v{event.number}, which is not here",
                hint="loreg mirror brings versions before their events",
            )
        recorded.add(event.identity)
        if event.number is not None and event.action in (ATTACH, DETACH):
            bases[event.number] = event
        version_id = ids[event.number] if event.number is not None else None
        detail = {MIRRORED_FROM: origin.registry, **event.detail}
        row = {"at": event.at, "author": event.author, "action": event.action, "detail": detail}
        tx.connection.execute(insert(event_table), {"adapter_id": adapter_id, "version_id": version_id, **row})
        if event.action == "metric" and version_id is not None:
            _attribute_metric(tx, version_id, event)
        added += 1
    for number, event in bases.items():
        if event.action == DETACH:
            _detach(tx, ids[number], str(event.detail.get("digest", "")))
    return {"events": added} if added else {}


def _detach(tx: Transaction, version_id: int, digest: str) -> None:
    """Let the base with this digest be the version's no more: that was taken back in the origin."""
    base_id = tx.connection.execute(select(base_table.c.id).where(base_table.c.digest == digest)).scalar()
    if base_id is not None:
        forget_base(tx, version_id, base_id)


def _recorded_keys(tx: Transaction, adapter_id: int, events: tuple[OriginEvent, ...]) -> Iterator[tuple[object, ...]]:
    """Yield identities and traces of the recorded events of the adapter that were at the times of ``events``."""
    times = {event.at for event in events}
    if not times:
        return
    query = (
        select(event_table, version_table.c.number)
        .outerjoin(version_table, version_table.c.id == event_table.c.version_id)
        .where(event_table.c.adapter_id == adapter_id, event_table.c.at.in_(times))
    )
    for row in tx.connection.execute(query):
        event = OriginEvent(row.at, row.author, row.action, row.number, row.detail)
        yield from (event.identity, event.trace)


def _version_ids(tx: Transaction, adapter_id: int) -> dict[int, int]:
    query = select(version_table.c.number, version_table.c.id).where(version_table.c.adapter_id == adapter_id)
    return {row.number: row.id for row in tx.connection.execute(query)}


def _attribute_metric(tx: Transaction, version_id: int, event: OriginEvent) -> None:
    """Give a metric the author and time of the event that tells of it; it may have come with an earlier commit."""
    of_version = metric_table.c.version_id == version_id
    for row in tx.connection.execute(select(metric_table).where(of_version)).all():
        metric = Metric(row.name, row.value, row.dataset, row.split, row.higher_is_better)
        if event.detail.get("metric") in (metric.exact, str(metric)):  # older events have six digits
            names = {"name": metric.name, "dataset": metric.dataset, "split": metric.split}
            statement = update(metric_table).where(of_version).filter_by(**names)
            tx.connection.execute(statement.values(author=event.author, created_at=event.at))


def _set_aliases(tx: Transaction, adapter_id: int, origin: Origin, policy: ChangePolicy) -> dict[str, Any]:
    """Let the aliases mean what they mean in the origin, with their history; return the numbers of those that moved."""
    ids = _version_ids(tx, adapter_id) if origin.aliases else {}
    moved: dict[str, int] = {}
    for target in origin.aliases:
        current = aliases.lock_number(tx, adapter_id, target.alias)
        if target.expected is not None and current != target.expected:
            raise StaleError(
                f"alias {target.alias!r} means {_name(current)} by now, not {_name(target.expected)}", hint="try again"
            )
        if target.number and target.number not in ids:
            raise ConflictError(f"alias {target.alias!r} means v{target.number}, which is not here", hint="loreg ls")
        version_id = ids[target.number] if target.number else None
        if current == target.number:
            continue
        if version_id is not None:  # before its moves are recorded: the policy compares with what it meant last
            policy.check_alias(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), target.alias)
        aliases.point_unlogged(tx, adapter_id, target.alias, version_id)
        moved[target.alias] = target.number
    if origin.aliases:
        _complete_moves(tx, adapter_id, ids, {target.alias for target in origin.aliases})
    return {"aliases": moved} if moved else {}


def _set_canaries(tx: Transaction, adapter_id: int, origin: Origin, policy: ChangePolicy) -> dict[str, Any]:
    """Let versions have the shares of aliases that they have in the origin; return those that changed, 0 for none."""
    changed: dict[str, float] = {}
    ids = _version_ids(tx, adapter_id) if origin.canaries else {}
    here = {canary.alias: canary for canary in canaries.list_all(tx, adapter_id)} if origin.canaries else {}
    for canary in origin.canaries:
        if not canary.number:
            if canaries.remove_unlogged(tx, adapter_id, canary.alias):
                changed[canary.alias] = 0
            continue
        current = here.get(canary.alias)
        if current is not None and (current.number, current.share) == (canary.number, canary.share):
            continue
        version_id = ids.get(canary.number)
        main = aliases.lock_number(tx, adapter_id, canary.alias)
        if version_id is None or main in (0, canary.number):
            raise ConflictError(
                f"{canary.alias!r} has v{canary.number} as a canary in {origin.registry}, here it means {_name(main)}",
                hint="loreg ls",
            )
        policy.check_alias(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), canary.alias)
        mirrored = Canary(canary.alias, canary.number, canary.share, (), canary.author, canary.at)
        canaries.put_unlogged(tx, adapter_id, version_id, mirrored)
        changed[canary.alias] = canary.share
    return {"canaries": changed} if changed else {}


def _complete_moves(tx: Transaction, adapter_id: int, ids: Mapping[int, int], names: Collection[str]) -> None:
    """Record the moves that mirrored events tell of: of the aliases ``names``, and where they end with what it means.

    Another move of each of ``names`` is the caller's, unless the last one says what it means now.
    """
    meant: dict[str, int] = {}  # by the last move
    recorded: set[tuple[object, ...]] = set()
    query = select(alias_move_table).where(alias_move_table.c.adapter_id == adapter_id).order_by(alias_move_table.c.id)
    for row in tx.connection.execute(query):
        meant[row.alias] = row.number or 0
        recorded.add((row.alias, row.at, row.author, row.number))
    moves = [
        move
        for move in _mirrored_moves(tx, adapter_id)
        if (move.alias, move.at, move.author, move.number) not in recorded
    ]
    meant |= {move.alias: move.number or 0 for move in moves}
    means = aliases.list_aliases(tx, adapter_id)
    moves = [move for move in moves if move.alias in names or meant[move.alias] == means.get(move.alias, 0)]
    moves += [
        AliasMove(name, means.get(name), tx.author, tx.at) for name in names if meant.get(name, 0) != means.get(name, 0)
    ]
    for move in moves:
        aliases.record_move(tx, adapter_id, move, ids[move.number] if move.number is not None else None)


def _mirrored_moves(tx: Transaction, adapter_id: int) -> Iterator[AliasMove]:
    """Yield the moves that events of other registries tell of, the oldest first."""
    query = (
        select(event_table, version_table.c.number)
        .outerjoin(version_table, version_table.c.id == event_table.c.version_id)
        .where(event_table.c.adapter_id == adapter_id, event_table.c.action.in_(_ALIAS_ACTIONS))
        .order_by(event_table.c.id)
    )
    for row in tx.connection.execute(query).all():
        if MIRRORED_FROM in row.detail and "alias" in row.detail:
            yield AliasMove(row.detail["alias"], row.number if row.action == "tag" else None, row.author, row.at)


def _name(number: int) -> str:
    return f"v{number}" if number else "nothing"
