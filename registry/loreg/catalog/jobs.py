"""The job queue: one process submits a job, a worker claims and runs it, another worker does so again if that one died.

A job that no worker is able to run fails a day after a worker that was able last looked for work. One that has ended is
removed after 30 days, or when a thousand of its namespace have ended since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, String, and_, delete, func, insert, literal, or_, select, text, true, update

from loreg.canonical_json import canonical_json
from loreg.catalog import clock, tokens
from loreg.catalog.hidden_sources import hide_in_jobs
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import job_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Access, Job, JobKind, JobState, Page, Role
from loreg.errors import ConflictError, NotFoundError, QuotaError

#: A worker sends a heartbeat at least this often, or another claims its job.
LEASE = timedelta(seconds=30)
#: A job fails when this many workers died of it, or lost their database or store.
MAX_LOSSES = 3
#: How many jobs of one namespace, and of one token, may be queued or running.
MAX_OPEN = 50
#: A queued job fails when for so long no worker that is able to run it looked for work.
QUEUE_TIMEOUT = timedelta(days=1)
#: How long a job that has ended is kept, and how many of a namespace are.
RETENTION = timedelta(days=30)
MAX_ENDED = 1000
_ABLE_AT_PRECISION = timedelta(minutes=10)  # ``able_at`` is not written again before: fewer writes
CHANNEL = "loreg_jobs"
_EVERYTHING = "*"  # the namespace of upkeep
_JobRow = Row[*tuple[Any, ...]]


# Written out: a database matches a partial index only with constants.
_IS_QUEUED, _IS_RUNNING = (
    literal(state, String, literal_execute=True) for state in (JobState.QUEUED, JobState.RUNNING)
)
_QUEUED, _RUNNING = job_table.c.state == _IS_QUEUED, job_table.c.state == _IS_RUNNING
_OPEN = job_table.c.state.in_([_IS_QUEUED, _IS_RUNNING])


class WorkerCapabilities(msgspec.Struct, frozen=True):
    """What a worker has: which bases, a folder for models, torch. Jobs in ``deferred`` are left to others for now."""

    has_base: Callable[[str], bool]
    has_models: bool
    has_torch: bool = True
    deferred: Collection[int] = ()


_ALL_CAPABILITIES = WorkerCapabilities(lambda name: True, True)


def submit(
    tx: Transaction,
    kind: str,
    request: Mapping[str, object],
    namespace: str,
    policy: Mapping[str, object] | None = None,
) -> Job:
    """Queue a job that runs with the caller's permissions; ``policy`` guards the aliases that it will set.

    Of each kind of upkeep one is open at a time: a second one that asks for the same, by the same policy, is the first.
    Raises ConflictError for one that asks for something else, QuotaError if too many jobs of the namespace or the token
    are open.
    """
    if tx.connection.dialect.name == "postgresql":  # so that the next one counts this one
        tx.connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg jobs'))"))
    if JobKind(kind).is_upkeep and (open_job := _find_open_upkeep(tx, kind)) is not None:
        if open_job.request == request and canonical_json(find_policy(tx, open_job)) == canonical_json(policy):
            return open_job
        raise ConflictError(
            f"job {open_job.id} is a {kind} already, asked for by {open_job.author}, and asks for something else",
            hint=f"loreg job show {open_job.id}; loreg job cancel {open_job.id} gives it up",
        )
    _refuse_too_many(tx, namespace)
    values = {
        "kind": kind,
        "request": dict(request),
        "namespace": namespace,
        "author": tx.author,
        "grants": dict(tx.access.permissions),
        "token_id": tx.access.token_id,
        "while_open": tx.access.while_open,
        "base": request.get("base") or "",
        "needs_torch": _needs_torch(kind, request),
        "policy": policy,
        "turn": _next_turn(tx, namespace),
        "state": JobState.QUEUED,
        "attempts": 0,
        "losses": 0,
        "worker": "",
        "what": "",
        "done": 0,
        "total": 0,
        "result": {},
        "error": {},
        "created_at": tx.at,
        "able_at": clock.now(tx),
    }
    job = _to_job(tx.connection.execute(insert(job_table).values(**values).returning(job_table)).one())
    tx.log("job submit", None, None, job=job.id, kind=kind, namespace=namespace)
    _notify_workers(tx)
    return job


def _find_open_upkeep(tx: Transaction, kind: str) -> Job | None:
    """Return the job of that kind that waits or runs and may do so; None if there is none."""
    query = select(job_table).where(_OPEN, job_table.c.kind == kind, _is_authorized(tx)).order_by(job_table.c.id)
    row = tx.connection.execute(query.limit(1)).one_or_none()
    return _to_job(row) if row is not None else None


def list_open_requests(tx: Transaction) -> tuple[tuple[int, Mapping[str, object]], ...]:
    """Return id and request of every job that waits or runs; there are :data:`MAX_OPEN` of a namespace at most."""
    rows = tx.connection.execute(select(job_table.c.id, job_table.c.request).where(_OPEN).order_by(job_table.c.id))
    return tuple((row.id, row.request) for row in rows)


def _needs_torch(kind: str, request: Mapping[str, object]) -> bool:
    """Whether a job needs torch: all but upkeep that makes no versions, and a bake that only adds weighted deltas."""
    if JobKind(kind).is_upkeep:
        return bool(request.get("rank"))
    merges_first = request.get("method", "linear") != "linear" or request.get("rank") is not None
    return kind != JobKind.BAKE or merges_first or bool(request.get("parameters") or request.get("initial"))


def _refuse_too_many(tx: Transaction, namespace: str) -> None:
    limits = [(job_table.c.namespace == namespace, f"for the namespace {namespace!r}")]
    if tx.access.token_id is not None:
        limits.append((job_table.c.token_id == tx.access.token_id, "of this token"))
    for condition, whose in limits:
        count = tx.connection.execute(select(func.count()).where(_OPEN, condition)).scalar_one()
        if count >= MAX_OPEN:
            raise QuotaError(
                f"{count} jobs {whose} wait or run, and no more than {MAX_OPEN} may",
                hint="loreg job ls",
            )


def _next_turn(tx: Transaction, namespace: str) -> int:
    """Return the turn after the namespace's last open job, and not before the next job in the queue.

    So namespaces take turns: fair queueing (Demers, Keshav and Shenker 1989), with every job as long as any other.
    """
    last = tx.connection.execute(
        select(func.max(job_table.c.turn)).where(_OPEN, job_table.c.namespace == namespace)
    ).scalar()
    first = tx.connection.execute(select(func.min(job_table.c.turn)).where(_QUEUED)).scalar()
    return max(last + 1 if last is not None else 0, first or 0)


def _notify_workers(tx: Transaction) -> None:
    """Notify the workers that listen, once the transaction is committed."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(select(func.pg_notify(CHANNEL, "")))


