"""Workers that run tasks, wherever they are, and what becomes of a task whose worker ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from loreg.errors import LoregError

_MAX_DEATHS = 3  # of workers that had the same task

AnyWorkItem = TypeVar("AnyWorkItem", bound="WorkItem")


class WorkItem(Protocol):
    """What one worker does at a time: it travels to the worker, and its answer back."""

    def run(self) -> Any:
        """Return the answer. Nothing is raised: what failed is part of it."""
        ...


class Lost(Enum):
    """Why a task has no answer: its own ``WORKER`` ended, or the ``MACHINE`` was lost or had no memory left."""

    WORKER = auto()
    MACHINE = auto()


class Executor(Protocol[AnyWorkItem]):
    """Workers that run tasks, each one at a time. Close it when done, whatever happens."""

    def room(self) -> int:
        """Return how many tasks would be begun at once: at least one if none is under way."""
        ...

    def submit(self, task: AnyWorkItem) -> None:
        """Begin a task, if there is room."""
        ...

    def wait(self) -> Sequence[tuple[AnyWorkItem, Any]]:
        """Wait until something happened; return the tasks that ended, each with its answer, or why it is lost."""
        ...

    def close(self) -> None:
        """End the workers, whatever they do."""
        ...


def run_all(executor: Executor[AnyWorkItem], tasks: Iterable[AnyWorkItem]) -> Iterator[tuple[AnyWorkItem, Any]]:
    """Run tasks, and yield each with its answer when it ended; one that was lost is begun again.

    Raises the first LoregError that is an answer, and LoregError for a task that three workers ended with.
    """
    queue = deque(tasks)
    deaths: Counter[int] = Counter()
    in_flight = 0
    while queue or in_flight:
        while queue and executor.room() > 0:
            executor.submit(queue.popleft())
            in_flight += 1
        for task, answer in executor.wait():
            in_flight -= 1
            if isinstance(answer, LoregError):
                raise answer
            if not isinstance(answer, Lost):
                yield task, answer
                continue
            deaths[id(task)] += answer is Lost.WORKER
            if deaths[id(task)] == _MAX_DEATHS:
                raise LoregError(
                    f"{task} ended its worker {_MAX_DEATHS} times", hint="a worker with more memory, or leave --on out"
                )
            queue.append(task)
