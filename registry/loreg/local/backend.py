"""The backend on a catalog and a store: each method is one transaction of the catalog."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from loreg.backend import Backend, EventStream
from loreg.catalog import (
    Catalog,
    Transaction,
    aliases,
    bases,
    blobs,
    deployments,
    derivations,
    events,
    exports,
    garbage,
    jobs,
    lineage,
    listing,
    metric_declarations,
    metrics,
    mirroring,
    namespaces,
    pulls,
    shortcomings,
    sketches,
    summaries,
    tokens,
    tombstones,
    upgrades,
    versions,
)
from loreg.catalog.canaries import list_all as list_canaries
from loreg.catalog.facets import count_facets
from loreg.catalog.metric_history import metric_history
from loreg.catalog.near_names import list_words
from loreg.catalog.promotions import list_all as list_promotions
from loreg.catalog.promotions import put as put_promotion
from loreg.catalog.relatives import find_relatives
from loreg.catalog.search import search
from loreg.catalog.selections import select_by_search, select_by_selectors
from loreg.catalog.version_details import version_details, version_files
from loreg.catalog.version_json import VersionRecord
from loreg.checking.policy import Policy, policy_to_json
from loreg.entities import (
    ALL_EVENTS,
    ANONYMOUS_AUTHOR,
    Access,
    AdapterComparison,
    AdapterEntry,
    AdapterSpectra,
    AliasShares,
    BaseAdded,
    BaseAttachment,
    BaseDetails,
    BaseEdge,
    BaseModel,
    BaseRelation,
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
    FindingCount,
    FindingCounts,
    FlaggedVersion,
    Job,
    JobKind,
    LineageEdge,
    MergePreview,
    Metric,
    MetricDeclared,
    MetricSummary,
    MetricVocabulary,
    MissingCounts,
    MissingKind,
    Namespace,
    NearDuplicates,
    NewExport,
    NewUpgrade,
    Origin,
    Page,
    Promotion,
    Query,
    RecordedVerdicts,
    RelatedBase,
    Relatives,
    Role,
    SearchPage,
    SearchWords,
    Selection,
    Sketch,
    TaskSummary,
    Token,
    UpgradeVerdict,
    UpkeepAction,
    Usage,
    UsageBy,
    Version,
    VersionFacts,
    Webhook,
    WebhookDelivery,
)
from loreg.errors import CheckFailedError, ConflictError, NotAllowedError, StaleError, UsageError
from loreg.local import canaries, promotions, webhooks
from loreg.local.alias_policy import check_alias, check_metrics, check_removal, check_yank
from loreg.local.authorization import require, require_somewhere
from loreg.local.deployments import validate_report
from loreg.local.event_stream import LocalEventStream
from loreg.local.jobs import namespace_of
from loreg.local.loading import findings_by_server, with_findings_of_server
from loreg.local.origin import validate_origin
from loreg.local.recent_answers import RecentAnswers
from loreg.local.reference_writes import rehearse_references, write_references
from loreg.local.sketch_index import SketchIndex
from loreg.local.token_secrets import digest_secret, new_secret
from loreg.local.tokens import refuse_last_administrator, refuse_taken_name, validate_expiry, validate_name
from loreg.manifest import File, Manifest
from loreg.parsing import parse_reason, parse_unit, parse_word, validate_canary, validate_metric, validate_rollback
from loreg.refs import AdapterName, AdapterPattern, Ref
from loreg.selectors import Selector
from loreg.settings import RETENTION
from loreg.storage import AcceptedUpload, BlobStore, BlobTransfer
from loreg.upkeep import Upkeep

if TYPE_CHECKING:
    from loreg.local.bases import VerifiedBase
    from loreg.local.commit import ParsedCommit
    from loreg.local.reduced_versions import VersionReader


T = TypeVar("T")
_MAX_DESCENDANTS = 1000
_MAX_GUARDED = 100  # versions that are held against the policy for a page


class LocalBackend(Backend):
    """The backend on this machine's catalog and store, as a caller with ``access`` may use it."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        access: Access,
        policy: Policy,
        retention: Mapping[str, object] = MappingProxyType({}),
        sketch_index: SketchIndex | None = None,
        audited_pulls: Sequence[AdapterPattern] = (),
        frames_folder: Path | None = None,
        recent_answers: RecentAnswers | None = None,
    ) -> None:
        self.catalog = catalog
        self._store = store
        self._access = access
        self._policy = policy
        self._retention = retention
        self._sketch_index = sketch_index or SketchIndex()
        self._audited_pulls = audited_pulls
        self._frames_folder = frames_folder
        self._recent_answers = recent_answers

    def is_there(self) -> bool:
        return self.catalog.exists()

    def is_empty(self) -> bool:
        return self.catalog.is_empty()

    def describe(self) -> str:
        return self.catalog.describe()

    def show(self, ref: Ref) -> Details:
        with self.catalog.read(self._access) as tx:
            return version_details(tx, ref)

    def begin_pull(self, ref: Ref) -> Details:
        details = self.show(ref)
        self.record_pull(details.version, "loreg")
        return details

    def record_pull(self, version: Version, client: str) -> None:
        """Record that the caller pulls a version with a ``client``, where the registry is to record that."""
        if any(pattern.matches(version.adapter) for pattern in self._audited_pulls):
            with self.catalog.write(self._access) as tx:
                pulls.record(tx, version, client)

    def files_of(self, ref: Ref) -> tuple[Version, tuple[File, ...]]:
        """Return the version that ``ref`` means, and its files alone: its provenance may be megabytes."""
        with self.catalog.read(self._access) as tx:
            return version_files(tx, ref)

    def with_content(self, digest: str) -> Version | None:
        with self.catalog.read(self._access) as tx:
            return versions.find_by_digest(tx, digest)

    def with_file(self, sha256: str) -> tuple[str, ...]:
        with self.catalog.read(self._access) as tx:
            return versions.refs_with_file(tx, sha256)

    def candidates(self, hashes: Sequence[str], vector: str, limit: int) -> tuple[Candidate, ...]:
        from loreg.local.sketches import find_candidates

        with self.catalog.read(self._access) as tx:
            return find_candidates(tx, self._sketch_index, hashes, vector, limit)

    def sketch(self, ref: Ref) -> Sketch | None:
        with self.catalog.read(self._access) as tx:
            row_id = versions.resolve(tx, ref).id
            return sketches.find_all(tx, [row_id]).get(row_id)

    def facts(self, ref: Ref) -> tuple[VersionFacts, ...]:
        from loreg.local.facts import read_facts

        with self.catalog.read(self._access) as tx:
            return read_facts(tx, versions.resolve(tx, ref).id)

    def count_findings(self, pattern: AdapterPattern) -> FindingCounts:
        from loreg.local.facts import count_findings

        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("findings", pattern), lambda: count_findings(tx, pattern))

    def count_rules(self) -> tuple[FindingCount, ...]:
        """Return which findings the newest versions have, by code and namespace; for pages."""
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("rules",), lambda: shortcomings.count_rules(tx))

    def list_with_finding(
        self, code: str, namespace: str | None, limit: int, cursor: str | None
    ) -> Page[FlaggedVersion]:
        """Return a page of the versions with that finding, the newest first; for pages."""
        with self.catalog.read(self._access) as tx:
            return shortcomings.list_with_finding(tx, code, namespace, limit, cursor)

    def count_missing(self) -> MissingCounts:
        """Return what the newest versions lack, by namespace; for pages."""
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("missing",), lambda: shortcomings.count_missing(tx))

    def list_missing(
        self, kind: MissingKind, namespace: str | None, limit: int, cursor: str | None
    ) -> Page[FlaggedVersion]:
        """Return a page of the newest versions that lack that kind of thing; for pages."""
        with self.catalog.read(self._access) as tx:
            return shortcomings.list_missing(tx, kind, namespace, limit, cursor)

    def list_policy_failures(self) -> tuple[tuple[str, str, str], ...]:
        """Return of the newest versions that guarded aliases mean those that break the policy: ref, alias, why."""
        if not self._policy.aliases:
            return ()
        failures = []
        with self.catalog.read(self._access) as tx:
            for ref, alias in shortcomings.list_with_alias(tx, self._policy.aliases, _MAX_GUARDED):
                try:
                    check_alias(tx, self._policy, versions.resolve(tx, ref), alias)
                except CheckFailedError as error:
                    failures.append((str(ref), alias, error.message))
        return tuple(failures)

    def near_duplicates(self, pattern: AdapterPattern) -> tuple[NearDuplicates, ...]:
        from loreg.local.sketches import find_near_duplicates

        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("near duplicates", pattern), lambda: find_near_duplicates(tx, pattern))

    def preview_merge(
        self, sources: Sequence[Ref], weights: Sequence[float], rank: int | None, method: str = "linear"
    ) -> MergePreview:
        from loreg.local.merge_previews import preview_stored_merge, validate_preview

        validate_preview(len(sources), weights, rank, method)
        return preview_stored_merge(self._version_reader(), self.read_sources(sources), weights, rank, method)

    def spectra(self, ref: Ref) -> AdapterSpectra:
        from loreg.local.spectra import read_stored_spectra

        (source,) = self.read_sources([ref])
        return read_stored_spectra(self._version_reader(), source)

    def compare_versions(self, refs: Sequence[Ref]) -> AdapterComparison:
        from loreg.local.comparisons import compare_stored, validate_comparison

        validate_comparison(len(refs))
        return compare_stored(self._version_reader(), self.read_sources(refs))

    def has_preview(self, sources: Sequence[tuple[Version, Sequence[File]]]) -> bool:
        """Return whether a preview or the spectra of what :meth:`read_sources` returned need no file."""
        from loreg.local.reduced_versions import is_reduced

        return is_reduced(self._version_reader(), sources)

    def has_comparison(self, sources: Sequence[tuple[Version, Sequence[File]]]) -> bool:
        """Return whether a comparison of what :meth:`read_sources` returned needs no file."""
        from loreg.local.comparisons import is_compared

        return is_compared(self._version_reader(), sources)

    def _version_reader(self) -> VersionReader:
        from loreg.local.reduced_versions import VersionReader
        from loreg.previewing.computed_files import ComputedFiles

        def find_path(one: str, other: str) -> tuple[BaseEdge, ...]:
            with self.catalog.read(self._access) as tx:
                return derivations.shortest_path(tx, one, other)

        return VersionReader(self._store, ComputedFiles(self._frames_folder), find_path)

    def read_sources(self, sources: Sequence[Ref]) -> tuple[tuple[Version, tuple[File, ...]], ...]:
        """Return the versions that refs mean, with their files, as of one moment."""
        with self.catalog.read(self._access) as tx:
            return tuple(version_files(tx, ref) for ref in sources)

    def search(self, query: Query) -> SearchPage:
        query = with_findings_of_server(query)
        with self.catalog.read(self._access) as tx:
            return search(tx, query)

    def facets(self, query: Query) -> Facets:
        query = with_findings_of_server(query)
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("facets", query), lambda: count_facets(tx, query, findings_by_server()))

    def task_summaries(self, limit: int, cursor: str | None) -> Page[TaskSummary]:
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("tasks", limit, cursor), lambda: summaries.list_tasks(tx, limit, cursor))

    def base_summaries(self, limit: int, cursor: str | None) -> Page[BaseSummary]:
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("bases", limit, cursor), lambda: summaries.list_bases(tx, limit, cursor))

    def metric_summaries(self, limit: int, cursor: str | None) -> Page[MetricSummary]:
        with self.catalog.read(self._access) as tx:
            return self._recent(tx, ("metrics", limit, cursor), lambda: summaries.list_metrics(tx, limit, cursor))

    def _recent(self, tx: Transaction, question: Hashable, count: Callable[[], T]) -> T:
        """Return what ``count`` returns, or what it did a moment ago where this is a server's backend."""
        return self._recent_answers.get(tx, question, count) if self._recent_answers else count()

    def search_words(self) -> SearchWords:
        with self.catalog.read(self._access) as tx:
            return list_words(tx)

    def current_aliases(self, adapter: AdapterName) -> dict[str, int]:
        """Return the number of the version that each alias of an adapter means. Raises NotFoundError."""
        with self.catalog.read(self._access) as tx:
            return aliases.list_aliases(tx, versions.find_adapter_id(tx, adapter))

    def metric_history(
        self, measured: Mapping[AdapterName, Metric], around: Mapping[AdapterName, int]
    ) -> dict[AdapterName, list[tuple[int, float]]]:
        """Return the values of one metric of each adapter by version number; for curves."""
        with self.catalog.read(self._access) as tx:
            return metric_history(tx, measured, around)

    def metric_vocabulary(self) -> MetricVocabulary:
        with self.catalog.read(self._access) as tx:
            return metric_declarations.vocabulary(tx)

    def declare_metric(self, name: str, higher_is_better: bool, unit: str) -> MetricDeclared:
        require(self._access, Role.ADMIN, "*")
        name, unit = parse_word(name, "metric"), parse_unit(unit)
        with self.catalog.write(self._access) as tx:
            return metric_declarations.declare(tx, name, higher_is_better, unit)

    def samples(self, count: int) -> tuple[Version, ...]:
        with self.catalog.read(self._access) as tx:
            return listing.sample_versions(tx, count)

    def adapters(self, limit: int, cursor: str | None) -> Page[AdapterEntry]:
        with self.catalog.read(self._access) as tx:
            return listing.list_adapters(tx, limit, cursor)

    def versions(self, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
        with self.catalog.read(self._access) as tx:
            return listing.list_versions(tx, adapter, limit, cursor)

    def lineage(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        with self.catalog.read(self._access) as tx:
            record = versions.resolve(tx, ref)
            return record.version, lineage.list_ancestors(tx, record.id)

    def descendants(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        with self.catalog.read(self._access) as tx:
            version = versions.resolve(tx, ref).version
            return version, lineage.list_descendants(tx, version.digest, _MAX_DESCENDANTS)

    def relatives(self, ref: Ref) -> Relatives:
        """Return what is known of a version beside other versions: the bases above its own, exports, bakes."""
        with self.catalog.read(self._access) as tx:
            return find_relatives(tx, versions.resolve(tx, ref))

    def whoami(self) -> Caller:
        if self._access.token_id is None:
            return Caller(self._access.author, self._access.permissions)
        with self.catalog.read(self._access) as tx:
            token = tokens.find_live_by_id(tx, self._access.token_id)
        expires_at = token.expires_at if token is not None else None
        return Caller(self._access.author, self._access.permissions, self._access.token_id, expires_at)

    def commit(self, commit: Commit, accepted: Mapping[str, AcceptedUpload] = MappingProxyType({})) -> Committed:
        parsed, proven = self.parse(commit, accepted)
        try:
            for attempt in self.write_references():
                with attempt as tx:
                    committed = self.record(tx, parsed, proven, commit.origin)
        except CheckFailedError:  # all that it lacks is the alias
            sizes = {file.sha256: file.size for file in commit.manifest.files}
            for attempt in self.write_references():
                with attempt as tx:
                    blobs.record(tx, sizes)
            raise
        return committed

    def parse(
        self, commit: Commit, accepted: Mapping[str, AcceptedUpload] = MappingProxyType({})
    ) -> tuple[ParsedCommit, Sequence[str]]:
        """Read a commit of a caller who may write there, and return it as :meth:`record` takes it.

        Raises what :func:`loreg.local.commit.read_commit` raises.
        """
        from loreg.local.bases import limit_concurrent_reads
        from loreg.local.commit import read_commit

        require(self._access, Role.WRITE, commit.adapter.namespace)
        if commit.origin is not None:
            require(self._access, Role.ADMIN, "*")
            validate_origin(commit.origin)
        with limit_concurrent_reads() if commit.base is not None else contextlib.nullcontext():
            parsed = read_commit(self._store, commit, accepted)
            return parsed, self._find_proven(parsed.base) if parsed.base is not None else ()

    def write_references(self) -> Iterator[AbstractContextManager[Transaction]]:
        """Yield attempts to write; see :func:`loreg.local.reference_writes.write_references`."""
        return write_references(self.catalog, self._store, self._access)

    def record(
        self, tx: Transaction, parsed: ParsedCommit, proven: Sequence[str] = (), origin: Origin | None = None
    ) -> Committed:
        """Record a commit that was read, in a transaction of a caller who may write there, if the policy allows it.

        ``proven`` are the digests of the bases, known by their headers, that the commit's base is. Raises
        CheckFailedError or NotAllowedError if the policy forbids it, ConflictError as
        :func:`loreg.catalog.versions.record` does, and for an ``origin`` :func:`loreg.catalog.mirroring.record`.
        """
        from loreg.local.bases import describe_taken_names
        from loreg.local.facts import record_facts

        notes, base = list(parsed.notes), parsed.base
        if base is not None:
            # The adapter comes first, as in every transaction that locks one: see loreg.catalog.garbage.
            as_author = tx if origin is None else mirroring.as_author(tx, origin)
            versions.lock_adapter_name(as_author, parsed.new_version.adapter, make=True)
            bases.record(tx, base.base, base.size, proven)
            notes += describe_taken_names(bases.find_taken_names(tx, base.base))
        change_policy = versions.ChangePolicy(
            partial(check_alias, tx, self._policy), partial(check_metrics, tx, self._policy)
        )
        if origin is None:
            version_record, created = versions.record(tx, parsed.new_version, change_policy)
        else:
            version_record, created = mirroring.record(tx, parsed.new_version, origin, change_policy)
        if parsed.new_version.sketch is not None:
            from loreg.local.sketches import describe_twins

            sketches.record(tx, version_record.id, parsed.new_version.sketch, parsed.signs)
            if created and origin is None:
                notes += describe_twins(tx, version_record.id, parsed.new_version.sketch, parsed.signs)
        for new_facts in parsed.facts:
            record_facts(tx, version_record.id, new_facts)
        if parsed.new_version.provenance is not None and created and origin is None:
            from loreg.local.source_names import describe_unshared_sources

            notes += describe_unshared_sources(tx, parsed.new_version.adapter, parsed.new_version.provenance)
        return Committed(version_record.version, created, tuple(notes))

    def rehearse(self, parsed: ParsedCommit, store: BlobTransfer) -> None:
        """Raise what recording the commit would raise, with the blobs that ``store`` has; nothing is recorded."""
        rehearse_references(self.catalog, store, self._access, lambda tx: self.record(tx, parsed))

    def tag(self, ref: Ref, alias: str, expected: int | None = None, reason: str = "") -> Version:
        reason = parse_reason(reason) if reason else ""
        with self.catalog.write(self._access) as tx:
            record = self._find_target(tx, ref, alias, expected)
            aliases.set_alias(tx, record.adapter_id, record.id, alias, reason)
            return versions.by_id(tx, record.id)

    def promote(self, ref: Ref, alias: str, rollback_if: Sequence[str], expected: int | None = None) -> Version:
        if not rollback_if:
            raise UsageError("no metric is named on which the alias goes back", hint="--rollback-if 'accuracy<0.8'")
        validate_rollback(rollback_if)
        with self.catalog.write(self._access) as tx:
            record = self._find_target(tx, ref, alias, expected)
            previous_id, previous = promotions.find_previous(tx, record, alias, rollback_if)
            aliases.set_alias(tx, record.adapter_id, record.id, alias)
            promotion = Promotion(alias, record.version.number, previous, tuple(rollback_if), tx.author, tx.at)
            put_promotion(tx, record.adapter_id, record.id, previous_id, promotion)
            return versions.by_id(tx, record.id)

    def promotions(self, adapter: AdapterName) -> tuple[Promotion, ...]:
        with self.catalog.read(self._access) as tx:
            return list_promotions(tx, versions.find_adapter_id(tx, adapter))

    def untag(self, adapter: AdapterName, alias: str, expected: int | None = None) -> None:
        with self.catalog.write(self._access) as tx:
            adapter_id = self._lock_adapter(tx, adapter)
            if expected is not None:
                _refuse_moved_alias(tx, adapter_id, adapter, alias, expected)
            check_removal(tx, self._policy, adapter, alias)
            aliases.remove_alias(tx, adapter_id, alias)

    def begin_canary(self, ref: Ref, alias: str, share: float, rollback_if: Sequence[str]) -> AliasShares:
        validate_canary(share, rollback_if)
        with self.catalog.write(self._access) as tx:
            self._lock_adapter(tx, ref.adapter)
            return canaries.begin(tx, self._policy, versions.resolve(tx, ref), alias, share, rollback_if)

    def end_canary(self, adapter: AdapterName, alias: str) -> AliasShares:
        with self.catalog.write(self._access) as tx:
            return canaries.end(tx, adapter, self._lock_adapter(tx, adapter), alias)

    def alias_shares(self, adapter: AdapterName, alias: str) -> AliasShares:
        with self.catalog.read(self._access) as tx:
            return canaries.shares(tx, adapter, alias)

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...]:
        with self.catalog.read(self._access) as tx:
            return list_canaries(tx, versions.find_adapter_id(tx, adapter))

    def set_yanked(self, ref: Ref, yanked: bool, reason: str) -> Version:
        with self.catalog.write(self._access) as tx:
            self._lock_adapter(tx, ref.adapter)
            record = versions.resolve(tx, ref)
            check_yank(tx, self._policy, record, yanked=yanked)
            return versions.set_yanked(tx, record, yanked, reason)

    def preview_deletion(self, ref: Ref) -> Deletion:
        from loreg.local import deletion

        return deletion.preview(self.catalog, self._store, self._access, ref)

    def delete(self, ref: Ref, reason: str) -> Deletion:
        from loreg.local import deletion

        return deletion.delete(self.catalog, self._store, self._access, ref, reason)

    def add_metrics(self, ref: Ref, measured: Sequence[Metric]) -> Version:
        measured = [validate_metric(metric) for metric in measured]
        with self.catalog.write(self._access) as tx:
            self._lock_adapter(tx, ref.adapter)
            record = versions.resolve(tx, ref)
            check_metrics(tx, self._policy, record, measured)
            for metric in sorted(measured, key=lambda m: (m.name, m.dataset, m.split)):  # one order: no deadlock
                metrics.put(tx, record.adapter_id, record.id, metric)
            return versions.by_id(tx, record.id)

    def base(self, text: str) -> BaseDetails:
        with self.catalog.read(self._access) as tx:
            base = bases.find(tx, text)
            return BaseDetails(
                base,
                derivations.list_edges(tx, base.digest),
                bases.count_versions(tx, base),
                upgrades=upgrades.list_of_base(tx, base),
            )

    def related_bases(self, base: BaseModel) -> tuple[RelatedBase, ...]:
        """Return the bases that an edge joins with this one, and those of its architecture; for its page."""
        with self.catalog.read(self._access) as tx:
            return bases.list_related(tx, base)

    def bases(self, limit: int, cursor: str | None) -> Page[BaseModel]:
        require_somewhere(self._access, Role.READ)
        with self.catalog.read(self._access) as tx:
            return bases.list_page(tx, limit, cursor)

    def add_base(self, base: BaseModel) -> BaseAdded:
        from loreg.local.bases import (
            describe_taken_names,
            describe_unchanged_fields,
            limit_concurrent_reads,
            read_verified_base,
        )

        require_somewhere(self._access, Role.WRITE)
        with limit_concurrent_reads():
            verified = read_verified_base(self._store, base)
            proven = self._find_proven(verified)

        for attempt in self.write_references():
            with attempt as tx:
                created = bases.record(tx, verified.base, verified.size, proven)
                stored = bases.find(tx, base.digest)
                taken_names = bases.find_taken_names(tx, base)
        notes = (*describe_taken_names(taken_names), *describe_unchanged_fields(base, stored, taken_names))
        return BaseAdded(stored, created, notes)

    def attach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        from loreg.local.attachments import Attacher

        return Attacher(self.catalog, self._store, self._access, self._policy).attach(base, refs, limit, cursor)

    def detach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        from loreg.local.attachments import Attacher

        return Attacher(self.catalog, self._store, self._access, self._policy).detach(base, refs, limit, cursor)

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, object]) -> BaseEdge:
        from loreg.local.bases import is_proven, limit_concurrent_reads, validate_detail

        require_somewhere(self._access, Role.WRITE)
        if kind not in set(BaseRelation):
            raise UsageError(f"{kind!r} is no way to come from a base", hint=f"--kind {' | '.join(BaseRelation)}")
        relation = BaseRelation(kind)
        detail = validate_detail(detail)
        with self.catalog.read(self._access) as tx:
            child_base, parent_base = bases.find(tx, child), bases.find(tx, parent)
            may_change = bases.may_change(tx, child_base)
        if child_base.digest == parent_base.digest:
            # Proven, with nothing to record: a base does not depend on it.
            if relation in (BaseRelation.CAST_OF, BaseRelation.RENAMED_FROM):
                return BaseEdge(child_base.digest, child_base.digest, relation, {}, verified=True)
            raise ConflictError(
                f"{child} and {parent} are one base, {child_base.title}: it cannot be {kind} itself",
                hint=f"loreg base show {child}",
            )
        if not may_change:
            raise NotAllowedError(
                f"what {child_base.title} came from is said by who added it, or by an administrator",
                hint="ask for a token with --scope admin:*",
            )
        with limit_concurrent_reads():
            verified = is_proven(self._store, child_base, parent_base, relation)
        with self.catalog.write(self._access) as tx:
            return derivations.record(tx, BaseEdge(child_base.digest, parent_base.digest, relation, detail, verified))

    def base_path(self, one: str, other: str) -> tuple[BaseEdge, ...]:
        require_somewhere(self._access, Role.READ)
        with self.catalog.read(self._access) as tx:
            return derivations.shortest_path(tx, one, other)

    def record_upgrade(self, upgrade: NewUpgrade) -> int:
        from loreg.local.upgrades import validate_upgrade

        require_somewhere(self._access, Role.WRITE)
        validate_upgrade(upgrade)
        with self.catalog.write(self._access) as tx:
            old, new = (bases.find(tx, digest) for digest in (upgrade.old, upgrade.new))
            return upgrades.record(tx, replace(upgrade, old=old.digest, new=new.digest))

    def upgrade_verdicts(
        self, old: str, new: str, verdict: UpgradeVerdict | None, limit: int, cursor: str | None
    ) -> RecordedVerdicts:
        from loreg.adapters.structure import WEIGHTS_NAME

        with self.catalog.read(self._access) as tx:
            old_base, new_base = bases.find(tx, old), bases.find(tx, new)
            return upgrades.list_verdicts(tx, old_base, new_base, verdict, limit, cursor, weights_path=WEIGHTS_NAME)

    def export(self, ref: Ref, request: str) -> Manifest | None:
        with self.catalog.read(self._access) as tx:
            return exports.find(tx, versions.resolve(tx, ref).id, request)

    def record_export(self, ref: Ref, request: str, profile: str) -> Manifest:
        from loreg.local.exports import build_export, profile_for
        from loreg.storage.collected import attempts_to_commit

        with self.catalog.read(self._access) as tx:
            recorded = exports.find(tx, self._find_writable(tx, ref).id, request)
            details = version_details(tx, ref)
        server = profile_for(profile, request, details)
        for attempt in attempts_to_commit():
            with attempt:
                manifest = build_export(self._store, details, server, recorded, self.lease)
                if manifest != recorded:
                    self._record_export(ref, NewExport(request, profile, manifest))
        return manifest

    def _record_export(self, ref: Ref, export: NewExport) -> None:
        for attempt in self.write_references():
            with attempt as tx:
                record = self._find_writable(tx, ref)
                exports.record(tx, record.adapter_id, record.id, export)

    def drop_export(self, ref: Ref, request: str) -> None:
        namespace = ref.adapter.namespace
        with self.catalog.write(self._access) as tx:
            record = self._find_writable(tx, ref)
            if exports.find_author(tx, record, request) != self._access.author:
                require(self._access, Role.ADMIN, namespace)
            exports.remove(tx, record, request)

    def submit(self, kind: str, request: Mapping[str, object]) -> Job:
        namespace = namespace_of(kind, request)
        require(self._access, JobKind(kind).role, namespace)
        policy = policy_to_json(self._policy)
        if kind == JobKind.PRUNE:  # by the rules that are in force here, whatever file lies beside the worker
            if not self._retention:
                raise UsageError(
                    "the server has no rules for which versions are kept, so nothing is pruned through it",
                    hint="whoever runs it writes [retention] with keep_last = 5 into its loreg.toml, and starts it "
                    "again",
                )
            policy[RETENTION] = dict(self._retention)
        with self.catalog.write(self._access) as tx:
            return jobs.submit(tx, kind, request, namespace, policy)

    def job(self, job_id: int) -> Job:
        with self.catalog.read(self._access) as tx:
            return jobs.find(tx, job_id)

    def jobs(self, limit: int, cursor: str | None) -> Page[Job]:
        with self.catalog.read(self._access) as tx:
            return jobs.list_page(tx, limit, cursor)

    def cancel_job(self, job_id: int) -> Job:
        with self.catalog.write(self._access) as tx:
            job = jobs.find(tx, job_id)
            require(self._access, job.kind.role, job.namespace)
            return jobs.cancel(tx, job_id)

    def events(self, limit: int, cursor: str | None, wanted: EventFilter = ALL_EVENTS) -> Page[Event]:
        with self.catalog.read(self._access) as tx:
            return events.list_page(tx, limit, cursor, wanted)

    def last_upkeep(self, action: UpkeepAction) -> Event | None:
        """Return when that was last done to the whole registry, and what came of it; for administrators."""
        require(self._access, Role.ADMIN, "*")
        with self.catalog.read(self._access) as tx:
            return events.find_last(tx, action)

    def select(self, selectors: Sequence[Selector], query: Query | None = None) -> Selection:
        registry = self.catalog.registry_id
        with self.catalog.read(self._access) as tx:
            if query is not None:
                return Selection(registry, tuple(select_by_search(tx, with_findings_of_server(query))))
            selected, missing = select_by_selectors(tx, selectors)
            return Selection(registry, tuple(selected), tuple(missing))

    def stream_events(
        self, patterns: Sequence[AdapterPattern] = (), position: str = "", *, pulls: bool = False
    ) -> EventStream:
        return LocalEventStream(self.catalog, self._access, patterns, position, pulls=pulls)

    def report_deployment(self, report: DeploymentReport) -> None:
        if self._access.author in ("", ANONYMOUS_AUTHOR):
            raise NotAllowedError("who tells of a deployment has a name", hint="export LOREG_AUTHOR=…, or loreg login")
        validate_report(report)
        with self.catalog.write(self._access) as tx:
            deployments.record_report(tx, report)

    def deployments(self, pattern: AdapterPattern, limit: int, cursor: str | None) -> Page[Deployment]:
        with self.catalog.read(self._access) as tx:
            return deployments.list_page(tx, pattern, limit, cursor)

    def usage(self, by: UsageBy, pattern: AdapterPattern, limit: int, cursor: str | None) -> Usage:
        from loreg.catalog.usage import count_usage

        require(self._access, Role.ADMIN, "*")
        with self.catalog.read(self._access) as tx:
            return count_usage(tx, by, pattern, limit, cursor)

    def lease(self, digests: Collection[str]) -> None:
        require_somewhere(self._access, Role.WRITE)
        with self.catalog.write(self._access) as tx:
            tombstones.refuse_banned(tx, digests)  # nothing of it is even sent
            garbage.lease(tx, digests)

    def upkeep(self) -> Upkeep:
        from loreg.local.upkeep import LocalUpkeep

        return LocalUpkeep(self.catalog, self._store, self._access, self)

    def namespaces(self) -> tuple[Namespace, ...]:
        with self.catalog.read(self._access) as tx:
            return namespaces.list_all(tx)

    def set_public(self, namespace: str, public: bool) -> None:
        require(self._access, Role.ADMIN, namespace)
        with self.catalog.write(self._access) as tx:
            namespaces.set_public(tx, namespace, public)

    def tokens(self) -> tuple[Token, ...]:
        require(self._access, Role.ADMIN, "*")
        with self.catalog.read(self._access) as tx:
            return tokens.list_all(tx)

    def create_token(self, name: str, permissions: Mapping[str, str], expires_at: datetime | None) -> tuple[Token, str]:
        require(self._access, Role.ADMIN, "*")
        validate_name(name)
        validate_expiry(expires_at)
        secret = new_secret()
        with self.catalog.write(self._access) as tx:
            refuse_taken_name(tx, name, permissions)
            return tokens.create(tx, digest_secret(secret), name, permissions, expires_at), secret

    def revoke_token(self, token_id: int) -> Token:
        require(self._access, Role.ADMIN, "*")
        with self.catalog.write(self._access) as tx:
            refuse_last_administrator(tx, token_id)
            token = tokens.revoke(tx, token_id)
            jobs.fail_all_of_token(tx, token_id)
            return token

    def webhooks(self) -> tuple[Webhook, ...]:
        return webhooks.list_webhooks(self.catalog, self._access)

    def add_webhook(self, url: str, patterns: Sequence[str], actions: Sequence[str], name: str) -> tuple[Webhook, str]:
        return webhooks.add(self.catalog, self._access, url, patterns, actions, name)

    def remove_webhook(self, webhook_id: int) -> None:
        webhooks.remove(self.catalog, self._access, webhook_id)

    def rotate_webhook(self, webhook_id: int, drop_old: bool) -> tuple[Webhook, str]:
        return webhooks.rotate(self.catalog, self._access, webhook_id, drop_old=drop_old)

    def enable_webhook(self, webhook_id: int) -> Webhook:
        return webhooks.enable(self.catalog, self._access, webhook_id)

    def ping_webhook(self, webhook_id: int) -> int:
        return webhooks.ping(self.catalog, self._access, webhook_id)

    def webhook_deliveries(self, webhook_id: int, limit: int, cursor: str | None) -> Page[WebhookDelivery]:
        return webhooks.list_deliveries(self.catalog, self._access, webhook_id, limit, cursor)

    def redeliver(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        return webhooks.redeliver(self.catalog, self._access, webhook_id, delivery_id)

    def _find_target(self, tx: Transaction, ref: Ref, alias: str, expected: int | None) -> VersionRecord:
        """Return the version that ``alias`` may be set to, its adapter locked; see :meth:`tag` for what it raises."""
        self._lock_adapter(tx, ref.adapter)  # of two clients that move an alias, the second sees the first's move
        record = versions.resolve(tx, ref)
        version = record.version
        if version.yanked:
            raise NotAllowedError(
                f"{version.ref} is yanked: no alias may point to it", hint=f"loreg unyank {version.ref}"
            )
        if expected is not None:
            _refuse_moved_alias(tx, record.adapter_id, ref.adapter, alias, expected)
        check_alias(tx, self._policy, record, alias)
        return record

    def _lock_adapter(self, tx: Transaction, adapter: AdapterName) -> int:
        """Lock the adapter's row until the transaction ends, and return its id.

        Raises NotFoundError, and NotAllowedError if the caller may not write there.
        """
        adapter_id = versions.find_adapter_id(tx, adapter)
        require(self._access, Role.WRITE, adapter.namespace)
        versions.lock_adapter(tx, adapter_id)
        return adapter_id

    def _find_proven(self, verified: VerifiedBase) -> tuple[str, ...]:
        """Return the digests of the bases that share a name with this one and have its headers, and nothing more."""
        from loreg.local.bases import find_matching_header_bases

        with self.catalog.read(self._access) as tx:
            header_bases = bases.find_header_bases(tx, verified.base)
        return find_matching_header_bases(self._store, verified, header_bases)

    def _find_writable(self, tx: Transaction, ref: Ref) -> VersionRecord:
        """Return the version if the caller may change it. Raises NotFoundError for one that the caller may not read."""
        record = versions.resolve(tx, ref)
        require(self._access, Role.WRITE, ref.adapter.namespace)
        return record


def _refuse_moved_alias(tx: Transaction, adapter_id: int, adapter: AdapterName, alias: str, expected: int) -> None:
    current = aliases.lock_number(tx, adapter_id, alias)
    if current != expected:
        now, then = (f"v{number}" if number else "nothing" for number in (current, expected))
        raise StaleError(
            f"{alias!r} of {adapter} means {now} by now, not {then}: nothing was moved",
            hint=f"loreg show {adapter}:{alias}" if current else f"loreg ls {adapter}",
        )
