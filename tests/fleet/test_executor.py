"""Tasks on workers: each is answered once, one whose worker ends is begun again, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from fleet.work_items import Dying, Endless, Failing, Square
from loreg.errors import LoregError, MergeError
from loreg.fleet.executor import Lost, run_all, run_each
from loreg.fleet.processes import ProcessExecutor


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    with closing(ProcessExecutor(2)) as executor:
        yield executor


def test_every_task_is_answered_once(executor: ProcessExecutor):
    answers = list(run_all(executor, [Square(number) for number in range(9)]))
    assert sorted(answers, key=lambda pair: pair[1]) == [(Square(number), number**2) for number in range(9)]


def test_a_task_whose_worker_ended_is_begun_again(executor: ProcessExecutor, tmp_path: Path):
    dying = Dying(tmp_path, 2)
    assert set(run_all(executor, [dying, Square(3)])) == {(dying, 2), (Square(3), 9)}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_task_that_ends_every_worker_is_given_up(executor: ProcessExecutor, tmp_path: Path):
    with pytest.raises(LoregError, match="ended its worker 3 times"):
        list(run_all(executor, [Dying(tmp_path, 99)]))
    assert len(list(tmp_path.iterdir())) == 3


def test_an_error_that_is_the_answer_is_raised_as_it_was(executor: ProcessExecutor):
    with pytest.raises(MergeError, match="no such sum") as caught:
        list(run_all(executor, [Failing()]))
    assert caught.value.hint == "loreg merge --help"


def test_no_more_is_taken_than_runs_at_once(executor: ProcessExecutor):
    taken: list[int] = []

    def squares() -> Iterator[Square]:
        for number in range(5):
            taken.append(number)
            yield Square(number)

    answered = 0
    for _, _ in run_each(executor, squares(), limit=1):
        answered += 1
        assert len(taken) == answered
    assert answered == 5


class StoppedError(Exception):
    """Somebody gave up what is waited for."""


def stop_once_begun(folder: Path) -> Callable[[], None]:
    """Return what stops whoever waits for a task that leaves a file in the folder."""

    def stop() -> None:
        if list(folder.iterdir()):
            raise StoppedError

    return stop


def test_who_waits_is_asked_whether_to_go_on_and_leaves_no_task_behind(tmp_path: Path):
    with pytest.raises(StoppedError), closing(ProcessExecutor(1)) as executor:
        list(run_all(executor, [Endless(tmp_path)], stop_once_begun(tmp_path)))
    (worker,) = tmp_path.iterdir()
    assert not psutil.pid_exists(int(worker.name))


class WithoutMemory(ProcessExecutor[Square]):
    """Machines that have no memory left for the square of 3."""

    def wait(self) -> list[tuple[Square, object]]:
        return [(task, Lost.MACHINE if task.number == 3 else answer) for task, answer in super().wait()]


def test_a_task_that_no_machine_has_memory_for_is_given_up_and_the_others_are_answered():
    with closing(WithoutMemory(1)) as executor:
        answers = dict(run_each(executor, [Square(2), Square(3), Square(4)]))
    assert (answers[Square(2)], answers[Square(4)]) == (4, 16)
    assert "was lost 10 times, with machines that ended or had no memory left" in str(answers[Square(3)])
