"""The protocol of everything that a registry answers: on this machine's catalog and store, or asked over HTTP.

Come here to see what a registry can be asked, and what each answer promises; `local/` and `remote/` keep it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from loreg.entities import (
    ALL_EVENTS,
    AdapterComparison,
    AdapterEntry,
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
from loreg.manifest import Manifest
from loreg.refs import AdapterName, AdapterPattern, Ref
from loreg.selectors import Selector
from loreg.upkeep import Upkeep


class EventStream(Protocol):
    """Events as they are committed. Close it when done."""

    @property
    def position(self) -> str:
        """Return where another stream goes on after the events that :meth:`read` returned last."""
        ...

    def read(self, seconds: float) -> tuple[Event, ...]:
        """Return what was committed since the last call; wait for about ``seconds`` while there is nothing.

        The first call returns, perhaps nothing, as soon as nothing that is committed later can be missed. Raises
        UnavailableError if the registry does not answer; the next call goes on from where it was.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Backend(Protocol):
    """Everything that a registry can be asked or told. Each call is one transaction: all of it happens, or nothing.

    Every method may raise NotFoundError for what is not there or may not be seen by the caller, NotAllowedError for
    what the caller may not do, ConflictError where another writer was faster, and UnavailableError where the database,
    the store or the server does not answer; further errors are named at the method.
    """

    def is_there(self) -> bool:
        """Return whether there is anything to ask yet: a SQLite catalog is made on first use."""
        ...

    def is_empty(self) -> bool:
        """Return whether nothing was ever stored, as far as the caller may know."""
        ...

    def describe(self) -> str:
        """Return the name and version of what keeps the registry, for people."""
        ...

    def show(self, ref: Ref) -> Details:
        """Return all that is known of the version that ``ref`` means."""
        ...

    def begin_pull(self, ref: Ref) -> Details:
        """Return what :meth:`show` returns to a caller who is about to fetch the files of the version.

        Where the registry records pulls, that is an event: it is refused if that cannot be recorded.
        """
        ...

    def with_content(self, digest: str) -> Version | None:
        """Return the oldest version of any adapter whose manifest has this hex sha256; None if there is none."""
        ...

    def with_file(self, sha256: str) -> tuple[str, ...]:
        """Return the refs of the versions that have a file with this content, the oldest first."""
        ...

    def candidates(self, hashes: Sequence[str], vector: str, limit: int) -> tuple[Candidate, ...]:
        """Return versions with a hash that begins as one of ``hashes``, then those with a sketch near to ``vector``.

        Hashes are at least six hex digits of the sha256 of a manifest, a file, or the bytes of the tensors. Near is a
        cosine of 1 or −1. ``vector`` may be empty. Up to ``limit`` of each; what is in a sketch, a client has said.
        """
        ...

    def sketch(self, ref: Ref) -> Sketch | None:
        """Return what is stored of the weights of the version that ``ref`` means; None if nothing is."""
        ...

    def facts(self, ref: Ref) -> tuple[VersionFacts, ...]:
        """Return what probes said of the version that ``ref`` means, by the probes' names.

        The registry read it from the stored files itself: nothing of it is what a client said.
        """
        ...

    def count_findings(self, pattern: AdapterPattern) -> FindingCounts:
        """Count by code and namespace the versions with each finding of the probe ``check``, of adapters that match.

        And those that were checked, of all that there are. Yanked versions are not counted. A server that is too old
        counts none.
        """
        ...

    def near_duplicates(self, pattern: AdapterPattern) -> tuple[NearDuplicates, ...]:
        """Return the groups of versions, not yanked, whose deltas are nearly the same, by their sketches.

        Raises UsageError if more versions match than are compared with each other.
        """
        ...

    def preview_merge(
        self, sources: Sequence[Ref], weights: Sequence[float], rank: int | None, method: str = "linear"
    ) -> MergePreview:
        """Return what a merge of versions by ``method``, truncated at ``rank``, keeps and loses; None loses nothing.

        Raises UsageError, CheckFailedError for bases that do not fit, MergeError for what cannot be merged or needs
        more than the adapters, NotAllowedError for what is too much for a registry, and ConflictError while it reads
        others.
        """
        ...

    def spectra(self, ref: Ref) -> AdapterSpectra:
        """Return the singular values of the deltas of the version that ``ref`` means.

        Raises MergeError for one whose deltas are not its factors alone, NotAllowedError for what is too much for a
        registry, and ConflictError while it reads other versions.
        """
        ...

    def compare_versions(self, refs: Sequence[Ref]) -> AdapterComparison:
        """Return how alike every two of the versions are; of many, alike ones are neighbours.

        Raises UsageError for fewer than 2 or more than 16, CheckFailedError for bases that do not fit, MergeError for
        what cannot be compared, NotAllowedError for what is too much for a registry, and ConflictError while it reads
        others.
        """
        ...

    def search(self, query: Query) -> SearchPage:
        """Return a page of the versions for which every condition of ``query`` holds.

        Raises UnavailableError for a server that is too old for one of them.
        """
        ...

    def facets(self, query: Query) -> Facets:
        """Return what the versions of a search have, counted: of the newest 2,000 if there are more."""
        ...

    def task_summaries(self, limit: int, cursor: str | None) -> Page[TaskSummary]:
        """Return a page of the tasks of the versions that are not yanked, those of the most versions first."""
        ...

    def base_summaries(self, limit: int, cursor: str | None) -> Page[BaseSummary]:
        """Return a page of the bases of these versions, also those known by name only, the most used first."""
        ...

    def metric_summaries(self, limit: int, cursor: str | None) -> Page[MetricSummary]:
        """Return a page of what is measured on what, with the best number of each, the most common first."""
        ...

    def search_words(self) -> SearchWords:
        """Return the tasks, bases, modules and metrics that a search takes; a server that is too old has none."""
        ...

    def metric_vocabulary(self) -> MetricVocabulary:
        """Return the names of metrics in use, and what is declared of metrics; a server that is too old has none."""
        ...

    def declare_metric(self, name: str, higher_is_better: bool, unit: str) -> MetricDeclared:
        """Declare which direction of a metric is better, and its unit; for administrators of everything.

        Numbers that were recorded with the other direction are turned; from then on they are refused.
        """
        ...

    def samples(self, count: int) -> tuple[Version, ...]:
        """Return up to ``count`` versions to look at, from the oldest to the newest, yanked ones too.

        A server gives its newest ones that are not yanked: to look at the others is for its operator.
        """
        ...

    def adapters(self, limit: int, cursor: str | None) -> Page[AdapterEntry]:
        """Return a page of all adapters, by name."""
        ...

    def versions(self, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
        """Return a page of the versions of one adapter, the newest first, yanked ones too."""
        ...

    def lineage(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        """Return the version that ``ref`` means, and every merge that it descends from, nearest first."""
        ...

    def descendants(self, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...]]:
        """Return the version that ``ref`` means, and the merges that were made of it, nearest first, 1000 at most.

        Merges that the caller may not read are left out, with all that was made of them.
        """
        ...

    def whoami(self) -> Caller:
        """Return who the caller is, what they may do, and the token that says so."""
        ...

    def commit(self, commit: Commit) -> Committed:
        """Record a version whose blobs are all stored; what it is, is read from these.

        Content that the adapter has already makes no new version. Raises AdapterFormatError, CheckFailedError or
        IntegrityError for blobs that are no sound adapter, that break the policy of an alias, or that do not fit the
        base. One with an origin keeps its number, for administrators of everything: ConflictError if that would leave
        a gap, or is the number of other content.
        """
        ...

    def tag(self, ref: Ref, alias: str, expected: int | None = None, reason: str = "") -> Version:
        """Point ``alias`` to the version of ``ref``; with ``expected`` only if it means that number now.

        0 expects that there is no such alias. A ``reason`` is told by the event. Raises NotAllowedError for a yanked
        version, CheckFailedError if the version breaks the policy that guards the alias, ConflictError if the alias
        means another number.
        """
        ...

    def promote(self, ref: Ref, alias: str, rollback_if: Sequence[str], expected: int | None = None) -> Version:
        """Do as :meth:`tag` does; ``alias`` goes back if a metric of the version fulfills one of ``rollback_if``.

        That ends when the alias moves, is set by :meth:`tag`, or is removed, and when either version is yanked or
        removed. Raises what :meth:`tag` raises, UsageError if there is nothing to go back to, and CheckFailedError if
        it would go back at once.
        """
        ...

    def promotions(self, adapter: AdapterName) -> tuple[Promotion, ...]:
        """Return the promotions of an adapter that are watched, by alias; a server that is too old has none."""
        ...

    def untag(self, adapter: AdapterName, alias: str, expected: int | None = None) -> None:
        """Remove an alias, with ``expected`` only if it means that number now; its history stays.

        One that the policy guards is an administrator's to remove: NotAllowedError.
        """
        ...

    def begin_canary(self, ref: Ref, alias: str, share: float, rollback_if: Sequence[str]) -> AliasShares:
        """Let the version of ``ref`` have a share, between 0 and 1, of an alias that means another version.

        It ends when a number is measured of it that fulfills one of ``rollback_if``, conditions as ``accuracy<0.8``;
        and with the next move of the alias. Who asks for the alias itself gets the other one. Raises what :meth:`tag`
        raises, and CheckFailedError if it would end at once.
        """
        ...

    def end_canary(self, adapter: AdapterName, alias: str) -> AliasShares:
        """Let an alias mean its version for all who ask again. Raises UsageError if it has no canary."""
        ...

    def alias_shares(self, adapter: AdapterName, alias: str) -> AliasShares:
        """Return the version that an alias means, and its canary with its share."""
        ...

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...]:
        """Return the canaries of an adapter, by alias; a server that is too old has none."""
        ...

    def set_yanked(self, ref: Ref, yanked: bool, reason: str) -> Version:
        """Hide a version from search and aliases, or show it again.

        One that a guarded alias last meant is an administrator's to hide or show: NotAllowedError.
        """
        ...

    def preview_deletion(self, ref: Ref) -> Deletion:
        """Return what :meth:`delete` would remove now, and what others share; for administrators of everything."""
        ...

    def delete(self, ref: Ref, reason: str) -> Deletion:
        """Delete a version for good: its rows, and the blobs that nobody else has; for administrators of everything.

        A tombstone keeps number and digest: neither they nor its weights are ever recorded again. Of a version that is
        gone already, what a deletion that was killed left is removed.
        """
        ...

    def add_metrics(self, ref: Ref, metrics: Sequence[Metric]) -> Version:
        """Record measured numbers of a version; one measured on the same data before is replaced.

        Those that the policy compares others with become worse for an administrator alone: NotAllowedError.
        """
        ...

    def base(self, text: str) -> BaseDetails:
        """Return the base of that name, digest, or beginning of a digest. Raises ConflictError if several match.

        Without a token those are known that a version which everybody may read is on.
        """
        ...

    def bases(self, limit: int, cursor: str | None) -> Page[BaseModel]:
        """Return a page of the known bases, the newest first."""
        ...

    def add_base(self, base: BaseModel) -> BaseAdded:
        """Record a base whose list of tensors is stored under its digest. Raises IntegrityError if that is not so."""
        ...

    def attach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        """Record a base, known by content, for versions that have none: of those that the caller may write.

        Those that declare one of its names get it if each of their tensors fits; then, of the newest with another name,
        those that it fits are named. With ``refs`` these get it if they fit, whatever they declare. A base that is
        recorded already stays. A page looks at 50 versions at most, and may be empty before the last. Raises
        CheckFailedError for a base of which only headers are known.
        """
        ...

    def detach_base(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        """Take back what :meth:`attach_base` recorded: of the versions ``refs``, or else of all that have the base.

        ``base`` is empty if there are refs. One whose base was named at the push keeps it.
        """
        ...

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, object]) -> BaseEdge:
        """Record that one known base came from another, as verified where the two contents prove it, else as declared.

        ``kind`` is one of :class:`loreg.entities.BaseRelation`. Raises UsageError for another one, ConflictError if
        the contents prove that it is not so, or if both are one base.
        """
        ...

    def base_path(self, one: str, other: str) -> tuple[BaseEdge, ...]:
        """Return the fewest edges that lead from one base to the other, both by digest; empty if none do."""
        ...

    def record_upgrade(self, upgrade: NewUpgrade) -> int:
        """Record verdicts on versions of a base for its upgrade, up to 100; return of how many versions.

        Both bases are recorded. Of versions that are not there, not on the old base or where the caller may not write,
        nothing is recorded. Raises UsageError for figures that cannot be.
        """
        ...

    def upgrade_verdicts(
        self, old: str, new: str, verdict: UpgradeVerdict | None, limit: int, cursor: str | None
    ) -> RecordedVerdicts:
        """Return a page of the verdicts of an upgrade, of one kind or of all, those that move exactly first.

        Of versions that the caller may read and that are not yanked. Bases are named as :meth:`base` takes them.
        """
        ...

    def export(self, ref: Ref, request: str) -> Manifest | None:
        """Return the files that the version became for ``request``, a digest of what was asked for; None if none."""
        ...

    def record_export(self, ref: Ref, request: str, profile: str) -> Manifest:
        """Make the version's files for the server of ``profile``, which ``request`` is a digest of, and remember them.

        Raises NotAllowedError for a profile that loreg does not come with, and for what is too much to make.
        """
        ...

    def drop_export(self, ref: Ref, request: str) -> None:
        """Forget the files that the version became for ``request``: for who had them made, and administrators."""
        ...

    def events(self, limit: int, cursor: str | None, wanted: EventFilter = ALL_EVENTS) -> Page[Event]:
        """Return a page of the events that are wanted, the newest first: who did what, and when.

        Raises NotFoundError for an adapter that is not there.
        """
        ...

    def select(self, selectors: Sequence[Selector], query: Query | None = None) -> Selection:
        """Return the versions that the selectors mean now, or those that a search finds: one of each adapter.

        Raises UsageError if they are more than 10,000, ConflictError if one name would mean two versions.
        """
        ...

    def stream_events(
        self, patterns: Sequence[AdapterPattern] = (), position: str = "", *, pulls: bool = False
    ) -> EventStream:
        """Return the events of the adapters that match one of ``patterns``, or else of all, as they are committed.

        With ``position``, which is that of an earlier stream, those after it; else those from now on. Pulls are left
        out unless ``pulls``: they change nothing, and who pulls what has changed would wake all others who do.
        """
        ...

    def report_deployment(self, report: DeploymentReport) -> None:
        """Record what a folder or a replica of a server of the caller has now, in place of what it had.

        Raises NotFoundError for a version, and where it has what it told last and nothing is known of that;
        NotAllowedError for a caller without a name.
        """
        ...

    def deployments(self, pattern: AdapterPattern, limit: int, cursor: str | None) -> Page[Deployment]:
        """Return a page of where the versions of the adapters that match are, as followers tell, by server.

        Of a public namespace too it is told to those alone who have a right of their own to read it.
        """
        ...

    def usage(self, by: UsageBy, pattern: AdapterPattern, limit: int, cursor: str | None) -> Usage:
        """Return a page of how much namespaces or adapters store, by name; for administrators of everything."""
        ...

    def lease(self, digests: Collection[str]) -> None:
        """Keep blobs that the caller is about to store, or finds stored, until it has committed.

        Nothing removes them for the grace of a garbage collection, which is longer than the longest push. Through a
        server a blob is leased when its upload is announced. Raises NotAllowedError for what was deleted for good.
        """
        ...

    def upkeep(self) -> Upkeep:
        """Return what keeps the registry as a whole; for administrators, where the catalog is: a server refuses it."""
        ...

    def namespaces(self) -> tuple[Namespace, ...]:
        """Return all namespaces that the caller may read, by name."""
        ...

    def set_public(self, namespace: str, public: bool) -> None:
        """Let everyone read a namespace, or only those who have a token for it; for its administrators."""
        ...

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens, the newest first, also those that do not hold any more; for administrators."""
        ...

    def create_token(self, name: str, permissions: Mapping[str, str], expires_at: datetime | None) -> tuple[Token, str]:
        """Make a token; return it with its secret, which nobody can read again. For administrators.

        ``permissions`` maps a namespace, or ``*`` for all, to a role. Raises UsageError for a name or a time that
        cannot be, ConflictError for a name under which others act.
        """
        ...

    def revoke_token(self, token_id: int) -> Token:
        """Let a token hold no more, from now on, and end the jobs that it asked for; for administrators.

        Raises NotAllowedError for the last token that may do everything.
        """
        ...

    def submit(self, kind: str, request: Mapping[str, object]) -> Job:
        """Queue a job for a worker: ``kind`` is one of :class:`JobKind`, ``request`` that verb's arguments by name.

        Raises UsageError for what a worker cannot do, QuotaError for too many jobs of a namespace.
        """
        ...

    def job(self, job_id: int) -> Job:
        """Return what was asked for, how far it is, and what came of it."""
        ...

    def jobs(self, limit: int, cursor: str | None) -> Page[Job]:
        """Return a page of jobs, the newest first."""
        ...

    def cancel_job(self, job_id: int) -> Job:
        """End a job that has not ended; one that has stays as it is."""
        ...

    def webhooks(self) -> tuple[Webhook, ...]:
        """Return the webhooks that the caller may change, the newest first; for administrators of any namespace.

        Those of patterns within namespaces are their administrators', the others those of everything. Each method below
        is for these, and finds none of another's.
        """
        ...

    def add_webhook(self, url: str, patterns: Sequence[str], actions: Sequence[str], name: str) -> tuple[Webhook, str]:
        """Tell ``url`` of events from now on; return the webhook with its secret, which nobody can read again.

        Of events of adapters that match one of ``patterns``, or of all events; of those of ``actions``, if there are
        any. It ends with the caller's token. Raises UsageError for a URL or an action that is none, QuotaError.
        """
        ...

    def remove_webhook(self, webhook_id: int) -> None:
        """Remove a webhook, and what waits to be sent to it."""
        ...

    def rotate_webhook(self, webhook_id: int, drop_old: bool) -> tuple[Webhook, str]:
        """Give a webhook another secret beside the one before, and return it; with ``drop_old``, drop the older one.

        Raises ConflictError for a third one.
        """
        ...

    def enable_webhook(self, webhook_id: int) -> Webhook:
        """Tell a webhook that was disabled of events again, from now on, as far as the caller may read them."""
        ...

    def ping_webhook(self, webhook_id: int) -> int:
        """Queue a ping for a webhook; return the id of the delivery. Raises UsageError for one that is disabled."""
        ...

    def webhook_deliveries(self, webhook_id: int, limit: int, cursor: str | None) -> Page[WebhookDelivery]:
        """Return a page of what was sent to a webhook and waits to be, the newest first."""
        ...

    def redeliver(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        """Queue a delivery again, under its id."""
        ...
