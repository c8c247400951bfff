"""Jobs: merges, re-rankings and bakes that a worker does instead of this process."""

from __future__ import annotations

import time
from typing import Any

from loreg.entities import Job, Page, Progress, no_progress
from loreg.errors import ConflictError, of_code
from loreg.workspace.context import Context

_PAUSE = 0.5


def submit(context: Context, /, kind: str, **request: Any) -> Job:
    """Ask a worker for a ``merge``, ``rerank`` or ``bake``: the arguments are those of the verb of that name.

    Sources are refs. ``base`` and a bake's ``name`` are folders among those that the worker was given. Raises
    UsageError for what a worker cannot do, NotAllowedError.
    """
    return context.backend.submit(kind, {name: value for name, value in request.items() if value is not None})


def job(context: Context, job_id: int) -> Job:
    """How a job is doing. Raises NotFoundError."""
    return context.backend.job(job_id)


def jobs(context: Context, *, limit: int = 50, cursor: str | None = None) -> Page[Job]:
    """A page of jobs, the newest first."""
    return context.backend.jobs(limit, cursor)


def cancel_job(context: Context, job_id: int) -> Job:
    """Give a job up; one that has ended stays as it is."""
    return context.backend.cancel_job(job_id)


def wait_for_job(context: Context, job_id: int, *, progress: Progress = no_progress) -> Job:
    """The job when it is done. Raises the error that it failed with; ConflictError if it was cancelled."""
    while not (found := context.backend.job(job_id)).ended:
        progress(found.what or found.state, found.done, found.total)
        time.sleep(_PAUSE)
    if found.state == "cancelled":
        raise ConflictError(f"job {job_id} was cancelled", hint=f"loreg job show {job_id}")
    if found.state == "failed":
        told = found.error
        raise of_code(told.get("code", ""))(told.get("message", ""), hint=told.get("hint", ""))
    return found
