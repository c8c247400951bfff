"""Tokens, namespaces and events: who may do what in a registry behind a server, and who did what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from loreg.entities import Event, Namespace, Page, Token
from loreg.errors import UsageError
from loreg.parsing import parse_grants
from loreg.refs import parse_adapter_name
from loreg.workspace.context import Context

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def create_token(
    context: Context, name: str, scopes: Sequence[str], *, expires: str | datetime | None = None
) -> tuple[Token, str]:
    """A new token and its secret, which nobody can read again.

    ``scopes`` are ``read:team``, ``write:team`` or ``admin:team``; each allows what those before it do, ``*`` means
    every namespace and ``-`` adapters without one. ``expires`` is a time, or a span from now: ``12h``, ``30d``, ``8w``.
    """
    return context.backend.create_token(name, parse_grants(scopes), _until(expires))


def tokens(context: Context) -> tuple[Token, ...]:
    """All tokens, the newest first, those that hold no more too."""
    return context.backend.tokens()


def revoke_token(context: Context, token_id: int) -> Token:
    """Let a token hold no more, from now on. Raises NotFoundError."""
    return context.backend.revoke_token(token_id)


def namespaces(context: Context) -> tuple[Namespace, ...]:
    """All namespaces that may be read, by name."""
    return context.backend.namespaces()


def set_public(context: Context, namespace: str, public: bool) -> None:
    """Let everyone who reaches the server read a namespace, or only those who have a token for it."""
    if namespace:
        parse_adapter_name(f"{namespace}/x")
    context.backend.set_public(namespace, public)


def events(context: Context, *, limit: int = 50, cursor: str | None = None) -> Page[Event]:
    """A page of events, the newest first."""
    return context.backend.events(limit, cursor)


def _until(expires: str | datetime | None) -> datetime | None:
    if not isinstance(expires, str):
        return expires
    match = _SPAN.fullmatch(expires)
    if not match:
        raise UsageError(f"invalid span {expires!r}: expected something like 12h, 30d or 8w", hint="--expires 30d")
    return datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})
