"""Do jobs: claim them from the catalog, run them one at a time, each with the permissions of its submitter."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loreg.baking.bake import discard_staging
from loreg.catalog import Transaction, jobs
from loreg.checking.policy import Policy, policy_from_json
from loreg.entities import Access, Job, JobKind
from loreg.errors import ConflictError, LoregError, NotFoundError, UnavailableError, UnderWayError
from loreg.fleet.ray_tasks import require_cluster
from loreg.local.authorization import require
from loreg.local.factory import open_local
from loreg.local.heartbeat import Heartbeat, JobCancelledError
from loreg.local.jobs import namespace_of, pin_refs
from loreg.local.webhook_deliverer import delivering
from loreg.local.webhook_transport import parse_networks
from loreg.requests import read_request
from loreg.settings import RETENTION, Settings
from loreg.verbs.bake import bake
from loreg.verbs.merge import merge
from loreg.verbs.upkeep_jobs import UpkeepRules, run_upkeep
from loreg.workspace.context import Context, show_version
from loreg.workspace.resolve_sources import has_torch

_IDLE = 1.0  # seconds before something that failed, or found no job, is tried again
_POLL = 5.0  # seconds between two polls where the database notifies of new jobs
_CLEANUP_INTERVAL = 3600.0  # seconds
_MAX_CONNECT_ATTEMPTS = 5  # to reach a database that never answered, or while the caller waits
_MAX_REFUSALS = 20  # of an outcome by a database that answers
_MAX_NOTES = 50
_MAX_NOTE_LENGTH = 500  # characters
#: Raised where the database does not answer or another transaction was first: the transaction is tried again.
_TRANSIENT = (UnavailableError, ConflictError)
_log = logging.getLogger("loreg.worker")

#: Records in a transaction how a job ended, or that it is to be tried again.
Outcome = Callable[[Transaction], None]


class Worker:
    """Does jobs with the catalog and store of ``settings``.

    ``bases`` is the folder of the models that jobs may name as their base, ``models`` the one that bakes write to. Jobs
    that need a folder which this worker lacks are left to others. ``repair_sources`` are the places that a repair may
    bring blobs back from, ``backup_targets`` those that a backup may go to. It delivers to webhooks, also to those in
    ``webhook_networks``, which are not public. Maps, merges and bakes run ``on`` a cluster of Ray, ``ray://HOST:6379``,
    or on this machine. Raises UsageError for what is no such cluster.
    """

    def __init__(
        self,
        settings: Settings,
        bases: Path | None,
        models: Path | None,
        device: str,
        repair_sources: Sequence[str] = (),
        backup_targets: Sequence[str] = (),
        webhook_networks: str = "",
        on: str = "",
    ) -> None:
        if on:
            require_cluster(on)
        self._settings, self._on = settings, on
        self._upkeep_rules = UpkeepRules(repair_sources, backup_targets, on=on)
        self._webhook_networks = parse_networks(webhook_networks)
        self._local = open_local(settings)
        self._catalog = self._local.catalog
        self._listener = self._catalog.listen(jobs.CHANNEL)
        self._cache = settings.home / "cache" / "bases"
        self._bases, self._models, self._device = bases, models, device
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._deferred: dict[int, float] = {}  # jobs that were requeued, and until when they are left to others
        self._cleaned_up_at = -_CLEANUP_INTERVAL
        self._pause = threading.Event()  # is never set

    def work(self, *, until_idle: bool = False) -> int:
        """Do jobs until the process is stopped or, with ``until_idle``, none is left that it can do; returns how many.

        Waits for a database that does not answer, and raises UnavailableError if it never did or if ``until_idle``.
        """
        count = failures = 0
        answered = False
        self._deferred = {}
        background = contextlib.nullcontext() if until_idle else delivering(self._catalog, self._webhook_networks)
        with contextlib.closing(self._catalog), contextlib.closing(self._listener), background:
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
                    self._process(*claimed)
                    count += 1
                elif until_idle:
                    return count
                else:
                    self._listener.wait(_POLL, without=_IDLE)

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

    def _process(self, job: Job, access: Access) -> None:
        _log.info("job %s: %s for %s", job.id, job.kind, job.author)
        with Heartbeat(self._catalog, job) as heartbeat:
            try:
                self._record_outcome(self._run(job, access, heartbeat))
            except JobCancelledError:
                _log.info("job %s was given up", job.id)
            except BaseException:  # this process is to end: another worker may have the job at once
                with contextlib.suppress(LoregError), self._catalog.write(Access.superuser(self._name)) as tx:
                    jobs.requeue(tx, job)
                raise
        if job.kind == JobKind.BAKE:
            self._discard_staging(job)

    def _run(self, job: Job, access: Access, heartbeat: Heartbeat) -> Outcome:
        """Run the job; returns how to record its result, its error, or that it is to be tried again."""
        try:
            return partial(jobs.finish, job=job, result=self._call_verb(job, access, heartbeat))
        except UnderWayError as error:  # a worker taken for dead is alive, and has the folder
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
            failure = LoregError(
                f"the worker failed: {type(error).__name__}", hint="its log says more, at the job's id"
            )
            return partial(jobs.fail, job=job, error=_public_error(failure))

    def _defer(self, job: Job, pause: float, error: LoregError) -> None:
        """Leave the job to other workers for ``pause`` seconds."""
        _log.warning("job %s is put back: %s", job.id, error)
        self._deferred[job.id] = time.monotonic() + pause

    def _record_outcome(self, record: Outcome) -> None:
        """Record how a job ended, however long the database is away. Recording it twice does no harm."""
        refusals = 0
        while refusals < _MAX_REFUSALS:
            try:
                with self._catalog.write(Access.superuser(self._name)) as tx:
                    record(tx)
                return
            except _TRANSIENT as error:
                _log.warning("the end of a job could not be written down: %s", error)
                self._pause.wait(_IDLE)
                refusals += self._is_database_up()
        _log.error("the end of a job is not written down")

    def _is_database_up(self) -> bool:
        """Return whether the database answers: then waiting hardly makes it accept what it refused."""
        with contextlib.suppress(LoregError):
            self._catalog.describe()
            return True
        return False

    def _discard_staging(self, job: Job) -> None:
        """Remove the staging folder of a bake that has ended, not of one that is to be tried again."""
        folder = self._model_folder(job.request["name"]) if self._models is not None else None
        with contextlib.suppress(LoregError, OSError):
            with self._catalog.read() as tx:
                ended = jobs.has_ended(tx, job)
            if ended and folder is not None:
                discard_staging(folder)

    def _call_verb(self, job: Job, access: Access, heartbeat: Heartbeat) -> dict[str, object]:
        """Call the verb that the job names; returns the job's result."""
        require(access, job.kind.role, namespace_of(job.kind, job.request))
        policy, retention = self._policies_of(job)
        local_registry = replace(self._local, policy=policy)
        context = Context(local_registry.backend(access), local_registry.store, self._cache, local_registry.policy)
        if job.kind.is_upkeep:
            rules = replace(self._upkeep_rules, retention=retention)
            return run_upkeep(context, self._settings, job.kind, job.request, rules, heartbeat.progress)
        request = read_request(job.kind, self._pin_request(job, context), hint=f"loreg {job.kind} --help")
        base = self._base_folder(request.base) if request.base is not None else None
        name = request.name or ""
        if job.kind == JobKind.BAKE and base is not None:
            baked = bake(
                context,
                request.sources,
                base,
                self._model_folder(name),
                request.options,
                dtype=request.dtype,
                verify=request.verify,
                start_over=True,
                device=self._device,
                on=self._on,
                progress=heartbeat.progress,
            )
            return {"model": name, "changed": baked.changed, "size": baked.size, "notes": _shorten_notes(baked.notes)}
        merged = merge(
            context,
            request.sources,
            request.options,
            base=base,
            name=name,
            metadata=request.metadata,
            device=self._device,
            on=self._on,
            progress=heartbeat.progress,
        )
        if merged.pushed is None:
            raise NotFoundError("the merge made no version", hint="--push NAME")
        version = merged.pushed.version
        return {"version": version.ref, "digest": version.digest, "notes": _shorten_notes(merged.notes)}

    def _pin_request(self, job: Job, context: Context) -> dict[str, object]:
        """Return the request with refs pinned to the versions that they meant when the first worker began."""
        request = pin_refs(job.request, lambda ref: show_version(context, ref).version.pinned)
        if request != job.request:
            with self._catalog.write(Access.superuser(self._name)) as tx:
                jobs.pin_request(tx, job, request)
        return request

    def _policies_of(self, job: Job) -> tuple[Policy, Mapping[str, Any]]:
        """Return the policy, and the retention, of the server that took the job.

        A worker in another folder guards aliases no less, and prunes no other versions.
        """
        with self._catalog.read() as tx:
            document = jobs.find_policy(tx, job)
        if document is None:
            return self._local.policy, {}
        retention = document.get(RETENTION)
        return policy_from_json(document), retention if isinstance(retention, Mapping) else {}

    def _has_base(self, name: str) -> bool:
        return self._bases is not None and (self._bases / name).is_dir()

    def _base_folder(self, name: str) -> Path:
        if self._bases is None or not self._has_base(name):
            raise NotFoundError(
                f"this worker has no {name!r} among its bases",
                hint="whoever runs the worker names its folder: loreg worker --help",
            )
        return self._bases / name

    def _model_folder(self, name: str) -> Path:
        if self._models is None:
            raise NotFoundError(
                f"this worker has no place for {name!r}",
                hint="whoever runs the worker names its folder: loreg worker --help",
            )
        return self._models / name


def _public_error(error: LoregError) -> dict[str, str]:
    """Return the error as it is shown to the user who submitted the job."""
    message, hint = error.outside[: 4 * _MAX_NOTE_LENGTH], error.hint_outside[:_MAX_NOTE_LENGTH]
    return {"code": error.code, "message": message, "hint": hint}


def _shorten_notes(notes: tuple[str, ...]) -> list[str]:
    """Return as many and as long notes as are stored: a job is one row, and listed on a page with others."""
    return [note[:_MAX_NOTE_LENGTH] for note in notes[:_MAX_NOTES]]
