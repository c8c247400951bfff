"""import: bring in the adapters of whole trees of runs, a plan first, then several at once."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from loreg.bases.identify import identify
from loreg.entities import (
    ImportFailure,
    ImportOptions,
    ImportPlan,
    ImportReport,
    ImportStatus,
    Progress,
    Version,
    no_progress,
)
from loreg.errors import (
    CheckFailedError,
    ConflictError,
    LoregError,
    NotAllowedError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    explain_os_errors,
)
from loreg.parsing import parse_word
from loreg.refs import Ref, is_path, parse_ref
from loreg.runs.source import RunSource
from loreg.runs.sources import open_source
from loreg.verbs.push import store_version
from loreg.workspace.checkpoints import digest_memory
from loreg.workspace.context import Context
from loreg.workspace.import_aliases import BY_IMPORT
from loreg.workspace.import_plan import PlannedState, plan_import
from loreg.workspace.inspect import inspect_adapter
from loreg.workspace.planned_files import open_planned

_AT_ONCE = 4  # adapters; the versions of one come one after the other, in the order of their training
_MAX_NOTES = 20
#: What stops the import as a whole: it would stop every other version too.
_STOPPING = (UnavailableError, UnauthenticatedError)


class PlannedImport:
    """An import that was planned and can be done: ``plan`` says what it will do. Nothing has been stored yet."""

    def __init__(self, context: Context, source: RunSource, options: ImportOptions, progress: Progress) -> None:
        self._context = context
        self._options = options
        self.plan: ImportPlan
        self.plan, self._groups = plan_import(context, source, options, progress)

    def run(self, progress: Progress = no_progress) -> ImportReport:
        """Store what is new, several adapters at once, and let ``best`` and ``last`` mean what they should.

        What fails is named in the report, and the rest goes on. Raises UnavailableError or UnauthenticatedError where
        nothing else could come in either; what was stored until then stays, and the next import goes on from there.
        """
        new = self.plan.with_status(ImportStatus.NEW)
        if new:
            _read_base(self._context, self._options.base, progress)
        total = sum(version.size for version in new)
        run = _Run(self._context, self._options, _Counted(progress, total))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(run.bring, group) for group in self._groups]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                run.is_stopped = True
                raise
        return run.report(self.plan)


def plan_folders(
    context: Context, paths: Sequence[Path | str], options: ImportOptions, progress: Progress
) -> PlannedImport:
    """Plan to import the adapters below ``paths``. See :meth:`loreg.registry.Registry.plan_import`."""
    for task in options.tasks:
        parse_word(task, "task")
    memory = digest_memory(context)
    try:
        return PlannedImport(context, open_source(paths, memory), options, progress)
    finally:
        memory.save()


def _read_base(context: Context, base: str | None, progress: Progress) -> None:
    """Hash the base once, for all versions, or ask whether the registry knows it: what is wrong is told before all."""
    if base is None:
        return
    if not is_path(base):
        context.backend.base(base)
        return
    path = Path(base).expanduser()
    with explain_os_errors(path, "check the folder of the base and its permissions"):
        identify(path, (path.resolve().name,), progress, context.base_cache)


class _Counted:
    """The progress of several pushes at once, as one."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def of_push(self) -> Progress:
        """Return what one push calls: of its steps, the bytes that it stores count."""
        stored = 0

        def report(what: str, done: int, total: int) -> None:
            nonlocal stored
            if what == "storing":
                with self._lock:
                    self._done += done - stored
                    stored = done
                    self._progress("importing", min(self._done, self._total), self._total)

        return report


