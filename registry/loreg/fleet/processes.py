"""Workers that are processes of this machine, one chunk each at a time: who ends is known, and with which chunk.

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

from loreg.entities import MapChunk
from loreg.errors import LoregError
from loreg.fleet.chunk import ChunkAnswer, ChunkTask, probe_chunk
from loreg.fleet.environment import ONE_THREAD, set_environment

_READY = "ready"
_STARTS = 60.0  # seconds in which a process says that it is there


@dataclass
class _Worker:
    """A process, the connection to it, and the chunk that it probes; None if it waits for one."""

    process: SpawnProcess
    connection: Connection
    chunk: MapChunk | None = None


class ProcessExecutor:
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
        """Return how many processes wait for a chunk."""
        return sum(worker.chunk is None for worker in self._workers)

    def submit(self, task: ChunkTask) -> None:
        """Give a chunk to a process that waits for one."""
        worker = next(worker for worker in self._workers if worker.chunk is None)
        worker.chunk = task.chunk
        with contextlib.suppress(OSError):  # it ended meanwhile: wait() sees that
            worker.connection.send(task)

    def wait(self) -> Sequence[tuple[MapChunk, ChunkAnswer | None]]:
        """Wait until some chunk ended; a process that ended is replaced."""
        ready = wait([worker.connection for worker in self._workers if worker.chunk is not None])
        ended: list[tuple[MapChunk, ChunkAnswer | None]] = []
        for place, worker in enumerate(self._workers):
            if worker.chunk is None or worker.connection not in ready:
                continue
            answer: ChunkAnswer | None = None
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                _end(worker)
                self._workers[place] = _start()
                _await_ready(self._workers[place])
            ended.append((worker.chunk, answer))
            worker.chunk = None
        return ended

    def close(self) -> None:
        """Kill the processes."""
        for worker in self._workers:
            _end(worker)
        self._workers = []


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True, name="loreg-map")
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
    """Probe chunks until nobody sends any more; Ctrl-C is for who drives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        connection.send(_READY)
        while True:
            connection.send(probe_chunk(connection.recv()))


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