def claim(
    tx: Transaction, worker: str, capabilities: WorkerCapabilities = _ALL_CAPABILITIES
) -> tuple[Job, Access] | None:
    """Claim the next job that the worker is able to run; return it with its permissions, None if there is none.

    No two workers claim the same.
    """
    _requeue_expired(tx)
    bases = tx.connection.execute(select(job_table.c.base).where(_QUEUED).distinct()).scalars()
    able = and_(
        job_table.c.base.in_([base for base in bases if not base or capabilities.has_base(base)]),
        true() if capabilities.has_models else job_table.c.kind != JobKind.BAKE,
        true() if capabilities.has_torch else job_table.c.needs_torch.is_(False),
    )
    outdated = update(job_table).where(_QUEUED, able, job_table.c.able_at < clock.now(tx, -_ABLE_AT_PRECISION))
    tx.connection.execute(outdated.values(able_at=clock.now(tx)))
    not_deferred = job_table.c.id.not_in(list(capabilities.deferred))
    query = select(job_table).where(_QUEUED, able, not_deferred).order_by(job_table.c.turn, job_table.c.id).limit(1)
    while (row := tx.connection.execute(query.with_for_update(skip_locked=True)).one_or_none()) is not None:
        access = _find_access(tx, row)
        if access is None:
            _fail_without_token(tx, job_table.c.id == row.id)
            continue
        values = {"state": JobState.RUNNING, "attempts": row.attempts + 1, "worker": worker, "beat_at": clock.now(tx)}
        statement = update(job_table).where(job_table.c.id == row.id).values(**values).returning(job_table)
        return _to_job(tx.connection.execute(statement).one()), access
    return None


def _requeue_expired(tx: Transaction) -> None:
    """Requeue the jobs of workers whose heartbeat is overdue; one that several workers died of fails."""
    lost = and_(_RUNNING, job_table.c.beat_at < clock.now(tx, -LEASE))
    for row in tx.connection.execute(select(job_table).where(lost).with_for_update(skip_locked=True)).all():
        _lose(tx, row, _error("error", f"{row.losses + 1} workers died of it"))


