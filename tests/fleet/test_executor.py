"""Tasks on workers: each is answered once, one whose worker ends is begun again, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet.work_items import Dying, Failing, Square
from loreg.errors import LoregError, MergeError
from loreg.fleet.executor import run_all
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
