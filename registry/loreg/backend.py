"""What is known of versions and bases, and the only way to change it: a catalog on this machine, or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from loreg.entities import (
    AdapterEntry,
    BaseAdded,
    BaseDetails,
    BaseEdge,
    BaseModel,
    Commit,
    Committed,
    Details,
    Event,
    Job,
    LineageEdge,
    Metric,
    Namespace,
    Page,
    Query,
    Token,
    Version,
)
from loreg.manifest import Manifest
from loreg.refs import AdapterName, Ref


class Backend(Protocol):
    """Each call is one transaction: all of it happens, or nothing.

    Raises NotFoundError for what is not there, ConflictError where others were faster, NotAllowedError, and
    UnavailableError where nobody answers.
    """

    def is_there(self) -> bool:
        """Whether there is anything to ask: a catalog on this machine is made on first use."""
        ...

    def is_empty(self) -> bool:
        """Whether nothing was ever stored for it, as far as whoever asks may know."""
        ...

    def describe(self) -> str:
        """What keeps it, and its version."""
        ...

    def show(self, ref: Ref) -> Details:
        """All that is known of the version that ``ref`` means."""
        ...

    def with_content(self, digest: str) -> Version | None:
        """A version of any adapter with exactly this content, the oldest; None if there is none."""
        ...

    def with_file(self, sha256: str) -> tuple[str, ...]:
        """The refs of the versions that have a file with this content, the oldest first."""
        ...

    def search(self, query: Query) -> Page[Version]:
        """A page of the versions that hold every condition."""
        ...

    def samples(self, count: int) -> tuple[Version, ...]:
        """Some versions to look at, yanked ones too: the oldest, the newest, and others between them."""
        ...

    def adapters(self, limit: int, cursor: str | None) -> Page[AdapterEntry]:
        """A page of all adapters, by name."""
        ...

    def versions(self, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
        """A page of the versions of one adapter, the newest first, yanked ones too."""
        ...

    def lineage(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        """The version that ``ref`` means, and every merge that it descends from, nearest first."""
        ...

    def commit(self, commit: Commit) -> Committed:
        """Record a version whose blobs are all stored; what it is, is read from these.

        Content that the adapter has already makes no new version. Raises AdapterFormatError, CheckFailedError or
        IntegrityError for blobs that are no sound adapter, or a base that it does not fit.
        """
        ...

    def tag(self, ref: Ref, alias: str, expected: int | None = None) -> Version:
        """Let ``alias`` mean the version of ``ref``; if ``expected`` is given, only if it means that number now.

        0 expects that there is no such alias.
        """
        ...

    def untag(self, adapter: AdapterName, alias: str) -> None:
        """Forget an alias; its history stays."""
        ...

    def set_yanked(self, ref: Ref, yanked: bool, reason: str) -> Version:
        """Hide a version from search and alias, or show it again."""
        ...

    def add_metrics(self, ref: Ref, metrics: Sequence[Metric]) -> Version:
        """Record measured numbers of a version; one measured on the same data before is replaced."""
        ...

    def base(self, text: str) -> BaseDetails:
        """The base of that name or digest."""
        ...

    def bases(self, limit: int, cursor: str | None) -> Page[BaseModel]:
        """A page of the known bases, the newest first."""
        ...

    def add_base(self, base: BaseModel) -> BaseAdded:
        """Make a base known whose list of tensors is stored under its digest."""
        ...

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, Any]) -> BaseEdge:
        """Record that one known base came from another: declared, or verified where the two contents prove it."""
        ...

    def base_path(self, one: str, other: str) -> tuple[BaseEdge, ...]:
        """The fewest edges that lead from one base to the other, by digest; empty if none do."""
        ...

    def export(self, ref: Ref, request: str) -> Manifest | None:
        """The files that the version became for ``request``, a digest of what was asked for; None if never made."""
        ...

    def events(self, limit: int, cursor: str | None) -> Page[Event]:
        """A page of events, the newest first: who did what."""
        ...

    def namespaces(self) -> tuple[Namespace, ...]:
        """All namespaces that may be read."""
        ...

    def set_public(self, namespace: str, public: bool) -> None:
        """Let everyone read a namespace, or only those who have a token for it."""
        ...

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, the newest first, those that hold no more too."""
        ...

    def create_token(self, name: str, grants: Mapping[str, str], expires_at: datetime | None) -> tuple[Token, str]:
        """A new token, and its secret, which nobody can read again."""
        ...

    def revoke_token(self, token_id: int) -> Token:
        """Let a token hold no more, from now on."""
        ...

    def submit(self, kind: str, request: Mapping[str, Any]) -> Job:
        """Ask a worker for a job."""
        ...

    def job(self, job_id: int) -> Job:
        """How a job is doing."""
        ...

    def jobs(self, limit: int, cursor: str | None) -> Page[Job]:
        """A page of jobs, the newest first."""
        ...

    def cancel_job(self, job_id: int) -> Job:
        """Give a job up; one that has ended stays as it is."""
        ...

    def record_export(self, ref: Ref, request: str, profile: str) -> Manifest:
        """Make the version's files for the server of ``profile``, which ``request`` is a digest of, and remember them.

        Raises NotAllowedError for a profile that loreg does not come with, and for what is too much to make.
        """
        ...

    def drop_export(self, ref: Ref, request: str) -> None:
        """Forget the files that the version became for ``request``."""
        ...