def _lose(tx: Transaction, row: _JobRow, error: Mapping[str, str]) -> None:
    """Requeue a job, or fail it with the error if it was lost too often."""
    if row.losses + 1 >= MAX_LOSSES:
        _end(tx, job_table.c.id == row.id, JobState.FAILED, error=dict(error))
        return
    values = {"state": JobState.QUEUED, "losses": row.losses + 1}
    tx.connection.execute(update(job_table).where(job_table.c.id == row.id).values(**values))
    _notify_workers(tx)


def _find_access(tx: Transaction, row: _JobRow) -> Access | None:
    """Return what the job may do now; None if its token is not live, or it has none and by now one is required."""
    if row.token_id is None:
        access = Access(row.author, row.grants, while_open=row.while_open)
        return None if row.while_open and tokens.any_exist(tx) else access
    token = tokens.find_live_by_id(tx, row.token_id)
    return Access(row.author, token.grants, token.id) if token is not None else None


def _is_authorized(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that :func:`_find_access` finds some access for the job."""
    no_token = and_(job_table.c.token_id.is_(None), or_(~job_table.c.while_open, ~tokens.any_exist_condition()))
    return or_(no_token, tokens.is_live_condition(tx, job_table.c.token_id))


def _fail_without_token(tx: Transaction, condition: ColumnElement[bool]) -> None:
    for while_open, reason in (
        (False, "the token that asked for it was revoked, or has expired"),
        (True, "no token asked for it, and by now everybody needs one"),
    ):
        error = _error("unauthenticated", reason, "loreg login")
        _end(tx, and_(condition, job_table.c.while_open == while_open), JobState.FAILED, error=error)


def find_policy(tx: Transaction, job: Job) -> Mapping[str, object] | None:
    """Return the policy that guards the aliases which the job sets; None for a job of an old release."""
    return tx.connection.execute(select(job_table.c.policy).where(job_table.c.id == job.id)).scalar()


def _error(code: str, message: str, hint: str = "") -> dict[str, str]:
    return {"code": code, "message": message, "hint": hint}


def _still_claimed(job: Job) -> ColumnElement[bool]:
    """Return the condition for the job's row, unless another worker has claimed it since."""
    return and_(job_table.c.id == job.id, job_table.c.attempts == job.attempts)


def heartbeat(tx: Transaction, job: Job, what: str, done: int, total: int) -> bool:
    """Renew the lease of a running job and store its progress; return False if the worker is to stop.

    That is if the job was cancelled, if another worker has claimed it since, or if its token is not live any more.
    """
    values = {"what": what[:128], "done": done, "total": total, "beat_at": clock.now(tx)}
    statement = update(job_table).where(_still_claimed(job), _RUNNING, _is_authorized(tx)).values(**values)
    return bool(tx.connection.execute(statement).rowcount)


def finish(tx: Transaction, job: Job, result: Mapping[str, object]) -> None:
    """Set a job to done with its result; does nothing if it has ended, or another worker has claimed it since."""
    _end(tx, _still_claimed(job), JobState.DONE, result=dict(result))


def fail(tx: Transaction, job: Job, error: Mapping[str, str]) -> None:
    """Set a job to failed with its error; does nothing if it has ended, or another worker has claimed it since."""
    _end(tx, _still_claimed(job), JobState.FAILED, error=dict(error))


def requeue(tx: Transaction, job: Job) -> None:
    """Return a running job to the queue; does nothing if another worker has claimed it since."""
    tx.connection.execute(update(job_table).where(_still_claimed(job), _RUNNING).values(state=JobState.QUEUED))
    _notify_workers(tx)


def lose(tx: Transaction, job: Job, error: Mapping[str, str]) -> None:
    """Requeue a job whose database or store did not answer, or fail it with the error if it was lost too often.

    Does nothing if another worker has claimed it since.
    """
    query = select(job_table).where(_still_claimed(job), _RUNNING).with_for_update()
    if (row := tx.connection.execute(query).one_or_none()) is not None:
        _lose(tx, row, error)


def pin_request(tx: Transaction, job: Job, request: Mapping[str, object]) -> None:
    """Replace the request by one that names exact versions, so that another attempt takes the same."""
    tx.connection.execute(update(job_table).where(_still_claimed(job), _RUNNING).values(request=dict(request)))


def cancel(tx: Transaction, job_id: int) -> Job:
    """Cancel a job and return it; does nothing if it has ended. A running one stops at its next heartbeat."""
    _end(tx, job_table.c.id == job_id, JobState.CANCELLED, action="job cancel")
    return find(tx, job_id)


def fail_all_of_token(tx: Transaction, token_id: int) -> None:
    """Fail every open job that was submitted with this token."""
    _fail_without_token(tx, job_table.c.token_id == token_id)


def has_ended(tx: Transaction, job: Job) -> bool:
    """Whether the job is done, failed or cancelled."""
    state = tx.connection.execute(select(job_table.c.state).where(job_table.c.id == job.id)).scalar()
    return state not in (JobState.QUEUED, JobState.RUNNING)


def clean_up(tx: Transaction) -> None:
    """Fail queued jobs that no worker is able to run, or without a live token; remove old jobs that have ended."""
    _fail_without_token(tx, and_(~_is_authorized(tx), _QUEUED))
    unclaimable = and_(_QUEUED, job_table.c.able_at < clock.now(tx, -QUEUE_TIMEOUT))
    for row in tx.connection.execute(select(job_table).where(unclaimable).with_for_update(skip_locked=True)).all():
        _end(tx, job_table.c.id == row.id, JobState.FAILED, error=_unclaimable_reason(row))
    ended = job_table.c.state.not_in([JobState.QUEUED, JobState.RUNNING])
    tx.connection.execute(delete(job_table).where(ended, job_table.c.finished_at < clock.now(tx, -RETENTION)))
    rank = func.row_number().over(partition_by=job_table.c.namespace, order_by=job_table.c.id.desc()).label("rank")
    ranks = select(job_table.c.id, rank).where(ended).subquery()
    tx.connection.execute(
        delete(job_table).where(job_table.c.id.in_(select(ranks.c.id).where(ranks.c.rank > MAX_ENDED)))
    )


def _unclaimable_reason(row: _JobRow) -> dict[str, str]:
    needs = [f"has {row.base!r} among its bases"] if row.base else []
    needs += ["writes models"] if row.kind == JobKind.BAKE else []
    needs += ["has torch"] if row.needs_torch else []
    workers = f"no worker that {' and '.join(needs)}" if needs else "no worker"
    hours = QUEUE_TIMEOUT.total_seconds() / 3600
    return _error(
        "not-found",
        f"{workers} looked for work for {hours:.0f} hours",
        "start one: loreg worker --help",
    )


def find(tx: Transaction, job_id: int) -> Job:
    """Return the job with that id. Raises NotFoundError, also if the caller may not see it."""
    query = select(job_table).where(job_table.c.id == job_id, _visible(tx))
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}", hint="loreg job ls")
    return hide_in_jobs(tx, [_to_job(row)])[0]


