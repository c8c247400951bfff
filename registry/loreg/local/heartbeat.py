"""Tell the catalog that a job goes on and how far it is, while a worker does it."""

from __future__ import annotations

import logging
import threading

from loreg.catalog import Catalog, jobs
from loreg.entities import Access, Job
from loreg.errors import LoregError

_INTERVAL = 1.0  # seconds between two heartbeats, far less than the lease of a job
_log = logging.getLogger("loreg.worker")


class JobCancelledError(Exception):
    """The job was cancelled, or another worker has it by now."""


class Heartbeat:
    """Reports every second that a job goes on and how far it is; stops one that is cancelled or lost."""

    def __init__(self, catalog: Catalog, job: Job) -> None:
        self._catalog, self._job = catalog, job
        self._state = ("", 0, 0)
        self._is_active = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Set what the next beat reports. Raises JobCancelledError if the job was cancelled or another worker has it.

        Beats at once where ``what`` is new, and waits until the database has answered.
        """
        is_new, self._state = what != self._state[0], (what, done, total)
        while is_new and self._is_active and not self._beat():
            self._stopped.wait(_INTERVAL)  # nothing that others could see is done while the database is away
        if not self._is_active:
            raise JobCancelledError

    def _beat(self) -> bool:
        """Send one heartbeat; returns whether the database answered."""
        try:
            with self._catalog.write(Access.superuser("")) as tx:
                self._is_active = jobs.heartbeat(tx, self._job, *self._state)
        except LoregError:  # the lease decides who has the job when the database is back
            _log.warning("job %s: no heartbeat", self._job.id)
            return False
        return True

    def _keep_beating(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            self._beat()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()
