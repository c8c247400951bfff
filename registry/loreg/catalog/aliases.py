"""Aliases: movable names for versions, with every move written down."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.orm import aliased

from loreg.catalog.schema import AliasMoveRow, AliasRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.entities import AliasMove
from loreg.errors import NotFoundError, StaleError

_MOST_MOVES = 1000


def set_alias(tx: Transaction, adapter_id: int, version_id: int, alias: str) -> None:
    """Let ``alias`` mean this version from now on. Nothing happens if it does already.

    Raises StaleError if there was no such alias a moment ago, and somebody else makes it at this very moment.
    """
    current = _locked(tx, adapter_id, alias)
    if current == version_id:
        return
    if current is None:
        row = {"adapter_id": adapter_id, "alias": alias, "version_id": version_id}
        if not tx.insert_if_missing(AliasRow, row):
            raise StaleError(f"somebody else set the alias {alias!r} at the same moment", hint="try again")
    else:
        tx.connection.execute(update(AliasRow).where(_same(adapter_id, alias)).values(version_id=version_id))
    _log_move(tx, "tag", adapter_id, alias, version_id)


def remove_alias(tx: Transaction, adapter_id: int, alias: str) -> None:
    """Forget ``alias``; its history stays. Raises NotFoundError, naming the aliases that there are."""
    known = list_aliases(tx, adapter_id)
    if alias not in known:
        names = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"there is no alias {alias!r}; there are: {names}", hint="loreg ls NAME")
    tx.connection.execute(delete(AliasRow).where(_same(adapter_id, alias)))
    _log_move(tx, "untag", adapter_id, alias, None)


def current_number(tx: Transaction, adapter_id: int, alias: str) -> int:
    """The number of the version that ``alias`` means, 0 if there is none; it means that until the transaction ends."""
    version_id = _locked(tx, adapter_id, alias)
    return tx.connection.execute(select(VersionRow.number).where(VersionRow.id == version_id)).scalar() or 0


def aliases_last_on(tx: Transaction, adapter_id: int, version_id: int) -> tuple[str, ...]:
    """The aliases that mean this version, or meant it when they were removed, by name."""
    later = aliased(AliasMoveRow)
    moved_on = (
        select(later.id)
        .where(later.adapter_id == AliasMoveRow.adapter_id, later.alias == AliasMoveRow.alias)
        .where(later.id > AliasMoveRow.id, later.version_id.is_not(None))
    )
    query = (
        select(AliasMoveRow.alias)
        .where(AliasMoveRow.adapter_id == adapter_id, AliasMoveRow.version_id == version_id, ~moved_on.exists())
        .order_by(AliasMoveRow.alias)
    )
    return tuple(tx.connection.execute(query).scalars())


def list_moves(tx: Transaction, adapter_id: int, alias: str) -> tuple[AliasMove, ...]:
    """Where ``alias`` pointed, the newest first, and the newest thousand at most."""
    query = (
        select(AliasMoveRow.alias, AliasMoveRow.number, AliasMoveRow.author, AliasMoveRow.at)
        .where(AliasMoveRow.adapter_id == adapter_id, AliasMoveRow.alias == alias)
        .order_by(AliasMoveRow.id.desc())
        .limit(_MOST_MOVES)
    )
    return tuple(AliasMove(*row) for row in tx.connection.execute(query))


def list_aliases(tx: Transaction, adapter_id: int) -> dict[str, int]:
    """Every alias of an adapter and the number of the version it means."""
    query = (
        select(AliasRow.alias, VersionRow.number)
        .join(VersionRow, VersionRow.id == AliasRow.version_id)
        .where(AliasRow.adapter_id == adapter_id)
    )
    return {row.alias: row.number for row in tx.connection.execute(query)}


def _locked(tx: Transaction, adapter_id: int, alias: str) -> int | None:
    """The row of the version that ``alias`` means now, once whoever moves it has done so; None if there is none.

    No other table is joined: PostgreSQL looks again only at the row that it waited for.
    """
    current = select(AliasRow.version_id).where(_same(adapter_id, alias)).with_for_update()
    return tx.connection.execute(current).scalar()


def _same(adapter_id: int, alias: str) -> ColumnElement[bool]:
    return and_(AliasRow.adapter_id == adapter_id, AliasRow.alias == alias)


def _log_move(tx: Transaction, action: str, adapter_id: int, alias: str, version_id: int | None) -> None:
    number = select(VersionRow.number).where(VersionRow.id == version_id).scalar_subquery()
    move = {"alias": alias, "version_id": version_id, "number": number, "author": tx.author, "at": tx.at}
    tx.connection.execute(insert(AliasMoveRow).values(adapter_id=adapter_id, **move))
    tx.log(action, adapter_id, version_id, alias=alias)
