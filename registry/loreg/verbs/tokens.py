"""``registry.tokens`` and ``registry.namespaces``: decide who may do what in a registry behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from loreg.backend import Backend
from loreg.entities import Namespace, Token
from loreg.parsing import parse_scopes, parse_span
from loreg.refs import parse_adapter_name


class Tokens:
    """The tokens of a server."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def create(self, name: str, scopes: Sequence[str], *, expires: str | datetime | None = None) -> tuple[Token, str]:
        """Make a token; return it with its secret, which nobody can read again.

        ``scopes`` are ``read:team``, ``write:team`` or ``admin:team``; each allows what those before it do, ``*``
        means every namespace and ``-`` adapters without one. ``expires`` is a time, or a span from now: ``12h``,
        ``30d``, ``8w``. Raises UsageError, ConflictError for a name under which others act, NotAllowedError.

        >>> token, secret = registry.tokens.create("ci", ["write:team"], expires="30d")
        >>> token.name, token.grants, secret.startswith("lrg_")
        ('ci', {'team': 'write'}, True)
        """
        return self._backend.create_token(name, parse_scopes(scopes), _parse_expiry(expires))

    def list(self) -> tuple[Token, ...]:
        """Return all tokens, the newest first, also those that do not hold any more. Raises NotAllowedError.

        >>> created = registry.tokens.create("ci", ["read:team"])
        >>> [(token.name, token.revoked_at) for token in registry.tokens.list()]
        [('ci', None)]
        """
        return self._backend.tokens()

    def revoke(self, token_id: int) -> Token:
        """Revoke a token, and end the jobs that it submitted. Raises NotFoundError, NotAllowedError.

        >>> token, secret = registry.tokens.create("ci", ["read:team"])
        >>> registry.tokens.revoke(token.id).revoked_at is not None
        True
        """
        return self._backend.revoke_token(token_id)


class Namespaces:
    """The namespaces of a server."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def list(self) -> tuple[Namespace, ...]:
        """Return all namespaces that the caller may read, by name.

        >>> pushed = registry.push("./science", "team/science")
        >>> [(namespace.name, namespace.public, namespace.adapters) for namespace in registry.namespaces.list()]
        [('team', False, 1)]
        """
        return self._backend.namespaces()

    def set_public(self, namespace: str, public: bool) -> None:
        """Let everyone read a namespace, or only those who have a token for it. Raises UsageError, NotAllowedError.

        >>> pushed = registry.push("./science", "team/science")
        >>> registry.namespaces.set_public("team", True)
        >>> registry.namespaces.list()[0].public
        True
        """
        if namespace:
            parse_adapter_name(f"{namespace}/x")
        self._backend.set_public(namespace, public)


def _parse_expiry(expires: str | datetime | None) -> datetime | None:
    return datetime.now(UTC) + parse_span(expires) if isinstance(expires, str) else expires
