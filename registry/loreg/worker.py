"""A worker: takes jobs from the table and does them, one at a time, as who asked for them."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loreg.baking.bake import discard_staging
from loreg.catalog import Catalog, Transaction, jobs
from loreg.checking.policy import Policy, policy_from_json
from loreg.entities import Access, Job
from loreg.errors import ConflictError, LoregError, NotFoundError, UnavailableError, UnderWayError
from loreg.local.authorization import require
from loreg.local.factory import open_local
from loreg.local.jobs import namespace_of, pin_refs
from loreg.settings import Settings
from loreg.verbs.bake import bake
from loreg.verbs.merge import merge, rerank
from loreg.workspace.context import Context, show_version
from loreg.workspace.resolve_sources import has_torch

_HEARTBEAT_INTERVAL = jobs.LEASE.total_seconds() / 3
_IDLE = 1.0
_POLL = 5.0  # seconds between two looks where the database tells of new jobs
_CLEANUP_INTERVAL = 3600.0
_MAX_CONNECT_ATTEMPTS = 5  # to reach a database that never answered, or that somebody waits for
_MOST_REFUSALS = 20  # of what a database that answers does not take
_MOST_NOTES = 50
_LONGEST_NOTE = 500
#: The database does not answer, or somebody else changed the same: what was lost is asked again.
_TRANSIENT = (UnavailableError, ConflictError)
_log = logging.getLogger("loreg.worker")

#: How a job ends, or does not end: what is written down of it.
Outcome = Callable[[Transaction], None]


class JobCancelledError(Exception):
    """The job was cancelled, or another worker has it by now."""


class Worker:
    """Does jobs with the catalog and store of ``settings``.

    ``bases`` is the folder of the models that jobs may name as their base, ``models`` the one that bakes write to. What
    needs one that is not there is left to other workers.
    """

    def __init__(self, settings: Settings, bases: Path | None, models: Path | None, device: str) -> None:
        self._local = open_local(settings)
        self._catalog = self._local.catalog
        self._bell = self._catalog.listen(jobs.CHANNEL)
        self._cache = settings.home / "cache" / "bases"
        self._bases, self._models, self._device = bases, models, device
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._deferred: dict[int, float] = {}  # jobs that were put back, and until when they are left to others
        self._cleaned_up_at = -_CLEANUP_INTERVAL
        self._pause = threading.Event()  # is never set

    def work(self, *, until_idle: bool = False) -> int:
        """Do jobs until the process is stopped, or until there is none that this worker can do; returns how many.

        A database that does not answer is asked again. Raises UnavailableError if it never did, or is away when the
        worker is to leave.
        """
        count = failures = 0
        answered = False
        self._deferred = {}
        with contextlib.closing(self._catalog), contextlib.closing(self._bell):
            while True:
                try:
                    claimed = self._claim()
                except _TRANSIENT as error:
                    failures += 1
                    if failures == _MAX_CONNECT_ATTEMPTS and (until_idle or not answered):
                        raise
                    _log.warning("no job could be claimed: %s", error)
                    self._pause.wait(_IDLE)
                    continue
                failures, answered = 0, True
                if claimed is not None:
                    self._do(*claimed)
                    count += 1
                elif until_idle:
                    return count
                else:
                    self._bell.wait(_POLL, without=_IDLE)

    def _claim(self) -> tuple[Job, Access] | None:
        with self._catalog.write(Access.superuser(self._name)) as tx:
            if time.monotonic() - self._cleaned_up_at > _CLEANUP_INTERVAL:
                jobs.clean_up(tx)
                self._cleaned_up_at = time.monotonic()
            self._deferred = {job_id: until for job_id, until in self._deferred.items() if until > time.monotonic()}
            return jobs.claim(
                tx,
                self._name,
                jobs.WorkerCapabilities(self._has_base, self._models is not None, has_torch(), self._deferred),
            )

    def _do(self, job: Job, access: Access) -> None:
        _log.info("job %s: %s for %s", job.id, job.kind, job.author)
        with Heartbeat(self._catalog, job) as heart:
            try:
                self._record_outcome(self._run(job, access, heart))
            except JobCancelledError:
                _log.info("job %s was given up", job.id)
            except BaseException:  # this process is told to end: somebody else may have the job at once
                with contextlib.suppress(LoregError), self._catalog.write(Access.superuser(self._name)) as tx:
                    jobs.requeue(tx, job)
                raise
        if job.kind == "bake":
            self._clear_up(job)

    def _run(self, job: Job, access: Access, heart: Heartbeat) -> Outcome:
        """Do the job. What came of it is a result, an error, or that it should be tried again."""
        try:
            return partial(jobs.finish, job=job, result=self._result(job, access, heart))
        except UnderWayError as error:  # a worker that was taken for dead is not, and has the folder
            self._defer(job, jobs.LEASE.total_seconds(), error)
            return partial(jobs.requeue, job=job)
        except UnavailableError as error:
            self._defer(job, _POLL, error)
            return partial(jobs.lose, job=job, error=_public_error(error))
        except LoregError as error:
            if error.outside != error.message:
                _log.warning("job %s: %s", job.id, error)
            return partial(jobs.fail, job=job, error=_public_error(error))
        except JobCancelledError:
            raise
        except Exception as error:
            _log.exception("job %s", job.id)
            ours = LoregError(f"the worker failed: {type(error).__name__}", hint="its log says more, at the job's id")
            return partial(jobs.fail, job=job, error=_public_error(ours))

    def _defer(self, job: Job, pause: float, error: LoregError) -> None:
        """Leave a job to others for some seconds."""
        _log.warning("job %s is put back: %s", job.id, error)
        self._deferred[job.id] = time.monotonic() + pause

    def _record_outcome(self, end: Outcome) -> None:
        """Write down how a job ended, however long the database is away. Writing it down twice does no harm."""
        refused = 0
        while refused < _MOST_REFUSALS:
            try:
                with self._catalog.write(Access.superuser(self._name)) as tx:
                    end(tx)
                return
            except _TRANSIENT as error:
                _log.warning("the end of a job could not be written down: %s", error)
                self._pause.wait(_IDLE)
                refused += self._answers()
        _log.error("the end of a job is not written down")

    def _answers(self) -> bool:
        """Whether the database is there: then it is not the time that is wrong with what is to be written."""
        with contextlib.suppress(LoregError):
            self._catalog.describe()
            return True
        return False

    def _clear_up(self, job: Job) -> None:
        """Remove what a bake left that nobody goes on with."""
        folder = self._folder_of(job.request["name"]) if self._models is not None else None
        with contextlib.suppress(LoregError, OSError):
            with self._catalog.read() as tx:
                ended = jobs.has_ended(tx, job)
            if ended and folder is not None:
                discard_staging(folder)

    def _result(self, job: Job, access: Access, heart: Heartbeat) -> dict[str, Any]:
        require(access, "write", namespace_of(job.kind, job.request))
        backing = replace(self._local, policy=self._policy_of(job))
        context = Context(backing.backend(access), backing.store, self._cache, backing.policy)
        request = self._pinned(job, context)
        if (base := request.get("base")) is not None:
            request["base"] = self._base(base)
        if job.kind == "bake":
            name = request.pop("name")
            options = {"device": self._device, "start_over": True, "progress": heart.progress, **request}
            baked = bake(context, folder=self._folder_of(name), **options)
            return {"model": name, "changed": baked.changed, "size": baked.size, "notes": _shorten_notes(baked.notes)}
        verb = merge if job.kind == "merge" else rerank
        merged = verb(context, device=self._device, progress=heart.progress, **request)
        if merged.pushed is None:
            raise NotFoundError("the merge made no version", hint="--push NAME")
        version = merged.pushed.version
        return {"version": version.ref, "digest": version.digest, "notes": _shorten_notes(merged.notes)}

    def _pinned(self, job: Job, context: Context) -> dict[str, Any]:
        """What was asked for, of the versions that it meant when the first worker began."""
        request = pin_refs(job.request, lambda ref: show_version(context, ref).version.pinned)
        if request != job.request:
            with self._catalog.write(Access.superuser(self._name)) as tx:
                jobs.pin_request(tx, job, request)
        return request

    def _policy_of(self, job: Job) -> Policy:
        """The policy of the server that took the job: whoever starts a worker in another folder guards no less."""
        with self._catalog.read() as tx:
            document = jobs.policy_of(tx, job)
        return self._local.policy if document is None else policy_from_json(document)

    def _has_base(self, name: str) -> bool:
        return self._bases is not None and (self._bases / name).is_dir()

    def _base(self, name: str) -> Path:
        if self._bases is None or not self._has_base(name):
            raise NotFoundError(f"this worker has no {name!r} among its bases", hint="loreg worker --bases DIR")
        return self._bases / name

    def _folder_of(self, name: str) -> Path:
        if self._models is None:
            raise NotFoundError(f"this worker has no place for {name!r}", hint="loreg worker --models DIR")
        return self._models / name


class Heartbeat:
    """Says every few seconds that a job goes on, and how far it is; tells the job if nobody wants it any more."""

    def __init__(self, catalog: Catalog, job: Job) -> None:
        self._catalog, self._job = catalog, job
        self._state = ("", 0, 0)
        self._wanted = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Keep how far it is for the next beat. Before another thing is begun, ask whether it is wanted still."""
        begins, self._state = what != self._state[0], (what, done, total)
        while begins and self._wanted and not self._ask():
            self._stopped.wait(_IDLE)  # the database is away: nothing that would be seen is done without it
        if not self._wanted:
            raise JobCancelledError

    def _ask(self) -> bool:
        """Beat once; whether the database answered."""
        try:
            with self._catalog.write(Access.superuser("")) as tx:
                self._wanted = jobs.heartbeat(tx, self._job, *self._state)
        except LoregError:  # whoever is first back has the job
            _log.warning("job %s: no heartbeat", self._job.id)
            return False
        return True

    def _beat(self) -> None:
        while not self._stopped.wait(min(_HEARTBEAT_INTERVAL, _IDLE)):
            self._ask()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()


def _public_error(error: LoregError) -> dict[str, str]:
    """What whoever asked for the job hears of an error."""
    message, hint = error.outside[: 4 * _LONGEST_NOTE], error.hint_outside[:_LONGEST_NOTE]
    return {"code": error.code, "message": message, "hint": hint}


def _shorten_notes(notes: tuple[str, ...]) -> list[str]:
    """Notes as they are kept: a job is a row of a table, and shown on a page with others."""
    return [note[:_LONGEST_NOTE] for note in notes[:_MOST_NOTES]]
