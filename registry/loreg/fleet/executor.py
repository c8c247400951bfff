"""Workers that run tasks, wherever they are, and what becomes of a task whose worker ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from loreg.errors import LoregError

_MAX_DEATHS = 3  # of workers that had the same task
_MAX_LOSSES = 10  # of the same task, with workers or machines
PATIENCE = 1.0  # seconds after which whoever waits is asked whether to go on

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
        """Wait until something happened, for a second at most once there are workers.

        Return the tasks that ended, each with its answer, or why it is lost.
        """
        ...

    def close(self) -> None:
        """End the workers, whatever they do."""
        ...


def run_all(
    executor: Executor[AnyWorkItem], tasks: Iterable[AnyWorkItem], on_wait: Callable[[], None] = lambda: None
) -> Iterator[tuple[AnyWorkItem, Any]]:
    """Run tasks, and yield each with its answer when it ended; one that was lost is begun again.

    ``on_wait`` is called each second, and raises what is to stop it. Raises the first LoregError that is an answer, and
    LoregError for a task that three workers ended with.
    """
    for task, answer in run_each(executor, tasks, on_wait=on_wait):
        if isinstance(answer, LoregError):
            raise answer
        yield task, answer


def run_each(
    executor: Executor[AnyWorkItem],
    tasks: Iterable[AnyWorkItem],
    limit: int | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[AnyWorkItem, Any]]:
    """Run tasks, ``limit`` at once, and yield each with its answer when it ended; one that was lost is begun again.

    Of ``tasks`` no more are taken than there is room for; ``on_wait`` is called each second. A LoregError is the answer
    of a task that three workers ended with, or that was lost ten times in all.
    """
    new, again = iter(tasks), deque[AnyWorkItem]()
    losses: dict[int, Counter[Lost]] = {}
    in_flight = 0
    while True:
        while executor.room() > 0 and (limit is None or in_flight < limit):
            task = again.popleft() if again else next(new, None)
            if task is None:
                break
            executor.submit(task)
            in_flight += 1
        if not in_flight:
            return
        on_wait()
        for task, answer in executor.wait():
            in_flight -= 1
            if isinstance(answer, Lost):
                counts = losses.setdefault(id(task), Counter())
                counts[answer] += 1
                if counts[Lost.WORKER] < _MAX_DEATHS and counts.total() < _MAX_LOSSES:
                    again.append(task)
                    continue
            counts = losses.pop(id(task), Counter())
            yield task, _give_up(task, counts) if isinstance(answer, Lost) else answer


def _give_up(task: WorkItem, counts: Counter[Lost]) -> LoregError:
    what = (
        f"ended its worker {_MAX_DEATHS} times"
        if counts[Lost.WORKER] == _MAX_DEATHS
        else f"was lost {_MAX_LOSSES} times, with machines that ended or had no memory left"
    )
    return LoregError(f"{task} {what}", hint="a worker with more memory, or leave --on out")
