"""Who asks, for what, and what he may do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from loreg.value import Value

#: The author of what is done without a token and without a name.
ANONYMOUS_AUTHOR = "anonymous"
#: The action of the event that somebody pulled a version.
PULL = "pull"


class Role(StrEnum):
    """What a caller may do in a namespace: each role includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Return whether this role allows what ``other`` does."""
        roles = tuple(Role)
        return roles.index(self) >= roles.index(other)


class JobKind(StrEnum):
    """What a worker can be asked for."""

    MERGE = "merge"
    RERANK = "rerank"
    BAKE = "bake"
    VERIFY = "verify"
    REPAIR = "repair"
    GC = "gc"
    PRUNE = "prune"
    BACKUP = "backup"
    SKETCH = "sketch"
    MAP = "map"

    @property
    def is_upkeep(self) -> bool:
        """Whether it is about the whole registry: for administrators of everything, and its result is a report."""
        return self not in (JobKind.MERGE, JobKind.RERANK, JobKind.BAKE)

    @property
    def role(self) -> Role:
        """The role that its submitter must have in the job's namespace."""
        return Role.ADMIN if self.is_upkeep else Role.WRITE


class JobState(StrEnum):
    """How far a job is; the last three are its end."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Access(Value, frozen=True):
    """Who acts, and what on: ``permissions`` maps a namespace, or ``*`` for all, to a :class:`Role`.

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
        return cls(author, {"*": Role.ADMIN})

    def may(self, role: Role, namespace: str) -> bool:
        """Return whether ``role`` is given there; ``namespace`` is empty for names that have none."""
        roles = (self.permissions.get(namespace), self.permissions.get("*"))
        return any(Role(granted).includes(role) for granted in roles if granted is not None)

    def may_somewhere(self, role: Role) -> bool:
        """Return whether ``role`` is given in any namespace."""
        return any(Role(granted).includes(role) for granted in self.permissions.values())


class Caller(Value, frozen=True):
    """Who acts, as the registry knows them: ``permissions`` as in :class:`Access`, and the token that says so.

    ``token_id`` is None where none is needed, ``expires_at`` for a token without an end.
    """

    author: str
    permissions: Mapping[str, str]
    token_id: int | None = None
    expires_at: datetime | None = None


class Token(Value, frozen=True):
    """A token without its secret. ``grants`` as in :class:`Access`; ``author`` is who made it."""

    id: int
    name: str
    grants: Mapping[str, str]
    author: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class Namespace(Value, frozen=True):
    """Adapters of a team; ``public`` ones are read without a token. Its name is empty for adapters without one."""

    name: str
    public: bool
    adapters: int


class Event(Value, frozen=True):
    """Who did what, and when; ``ref`` is empty where it was not about one adapter."""

    id: int
    at: datetime
    author: str
    action: str
    ref: str
    detail: Mapping[str, object]


class Upload(Value, frozen=True):
    """A blob that a client is about to send; only that client is told the ``id`` of its upload."""

    id: str
    sha256: str
    size: int


class Job(Value, frozen=True):
    """A merge, a re-ranking, a bake or upkeep that a worker does; ``request`` is the document that asked for it.

    ``what`` is the step that it is at, of which ``done`` out of ``total`` units are done. When it has ended, ``result``
    names what was made or found, or ``error`` has the code, message and hint of what went wrong. ``namespace`` is where
    the result goes, ``*`` for upkeep, which administrators of everything see and nobody else.
    """

    id: int
    kind: JobKind
    request: Mapping[str, Any]
    namespace: str
    author: str
    state: JobState
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
        """Whether it has reached its last state: done, failed or cancelled."""
        return self.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)

    @property
    def outcome(self) -> str:
        """What came of it: its error, the version or model that it made, or what its report says in short; or empty."""
        if self.error:
            return self.error.get("message", "")
        return next((str(self.result[name]) for name in ("version", "model", "summary") if self.result.get(name)), "")
