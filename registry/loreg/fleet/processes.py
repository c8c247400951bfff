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
from loreg.fleet.executor import AnyWorkItem, Executor, Lost, WorkItem

_READY = "ready"
_STARTS = 60.0  # seconds in which a process says that it is there


@dataclass
class _Worker:
    """A process, the connection to it, and the task that it runs; None if it waits for one."""

    process: SpawnProcess
    connection: Connection
    task: WorkItem | None = None


class ProcessExecutor(Executor[AnyWorkItem]):
    """``count`` processes. They end by themselves soon after this one ended, killed or not."""

    def __init__(self, count: int) -> None:
        self._workers: list[_Worker] = []
        try:
            self._workers += [_start() for _ in range(count)]
            for worker in self._workers:
                _await_ready(worker)
        except BaseException:
            self.close()
            raise

    def room(self) -> int:
        """Return how many processes wait for a task."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: AnyWorkItem) -> None:
        """Give a task to a process that waits for one."""
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task = task
        with contextlib.suppress(OSError):  # it ended meanwhile: wait() sees that
            worker.connection.send(task)

    def wait(self) -> Sequence[tuple[AnyWorkItem, Any]]:
        """Wait until some task ended; a process that ended is replaced."""
        ready = wait([worker.connection for worker in self._workers if worker.task is not None])
        ended: list[tuple[Any, Any]] = []
        for place, worker in enumerate(self._workers):
            if worker.task is None or worker.connection not in ready:
                continue
            answer: Any = Lost.WORKER
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                _end(worker)
                self._workers[place] = _start()
                _await_ready(self._workers[place])
            ended.append((worker.task, answer))
            worker.task = None
        return ended

    def close(self) -> None:
        """Kill the processes."""
        for worker in self._workers:
            _end(worker)
        self._workers = []


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True, name="loreg-worker")
    with set_environment(ONE_THREAD):
        process.start()
    theirs.close()  # so that ours says when the process ended
    return _Worker(process, ours)


def _await_ready(worker: _Worker) -> None:
    try:
        if worker.connection.poll(_STARTS) and worker.connection.recv() == _READY:
            return
    except (EOFError, OSError):
        pass
    raise LoregError(
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
