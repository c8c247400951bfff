"""Check what is done with tokens: each holds for somebody, none passes for another, an administrator always remains."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from loreg.catalog import Transaction, tokens
from loreg.entities import Role, Token
from loreg.errors import ConflictError, NotAllowedError, UsageError

_EXPIRES = "--expires 30d, 12h or a date"


def validate_name(name: str) -> None:
    """Raise UsageError for a name that no token may have."""
    if not name or len(name) > 128 or not name.isprintable():
        raise UsageError(f"invalid name of a token {name[:140]!r}", hint="loreg token create ci-bot --scope write:team")


def refuse_taken_name(tx: Transaction, name: str, grants: Mapping[str, str]) -> None:
    """Raise ConflictError for a name under which a token with other scopes acts, or has acted.

    Bases, exports and uploads belong to the name. A token with the same scopes is taken for the same user's: the old
    one gives way to the new one.
    """
    namesake = next((token for token in tokens.list_named(tx, name) if dict(token.grants) != dict(grants)), None)
    if namesake is not None:
        raise ConflictError(
            f"{name!r} is the name of token {namesake.id}, with other scopes: what that made would be this one's",
            hint="give the new token another name",
        )


def validate_expiry(expires_at: datetime | None) -> None:
    """Raise UsageError for a time that is past, or that UTC has no date for."""
    if expires_at is None:
        return
    try:
        expires_at.astimezone(UTC)
    except OverflowError as error:
        raise UsageError(f"{expires_at} is too far away", hint=_EXPIRES) from error
    if not is_future(expires_at):
        raise UsageError(f"a token that expires at {expires_at:%Y-%m-%d %H:%M} would never hold", hint=_EXPIRES)


def refuse_last_administrator(tx: Transaction, token_id: int) -> None:
    """Raise NotAllowedError if nobody could make a token any more without this one."""
    administrators = [token for token in tokens.list_all(tx, for_update=True) if is_administrator(token)]
    if [token.id for token in administrators] == [token_id]:
        raise NotAllowedError(
            f"token {token_id} is the last administrator's: without it nobody can make another",
            hint="loreg token create --help",
        )


def is_administrator(token: Token) -> bool:
    """Return whether the token holds, and may do everything."""
    return token.grants.get("*") == Role.ADMIN and is_live(token)


def is_live(token: Token) -> bool:
    """Return whether the token is neither revoked nor expired."""
    return token.revoked_at is None and (token.expires_at is None or is_future(token.expires_at))


def is_future(expires_at: datetime) -> bool:
    """Return whether the time, UTC if it names no zone, lies ahead."""
    return expires_at.replace(tzinfo=expires_at.tzinfo or UTC) > datetime.now(UTC)
