"""Workers that are processes of this machine, one task each at a time: who ends is known, and with which task.

A pool of the standard library breaks as a whole when one of its processes ends, and cannot say with which task.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from loreg.errors import LoregError
from loreg.fleet.environment import ONE_THREAD, set_environment
from loreg.fleet.executor import PATIENCE, AnyWorkItem, Executor, Lost, WorkItem

_READY = "ready"
_STARTS = 60.0  # seconds in which a process says that it is there
_MAX_FAILED_STARTS = 5  # one after the other, until there is no sense in another


@dataclass
class _Worker:
    """A process, the connection to it, whether it said that it is there, and the task that it runs."""

    process: SpawnProcess
    connection: Connection
    is_ready: bool = False
    task: WorkItem | None = None


class ProcessExecutor(Executor[AnyWorkItem]):
    """``count`` processes. They end by themselves soon after this one ended, killed or not."""

    def __init__(self, count: int) -> None:
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        try:
            self._workers += [_start() for _ in range(count)]
            while not all(worker.is_ready for worker in self._workers):
                self.wait()
        except BaseException:
            self.close()
            raise

    def room(self) -> int:
        """Return how many processes wait for a task; if all are being replaced, wait until one is there."""
        while self._workers and not any(worker.is_ready for worker in self._workers):
            self.wait()
        return sum(worker.is_ready and worker.task is None for worker in self._workers)

    def submit(self, task: AnyWorkItem) -> None:
        """Give a task to a process that waits for one."""
        worker = next(worker for worker in self._workers if worker.is_ready and worker.task is None)
        worker.task = task
        with contextlib.suppress(OSError):  # it ended meanwhile: wait() sees that
            worker.connection.send(task)

    def wait(self) -> Sequence[tuple[AnyWorkItem, Any]]:
        """Wait until some task ended, or a process that takes the place of one that ended is there; or a second.

        Raises LoregError if processes do not start.
        """
        expected = [worker for worker in self._workers if worker.task is not None or not worker.is_ready]
        is_starting = not any(worker.is_ready for worker in expected)
        ready = wait([worker.connection for worker in expected], _STARTS if is_starting else PATIENCE)
        if is_starting and not ready:
            raise _not_started_error()
        ended: list[tuple[Any, Any]] = []
        for number, worker in enumerate(self._workers):
            if worker.connection not in ready:
                continue
            answer: Any = Lost.WORKER
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(number)
            if worker.task is not None:
                ended.append((worker.task, answer))
                worker.task = None
            elif answer == _READY:
                worker.is_ready, self._failed_starts = True, 0
        return ended

    def close(self) -> None:
        """Kill the processes."""
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def _replace(self, number: int) -> None:
        """Start a process in the place of one that ended."""
        worker = self._workers[number]
        _end(worker)
        self._failed_starts += not worker.is_ready
        if self._failed_starts == _MAX_FAILED_STARTS:
            raise _not_started_error()
        self._workers[number] = _start()


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True, name="loreg-worker")
    with set_environment(ONE_THREAD):
        process.start()
    theirs.close()  # so that ours says when the process ended
    return _Worker(process, ours)


def _not_started_error() -> LoregError:
    return LoregError(
        "a process that is to read adapters did not start",
        hint="a program that calls registry.map does so below if __name__ == '__main__':",
    )


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _serve(connection: Connection) -> None:
    """Run tasks until nobody sends any more; Ctrl-C is for who drives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        connection.send(_READY)
        while True:
            connection.send(connection.recv().run())


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
