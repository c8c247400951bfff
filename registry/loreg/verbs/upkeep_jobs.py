"""verify, repair and gc as jobs: a worker calls them and stores a short report; who asked gets the report from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from loreg.decoding import decode
from loreg.entities import Job, JobKind, Progress
from loreg.errors import LoregError, NotAllowedError
from loreg.parsing import parse_span
from loreg.requests import UpkeepRequest, local_repair, read_upkeep_request
from loreg.settings import Settings, mask_url
from loreg.verbs.gc import gc
from loreg.verbs.jobs import Jobs
from loreg.verbs.repair import open_source, repair
from loreg.verbs.verify import Selection, select_references, verify
from loreg.workspace.context import Context
from loreg.workspace.read_share import position_of

R = TypeVar("R")
#: Entries of each list in the report of a job, which is one row and listed on a page with others.
MAX_LISTED = 100
_MAX_COUNTS = 1000  # lines of counts, by namespace or otherwise
_LISTS = ("damages", "orphans", "leftovers", "repaired", "broken")
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


def run_upkeep(
    context: Context,
    settings: Settings,
    kind: JobKind,
    document: Mapping[str, Any],
    sources: Sequence[str],
    progress: Progress,
) -> dict[str, object]:
    """Do what the job's document asks for, and return its report as it is stored.

    ``sources`` are the places that a repair may bring blobs back from. Raises NotAllowedError for any other: whoever
    submits a job does not decide which addresses the worker's machine calls.
    """
    request = read_upkeep_request(kind, document, hint=f"loreg {kind} --help")
    if kind is JobKind.GC:
        grace = parse_span(request.grace)
        collected = gc(context, grace=grace, caches=request.caches, dry_run=request.dry_run, progress=progress)
        return shorten(collected, f"{collected.removed:,} removed, {collected.marked:,} wait")
    selection = _select(request, settings)
    if kind is JobKind.VERIFY:
        verified = verify(context, selection, progress)
        return shorten(verified, f"{verified.damage_count:,} of {verified.references:,} broken")
    _refuse_unlisted(request.sources, sources)
    opened = [open_source(source, settings) for source in request.sources]
    mended = repair(context, opened, selection, dry_run=request.dry_run, progress=progress)
    return shorten(mended, f"{mended.repaired_count:,} repaired, {mended.broken_count:,} stay broken")


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


def _refuse_unlisted(sources: Sequence[str], allowed: Sequence[str]) -> None:
    listed = {source.rstrip("/") for source in allowed}
    if source := next((source for source in sources if source.rstrip("/") not in listed), None):
        raise NotAllowedError(
            f"the worker does not repair from {mask_url(source)}, which its --repair-from does not name",
            hint=local_repair(mask_url(source)),
        )
