"""Jobs: asked for by one process, done by another, one at a time each, and again if who did it died."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import JobRow
from loreg.catalog.transaction import Transaction
from loreg.errors import NotFoundError
from loreg.records import Access, Job, Page

#: A worker says that it is alive at least this often, or another takes its job.
LIFE = timedelta(seconds=30)
MOST_ATTEMPTS = 3
_ENDED = ("done", "failed", "cancelled")


def submit(tx: Transaction, kind: str, request: Mapping[str, Any], namespace: str) -> Job:
    """Ask for a job; it will be done with what who asks may do now."""
    values = {
        "kind": kind,
        "request": dict(request),
        "namespace": namespace,
        "author": tx.author,
        "grants": dict(tx.access.grants),
        "state": "queued",
        "attempts": 0,
        "worker": "",
        "what": "",
        "done": 0,
        "total": 0,
        "result": {},
        "error": {},
        "created_at": tx.at,
    }
    return _to_job(tx.connection.execute(insert(JobRow).values(**values).returning(JobRow)).one())


def claim(tx: Transaction, worker: str) -> tuple[Job, Access] | None:
    """The oldest job that nobody does, with what it may do; None if there is none. No two workers get the same."""
    forsaken = (JobRow.state == "running") & (JobRow.beat_at < tx.at - LIFE)
    query = select(JobRow).where(or_(JobRow.state == "queued", forsaken)).order_by(JobRow.id).limit(1)
    row = tx.connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    if row.attempts >= MOST_ATTEMPTS:
        _end(tx, row.id, "failed", error={"code": "error", "message": f"{row.attempts} workers died of it", "hint": ""})
        return claim(tx, worker)
    values = {"state": "running", "attempts": row.attempts + 1, "worker": worker, "beat_at": tx.at}
    statement = update(JobRow).where(JobRow.id == row.id).values(**values).returning(JobRow)
    return _to_job(tx.connection.execute(statement).one()), Access(row.author, row.grants)


def beat(tx: Transaction, job: Job, what: str, done: int, total: int) -> bool:
    """Say how far it is; False if it is to be given up: it was cancelled, or another worker has it by now."""
    mine = (JobRow.id == job.id) & (JobRow.state == "running") & (JobRow.attempts == job.attempts)
    values = {"what": what[:128], "done": done, "total": total, "beat_at": tx.at}
    return bool(tx.connection.execute(update(JobRow).where(mine).values(**values)).rowcount)


def finish(tx: Transaction, job: Job, result: Mapping[str, Any]) -> None:
    """It is done."""
    _end(tx, job.id, "done", attempts=job.attempts, result=dict(result))


def fail(tx: Transaction, job: Job, error: Mapping[str, Any]) -> None:
    """It cannot be done."""
    _end(tx, job.id, "failed", attempts=job.attempts, error=dict(error))


def cancel(tx: Transaction, job_id: int) -> Job:
    """Give it up; one that is running stops when its worker next says how far it is. One that has ended stays so."""
    _end(tx, job_id, "cancelled")
    return find(tx, job_id)


def find(tx: Transaction, job_id: int) -> Job:
    """The job of that number, if what it makes may be read. Raises NotFoundError."""
    query = select(JobRow).where(JobRow.id == job_id, tx.visible(JobRow.namespace))
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}", hint="loreg job ls")
    return _to_job(row)


def page(tx: Transaction, limit: int, cursor: str | None) -> Page[Job]:
    """A page of jobs, the newest first."""
    query = select(JobRow).where(tx.visible(JobRow.namespace))
    if cursor:
        query = query.where(JobRow.id < decode(cursor, "jobs", (int,))[0])
    rows = tx.connection.execute(query.order_by(JobRow.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(tuple(map(_to_job, shown)), encode("jobs", [shown[-1].id]) if len(rows) > limit else None)


def _end(tx: Transaction, job_id: int, state: str, *, attempts: int | None = None, **values: Any) -> None:
    """Nothing happens to a job that has ended, or that another worker has by now."""
    mine = (JobRow.id == job_id) & JobRow.state.not_in(_ENDED)
    if attempts is not None:
        mine &= JobRow.attempts == attempts
    tx.connection.execute(update(JobRow).where(mine).values(state=state, finished_at=tx.at, **values))


def _to_job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        request=row.request,
        namespace=row.namespace,
        author=row.author,
        state=row.state,
        attempts=row.attempts,
        worker=row.worker,
        what=row.what,
        done=row.done,
        total=row.total,
        result=row.result,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
