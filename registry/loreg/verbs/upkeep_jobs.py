"""Upkeep as jobs: a worker calls the verb and stores a short report; who asked gets the report from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from loreg.decoding import decode
from loreg.entities import Job, JobKind, MapOptions, MapSelection, Progress, SnapshotList, SnapshotRules
from loreg.errors import LoregError, NotAllowedError
from loreg.parsing import parse_span
from loreg.refs import parse_adapter_pattern
from loreg.requests import BackupAction, UpkeepRequest, beside_the_store, read_upkeep_request
from loreg.settings import Settings, mask_url
from loreg.verbs.backup import backup, list_backup
from loreg.verbs.forget import forget
from loreg.verbs.gc import gc
from loreg.verbs.jobs import Jobs
from loreg.verbs.map import map_probe
from loreg.verbs.prune import prune
from loreg.verbs.repair import open_source, repair
from loreg.verbs.sketch import sketch_missing
from loreg.verbs.verify import Selection, record_verification, select_references, verify
from loreg.workspace.context import Context
from loreg.workspace.read_share import position_of
from loreg.workspace.retention import read_retention
from loreg.workspace.snapshots import open_backup

R = TypeVar("R")
#: Entries of each list in the report of a job, which is one row and listed on a page with others.
MAX_LISTED = 100
_MAX_COUNTS = 1000  # lines of counts, by namespace or otherwise
_LISTS = ("damages", "orphans", "leftovers", "repaired", "broken", "going", "kept", "snapshots", "decisions", "failed")
MAX_OWNERS = 3  # that are named of each blob
#: Called with a job that was submitted, before it is waited for.
JobCallback = Callable[[Job], None]


def do_by_worker(
    jobs: Jobs, kind: JobKind, request: Mapping[str, Any], report: type[R], progress: Progress, on_job: JobCallback
) -> R:
    """Submit the job, wait for it and return its report, whose lists have the first ``MAX_LISTED`` entries.

    Raises the error that it failed with, ConflictError if it was cancelled or another one of its kind is open.
    """
    job = jobs.submit(kind, **request)
    on_job(job)
    done = jobs.wait(job.id, progress=progress)
    try:
        return decode(done.result, report)
    except ValueError as error:
        raise LoregError(
            f"the report of job {job.id} is not understood, for its worker is of another release: {error}",
            hint=f"loreg job show {job.id} --format json",
        ) from error


@dataclass(frozen=True)
class UpkeepRules:
    """What the requests of a worker's jobs do not decide, but who runs worker and server.

    ``repair_sources`` are the places that a repair may bring blobs back from, ``backup_targets`` those that a backup
    may go to, word for word; ``retention`` is the table of which versions a prune keeps. Maps run ``on`` a cluster, or
    in processes of this machine if that is empty.
    """

    repair_sources: Sequence[str] = ()
    backup_targets: Sequence[str] = ()
    retention: Mapping[str, object] = field(default_factory=dict)
    on: str = ""


def run_upkeep(
    context: Context,
    settings: Settings,
    kind: JobKind,
    document: Mapping[str, Any],
    rules: UpkeepRules,
    progress: Progress,
) -> dict[str, object]:
    """Do what the job's document asks for, and return its report as it is stored.

    Raises NotAllowedError for a place that ``rules`` do not name: whoever submits a job does not decide which addresses
    the worker's machine calls.
    """
    request = read_upkeep_request(kind, document, hint=f"loreg {kind} --help")
    if kind is JobKind.GC:
        grace = parse_span(request.grace)
        collected = gc(context, grace=grace, caches=request.caches, dry_run=request.dry_run, progress=progress)
        return shorten(collected, f"{collected.removed:,} removed, {collected.marked:,} wait")
    if kind is JobKind.PRUNE:
        return _prune(context, request, rules, progress)
    if kind is JobKind.BACKUP:
        return _back_up(context, settings, request, rules, progress)
    if kind is JobKind.SKETCH:
        sketched = sketch_missing(context, progress)
        return shorten(sketched, f"{sketched.sketched:,} sketched, {sketched.failed_count:,} failed")
    if kind is JobKind.MAP:
        selected = MapSelection(request.selectors, request.search)
        options = MapOptions(request.profile, request.rank, request.name)
        mapped = map_probe(
            context,
            settings,
            request.probe,
            selected,
            options=options,
            again=request.again,
            on=rules.on,
            progress=progress,
        )
        return shorten(mapped, f"{mapped.recorded:,} of {mapped.run.versions:,}, {mapped.failed_count:,} failed")
    selection = _select(request, settings)
    if kind is JobKind.VERIFY:
        verified = verify(context, selection, progress)
        record_verification(context, selection, verified)
        return shorten(verified, f"{verified.damage_count:,} of {verified.references:,} broken")
    _refuse_unlisted_sources(request.sources, rules.repair_sources)
    opened = [open_source(source, settings) for source in request.sources]
    mended = repair(context, opened, selection, dry_run=request.dry_run, progress=progress)
    return shorten(mended, f"{mended.repaired_count:,} repaired, {mended.broken_count:,} stay broken")


def _prune(context: Context, request: UpkeepRequest, rules: UpkeepRules, progress: Progress) -> dict[str, object]:
    retention = read_retention(rules.retention, "the loreg.toml of the server")
    pattern = parse_adapter_pattern(request.pattern)
    pruned = prune(context, retention, pattern, dry_run=request.dry_run, progress=progress)
    gone = "would go" if pruned.dry_run else "gone"
    return shorten(pruned, f"{pruned.going_count:,} {gone}, {pruned.kept_count:,} stay")


def _back_up(
    context: Context, settings: Settings, request: UpkeepRequest, rules: UpkeepRules, progress: Progress
) -> dict[str, object]:
    _refuse_unlisted_target(request.target, rules.backup_targets)
    target = open_backup(request.target, settings.storage_endpoint)
    if request.action is BackupAction.LIST:
        snapshots = list_backup(target)
        return shorten(SnapshotList(snapshots, len(snapshots)), f"{len(snapshots):,} snapshots")
    if request.action is BackupAction.FORGET:
        newer = parse_span(request.keep_newer) if request.keep_newer is not None else None
        keep = SnapshotRules(request.keep_last, newer)
        forgotten = forget(context, target, keep, dry_run=request.dry_run, progress=progress)
        gone = "would go" if forgotten.dry_run else "gone"
        return shorten(forgotten, f"{forgotten.going_count:,} snapshots {gone}, {forgotten.kept_count:,} stay")
    made = backup(context, target, verify=request.verify, progress=progress)
    return shorten(made, f"snapshot {made.snapshot.name}, {made.damage_count:,} not whole")


def shorten(report: object, summary: str = "") -> dict[str, object]:
    """Return the report as a document, with the first entries of every list; its counts stay what they are.

    ``summary`` says in a few words what came of it.
    """
    document: dict[str, Any] = msgspec.to_builtins(report)
    for name, value in document.items():
        if isinstance(value, tuple):
            document[name] = [*map(_with_first_owners, value[: MAX_LISTED if name in _LISTS else _MAX_COUNTS])]
    return {"summary": summary, **document}


def _with_first_owners(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    if "damage" in entry:
        return {**entry, "damage": _with_first_owners(entry["damage"])}
    return {**entry, "owners": entry["owners"][:MAX_OWNERS]} if "owners" in entry else entry


def _select(request: UpkeepRequest, settings: Settings) -> Selection:
    return select_references(
        request.refs,
        request.read_data,
        request.since,
        position_of(settings),
        trust_checksums=request.trust_checksums,
    )


def _refuse_unlisted_sources(sources: Sequence[str], allowed: Sequence[str]) -> None:
    if source := _find_unlisted(sources, allowed):
        raise NotAllowedError(
            f"the worker does not repair from {mask_url(source)}, which its --repair-from does not name",
            hint=beside_the_store("repair", "--from", mask_url(source)),
        )


def _refuse_unlisted_target(target: str, allowed: Sequence[str]) -> None:
    if _find_unlisted([target], allowed):
        raise NotAllowedError(
            f"the worker does not back up to {mask_url(target)}, which its --backup-to does not name",
            hint=beside_the_store("backup", mask_url(target)),
        )


def _find_unlisted(places: Sequence[str], allowed: Sequence[str]) -> str:
    """Return the first of the places that is not allowed word for word; empty if all are."""
    listed = {place.rstrip("/") for place in allowed if place}
    return next((place for place in places if place.rstrip("/") not in listed), "")
