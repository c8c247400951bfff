"""Who asks, for what, and what he may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Access:
    """Who acts, and what on: ``grants`` maps a namespace, or ``*`` for all, to one of :data:`LEVELS`.

    ``token_id`` is the token that says so, if one does: a change is refused when it does not hold any more. With
    ``while_open`` a server says so that has no tokens: a change is refused when there is one.
    """

    author: str
    permissions: Mapping[str, str]
    token_id: int | None = None
    while_open: bool = False

    @classmethod
    def superuser(cls, author: str) -> Access:
        """Allow everything: whoever has the database and the store needs no permission."""
        return cls(author, {"*": "admin"})

    def may(self, level: str, namespace: str) -> bool:
        """Whether that much is allowed there; ``namespace`` is empty for names that have none."""
        given = (self.permissions.get(namespace), self.permissions.get("*"))
        return any(one is not None and LEVELS.index(one) >= LEVELS.index(level) for one in given)

    def may_somewhere(self, level: str) -> bool:
        """Whether that much is allowed in any namespace."""
        return any(LEVELS.index(one) >= LEVELS.index(level) for one in self.permissions.values())


#: Each allows what those before it do.
LEVELS = ("read", "write", "admin")


@dataclass(frozen=True)
class Token:
    """A token without its secret. ``grants`` as in :class:`Access`; ``author`` is who made it."""

    id: int
    name: str
    grants: Mapping[str, str]
    author: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Namespace:
    """Adapters of a team; ``public`` ones are read without a token. Its name is empty for adapters without one."""

    name: str
    public: bool
    adapters: int


@dataclass(frozen=True)
class Event:
    """Who did what, and when; ``ref`` is empty where it was not about one adapter."""

    id: int
    at: datetime
    author: str
    action: str
    ref: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Upload:
    """A blob that was announced: ``id`` is known to who announced it alone."""

    id: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Job:
    """Work for a worker: ``kind`` is merge, rerank or bake, ``request`` the verb's arguments by name.

    ``state`` is queued, running, done, failed or cancelled; ``done`` of ``total`` of ``what`` say how far it is.
    ``result`` names what was made, ``error`` has code, message and hint. ``namespace`` is where it goes.
    """

    id: int
    kind: str
    request: Mapping[str, Any]
    namespace: str
    author: str
    state: str
    attempts: int
    worker: str
    what: str
    done: int
    total: int
    result: Mapping[str, Any]
    error: Mapping[str, str]
    created_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ("done", "failed", "cancelled")
