"""Two who set, remove or hide at once: whoever said what the alias meant is told if that is so no more.

The other is held at the worst place, with his statement made and not committed, and the one who waits is seen waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from concurrency import eventually, somebody_waits
from deployments import Deployment
from factories import train
from live_server import live_server
from loreg.catalog import Transaction, aliases
from loreg.errors import CheckFailedError, NotAllowedError, NotFoundError, StaleError
from loreg.registry import Registry, connect

ALIAS = "/api/v1/adapters/team/a/aliases/prod"
MOVE = """
    UPDATE aliases SET version_id = (SELECT id FROM versions WHERE number = 2) WHERE alias = 'prod'
"""
MAKE = """
    INSERT INTO aliases (adapter_id, alias, version_id)
    SELECT adapter_id, 'prod', id FROM versions WHERE number = 2
"""


def two_versions(local_registry: Registry, folder: Path) -> None:
    local_registry.push(train(folder / "a", 1), "team/a")
    local_registry.push(train(folder / "b", 2), "team/a")


@dataclass(frozen=True)
class PostgresRegistry:
    """A PostgreSQL registry with a server, and a connection beside it whose transaction is open."""

    local_registry: Registry
    http: httpx.Client
    url: str

    @contextmanager
    def statement(self, sql: str) -> Iterator[psycopg.Connection[Any]]:
        """The statement of somebody else, made and not committed."""
        with psycopg.connect(self.url) as other:
            other.execute(sql)
            yield other


@pytest.fixture
def editable(postgres_and_s3: Deployment, tmp_path: Path) -> Iterator[PostgresRegistry]:
    deployment = postgres_and_s3
    with (
        connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as local_registry,
        live_server(deployment) as endpoint,
        httpx.Client(base_url=endpoint, timeout=60) as http,
    ):
        two_versions(local_registry, tmp_path)
        yield PostgresRegistry(local_registry, http, deployment.database_url)


def after(editable: PostgresRegistry, sql: str, call: Callable[[], Any]) -> Any:
    """What comes of the call, which waits for the statement of somebody else until that is committed."""
    with ThreadPoolExecutor(1) as pool, editable.statement(sql) as other:
        done: Future[Any] = pool.submit(call)
        eventually(lambda: somebody_waits(editable.url))
        other.commit()
        return done.result()


def meant(local_registry: Registry) -> int | None:
    try:
        return local_registry.show("team/a:prod").version.number
    except NotFoundError:
        return None


@pytest.mark.parametrize("ref", ["team/a:v1", "team/a:v2"])
def test_if_match_holds_against_a_move_that_is_not_committed_yet(editable: PostgresRegistry, ref: str):
    editable.local_registry.tag("team/a:v1", "prod")
    put = lambda: editable.http.put(ALIAS, json={"ref": ref}, headers={"If-Match": '"v1"'})  # noqa: E731
    answer = after(editable, MOVE, put)
    assert (answer.status_code, answer.json()["code"]) == (412, "stale")
    assert "means v2 by now, not v1" in answer.json()["detail"]
    assert meant(editable.local_registry) == 2


def test_if_none_match_holds_against_an_alias_that_is_not_committed_yet(editable: PostgresRegistry):
    put = lambda: editable.http.put(ALIAS, json={"ref": "team/a:v1"}, headers={"If-None-Match": "*"})  # noqa: E731
    assert after(editable, MAKE, put).status_code == 412
    assert meant(editable.local_registry) == 2


def test_if_match_holds_against_a_removal_that_is_not_committed_yet(editable: PostgresRegistry):
    editable.local_registry.tag("team/a:v1", "prod")
    put = lambda: editable.http.put(ALIAS, json={"ref": "team/a:v2"}, headers={"If-Match": '"v1"'})  # noqa: E731
    answer = after(editable, "DELETE FROM aliases WHERE alias = 'prod'", put)
    assert (answer.status_code, meant(editable.local_registry)) == (412, None)


def test_a_removal_with_if_match_removes_only_what_was_seen(editable: PostgresRegistry):
    editable.local_registry.tag("team/a:v1", "prod")
    delete = lambda: editable.http.delete(ALIAS, headers={"If-Match": '"v1"'})  # noqa: E731
    assert after(editable, MOVE, delete).status_code == 412
    assert meant(editable.local_registry) == 2
    assert editable.http.delete(ALIAS, headers={"If-Match": '"v2"'}).status_code == 204
    assert meant(editable.local_registry) is None


class Paused:
    """Holds the first who reaches a function of the catalog inside his transaction, until he is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        function, first = getattr(module, name), threading.Lock()

        def pausing(*arguments: Any, **options: Any) -> Any:
            if first.acquire(blocking=False):
                self.reached.set()
                assert self.go.wait(60)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, pausing)