def list_page(tx: Transaction, limit: int, cursor: str | None) -> Page[Job]:
    """Return a page of the jobs that the caller may see, newest first."""
    query = select(job_table).where(_visible(tx))
    if cursor:
        query = query.where(job_table.c.id < decode(cursor, "jobs", (int,))[0])
    rows = tx.connection.execute(query.order_by(job_table.c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(
        hide_in_jobs(tx, list(map(_to_job, shown))), encode("jobs", [shown[-1].id]) if len(rows) > limit else None
    )


def list_bakes(tx: Transaction, limit: int) -> tuple[Job, ...]:
    """Return the newest bakes that are done and that the caller may see."""
    is_done = and_(job_table.c.kind == JobKind.BAKE, job_table.c.state == JobState.DONE)
    query = select(job_table).where(is_done, _visible(tx)).order_by(job_table.c.id.desc()).limit(limit)
    return hide_in_jobs(tx, list(map(_to_job, tx.connection.execute(query))))


def _visible(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that the caller may see a job: upkeep is for administrators of everything alone."""
    if tx.access.may(Role.ADMIN, _EVERYTHING):
        return true()
    return and_(tx.visible(job_table.c.namespace), job_table.c.namespace != _EVERYTHING)


def _end(
    tx: Transaction, which: ColumnElement[bool], state: JobState, *, action: str = "job end", **values: object
) -> None:
    """Set a terminal state for the open jobs that fulfill ``which``, and log it."""
    statement = update(job_table).where(which, _OPEN).values(state=state, finished_at=clock.now(tx), **values)
    for job_id, kind, namespace in tx.connection.execute(
        statement.returning(job_table.c.id, job_table.c.kind, job_table.c.namespace)
    ).all():
        tx.log(action, None, None, job=job_id, kind=kind, namespace=namespace, state=state)


def _to_job(row: _JobRow) -> Job:
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        request=row.request,
        namespace=row.namespace,
        author=row.author,
        state=JobState(row.state),
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
