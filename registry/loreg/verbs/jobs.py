"""``registry.jobs``: submit, show, list, cancel and await what a worker does."""

from __future__ import annotations

import time
from typing import Any

from loreg.backend import Backend
from loreg.entities import Job, JobState, Page, Progress, no_progress
from loreg.errors import ConflictError, of_code
from loreg.workspace.progress_bars import draws_progress

_POLL_SECONDS = 0.5


@draws_progress
class Jobs:
    """The jobs that workers do."""

    def __init__(self, backend: Backend, *, shows_progress: bool = False) -> None:
        self._backend, self.shows_progress = backend, shows_progress

    def submit(self, kind: str, /, **request: Any) -> Job:
        """Queue a ``merge``, ``rerank`` or ``bake``: the arguments are those of the command of that name.

        Sources are refs. ``base`` and a bake's ``name`` are folders among those that the worker was given. Likewise
        ``verify``, ``repair`` and ``gc``, for administrators; one of each is open at a time, and is returned again to
        who asks for the same. Raises UsageError for what a worker cannot do, NotAllowedError, QuotaError, ConflictError
        if one is open that asks for something else.

        >>> pushed = [registry.push(f"./{name}", f"team/{name}") for name in ("science", "history")]
        >>> job = registry.jobs.submit("merge", sources=["team/science", "team/history"], name="team/both")
        >>> str(job.kind), str(job.state)  # until a worker takes it: loreg worker
        ('merge', 'queued')
        """
        return self._backend.submit(kind, {name: value for name, value in request.items() if value is not None})

    def show(self, job_id: int) -> Job:
        """Return what was asked for, how far it is, and what came of it. Raises NotFoundError.

        >>> job = registry.jobs.submit("gc")
        >>> str(registry.jobs.show(job.id).state)
        'queued'
        """
        return self._backend.job(job_id)

    def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[Job]:
        """Return a page of jobs, the newest first.

        >>> job = registry.jobs.submit("gc")
        >>> [(str(job.kind), job.what) for job in registry.jobs.list()]
        [('gc', '')]
        """
        page = self._backend.jobs(limit, cursor)
        return page.followed_by(Job, lambda cursor: self._backend.jobs(limit, cursor))

    def cancel(self, job_id: int) -> Job:
        """End a job that has not ended; one that has stays as it is. Raises NotFoundError, NotAllowedError.

        >>> job = registry.jobs.submit("gc")
        >>> str(registry.jobs.cancel(job.id).state)
        'cancelled'
        """
        return self._backend.cancel_job(job_id)

    def wait(self, job_id: int, *, progress: Progress = no_progress) -> Job:
        """Return the job when it is done. Raises the error that it failed with, ConflictError if it was cancelled."""
        while not (job := self._backend.job(job_id)).ended:
            progress(job.what or job.state, job.done, job.total)
            time.sleep(_POLL_SECONDS)
        if job.state == JobState.CANCELLED:
            raise ConflictError(f"job {job_id} was cancelled", hint=f"loreg job show {job_id}")
        if job.state == JobState.FAILED:
            error = job.error
            raise of_code(error.get("code", ""))(error.get("message", ""), hint=error.get("hint", ""))
        return job
