"""Aliases: set, remove and list the movable names of versions; every move is recorded."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, bindparam, delete, insert, select, update

from loreg.catalog import canaries, promotions
from loreg.catalog.schema import alias_move_table, alias_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import AliasMove
from loreg.errors import NotFoundError, StaleError
from loreg.suggestions import suggest

_MAX_MOVES = 1000
# No other table is joined: PostgreSQL looks again only at the row that it waited for.
_LOCK_ALIAS = (
    select(alias_table.c.version_id)
    .where(alias_table.c.adapter_id == bindparam("adapter"), alias_table.c.alias == bindparam("name"))
    .with_for_update()
)
_NUMBER = select(version_table.c.number).where(version_table.c.id == bindparam("moved_to"))
_LOG_MOVE = insert(alias_move_table).values(number=_NUMBER.scalar_subquery())


def set_alias(tx: Transaction, adapter_id: int, version_id: int, alias: str, reason: str = "") -> None:
    """Point ``alias`` to this version, for all who ask: its canary ends, and nobody watches its promotion.

    Does nothing else if it points there. A ``reason`` is told by the event. Raises StaleError if there was no such
    alias, and another writer makes it at the same moment.
    """
    current = _lock_alias(tx, adapter_id, alias)
    _end_trials(tx, adapter_id, alias, "the alias was pointed to one version")
    if current == version_id:
        return
    if current is None:
        row = {"adapter_id": adapter_id, "alias": alias, "version_id": version_id}
        if not tx.insert_if_missing(alias_table, row):
            raise StaleError(f"somebody else set the alias {alias!r} at the same moment", hint="try again")
    else:
        tx.connection.execute(update(alias_table).where(_is_alias(adapter_id, alias)).values(version_id=version_id))
    _log_move(tx, "tag", adapter_id, alias, version_id, reason)


def point_unlogged(tx: Transaction, adapter_id: int, alias: str, version_id: int | None) -> None:
    """Let ``alias`` mean the version, or nothing; the move is not recorded."""
    _end_trials(tx, adapter_id, alias, "the alias was mirrored")
    tx.connection.execute(delete(alias_table).where(_is_alias(adapter_id, alias)))
    if version_id is not None:
        row = {"adapter_id": adapter_id, "alias": alias, "version_id": version_id}
        tx.connection.execute(insert(alias_table), row)


def record_move(tx: Transaction, adapter_id: int, move: AliasMove, version_id: int | None) -> None:
    """Record a move that was made at another time, or elsewhere."""
    row = {"adapter_id": adapter_id, "alias": move.alias, "version_id": version_id, "author": move.author}
    tx.connection.execute(_LOG_MOVE, {**row, "at": move.at, "moved_to": version_id})


def remove_alias(tx: Transaction, adapter_id: int, alias: str) -> None:
    """Remove ``alias``; its history stays. Raises NotFoundError, naming the aliases that there are."""
    numbers = list_aliases(tx, adapter_id)
    if alias not in numbers:
        names = ", ".join(sorted(numbers)) or "none"
        suggestion = suggest(alias, numbers)
        raise NotFoundError(f"there is no alias {alias!r}; there are: {names}", hint="loreg ls", suggestion=suggestion)
    _end_trials(tx, adapter_id, alias, "the alias was removed")
    tx.connection.execute(delete(alias_table).where(_is_alias(adapter_id, alias)))
    _log_move(tx, "untag", adapter_id, alias, None)


def lock_number(tx: Transaction, adapter_id: int, alias: str) -> int:
    """Return the number of the version that ``alias`` means, 0 if none; nobody moves it until the transaction ends."""
    version_id = _lock_alias(tx, adapter_id, alias)
    return tx.connection.execute(select(version_table.c.number).where(version_table.c.id == version_id)).scalar() or 0


def list_aliases_last_on(tx: Transaction, adapter_id: int, version_id: int) -> tuple[str, ...]:
    """Return the aliases that mean this version, or meant it when they were removed, sorted by name."""
    later = alias_move_table.alias()
    moved_on = (
        select(later.c.id)
        .where(later.c.adapter_id == alias_move_table.c.adapter_id, later.c.alias == alias_move_table.c.alias)
        .where(later.c.id > alias_move_table.c.id, later.c.version_id.is_not(None))
    )
    query = (
        select(alias_move_table.c.alias)
        .where(
            alias_move_table.c.adapter_id == adapter_id, alias_move_table.c.version_id == version_id, ~moved_on.exists()
        )
        .order_by(alias_move_table.c.alias)
    )
    return tuple(tx.connection.execute(query).scalars())


def list_moves(tx: Transaction, adapter_id: int, alias: str) -> tuple[AliasMove, ...]:
    """Return where ``alias`` pointed, newest first, 1000 moves at most."""
    query = (
        select(alias_move_table.c.alias, alias_move_table.c.number, alias_move_table.c.author, alias_move_table.c.at)
        .where(alias_move_table.c.adapter_id == adapter_id, alias_move_table.c.alias == alias)
        .order_by(alias_move_table.c.id.desc())
        .limit(_MAX_MOVES)
    )
    return tuple(AliasMove(*row) for row in tx.connection.execute(query))


def list_aliases(tx: Transaction, adapter_id: int) -> dict[str, int]:
    """Return the number of the version that each alias of an adapter means, by alias."""
    query = (
        select(alias_table.c.alias, version_table.c.number)
        .join(version_table, version_table.c.id == alias_table.c.version_id)
        .where(alias_table.c.adapter_id == adapter_id)
    )
    return {row.alias: row.number for row in tx.connection.execute(query)}


def _lock_alias(tx: Transaction, adapter_id: int, alias: str) -> int | None:
    """Lock ``alias``, after those who move it now, and return the id of the version that it means; None if none."""
    return tx.connection.execute(_LOCK_ALIAS, {"adapter": adapter_id, "name": alias}).scalar()


def _end_trials(tx: Transaction, adapter_id: int, alias: str, reason: str) -> None:
    canaries.end(tx, adapter_id, alias, reason)
    promotions.end(tx, adapter_id, alias, reason)


def _is_alias(adapter_id: int, alias: str) -> ColumnElement[bool]:
    return and_(alias_table.c.adapter_id == adapter_id, alias_table.c.alias == alias)


def _log_move(
    tx: Transaction, action: str, adapter_id: int, alias: str, version_id: int | None, reason: str = ""
) -> None:
    move = {"adapter_id": adapter_id, "alias": alias, "version_id": version_id, "author": tx.author, "at": tx.at}
    tx.connection.execute(_LOG_MOVE, {**move, "moved_to": version_id})
    tx.log(action, adapter_id, version_id, alias=alias, **({"reason": reason} if reason else {}))
