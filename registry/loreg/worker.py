"""A worker: takes jobs from the table and does them, one at a time, as who asked for them."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loreg.catalog import Catalog, Transaction, jobs
from loreg.errors import LoregError, NotFoundError
from loreg.recording.opening import open_backing
from loreg.records import Access, Job, everything
from loreg.settings import Settings
from loreg.verbs.bake import bake
from loreg.verbs.context import Context
from loreg.verbs.merge import merge, rerank

_BEAT = jobs.LIFE.total_seconds() / 3
_IDLE = 1.0
_log = logging.getLogger("loreg.worker")


class _GivenUpError(Exception):
    """The job was cancelled, or another worker has it by now."""


class Worker:
    """Does jobs with the catalog and store of ``settings``.

    ``bases`` is the folder of the models that jobs may name as their base, ``models`` the one that bakes write to.
    """

    def __init__(self, settings: Settings, bases: Path | None, models: Path | None, device: str) -> None:
        self._backing = open_backing(settings)
        self._catalog = self._backing.catalog
        self._cache = settings.home / "cache" / "bases"
        self._bases, self._models, self._device = bases, models, device
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def work(self, *, until_idle: bool = False) -> int:
        """Do jobs until the process is stopped, or until there is none; returns how many."""
        count = 0
        idle = threading.Event()
        while True:
            with self._catalog.write(everything(self._name)) as tx:
                claimed = jobs.claim(tx, self._name)
            if claimed is not None:
                self._do(*claimed)
                count += 1
            elif until_idle:
                self._catalog.close()
                return count
            else:
                idle.wait(_IDLE)

    def _do(self, job: Job, access: Access) -> None:
        _log.info("job %s: %s for %s", job.id, job.kind, job.author)
        end: Callable[[Transaction, Job, dict[str, Any]], None] = jobs.finish
        what: dict[str, Any] = {}
        with _Heart(self._catalog, job) as heart:
            try:
                what = self._result(job, access, heart)
            except _GivenUpError:
                _log.info("job %s was given up", job.id)
                return
            except LoregError as error:
                end, what = jobs.fail, {"code": error.code, "message": error.message, "hint": error.hint}
            except Exception as error:
                _log.exception("job %s", job.id)
                end, what = jobs.fail, {"code": "internal", "message": f"the worker failed: {error}", "hint": ""}
        with self._catalog.write(everything(self._name)) as tx:
            end(tx, job, what)

    def _result(self, job: Job, access: Access, heart: _Heart) -> dict[str, Any]:
        backing = self._backing
        context = Context(backing.ledger(access), backing.store, self._cache, backing.policy)
        request = dict(job.request)
        if (base := request.get("base")) is not None:
            request["base"] = _below(self._bases, base, "bases")
        if job.kind == "bake":
            name = request.pop("name")
            folder = _below(self._models, name, "models", new=True)
            baked = bake(context, folder=folder, device=self._device, progress=heart.progress, **request)
            return {"model": name, "changed": baked.changed, "size": baked.size, "notes": list(baked.notes)}
        verb = merge if job.kind == "merge" else rerank
        merged = verb(context, device=self._device, progress=heart.progress, **request)
        if merged.pushed is None:
            raise NotFoundError("the merge made no version", hint="--push NAME")
        version = merged.pushed.version
        return {"version": version.ref, "digest": version.digest, "notes": list(merged.notes)}


class _Heart:
    """Says every few seconds that a job goes on, and how far it is; tells the job if nobody wants it any more."""

    def __init__(self, catalog: Catalog, job: Job) -> None:
        self._catalog, self._job = catalog, job
        self._state = ("", 0, 0)
        self._wanted = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """How far it is, for the next beat."""
        self._state = (what, done, total)
        if not self._wanted:
            raise _GivenUpError

    def _beat(self) -> None:
        while not self._stopped.wait(min(_BEAT, _IDLE)):
            try:
                with self._catalog.write(everything("")) as tx:
                    self._wanted = jobs.beat(tx, self._job, *self._state)
            except LoregError:  # the database is away: whoever is first back has the job
                _log.warning("job %s: no heartbeat", self._job.id)

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()


def _below(folder: Path | None, name: str, option: str, *, new: bool = False) -> Path:
    """The folder of that name among those that the worker was given."""
    found = folder / name if folder is not None else None
    if found is None or not (new or found.is_dir()):
        raise NotFoundError(f"this worker has no {name!r} among its {option}", hint=f"loreg worker --{option} DIR")
    return found
