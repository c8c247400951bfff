"""Aliases: movable names for versions, with every move written down."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from loreg.catalog.schema import AliasMoveRow, AliasRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.errors import NotFoundError


def point(tx: Transaction, adapter_id: int, version_id: int, alias: str) -> None:
    """Let ``alias`` mean this version from now on. Nothing happens if it does already."""
    current = select(AliasRow.version_id).where(AliasRow.adapter_id == adapter_id, AliasRow.alias == alias)
    if tx.connection.execute(current).scalar() == version_id:
        return
    tx.upsert(AliasRow, {"adapter_id": adapter_id, "alias": alias, "version_id": version_id})
    _write_down(tx, "tag", adapter_id, alias, version_id)


def remove(tx: Transaction, adapter_id: int, alias: str) -> None:
    """Forget ``alias``; its history stays. Raises NotFoundError, naming the aliases that there are."""
    known = of(tx, adapter_id)
    if alias not in known:
        names = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"there is no alias {alias!r}; there are: {names}", hint="loreg ls NAME")
    tx.connection.execute(delete(AliasRow).where(AliasRow.adapter_id == adapter_id, AliasRow.alias == alias))
    _write_down(tx, "untag", adapter_id, alias, None)


def of(tx: Transaction, adapter_id: int) -> dict[str, int]:
    """Every alias of an adapter and the number of the version it means."""
    query = (
        select(AliasRow.alias, VersionRow.number)
        .join(VersionRow, VersionRow.id == AliasRow.version_id)
        .where(AliasRow.adapter_id == adapter_id)
    )
    return {row.alias: row.number for row in tx.connection.execute(query)}


def _write_down(tx: Transaction, action: str, adapter_id: int, alias: str, version_id: int | None) -> None:
    number = select(VersionRow.number).where(VersionRow.id == version_id).scalar_subquery()
    move = {"alias": alias, "version_id": version_id, "number": number, "author": tx.author, "at": tx.at}
    tx.connection.execute(insert(AliasMoveRow).values(adapter_id=adapter_id, **move))
    tx.log(action, adapter_id, version_id, alias=alias)
