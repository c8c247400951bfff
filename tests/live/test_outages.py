"""Followers while what lies behind the registry is away: the folder stays, one line says so, and it catches up."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from concurrency import eventually
from deployments import HISTORY, SCIENCE, Deployment
from faults.followed import look_at_followed
from live_server import live_server
from loreg.catalog import Catalog
from loreg.entities import SyncReport
from loreg.errors import LoregError, UnavailableError
from loreg.registry import Registry, connect
from services import Restartable, S3Server, new_database, restartable_postgres, restartable_s3

Servers = tuple[tuple[str, Restartable], tuple[S3Server, Restartable]]
_count = itertools.count()


@dataclass
class Behind:
    """A registry whose database and store are taken away alone: ``registry`` asks them, ``follower`` perhaps a server.

    ``digests`` are those of team/news:v1, which is prod, and of v2.
    """

    database: Restartable
    store: Restartable
    registry: Registry
    follower: Registry
    digests: tuple[str, str]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with restartable_postgres() as database, restartable_s3() as store:
        yield database, store


@pytest.fixture(params=["straight", "server"])
def behind(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Behind]:
    (url, database), (s3, store) = servers
    name = f"outage{next(_count)}"
    with new_database(url, name) as database_url, contextlib.ExitStack() as stack:
        catalog = Catalog(database_url)
        catalog.upgrade()
        catalog.close()
        deployment = Deployment(database_url, f"s3://{s3.bucket}/{name}", s3.endpoint)
        registry = stack.enter_context(connect(**deployment.settings))
        digests = [registry.push(source, "team/news").version.digest for source in (SCIENCE, HISTORY)]
        registry.tag("team/news:v1", "prod")
        settings = deployment.settings
        if request.param == "server":
            settings = {"endpoint": stack.enter_context(live_server(deployment))}
        yield Behind(database, store, registry, stack.enter_context(connect(**settings)), (digests[0], digests[1]))


def start(process: Restartable) -> None:
    """PostgreSQL refuses to begin while a process of the one before lives on."""

    def has_started() -> bool:
        with contextlib.suppress(RuntimeError):
            process.start()
            return True
        return False

    eventually(has_started)


class Watched:
    """A folder that a thread follows, and one that looks at it all the time; use it in a ``with`` block."""

    def __init__(self, behind: Behind, folder: Path) -> None:
        self.folder = folder
        self.seen: list[SyncReport | LoregError] = []
        self.shown: list[str] = []
        self.wrong: list[str] = []
        self._registry, self._end = behind.registry, threading.Event()
        self._following: Any = behind.follower.follow("team/news:prod", folder)

    def __enter__(self) -> Watched:
        self.seen.append(next(self._following))
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._follow, self._look)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, error: object, *rest: object) -> None:
        follow, look = self._threads
        self._end.set()
        look.join()
        if error is None:
            eventually(
                lambda: is_committed(lambda: self._registry.untag("team/news", "prod"))
            )  # the last thing to yield
            follow.join()

    def _follow(self) -> None:
        with contextlib.closing(self._following):
            for yielded in self._following:
                if self._end.is_set():
                    return
                self.seen.append(yielded)

    def _look(self) -> None:
        while not self._end.wait(0.005):
            sentences, content = look_at_followed(self.folder)
            self.wrong += sentences
            if not self.shown or self.shown[-1] != content["team/news"]:
                self.shown.append(content["team/news"])

    @property
    def errors(self) -> list[str]:
        return [error.message for error in self.seen if isinstance(error, LoregError)]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a follower wants to wait after each failure; it waits a tenth of that."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds / 10)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr("loreg.verbs.sync.time", clock)
    return pauses


def is_committed(change: Callable[[], object]) -> bool:
    """Make a change; False if the database is still starting, or a connection is one of before."""
    with contextlib.suppress(UnavailableError):
        change()
        return True
    return False


def move(behind: Behind, version: int) -> None:
    eventually(lambda: is_committed(lambda: behind.registry.tag(f"team/news:v{version}", "prod")))


def is_shown(watched: Watched, digest: str) -> bool:
    return watched.shown[-1:] == [digest]


def hold_at(monkeypatch: pytest.MonkeyPatch, follower: Registry) -> tuple[threading.Event, threading.Event]:
    """Let the follower stop before it asks what the selection means: ``asked`` says that it has, ``go`` lets it go."""
    backend: Any = follower.context.backend
    select: Callable[[Sequence[Any], Any], Any] = backend.select
    asked, go = threading.Event(), threading.Event()

    def wait_and_select(selectors: Sequence[Any], query: Any) -> Any:
        asked.set()
        assert go.wait(60)
        return select(selectors, query)

    monkeypatch.setattr(backend, "select", wait_and_select)
    return asked, go


def test_what_was_told_while_the_database_went_away_is_done_when_it_is_back(
    behind: Behind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
):
    """The event came, and the database died before it was asked: nobody will tell of it again."""
    with Watched(behind, tmp_path / "adapters") as watched:
        asked, go = hold_at(monkeypatch, behind.follower)
        behind.registry.tag("team/news:v2", "prod")
        assert asked.wait(60)
        behind.database.kill()
        go.set()
        eventually(lambda: len(pauses) >= 3)
        assert watched.shown == [behind.digests[0]]
        start(behind.database)
        eventually(lambda: watched.shown[-1] == behind.digests[1])
    assert (watched.shown, watched.wrong) == ([*behind.digests], [])
    assert len(watched.errors) == 1, watched.errors
    assert len([record for record in caplog.records if record.name == "loreg.events"]) <= 1
    # The pauses grow: no two attempts follow at once, however long it lasts.
    assert all(pause >= 0.5 * min(0.2 * 2**number, 15) for number, pause in enumerate(pauses[:3])), pauses


def test_a_move_after_the_database_is_back_is_followed(behind: Behind, tmp_path: Path, pauses: list[float]):
    with Watched(behind, tmp_path / "adapters") as watched:
        for version in (2, 1, 2):
            behind.database.kill()
            start(behind.database)
            move(behind, version)
            eventually(partial(is_shown, watched, behind.digests[version - 1]))
    first, second = behind.digests
    assert (watched.shown, watched.wrong) == ([first, second, first, second], [])


def test_what_was_told_while_the_store_is_away_is_done_when_it_is_back(
    behind: Behind, tmp_path: Path, pauses: list[float]
):
    with Watched(behind, tmp_path / "adapters") as watched:
        behind.store.kill()
        behind.registry.tag("team/news:v2", "prod")
        eventually(lambda: len(watched.seen) >= 2)
        assert watched.shown == [behind.digests[0]]
        start(behind.store)
        eventually(lambda: watched.shown[-1] == behind.digests[1])
    assert (watched.shown, watched.wrong) == ([*behind.digests], [])
