"""Who may begin a transaction that writes: nobody in a registry that has moved, and no token that was revoked.

Both are asked in one statement. On PostgreSQL it also holds the table ``registry`` for the transaction (ACCESS SHARE),
so that a move, which locks that table, waits for all who write and then has seen the last of them. A statement sees
what was committed when it got that lock, not what was there when it began to wait.
"""

from __future__ import annotations

from sqlalchemy import and_, bindparam, select, update

from loreg.catalog import dump, tokens
from loreg.catalog.schema import registry_table, token_table
from loreg.catalog.transaction import Transaction
from loreg.errors import ConflictError

_MOVED_TO = select(registry_table.c.moved_to)
_MOVED_TO_AND_TOKEN = select(registry_table.c.moved_to, token_table.c.id, token_table.c.grants).select_from(
    registry_table.outerjoin(token_table, and_(token_table.c.id == bindparam("id"), tokens.is_live(bindparam("now"))))
)


def admit(tx: Transaction) -> None:
    """Raise ConflictError if the registry has moved, UnauthenticatedError if the caller's token holds no more."""
    if tx.access.token_id is None:
        rows = tx.select_compiled(_MOVED_TO)
        refuse_moved(rows[0][0] if rows else "")
    else:
        rows = tx.select_compiled(_MOVED_TO_AND_TOKEN, id=tx.access.token_id, now=tx.at)
        moved_to, token_id, grants = rows[0] if rows else ("", None, None)
        refuse_moved(moved_to)
        tokens.refuse_changed(tx, None if token_id is None else grants)
    tokens.refuse_if_tokens_are_needed(tx)


def refuse_moved(place: str) -> None:
    """Raise ConflictError if ``place``, where the registry moved, is not empty."""
    if place:
        raise ConflictError(
            f"this registry was moved to {place}, and can only be read here",
            hint="set LOREG_DATABASE_URL and LOREG_STORAGE_URL to where it is now; loreg move --undo opens this one "
            "again",
            outside="this registry was moved, and can only be read here",
        )


def moved_to(tx: Transaction) -> str:
    """Return where the registry moved; empty if it did not."""
    return tx.connection.execute(_MOVED_TO).scalar() or ""


def registry_id(tx: Transaction) -> str:
    """Return the id of the registry."""
    return tx.connection.execute(select(registry_table.c.id)).scalar_one()


def set_moved_to(tx: Transaction, place: str) -> None:
    """Record where the registry moved, or with an empty ``place`` that it is here. Waits for all who write."""
    dump.lock_registry(tx.connection)
    tx.connection.execute(update(registry_table).values(moved_to=place))
