"""The pages ``/jobs`` and ``/jobs/ID``: what workers were asked for, how far it is, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from loreg.entities import HIDDEN_SOURCE, Job
from loreg.errors import NotAllowedError, NotFoundError
from loreg.server.pages import sessions
from loreg.server.pages.commands import command
from loreg.server.pages.paths import JOB, JOBS, job_path, ref_path, with_query
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
CANCEL, AGAIN = "/_/job-cancel", "/_/job-again"
_PAGE = 50
_LAST_ID = 2**31 - 1
_SHOWN_ELSEWHERE = ("sources", "source", "version", "model", "summary", "notes")


class JobRow(Value, frozen=True):
    """A job, and whether who looks may cancel it, or ask for it again; they may not repeat what they may not read."""

    job: Job
    may_cancel: bool
    may_repeat: bool


class JobsView(Value, frozen=True):
    """What the list shows; while ``is_moving`` one of them waits or runs, and the list is asked for again."""

    rows: tuple[JobRow, ...]
    is_moving: bool
    next_path: str


class JobView(Value, frozen=True):
    """What the page of a job shows: ``sources`` are refs, ``request`` and ``result`` the rest, name by name."""

    row: JobRow
    sources: tuple[str, ...]
    request: tuple[tuple[str, str], ...]
    result: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    version_path: str
    version_ref: str


@routes.api_route(JOBS, methods=["GET", "HEAD"])
async def jobs(request: Request) -> Response:
    """Show the jobs that the visitor may read, the newest first."""
    visitor = await get_visitor(request)
    cursor = request.query_params.get("cursor") or None
    listed = await visitor.backend.jobs(_PAGE, cursor)
    view = JobsView(
        rows=tuple(_to_row(visitor, job) for job in listed.items),
        is_moving=not all(job.ended for job in listed.items),
        next_path=with_query(JOBS, [("cursor", listed.cursor)]) if listed.cursor else "",
    )
    return page(
        visitor,
        "jobs.html",
        title="Jobs",
        view=view,
        command=command("job", "ls"),
        api=with_query("/api/v1/jobs", [("cursor", cursor or "")]),
        document=listed,
    )


@routes.api_route(JOB, methods=["GET", "HEAD"])
async def job(request: Request, job_id: int) -> Response:
    """Show one job, while it waits and runs with its progress."""
    visitor = await get_visitor(request)
    shown = await visitor.backend.job(_parse_id(job_id))
    return page(
        visitor,
        "job.html",
        title=f"Job {shown.id}: {shown.kind}",
        view=_to_view(_to_row(visitor, shown)),
        command=command("job", "show", str(shown.id)),
        api=f"/api/v1/jobs/{shown.id}",
        document=shown,
    )


@routes.post(CANCEL)
async def cancel(request: Request) -> Response:
    """Cancel a job that waits or runs."""
    visitor = await get_visitor(request)
    job_id = await _read_id(visitor)
    await visitor.backend.cancel_job(job_id)
    return RedirectResponse(job_path(job_id), 303)


@routes.post(AGAIN)
async def again(request: Request) -> Response:
    """Submit what a job was asked for once more, in the name of who signed in."""
    visitor = await get_visitor(request)
    asked = await visitor.backend.job(await _read_id(visitor))
    if _hides_a_source(asked):
        raise NotAllowedError(f"job {asked.id} is about a version that you may not read", hint="loreg merge --help")
    submitted = await visitor.backend.submit(asked.kind, asked.request)
    return RedirectResponse(job_path(submitted.id), 303)


async def _read_id(visitor: Visitor) -> int:
    fields = await sessions.read_form(visitor.request, visitor.secret)
    text = fields.get("job", "")
    return _parse_id(int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0)


def _parse_id(job_id: int) -> int:
    if not 1 <= job_id <= _LAST_ID:
        raise NotFoundError(f"there is no job {job_id}", hint="loreg job ls")
    return job_id


def _to_row(visitor: Visitor, job: Job) -> JobRow:
    may_change = bool(visitor.secret) and visitor.access.may(job.kind.role, job.namespace)
    return JobRow(job, may_change and not job.ended, may_change and job.ended and not _hides_a_source(job))


def _hides_a_source(job: Job) -> bool:
    return any(value == HIDDEN_SOURCE or HIDDEN_SOURCE in _as_list(value) for value in job.request.values())


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _to_view(row: JobRow) -> JobView:
    job = row.job
    sources = [*(job.request.get("sources") or ()), *filter(None, [job.request.get("source")])]
    ref = str(job.result.get("version", ""))
    return JobView(
        row=row,
        sources=tuple(map(str, sources)),
        request=_to_lines(job.request),
        result=_to_lines(job.result),
        notes=tuple(map(str, job.result.get("notes") or ())),
        version_path=ref_path(ref) if ref else "",
        version_ref=ref,
    )


def _to_lines(document: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.replace("_", " "), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in document.items()
        if name not in _SHOWN_ELSEWHERE and value not in (None, "", [], {})
    )
