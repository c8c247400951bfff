"""A server counts among very many adapters no oftener than it can, and tells nobody what he may no longer read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import SCIENCE
from loreg.catalog import Catalog, namespaces
from loreg.entities import Access, Role
from loreg.local.recent_answers import RecentAnswers

ROOT = Access.superuser("root")


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A count that takes so many seconds, and answers how often it was made."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.times = clock, seconds, 0

    def __call__(self) -> int:
        self.times += 1
        self.clock.now += self.seconds
        return self.times


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    yield catalog
    catalog.close()


def test_what_is_quick_is_counted_each_time(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 0.1)
    with catalog.read(ROOT) as tx:
        assert [answers.get(tx, "tasks", count) for _ in range(3)] == [1, 2, 3]


def test_what_is_slow_takes_a_twentieth_of_the_time_at_most(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 4.0)
    with catalog.read(ROOT) as tx:
        assert answers.get(tx, "tasks", count) == 1
        clock.now += 79
        assert answers.get(tx, "tasks", count) == 1
        clock.now += 2
        assert answers.get(tx, "tasks", count) == 2


def test_no_answer_is_older_than_five_minutes(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 100.0)
    with catalog.read(ROOT) as tx:
        answers.get(tx, "tasks", count)
        clock.now += 301
        assert answers.get(tx, "tasks", count) == 2


def test_other_questions_have_other_answers(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 4.0)
    with catalog.read(ROOT) as tx:
        assert [answers.get(tx, ("tasks", cursor), count) for cursor in (None, "next", None)] == [1, 2, 1]


def test_while_it_is_counted_anew_the_others_get_the_answer_before(catalog: Catalog):
    clock = Clock()
    answers, slow = RecentAnswers(clock), Counting(clock, 4.0)
    with catalog.read(ROOT) as tx:
        answers.get(tx, "tasks", slow)
        clock.now += 100

        def count() -> int:
            assert answers.get(tx, "tasks", slow) == 1
            return slow()

        assert answers.get(tx, "tasks", count) == 2


def test_a_count_that_fails_is_made_again(catalog: Catalog):
    clock = Clock()
    answers, slow = RecentAnswers(clock), Counting(clock, 4.0)
    with catalog.read(ROOT) as tx:
        answers.get(tx, "tasks", slow)
        clock.now += 100
        with pytest.raises(ZeroDivisionError):
            answers.get(tx, "tasks", lambda: 1 // 0)
        assert answers.get(tx, "tasks", slow) == 2


def test_who_may_read_other_namespaces_gets_another_answer(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 4.0)
    asked = [ROOT, Access("a", {"team": Role.READ}), Access("b", {"lab": Role.READ}), Access("c", {"team": Role.WRITE})]
    answered = []
    for access in asked:
        with catalog.read(access) as tx:
            answered.append(answers.get(tx, "tasks", count))
    assert answered == [1, 2, 3, 2]


def test_what_was_made_private_is_told_no_more(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 4.0)
    nobody = Access("", {})

    def ask() -> int:
        with catalog.read(nobody) as tx:
            return answers.get(tx, "tasks", count)

    def set_public(public: bool) -> None:
        with catalog.write(ROOT) as tx:
            namespaces.set_public(tx, "team", public)

    set_public(True)
    assert [ask(), ask()] == [1, 1]
    set_public(False)
    assert ask() == 2


def test_no_more_answers_are_kept_than_a_server_has_room_for(catalog: Catalog):
    clock = Clock()
    answers, count = RecentAnswers(clock), Counting(clock, 4.0)
    with catalog.read(ROOT) as tx:
        for number in range(300):
            answers.get(tx, number, count)
        assert answers.get(tx, 299, count) == 300
        assert answers.get(tx, 0, count) == 301


def test_a_server_gives_a_recent_answer_and_a_program_what_is_so_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from loreg.local.factory import open_local
    from loreg.registry import connect
    from loreg.server.run import open_service
    from loreg.settings import load

    monkeypatch.setattr("loreg.local.recent_answers._LONG", 0.0)
    monkeypatch.setattr("loreg.local.recent_answers._TIMES", 1e9)
    place = {"LOREG_DATABASE_URL": f"sqlite:///{tmp_path}/c.db", "LOREG_STORAGE_URL": str(tmp_path / "store")}
    settings = load({}, place)
    server, program = open_service(settings, is_open=True).backend(ROOT), open_local(settings).backend(ROOT)
    assert server.task_summaries(10, None).items == program.task_summaries(10, None).items == ()
    with connect(database_url=settings.database_url, storage_url=settings.storage_url) as registry:
        registry.push(SCIENCE, "team/a", tasks=["qa"])
    assert [task.task for task in program.task_summaries(10, None)] == ["qa"]
    assert server.task_summaries(10, None).items == ()