@pytest.fixture(params=["sqlite", "postgresql"])
def local_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "loreg.toml").write_text('[check]\nagainst = "prod"\naliases = ["prod"]\n')
    if request.param == "sqlite":
        deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    else:
        deployment = request.getfixturevalue("postgres_and_s3")
    with connect(
        database_url=deployment.database_url,
        storage_url=deployment.storage_url,
        storage_endpoint=deployment.storage_endpoint,
    ) as registry:
        yield registry


def first_then(
    local_registry: Registry, paused: Paused, one: Callable[[], Any], other: Callable[[], Any]
) -> tuple[Any, Any]:
    """What comes of two calls, of which the one is held inside its transaction when the other begins."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (CheckFailedError, NotAllowedError, StaleError) as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(outcome, one)
        assert paused.reached.wait(60)
        second = pool.submit(outcome, other)
        eventually(lambda: second.done() or somebody_waits(local_registry.settings.database_url))
        paused.go.set()
        return first.result(), second.result()


def test_if_match_holds_against_a_tag_without_it(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two_versions(local_registry, tmp_path)
    local_registry.tag("team/a:v1", "prod")
    paused = Paused(monkeypatch, aliases, "set_alias")
    won, refusal = first_then(
        local_registry,
        paused,
        lambda: local_registry.tag("team/a:v2", "prod"),
        lambda: local_registry.tag("team/a:v1", "prod", expected=1),
    )
    assert won.number == 2
    assert isinstance(refusal, StaleError)
    assert meant(local_registry) == 2


def test_if_match_holds_against_a_push_with_the_alias(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two_versions(local_registry, tmp_path)
    local_registry.tag("team/a:v1", "prod")
    paused = Paused(monkeypatch, aliases, "set_alias")
    won, refusal = first_then(
        local_registry,
        paused,
        lambda: local_registry.push(train(tmp_path / "c", 3), "team/a", aliases=["prod"]).version,
        lambda: local_registry.tag("team/a:v2", "prod", expected=1),
    )
    assert won.number == 3
    assert isinstance(refusal, StaleError)
    assert meant(local_registry) == 3


def test_a_version_that_is_yanked_at_the_same_moment_gets_no_alias(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two_versions(local_registry, tmp_path)
    paused = Paused(monkeypatch, Transaction, "log")  # yanked, and not committed
    _, refusal = first_then(
        local_registry,
        paused,
        lambda: local_registry.yank("team/a:v2"),
        lambda: local_registry.tag("team/a:v2", "prod"),
    )
    assert isinstance(refusal, NotAllowedError)
    assert meant(local_registry) is None


def test_the_guard_compares_with_what_somebody_else_sets_at_the_same_moment(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number, accuracy in enumerate((0.5, 0.9, 0.6), 1):
        local_registry.push(train(tmp_path / str(number), number), "team/a", metrics=[f"accuracy={accuracy}@imdb"])
    local_registry.tag("team/a:v1", "prod")
    paused = Paused(monkeypatch, aliases, "set_alias")
    _, refusal = first_then(
        local_registry,
        paused,
        lambda: local_registry.tag("team/a:v2", "prod"),
        lambda: local_registry.tag("team/a:v3", "prod"),
    )
    assert isinstance(refusal, CheckFailedError)
    assert meant(local_registry) == 2
