"""Ask a loreg server for what a backend answers: each method is one request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import NoneType
from urllib.parse import quote

from loreg.backend import Backend, EventStream
from loreg.entities import (
    ALL_EVENTS,
    AdapterComparison,
    AdapterEntry,
    AdapterSimilarity,
    AdapterSpectra,
    AliasShares,
    BaseAdded,
    BaseAttachment,
    BaseDetails,
    BaseEdge,
    BaseModel,
    BaseSummary,
    Caller,
    Canary,
    Candidate,
    Commit,
    Committed,
    Deletion,
    Deployment,
    DeploymentReport,
    Details,
    Event,
    EventFilter,
    Facets,
    FindingCounts,
    Job,
    LineageEdge,
    MergePreview,
    Metric,
    MetricDeclared,
    MetricSummary,
    MetricVocabulary,
    Namespace,
    NearDuplicates,
    NewUpgrade,
    Page,
    Promotion,
    Query,
    RecordedVerdicts,
    SearchPage,
    SearchWords,
    Selection,
    Sketch,
    SortKey,
    TaskSummary,
    Token,
    UpgradeVerdict,
    Usage,
    UsageBy,
    Version,
    VersionFacts,
    Webhook,
    WebhookDelivery,
)
from loreg.errors import NotAllowedError, NotFoundError, UnavailableError
from loreg.manifest import Manifest
from loreg.parsing import format_scopes
from loreg.refs import NO_NAMESPACE, AdapterName, AdapterPattern, Ref
from loreg.remote.event_stream import RemoteEventStream
from loreg.remote.http import Parameters, Server
from loreg.remote.store import RemoteStore
from loreg.schemas import (
    AliasTarget,
    AttachmentRequest,
    BaseRelationRequest,
    BaseRequest,
    CanaryRequest,
    CommitRequest,
    ExportRequest,
    JobRequest,
    LineageResponse,
    MetricDirection,
    PromotionRequest,
    SketchResponse,
    TokenCreated,
    TokenRequest,
    UpgradeRequest,
    VisibilityRequest,
    WebhookCreated,
    WebhookPing,
    WebhookRequest,
    WebhookRotation,
    Whoami,
    YankRequest,
)
from loreg.selectors import Selector
from loreg.upkeep import Upkeep

_API = "/api/v1"


class RemoteBackend(Backend):
    """The backend of a loreg server, one request a method; ``store`` knows what was uploaded for a commit."""

    def __init__(self, server: Server, store: RemoteStore) -> None:
        self._server = server
        self._store = store

    def is_there(self) -> bool:
        return True

    def is_empty(self) -> bool:
        return False

    def describe(self) -> str:
        health = self._server.get("/readyz", dict[str, str])
        catalog = health.get("catalog", "")
        return f"loreg {health.get('version', '')} at {self._server.endpoint}{f': {catalog}' if catalog else ''}"

    def show(self, ref: Ref) -> Details:
        return self._server.get(_version_path(ref), Details)

    def begin_pull(self, ref: Ref) -> Details:
        return self._server.get(_version_path(ref), Details, {"pull": True})

    def with_content(self, digest: str) -> Version | None:
        try:
            return self._server.get(f"{_API}/contents/{digest}", Version)
        except NotFoundError:
            return None

    def with_file(self, sha256: str) -> tuple[str, ...]:
        return self._server.get(f"{_API}/files/{sha256}", tuple[str, ...])

    def candidates(self, hashes: Sequence[str], vector: str, limit: int) -> tuple[Candidate, ...]:
        return self._server.get(
            f"{_API}/candidates", tuple[Candidate, ...], {"hash": tuple(hashes), "vector": vector, "limit": limit}
        )

    def sketch(self, ref: Ref) -> Sketch | None:
        return self._server.get(f"{_version_path(ref)}/sketch", SketchResponse).sketch

    def facts(self, ref: Ref) -> tuple[VersionFacts, ...]:
        return self._server.get(f"{_version_path(ref)}/facts", tuple[VersionFacts, ...])

    def count_findings(self, pattern: AdapterPattern) -> FindingCounts:
        try:
            return self._server.get(f"{_API}/findings", FindingCounts, {"pattern": str(pattern)})
        except NotFoundError:
            return FindingCounts((), ())

    def near_duplicates(self, pattern: AdapterPattern) -> tuple[NearDuplicates, ...]:
        return self._server.get(f"{_API}/near-duplicates", tuple[NearDuplicates, ...], {"pattern": str(pattern)})

    def preview_merge(
        self, sources: Sequence[Ref], weights: Sequence[float], rank: int | None, method: str = "linear"
    ) -> MergePreview:
        parameters = {
            "source": list(map(str, sources)),
            "weight": list(map(repr, map(float, weights))),
            "rank": rank,
            "method": None if method == "linear" else method,
        }
        return self._server.get(f"{_API}/merge-preview", MergePreview, parameters)

    def spectra(self, ref: Ref) -> AdapterSpectra:
        return self._server.get(f"{_version_path(ref)}/spectra", AdapterSpectra)

    def compare_versions(self, refs: Sequence[Ref]) -> AdapterComparison:
        parameters = {"source": list(map(str, refs))}
        return AdapterComparison(self._server.get(f"{_API}/comparison", tuple[AdapterSimilarity, ...], parameters))

    def search(self, query: Query) -> SearchPage:
        parameters = {**_conditions(query), **_order(query), "limit": query.limit, "cursor": query.cursor}
        page = self._server.get(f"{_API}/search", SearchPage, parameters)
        if query.best and not page.best:
            raise UnavailableError(
                f"the server {self._server.endpoint} is older than this loreg: it does not know --best",
                hint=f"loreg search --all-versions --sort {query.sort}",
            )
        return page

    def facets(self, query: Query) -> Facets:
        return self._server.get(f"{_API}/facets", Facets, _conditions(query))

    def task_summaries(self, limit: int, cursor: str | None) -> Page[TaskSummary]:
        return self._server.get(f"{_API}/tasks", Page[TaskSummary], {"limit": limit, "cursor": cursor})

    def base_summaries(self, limit: int, cursor: str | None) -> Page[BaseSummary]:
        return self._server.get(f"{_API}/base-summaries", Page[BaseSummary], {"limit": limit, "cursor": cursor})

    def metric_summaries(self, limit: int, cursor: str | None) -> Page[MetricSummary]:
        return self._server.get(f"{_API}/metrics", Page[MetricSummary], {"limit": limit, "cursor": cursor})

    def search_words(self) -> SearchWords:
        try:
            return self._server.get(f"{_API}/search-words", SearchWords)
        except NotFoundError:
            return SearchWords()

    def metric_vocabulary(self) -> MetricVocabulary:
        try:
            return self._server.get(f"{_API}/metric-names", MetricVocabulary)
        except NotFoundError:
            return MetricVocabulary((), ())

    def declare_metric(self, name: str, higher_is_better: bool, unit: str) -> MetricDeclared:
        body = MetricDirection(higher_is_better, unit)
        return self._server.put(f"{_API}/metrics/{quote(name, safe='')}", MetricDeclared, body)

    def samples(self, count: int) -> tuple[Version, ...]:
        return self.search(Query(all_versions=True, limit=count)).items

    def adapters(self, limit: int, cursor: str | None) -> Page[AdapterEntry]:
        return self._server.get(f"{_API}/adapters", Page[AdapterEntry], {"limit": limit, "cursor": cursor})

    def versions(self, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
        return self._server.get(f"{_adapter_path(adapter)}/versions", Page[Version], {"limit": limit, "cursor": cursor})

    def lineage(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        response = self._server.get(f"{_version_path(ref)}/lineage", LineageResponse)
        return response.version, response.edges

    def descendants(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        response = self._server.get(f"{_version_path(ref)}/descendants", LineageResponse)
        return response.version, response.edges

    def whoami(self) -> Caller:
        caller = self._server.get(f"{_API}/whoami", Whoami)
        return Caller(caller.author, caller.grants, caller.token_id, caller.expires_at)

    def commit(self, commit: Commit) -> Committed:
        path, digests = f"{_adapter_path(commit.adapter)}/versions", commit.digests
        body = CommitRequest(commit, self._store.upload_ids(digests), self._store.inline_contents(digests))
        committed = self._server.post(path, Committed, body)
        self._store.forget_inline(digests)
        return committed

    def tag(self, ref: Ref, alias: str, expected: int | None = None, reason: str = "") -> Version:
        path = f"{_adapter_path(ref.adapter)}/aliases/{quote(alias, safe='')}"
        headers = _alias_condition(expected)
        return self._server.put(path, Version, AliasTarget(str(ref), reason), headers, retry=expected is None)

    def promote(self, ref: Ref, alias: str, rollback_if: Sequence[str], expected: int | None = None) -> Version:
        path = f"{_adapter_path(ref.adapter)}/aliases/{quote(alias, safe='')}/promotion"
        request = PromotionRequest(str(ref), tuple(rollback_if))
        return self._server.put(path, Version, request, _alias_condition(expected), retry=expected is None)

    def promotions(self, adapter: AdapterName) -> tuple[Promotion, ...]:
        try:
            return self._server.get(f"{_adapter_path(adapter)}/promotions", tuple[Promotion, ...])
        except NotFoundError:
            return ()

    def untag(self, adapter: AdapterName, alias: str, expected: int | None = None) -> None:
        path = f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}"
        self._server.delete(path, NoneType, _alias_condition(expected))

    def begin_canary(self, ref: Ref, alias: str, share: float, rollback_if: Sequence[str]) -> AliasShares:
        path = f"{_adapter_path(ref.adapter)}/aliases/{quote(alias, safe='')}/canary"
        return self._server.put(path, AliasShares, CanaryRequest(str(ref), share, tuple(rollback_if)))

    def end_canary(self, adapter: AdapterName, alias: str) -> AliasShares:
        return self._server.delete(f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/canary", AliasShares)

    def alias_shares(self, adapter: AdapterName, alias: str) -> AliasShares:
        return self._server.get(f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/shares", AliasShares)

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...]:
        try:
            return self._server.get(f"{_adapter_path(adapter)}/canaries", tuple[Canary, ...])
        except NotFoundError:
            return ()

    def set_yanked(self, ref: Ref, yanked: bool, reason: str) -> Version:
        return self._server.put(f"{_version_path(ref)}/yanked", Version, YankRequest(yanked, reason))

    def preview_deletion(self, ref: Ref) -> Deletion:
        return self._server.get(f"{_version_path(ref)}/deletion", Deletion)

    def delete(self, ref: Ref, reason: str) -> Deletion:
        return self._server.delete(_version_path(ref), Deletion, parameters={"reason": reason})

    def add_metrics(self, ref: Ref, metrics: Sequence[Metric]) -> Version:
        return self._server.post(f"{_version_path(ref)}/metrics", Version, metrics)

    def base(self, text: str) -> BaseDetails:
        return self._server.get(f"{_API}/base", BaseDetails, {"name": text})

    def bases(self, limit: int, cursor: str | None) -> Page[BaseModel]:
        return self._server.get(f"{_API}/bases", Page[BaseModel], {"limit": limit, "cursor": cursor})

    def add_base(self, base: BaseModel) -> BaseAdded:
        digests = (base.digest,)
        body = BaseRequest(base, self._store.upload_ids(digests), self._store.inline_contents(digests))
        added = self._server.post(f"{_API}/bases", BaseAdded, body)
        self._store.forget_inline(digests)
        return added

    def attach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        body = AttachmentRequest(base, tuple(map(str, refs)), limit, cursor)
        return self._server.post(f"{_API}/base-attachments", Page[BaseAttachment], body)

    def detach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        body = AttachmentRequest(base, tuple(map(str, refs)), limit, cursor)
        return self._server.post(f"{_API}/base-detachments", Page[BaseAttachment], body)

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, object]) -> BaseEdge:
        return self._server.post(f"{_API}/base-edges", BaseEdge, BaseRelationRequest(child, parent, kind, detail))

    def base_path(self, one: str, other: str) -> tuple[BaseEdge, ...]:
        return self._server.get(f"{_API}/base-edges", tuple[BaseEdge, ...], {"one": one, "other": other})

    def record_upgrade(self, upgrade: NewUpgrade) -> int:
        return self._server.post(f"{_API}/base-upgrades", int, UpgradeRequest(upgrade))

    def upgrade_verdicts(
        self, old: str, new: str, verdict: UpgradeVerdict | None, limit: int, cursor: str | None
    ) -> RecordedVerdicts:
        parameters = {"old": old, "new": new, "verdict": verdict, "limit": limit, "cursor": cursor}
        return self._server.get(f"{_API}/base-upgrades", RecordedVerdicts, parameters)

    def export(self, ref: Ref, request: str) -> Manifest | None:
        try:
            return self._server.get(f"{_version_path(ref)}/exports/{request}", Manifest)
        except NotFoundError:
            return None

    def record_export(self, ref: Ref, request: str, profile: str) -> Manifest:
        path = f"{_version_path(ref)}/exports/{request}"
        return self._server.put(path, Manifest, ExportRequest(profile), retry=False)

    def drop_export(self, ref: Ref, request: str) -> None:
        self._server.delete(f"{_version_path(ref)}/exports/{request}", NoneType)

    def submit(self, kind: str, request: Mapping[str, object]) -> Job:
        return self._server.post(f"{_API}/jobs", Job, JobRequest(kind, request), retry=False)

    def job(self, job_id: int) -> Job:
        return self._server.get(f"{_API}/jobs/{job_id}", Job)

    def jobs(self, limit: int, cursor: str | None) -> Page[Job]:
        return self._server.get(f"{_API}/jobs", Page[Job], {"limit": limit, "cursor": cursor})

    def cancel_job(self, job_id: int) -> Job:
        return self._server.delete(f"{_API}/jobs/{job_id}", Job)

    def events(self, limit: int, cursor: str | None, wanted: EventFilter = ALL_EVENTS) -> Page[Event]:
        parameters = {
            "limit": limit,
            "cursor": cursor,
            "adapter": str(wanted.adapter) if wanted.adapter else None,
            "namespace": wanted.namespace,
            "author": wanted.author,
            "action": wanted.actions,
            "since": wanted.since.isoformat() if wanted.since else None,
            "until": wanted.until.isoformat() if wanted.until else None,
            "pulls": wanted.pulls,
        }
        return self._server.get(f"{_API}/events", Page[Event], parameters)

    def usage(self, by: UsageBy, pattern: AdapterPattern, limit: int, cursor: str | None) -> Usage:
        page = {"limit": limit, "cursor": cursor}
        return self._server.get(f"{_API}/usage", Usage, {"by": str(by), "pattern": str(pattern), **page})

    def select(self, selectors: Sequence[Selector], query: Query | None = None) -> Selection:
        parameters = {**_conditions(query), **_order(query)} if query is not None else {}
        return self._server.get(f"{_API}/selection", Selection, {**parameters, "select": tuple(map(str, selectors))})

    def stream_events(
        self, patterns: Sequence[AdapterPattern] = (), position: str = "", *, pulls: bool = False
    ) -> EventStream:
        return RemoteEventStream(self._server, patterns, position, pulls=pulls)

    def report_deployment(self, report: DeploymentReport) -> None:
        self._server.put(f"{_API}/deployments", NoneType, report)

    def deployments(self, pattern: AdapterPattern, limit: int, cursor: str | None) -> Page[Deployment]:
        parameters: Parameters = {"pattern": str(pattern), "limit": limit, "cursor": cursor}
        return self._server.get(f"{_API}/deployments", Page[Deployment], parameters)

    def lease(self, digests: Collection[str]) -> None:
        pass  # the server does it where uploads are announced

    def upkeep(self) -> Upkeep:
        raise NotAllowedError(
            f"{self._server.endpoint} does not look through its store for its clients",
            hint="where the server runs, with its settings: loreg --database-url URL --storage-url URL verify",
        )

    def namespaces(self) -> tuple[Namespace, ...]:
        return self._server.get(f"{_API}/namespaces", tuple[Namespace, ...])

    def set_public(self, namespace: str, public: bool) -> None:
        self._server.put(f"{_API}/namespaces/{namespace or NO_NAMESPACE}", NoneType, VisibilityRequest(public))

    def tokens(self) -> tuple[Token, ...]:
        return self._server.get(f"{_API}/tokens", tuple[Token, ...])

    def create_token(self, name: str, permissions: Mapping[str, str], expires_at: datetime | None) -> tuple[Token, str]:
        body = TokenRequest(name, tuple(format_scopes(permissions)), expires_at)
        response = self._server.post(f"{_API}/tokens", TokenCreated, body, retry=False)
        return response.token, response.secret

    def revoke_token(self, token_id: int) -> Token:
        return self._server.delete(f"{_API}/tokens/{token_id}", Token)

    def webhooks(self) -> tuple[Webhook, ...]:
        return self._server.get(f"{_API}/webhooks", tuple[Webhook, ...])

    def add_webhook(self, url: str, patterns: Sequence[str], actions: Sequence[str], name: str) -> tuple[Webhook, str]:
        body = WebhookRequest(url, tuple(patterns), tuple(actions), name)
        response = self._server.post(f"{_API}/webhooks", WebhookCreated, body, retry=False)
        return response.webhook, response.secret

    def remove_webhook(self, webhook_id: int) -> None:
        self._server.delete(f"{_API}/webhooks/{webhook_id}", NoneType)

    def rotate_webhook(self, webhook_id: int, drop_old: bool) -> tuple[Webhook, str]:
        path = f"{_API}/webhooks/{webhook_id}/secret"
        response = self._server.put(path, WebhookCreated, WebhookRotation(drop_old), retry=False)
        return response.webhook, response.secret

    def enable_webhook(self, webhook_id: int) -> Webhook:
        return self._server.put(f"{_API}/webhooks/{webhook_id}/enabled", Webhook, None)

    def ping_webhook(self, webhook_id: int) -> int:
        return self._server.post(f"{_API}/webhooks/{webhook_id}/ping", WebhookPing, None, retry=False).delivery

    def webhook_deliveries(self, webhook_id: int, limit: int, cursor: str | None) -> Page[WebhookDelivery]:
        parameters = {"limit": limit, "cursor": cursor}
        return self._server.get(f"{_API}/webhooks/{webhook_id}/deliveries", Page[WebhookDelivery], parameters)

    def redeliver(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        path = f"{_API}/webhooks/{webhook_id}/deliveries/{delivery_id}"
        return self._server.put(path, WebhookDelivery, None)


def _conditions(query: Query) -> dict[str, str | bool | tuple[str, ...]]:
    """Return the conditions of a search as they are written in a request."""
    return {
        "text": query.text,
        "task": query.tasks,
        "base": query.base,
        "module": query.modules,
        "rank": tuple(map(str, query.ranks)),
        "metric": tuple(map(str, query.metrics)),
        "label": tuple(f"{key}={value}" for key, value in query.labels),
        "namespace": query.namespace,
        "author": query.author,
        "variant": query.variant,
        "loads_in": query.loads_in,
        "all_versions": query.all_versions,
    }


def _order(query: Query) -> dict[str, str]:
    """Return the order of a search as it is written in a request."""
    best = str(query.sort).removeprefix("metric:") if query.best else ""
    return {"sort": "" if best or query.sort.by == SortKey.RELEVANCE else str(query.sort), "best": best}


def _alias_condition(expected: int | None) -> dict[str, str]:
    """Return the header (RFC 9110, 13.1) for the condition that an alias means version ``expected``; 0 for none."""
    if expected is None:
        return {}
    return {"If-Match": f'"v{expected}"'} if expected else {"If-None-Match": "*"}


def _adapter_path(adapter: AdapterName) -> str:
    return f"{_API}/adapters/{adapter.namespace or NO_NAMESPACE}/{adapter.name}"


def _version_path(ref: Ref) -> str:
    selector = ref.alias or (f"v{ref.number}" if ref.number else "latest")
    if ref.digest:
        prefix = f"{selector}@" if selector != "latest" else ""
        selector = f"{prefix}sha256:{ref.digest}"
    return f"{_adapter_path(ref.adapter)}/versions/{quote(selector, safe=':@')}"