@dataclass
class _Run:
    """One run, and what came of each version; its methods are called by several threads."""

    context: Context
    options: ImportOptions
    counted: _Counted
    is_stopped: bool = False
    created: dict[str, str] = field(default_factory=dict)
    stored: dict[str, Ref] = field(default_factory=dict)  # by the refs that were planned
    failures: list[ImportFailure] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bring(self, group: Iterable[PlannedState]) -> None:
        """Store the new versions of one adapter, the oldest first."""
        for planned in group:
            if self.is_stopped:
                return
            try:
                if planned.planned.status == ImportStatus.NEW:
                    self._store(planned)
                elif planned.planned.status == ImportStatus.PRESENT:
                    self._complete(planned)
            except _STOPPING:
                self.is_stopped = True
                raise
            except LoregError as error:
                with self._lock:
                    self.failures.append(ImportFailure(planned.planned.source, error.message, error.hint))

    def _store(self, planned: PlannedState) -> None:
        report = self.counted.of_push()
        version = planned.planned
        with contextlib.ExitStack() as stack:
            try:
                folder, added = stack.enter_context(open_planned(planned))
                inspected = stack.enter_context(inspect_adapter(folder, report, added=added))
            except UnavailableError as error:  # of the folder: the trainer removed it since, and the others go on
                raise NotFoundError(error.message, hint=error.hint) from error
            # Without aliases: those are set one by one below, for an import to know later which it has set.
            metadata = msgspec.structs.replace(planned.metadata, aliases=())
            result = store_version(
                self.context, inspected, version.adapter, metadata, base=self.options.base, progress=report
            )
        with self._lock:
            self.created[version.source] = result.version.pinned
            self.stored[f"{version.adapter}:v{version.number}"] = Ref(version.adapter, number=result.version.number)
            self.bytes_sent += result.version.size
            self.notes.update(result.notes)
        self._set_aliases(result.version, planned.moves)

    def _complete(self, state: PlannedState) -> None:
        """Add to a version of this adapter that was there already what is known of it since: aliases and numbers."""
        planned = state.planned
        ref = self.stored.get(planned.ref) or parse_ref(planned.ref)
        if ref.adapter != planned.adapter:
            return
        version = self.context.backend.show(ref).version
        if version.yanked:
            return
        measured = {(metric.name, metric.dataset, metric.split) for metric in version.metrics}
        new = [metric for metric in planned.metrics if (metric.name, metric.dataset, metric.split) not in measured]
        if new:
            self.context.backend.add_metrics(ref, new)
        self._set_aliases(version, state.moves)

    def _set_aliases(self, version: Version, moves: Mapping[str, int]) -> None:
        """Let the aliases mean the version, unless somebody moved one since the plan, or a policy forbids it."""
        ref = Ref(version.adapter, number=version.number)
        for alias, before in moves.items():
            if alias in version.aliases:
                continue
            try:
                self.context.backend.tag(ref, alias, before, BY_IMPORT)
            except _STOPPING:
                raise
            except (ConflictError, CheckFailedError, NotAllowedError) as error:
                note = f"{alias!r} was not set to {ref}: {error.message}: loreg tag {ref} {alias}"
                with self._lock:
                    self.notes[note] += 1

    def report(self, plan: ImportPlan) -> ImportReport:
        """Return what was done, in the order of the plan."""
        refused = [
            ImportFailure(version.source, f"{version.code} {version.reason}".strip(), version.hint)
            for version in plan.with_status(ImportStatus.REFUSED)
        ]
        mendable = [
            ImportFailure(version.source, f"{version.code}: {version.mend}", "loreg import DIR --mend")
            for version in plan.with_status(ImportStatus.MENDABLE)
        ]
        notes = [
            text if count == 1 else f"{text} ({count} versions)" for text, count in self.notes.most_common(_MAX_NOTES)
        ]
        return ImportReport(
            created=tuple(self.created[v.source] for v in plan.versions if v.source in self.created),
            present=tuple(version.ref for version in plan.with_status(ImportStatus.PRESENT)),
            failures=(*refused, *mendable, *self.failures),
            notes=(*plan.notes, *notes),
            bytes_sent=self.bytes_sent,
        )
