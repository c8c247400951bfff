"""Tokens: only the digest of each is kept, and who made it for what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, insert, or_, select, text, update

from loreg.catalog.schema import TokenRow
from loreg.catalog.transaction import Transaction
from loreg.entities import Token
from loreg.errors import NotFoundError, UnauthenticatedError

_CELLS: tuple[Any, ...] = (
    TokenRow.id,
    TokenRow.name,
    TokenRow.grants,
    TokenRow.author,
    TokenRow.created_at,
    TokenRow.expires_at,
    TokenRow.last_used_at,
    TokenRow.revoked_at,
)
_HOLDS = and_(TokenRow.revoked_at.is_(None), or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > bindparam("now")))
_LIVE = select(*_CELLS, TokenRow.digest).where(TokenRow.digest == bindparam("digest"), _HOLDS)
_LIVE_BY_ID = select(*_CELLS).where(TokenRow.id == bindparam("id"), _HOLDS)
_ANY = select(TokenRow.id).limit(1)
_USED = timedelta(minutes=1)  # how exactly the last use is kept: a write for each request would be dear


def create(tx: Transaction, digest: str, name: str, grants: Mapping[str, str], expires_at: datetime | None) -> Token:
    """Record a token by its sha256."""
    values = {"digest": digest, "name": name, "grants": dict(grants), "expires_at": expires_at}
    statement = insert(TokenRow).values(**values, author=tx.author, created_at=tx.at).returning(*_CELLS)
    token = Token(*tx.connection.execute(statement).one())
    tx.log("token create", None, None, token=token.id, name=name, grants=dict(grants))
    return token


def list_named(tx: Transaction, name: str) -> tuple[Token, ...]:
    """The tokens that have or had the name, the newest first; nobody else asks before the transaction ends."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg tokens'))"))
    query = select(*_CELLS).where(TokenRow.name == name).order_by(TokenRow.id.desc())
    return tuple(Token(*row) for row in tx.connection.execute(query))


def find_live(tx: Transaction, digest: str) -> tuple[Token, str] | None:
    """The live token of that sha256, with the digest as it is stored; None if there is none."""
    for *cells, stored in tx.rows(_LIVE, digest=digest, now=tx.at):
        return Token(*cells), stored
    return None


def any_exist(tx: Transaction) -> bool:
    """Whether one was ever made, holds it or not."""
    return bool(tx.rows(_ANY))


def find_live_by_id(tx: Transaction, token_id: int) -> Token | None:
    """The token of that number, if it holds."""
    for cells in tx.rows(_LIVE_BY_ID, id=token_id, now=tx.at):
        return Token(*cells)
    return None


def is_live_condition(tx: Transaction, token_id: Any) -> ColumnElement[bool]:
    """The condition that the token in the column ``token_id`` holds."""
    holds = and_(TokenRow.revoked_at.is_(None), or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > tx.at))
    return select(TokenRow.id).where(TokenRow.id == token_id, holds).exists()


def any_exist_condition() -> ColumnElement[bool]:
    """The condition that one was ever made, see :func:`exist`."""
    return _ANY.exists()


def refuse_unless_live(tx: Transaction) -> None:
    """Raise UnauthenticatedError if the token that acts does not hold any more, or holds for something else.

    Long work, a job for instance, begins with a token and ends with a change: by then it may have been revoked. What
    began on a server without tokens does not end there once it has one.
    """
    if tx.access.while_open and any_exist(tx):
        raise UnauthenticatedError("meanwhile a token was made, and everybody needs one", hint="loreg login")
    if tx.access.token_id is None:
        return
    token = find_live_by_id(tx, tx.access.token_id)
    if token is None or dict(token.grants) != dict(tx.access.permissions):
        raise UnauthenticatedError(
            f"the token {tx.author!r} was revoked or changed meanwhile, or has expired", hint="loreg login"
        )


def needs_use_update(token: Token, now: datetime) -> bool:
    """Whether the time of its last use should be written down again."""
    return token.last_used_at is None or now - token.last_used_at > _USED


def mark_used(tx: Transaction, token: Token) -> None:
    """Write down that it was used now."""
    tx.connection.execute(update(TokenRow).where(TokenRow.id == token.id).values(last_used_at=tx.at))


def list_all(tx: Transaction, *, for_update: bool = False) -> tuple[Token, ...]:
    """All tokens, the newest first, those that hold no more too; ``for_update``, nobody changes them meanwhile."""
    query = select(*_CELLS).order_by(TokenRow.id.desc())
    return tuple(Token(*row) for row in tx.connection.execute(query.with_for_update() if for_update else query))


def revoke(tx: Transaction, token_id: int) -> Token:
    """Let a token hold no more, from now on. Raises NotFoundError."""
    values = {"revoked_at": func.coalesce(TokenRow.revoked_at, tx.at)}
    statement = update(TokenRow).where(TokenRow.id == token_id).values(**values).returning(*_CELLS)
    row = tx.connection.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token {token_id}", hint="loreg token ls")
    tx.log("token revoke", None, None, token=token_id)
    return Token(*row)
