"""mirror: bring adapters with their history from a registry or a bundle to another registry, and what is new there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from msgspec.structs import replace

from loreg.entities import (
    Commit,
    Details,
    MirrorConflict,
    MirrorReport,
    Origin,
    OriginAlias,
    OriginEvent,
    Progress,
    Version,
    no_progress,
)
from loreg.errors import (
    AdapterFormatError,
    CheckFailedError,
    ConflictError,
    IntegrityError,
    LoregError,
    NotAllowedError,
    NotFoundError,
)
from loreg.manifest import Manifest, validate_files
from loreg.refs import AdapterName
from loreg.storage import Blob
from loreg.verbs.mirror_blobs import BlobSender, mirror_base
from loreg.verbs.mirror_declarations import DeclarationSender
from loreg.verbs.mirror_upgrades import UpgradeSender
from loreg.workspace.context import Context
from loreg.workspace.mirror_plan import MirrorPlan, alias_of, plan_adapter
from loreg.workspace.mirror_source import MirrorSource, registry_name

_EVENTS = 200  # in one commit
_ALIASES = 500
#: What stops the mirror of one adapter, and is named; whatever else goes wrong stops the mirror.
_STOPPING = (ConflictError, CheckFailedError, AdapterFormatError, IntegrityError, NotFoundError)


def select_adapters(source: MirrorSource, patterns: Sequence[str]) -> Iterator[AdapterName]:
    """Yield the adapters whose names match any of the patterns. Raises NotFoundError if none does."""
    count = 0
    for adapter in source.adapters():
        if any(fnmatchcase(str(adapter), pattern) for pattern in patterns):
            count += 1
            yield adapter
    if not count:
        raise NotFoundError(
            f"no adapter in {source.name} matches {' or '.join(map(repr, patterns))}", hint="loreg ls lists the names"
        )


def mirror(
    source: MirrorSource,
    context: Context,
    patterns: Sequence[str],
    *,
    force: bool = False,
    progress: Progress = no_progress,
) -> MirrorReport:
    """Bring what matches from ``source`` into the registry of ``context``, version by version, the oldest first.

    Each version is one commit, so that a second call goes on where a first one ended. What the target moved or yanked
    itself is left as it is, and named, unless ``force``. Raises NotAllowedError unless an administrator's.
    """
    context.backend.tokens()  # refuses whoever is no administrator before anything is sent
    run = _Mirror(source, context, force, progress)
    for adapter in select_adapters(source, patterns):
        run.mirror_adapter(adapter)
    run.bring_upgrades()
    return run.report()


@dataclass
class _Mirror:
    """One run, and what it counted."""

    source: MirrorSource
    context: Context
    force: bool
    progress: Progress
    counts: Counter[str] = field(default_factory=Counter)
    refs: list[str] = field(default_factory=list)
    conflicts: list[MirrorConflict] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    bases: set[str] = field(default_factory=set)
    adapters: set[AdapterName] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.blobs = BlobSender(self.source, self.context)
        self.declarations = DeclarationSender(self.source, self.context)

    def mirror_adapter(self, adapter: AdapterName) -> None:
        """Bring one adapter up to date; what stops it is named, and the next one follows."""
        self.counts["adapters"] += 1
        self.adapters.add(adapter)
        try:
            plan = plan_adapter(self.source, self.context, adapter, force=self.force)
            self.counts["known"] += plan.known
            self.conflicts += plan.conflicts
            self.notes |= dict.fromkeys(plan.notes)
            for base in plan.bases.values():
                mirror_base(self.source, self.blobs, base, self.bases, self.conflicts, self.notes)
            self.notes |= dict.fromkeys(self.declarations.bring(plan.metrics))
            self._bring_versions(plan)
            self._move_aliases(plan)
            self._set_canaries(plan)
        except NotAllowedError:
            raise
        except _STOPPING as error:
            self._note_conflict(str(adapter), error)

    def bring_upgrades(self) -> None:
        """Bring what upgrades of the bases mean for the adapters, with the new bases; what stops it is named."""
        sender = UpgradeSender(self.source, self.context, self.adapters)
        for upgrade in [upgrade for base in sorted(self.bases) for upgrade in sender.upgrades_of(base)]:
            try:
                if verdicts := sender.missing(upgrade):
                    mirror_base(self.source, self.blobs, upgrade.new, self.bases, self.conflicts, self.notes)
                    self.notes[sender.send(upgrade, verdicts)] = None
            except NotAllowedError:
                raise
            except _STOPPING as error:
                self._note_conflict(upgrade.new.title, error)

    def report(self) -> MirrorReport:
        """Return what was done."""
        counts, target = self.counts, registry_name(self.context)
        return MirrorReport(
            self.source.registry,
            target,
            counts["adapters"],
            counts["new"],
            counts["changed"],
            counts["known"],
            self.blobs.count,
            self.blobs.size,
            counts["aliases"],
            tuple(self.refs),
            tuple(self.conflicts),
            tuple(self.notes),
        )

    def _bring_versions(self, plan: MirrorPlan) -> None:
        """Commit each version that is new or changed, the oldest first, with the events up to the next.

        The aliases are moved by the commit that has the last event of any, and their history is recorded there: it
        never tells of a version that an alias does not mean.
        """
        segments = plan.segments()
        total = len(segments)
        to_come = sum(bool(alias_of(event)) for _, events in segments for event in events)
        for done, (number, events) in enumerate(segments):
            self.progress(f"mirroring {plan.adapter}", done, total)
            is_new = number in plan.new
            details = self._read(plan, number)
            for start in range(0, max(len(events), 1), _EVENTS):
                batch = events[start : start + _EVENTS]
                before, to_come = to_come, to_come - sum(map(bool, map(alias_of, batch)))
                if before and not to_come:
                    self._commit_with_aliases(plan, details, batch, is_new=is_new and start == 0)
                else:
                    self._commit(details, self._origin(plan, details.version, batch), is_new=is_new and start == 0)
            self.counts["new" if is_new else "changed"] += 1
            self.refs.append(details.version.ref)
        self.progress(f"mirroring {plan.adapter}", total, total)

    def _commit_with_aliases(
        self, plan: MirrorPlan, details: Details, events: Sequence[OriginEvent], *, is_new: bool
    ) -> None:
        """Commit a version with events, and with the aliases, unless the target refuses one: then they stay planned."""
        last = details.version.number
        moved = [alias for alias in plan.aliases if alias.number in plan.here or alias.number <= last][:_ALIASES]
        unmoved = [plan.unmoved] if plan.unmoved is not None else []
        for aliases in ([*moved, *unmoved], unmoved, []):
            try:
                self._commit(details, self._origin(plan, details.version, events, aliases), is_new=is_new)
            except (ConflictError, CheckFailedError):
                if not aliases:
                    raise
            else:
                self.counts["aliases"] += sum(alias.number != alias.expected for alias in aliases)
                plan.aliases = [alias for alias in plan.aliases if alias not in aliases]
                return

    def _move_aliases(self, plan: MirrorPlan) -> None:
        """Move each alias that is left by itself: what the target refuses is named, and holds up no other."""
        for alias in plan.aliases:
            try:
                details = self._read(plan, alias.number or plan.newest)
                self._commit(details, self._origin(plan, details.version, (), (alias,)), is_new=False)
                self.counts["aliases"] += 1
            except NotAllowedError:
                raise
            except _STOPPING as error:
                self._note_conflict(f"{plan.adapter}:{alias.alias}", error)

    def _set_canaries(self, plan: MirrorPlan) -> None:
        """Let each version that is a canary in the source have its share; what the target refuses is named."""
        for canary in plan.canaries:
            try:
                details = self._read(plan, plan.newest)
                origin = replace(self._origin(plan, details.version, ()), canaries=(canary,))
                self._commit(details, origin, is_new=False)
            except NotAllowedError:
                raise
            except _STOPPING as error:
                self._note_conflict(f"{plan.adapter}:{canary.alias}", error)

    def _read(self, plan: MirrorPlan, number: int) -> Details:
        """Return a version of the source whose files have its digest: their names and digests are safe to use."""
        details = self.source.details(plan.adapter, number)
        manifest, version = Manifest(details.files), details.version
        validate_files(manifest)
        if (version.adapter, version.number, manifest.digest) != (plan.adapter, number, version.digest):
            raise IntegrityError(
                f"{plan.adapter}:v{number} is not what its digest says in {self.source.name}", hint="loreg verify there"
            )
        return details

    def _origin(
        self,
        plan: MirrorPlan,
        version: Version,
        events: Sequence[OriginEvent],
        aliases: Sequence[OriginAlias] = (),
    ) -> Origin:
        number = version.number
        return Origin(
            registry=self.source.registry,
            number=number,
            previous=plan.previous.get(number, 0),
            author=version.author,
            created_at=version.created_at,
            is_yanked=None if number in plan.kept_yanks else version.yanked,
            yanked_at=plan.yanked_at.get(number),
            events=tuple(events),
            aliases=tuple(aliases),
        )

    def _commit(self, details: Details, origin: Origin, *, is_new: bool) -> None:
        version = details.version
        commit = Commit(
            adapter=version.adapter,
            manifest=Manifest(details.files),
            base=version.base,
            base_hint=details.base_path or version.facts.base_hint,
            message=version.message,
            tasks=version.tasks,
            labels=version.labels,
            metrics=version.metrics,
            origin=origin,
            sketch=self.source.sketch(version.adapter, version.number) if is_new else None,
        )
        blobs = [Blob(file.sha256, file.size) for file in details.files]
        committed = self.blobs.commit(commit, blobs, send_first=is_new)
        self.notes |= dict.fromkeys(committed.notes)

    def _note_conflict(self, ref: str, error: LoregError) -> None:
        self.conflicts.append(MirrorConflict(ref, error.message))
