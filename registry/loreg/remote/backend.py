"""The backend of a server: each method is one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any
from urllib.parse import quote

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
from loreg.errors import NotFoundError
from loreg.manifest import Manifest
from loreg.parsing import scopes_of
from loreg.refs import NO_NAMESPACE, AdapterName, Ref
from loreg.remote.http import Server
from loreg.remote.store import RemoteStore
from loreg.schemas import (
    AliasTarget,
    BaseRelationRequest,
    BaseRequest,
    CommitRequest,
    ExportRequest,
    JobRequest,
    LineageResponse,
    TokenCreated,
    TokenRequest,
    VisibilityRequest,
    YankRequest,
)

_API = "/api/v1"


class RemoteBackend:
    """What :class:`loreg.backend.Backend` promises, kept by ``server``; ``store`` knows what was uploaded."""

    def __init__(self, server: Server, store: RemoteStore) -> None:
        self._server = server
        self._store = store

    def is_there(self) -> bool:
        """A server always is."""
        return True

    def is_empty(self) -> bool:
        """Only who has the catalog knows."""
        return False

    def describe(self) -> str:
        """What keeps it."""
        health = self._server.get("/readyz", dict[str, str])
        catalog = health.get("catalog", "")
        return f"loreg {health.get('version', '')} at {self._server.endpoint}{f': {catalog}' if catalog else ''}"

    def show(self, ref: Ref) -> Details:
        """All that is known of a version."""
        return self._server.get(_version(ref), Details)

    def with_content(self, digest: str) -> Version | None:
        """A version with exactly this content, the oldest."""
        try:
            return self._server.get(f"{_API}/contents/{digest}", Version)
        except NotFoundError:
            return None

    def with_file(self, sha256: str) -> tuple[str, ...]:
        """The refs of the versions that have this file."""
        return self._server.get(f"{_API}/files/{sha256}", tuple[str, ...])

    def search(self, query: Query) -> Page[Version]:
        """A page of the versions that hold every condition."""
        return self._server.get(
            f"{_API}/search",
            Page[Version],
            {
                "text": query.text,
                "task": query.tasks,
                "base": query.base,
                "module": query.modules,
                "rank": tuple(map(str, query.ranks)),
                "metric": tuple(map(str, query.metrics)),
                "label": tuple(f"{key}={value}" for key, value in query.labels),
                "author": query.author,
                "variant": query.variant,
                "sort": str(query.sort),
                "all_versions": query.all_versions,
                "limit": query.limit,
                "cursor": query.cursor,
            },
        )

    def samples(self, count: int) -> tuple[Version, ...]:
        """The newest that are not yanked: at the others whoever runs the server looks."""
        return self.search(Query(all_versions=True, limit=count)).items

    def adapters(self, limit: int, cursor: str | None) -> Page[AdapterEntry]:
        """A page of all adapters, by name."""
        return self._server.get(f"{_API}/adapters", Page[AdapterEntry], {"limit": limit, "cursor": cursor})

    def versions(self, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
        """A page of the versions of one adapter, the newest first."""
        return self._server.get(f"{_adapter(adapter)}/versions", Page[Version], {"limit": limit, "cursor": cursor})

    def lineage(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        """The version, and every merge that it descends from."""
        found = self._server.get(f"{_version(ref)}/lineage", LineageResponse)
        return found.version, found.edges

    def commit(self, commit: Commit) -> Committed:
        """Record a version whose blobs were uploaded."""
        path, digests = f"{_adapter(commit.adapter)}/versions", commit.digests
        body = CommitRequest(commit, self._store.upload_ids(digests), self._store.inline_contents(digests))
        done = self._server.post(path, Committed, body)
        self._store.forget_inline(digests)
        return done

    def tag(self, ref: Ref, alias: str, expected: int | None = None) -> Version:
        """Let ``alias`` mean the version of ``ref`` from now on."""
        headers = {} if expected is None else {"If-Match": f'"v{expected}"'} if expected else {"If-None-Match": "*"}
        path = f"{_adapter(ref.adapter)}/aliases/{quote(alias, safe='')}"
        return self._server.put(path, Version, AliasTarget(str(ref)), headers, retry=expected is None)

    def untag(self, adapter: AdapterName, alias: str) -> None:
        """Forget an alias; its history stays."""
        self._server.delete(f"{_adapter(adapter)}/aliases/{quote(alias, safe='')}", NoneType)

    def set_yanked(self, ref: Ref, yanked: bool, reason: str) -> Version:
        """Hide a version from search and alias, or show it again."""
        return self._server.put(f"{_version(ref)}/yanked", Version, YankRequest(yanked, reason))

    def add_metrics(self, ref: Ref, metrics: Sequence[Metric]) -> Version:
        """Record measured numbers of a version."""
        return self._server.post(f"{_version(ref)}/metrics", Version, metrics)

    def base(self, text: str) -> BaseDetails:
        """The base of that name or digest."""
        return self._server.get(f"{_API}/base", BaseDetails, {"name": text})

    def bases(self, limit: int, cursor: str | None) -> Page[BaseModel]:
        """A page of the known bases, the newest first."""
        return self._server.get(f"{_API}/bases", Page[BaseModel], {"limit": limit, "cursor": cursor})

    def add_base(self, base: BaseModel) -> BaseAdded:
        """Make a base known whose list of tensors was uploaded."""
        digests = (base.digest,)
        body = BaseRequest(base, self._store.upload_ids(digests), self._store.inline_contents(digests))
        done = self._server.post(f"{_API}/bases", BaseAdded, body)
        self._store.forget_inline(digests)
        return done

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, Any]) -> BaseEdge:
        """Record that one base came from another."""
        return self._server.post(f"{_API}/base-edges", BaseEdge, BaseRelationRequest(child, parent, kind, detail))

    def base_path(self, one: str, other: str) -> tuple[BaseEdge, ...]:
        """The fewest edges that lead from one base to the other."""
        return self._server.get(f"{_API}/base-edges", tuple[BaseEdge, ...], {"one": one, "other": other})

    def export(self, ref: Ref, request: str) -> Manifest | None:
        """The files that the version became for ``request``."""
        try:
            return self._server.get(f"{_version(ref)}/exports/{request}", Manifest)
        except NotFoundError:
            return None

    def record_export(self, ref: Ref, request: str, profile: str) -> Manifest:
        """Have the server make the version's files for another server."""
        path = f"{_version(ref)}/exports/{request}"
        return self._server.put(path, Manifest, ExportRequest(profile), retry=False)

    def drop_export(self, ref: Ref, request: str) -> None:
        """Forget the files that the version became for ``request``."""
        self._server.delete(f"{_version(ref)}/exports/{request}", NoneType)

    def submit(self, kind: str, request: Mapping[str, Any]) -> Job:
        """Ask a worker for a job."""
        return self._server.post(f"{_API}/jobs", Job, JobRequest(kind, request), retry=False)

    def job(self, job_id: int) -> Job:
        """How a job is doing."""
        return self._server.get(f"{_API}/jobs/{job_id}", Job)

    def jobs(self, limit: int, cursor: str | None) -> Page[Job]:
        """A page of jobs, the newest first."""
        return self._server.get(f"{_API}/jobs", Page[Job], {"limit": limit, "cursor": cursor})

    def cancel_job(self, job_id: int) -> Job:
        """Give a job up."""
        return self._server.delete(f"{_API}/jobs/{job_id}", Job)

    def events(self, limit: int, cursor: str | None) -> Page[Event]:
        """A page of events, the newest first."""
        return self._server.get(f"{_API}/events", Page[Event], {"limit": limit, "cursor": cursor})

    def namespaces(self) -> tuple[Namespace, ...]:
        """All namespaces that may be read."""
        return self._server.get(f"{_API}/namespaces", tuple[Namespace, ...])

    def set_public(self, namespace: str, public: bool) -> None:
        """Let everyone read a namespace, or only those who have a token for it."""
        self._server.put(f"{_API}/namespaces/{namespace or NO_NAMESPACE}", NoneType, VisibilityRequest(public))

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, the newest first."""
        return self._server.get(f"{_API}/tokens", tuple[Token, ...])

    def create_token(self, name: str, grants: Mapping[str, str], expires_at: datetime | None) -> tuple[Token, str]:
        """A new token, and its secret."""
        body = TokenRequest(name, tuple(scopes_of(grants)), expires_at)
        found = self._server.post(f"{_API}/tokens", TokenCreated, body, retry=False)
        return found.token, found.secret

    def revoke_token(self, token_id: int) -> Token:
        """Let a token hold no more."""
        return self._server.delete(f"{_API}/tokens/{token_id}", Token)


def _adapter(adapter: AdapterName) -> str:
    return f"{_API}/adapters/{adapter.namespace or NO_NAMESPACE}/{adapter.name}"


def _version(ref: Ref) -> str:
    selector = ref.alias or (f"v{ref.number}" if ref.number else "latest")
    if ref.digest:
        given = f"{selector}@" if selector != "latest" else ""
        selector = f"{given}sha256:{ref.digest}"
    return f"{_adapter(ref.adapter)}/versions/{quote(selector, safe=':@')}"
