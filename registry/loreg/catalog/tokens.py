"""Tokens: create, find and revoke them; only the digest of each is stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, bindparam, func, insert, or_, select, text, update

from loreg.catalog.schema import token_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Token
from loreg.errors import NotFoundError, UnauthenticatedError

_COLUMNS: tuple[Any, ...] = (
    token_table.c.id,
    token_table.c.name,
    token_table.c.grants,
    token_table.c.author,
    token_table.c.created_at,
    token_table.c.expires_at,
    token_table.c.last_used_at,
    token_table.c.revoked_at,
)
_LAST_USED_PRECISION = timedelta(minutes=1)  # ``last_used_at`` is not written again before: a write costs


def is_live(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition that a token holds at the time ``now``."""
    return and_(
        token_table.c.revoked_at.is_(None), or_(token_table.c.expires_at.is_(None), token_table.c.expires_at > now)
    )


_FIND_LIVE = select(*_COLUMNS, token_table.c.digest).where(
    token_table.c.digest == bindparam("digest"), is_live(bindparam("now"))
)
_FIND_LIVE_BY_ID = select(*_COLUMNS).where(token_table.c.id == bindparam("id"), is_live(bindparam("now")))
_FIND_ANY = select(token_table.c.id).limit(1)


def create(tx: Transaction, digest: str, name: str, grants: Mapping[str, str], expires_at: datetime | None) -> Token:
    """Record a token by its sha256 and return it; ``grants`` are roles by namespace."""
    values = {"digest": digest, "name": name, "grants": dict(grants), "expires_at": expires_at}
    statement = insert(token_table).values(**values, author=tx.author, created_at=tx.at).returning(*_COLUMNS)
    token = Token(*tx.connection.execute(statement).one())
    tx.log("token create", None, None, token=token.id, name=name, grants=dict(grants))
    return token


def list_named(tx: Transaction, name: str) -> tuple[Token, ...]:
    """Return the tokens that have or had the name, newest first; on PostgreSQL others wait here for the transaction."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg tokens'))"))
    query = select(*_COLUMNS).where(token_table.c.name == name).order_by(token_table.c.id.desc())
    return tuple(Token(*row) for row in tx.connection.execute(query))


def find_live(tx: Transaction, digest: str) -> tuple[Token, str] | None:
    """Return the live token of that sha256, with the digest as it is stored; None if there is none."""
    for *cells, stored_digest in tx.select_compiled(_FIND_LIVE, digest=digest, now=tx.at):
        return Token(*cells), stored_digest
    return None


def any_exist(tx: Transaction) -> bool:
    """Whether a token was ever created, live or not."""
    return tx.connection.execute(_FIND_ANY).first() is not None


def find_live_by_id(tx: Transaction, token_id: int) -> Token | None:
    """Return the live token with that id; None if there is none."""
    row = tx.connection.execute(_FIND_LIVE_BY_ID, {"id": token_id, "now": tx.at}).one_or_none()
    return Token(*row) if row is not None else None


def is_live_condition(tx: Transaction, token_id: SQLColumnExpression[int | None]) -> ColumnElement[bool]:
    """Return the condition that the token in the column ``token_id`` is live."""
    return select(token_table.c.id).where(token_table.c.id == token_id, is_live(tx.at)).exists()


def any_exist_condition() -> ColumnElement[bool]:
    """Return the condition that :func:`any_exist` asks for."""
    return _FIND_ANY.exists()


def refuse_if_tokens_are_needed(tx: Transaction) -> None:
    """Raise UnauthenticatedError if the caller began without a token, on a server that needed none, and it does now.

    Long work, a job for instance, ends with a write: by then a token may have been made.
    """
    if tx.access.while_open and any_exist(tx):
        raise UnauthenticatedError("meanwhile a token was made, and everybody needs one", hint="loreg login")


def refuse_changed(tx: Transaction, grants: Mapping[str, str] | None) -> None:
    """Raise UnauthenticatedError unless the caller's token has the same ``grants`` still; None if it is not live."""
    if grants is None or dict(grants) != dict(tx.access.permissions):
        raise UnauthenticatedError(
            f"the token {tx.author!r} was revoked or changed meanwhile, or has expired", hint="loreg login"
        )


def needs_use_update(token: Token, now: datetime) -> bool:
    """Whether :func:`mark_used` is due: the stored time of the token's last use is over a minute old."""
    return token.last_used_at is None or now - token.last_used_at > _LAST_USED_PRECISION


def mark_used(tx: Transaction, token: Token) -> None:
    """Store now as the time of the token's last use."""
    tx.connection.execute(update(token_table).where(token_table.c.id == token.id).values(last_used_at=tx.at))


def list_all(tx: Transaction, *, for_update: bool = False) -> tuple[Token, ...]:
    """Return all tokens, live or not, newest first; with ``for_update``, locked until the transaction ends."""
    query = select(*_COLUMNS).order_by(token_table.c.id.desc())
    return tuple(Token(*row) for row in tx.connection.execute(query.with_for_update() if for_update else query))


def revoke(tx: Transaction, token_id: int) -> Token:
    """Revoke a token from now on, and return it; one that is revoked stays as it is. Raises NotFoundError."""
    values = {"revoked_at": func.coalesce(token_table.c.revoked_at, tx.at)}
    statement = update(token_table).where(token_table.c.id == token_id).values(**values).returning(*_COLUMNS)
    row = tx.connection.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token {token_id}", hint="loreg token ls")
    tx.log("token revoke", None, None, token=token_id)
    return Token(*row)
