"""move: the registry is in another database and store, row by row, and the old one can only be read."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import HISTORY, MOVIES, SCIENCE, Deployment, command_line
from loreg import connect
from loreg.catalog import Catalog
from loreg.entities import Access
from loreg.errors import ConflictError, IntegrityError
from loreg.registry import Registry
from loreg.storage import BlobStore, open_store
from snapshots_of_rows import rows_of
from verbs.test_backup import CROSSWISE, Killed, dying, elsewhere, new_deployment

__all__ = ["elsewhere"]  # a fixture


@pytest.fixture
def registry(local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="ada") as opened:
        opened.push(SCIENCE, "team/science", aliases=["prod"], message="zwei\nZeilen", metrics=["loss=0.1"])
        opened.tokens.create("bot", ["write:team"])
        yield opened


def move(registry: Registry, target: Deployment) -> Any:
    return registry.move(target.database_url, target.storage_url, storage_endpoint=target.storage_endpoint)


def rows_without_mark(url: str) -> dict[str, Any]:
    """All rows; of the registry only its id, for ``moved_to`` is what differs."""
    rows = rows_of(url)
    return {**rows, "registry": [row[:1] for row in rows["registry"]]}


def test_everything_is_there_and_the_old_one_can_only_be_read(
    registry: Registry, local_deployment: Deployment, elsewhere: Deployment
):
    report = move(registry, elsewhere)
    assert report.new == report.blobs == 1 + len(registry.show("team/science").files)
    assert rows_without_mark(elsewhere.database_url) == rows_without_mark(local_deployment.database_url)
    with connect(**elsewhere.settings, author="ada") as moved:
        assert moved.events(limit=1).items[0].action == "move"
        assert moved.verify(read_data=True).ok
        assert moved.push(HISTORY, "team/history").created
    place = report.target
    for change in (
        lambda: registry.push(HISTORY, "team/history"),
        lambda: registry.tag("team/science", "canary"),
        lambda: registry.gc(grace="0h"),
        lambda: registry.backup("./backup"),
    ):
        with pytest.raises(ConflictError, match="was moved to") as caught:
            change()
        assert place in str(caught.value)
    assert registry.show("team/science:prod").version.number == 1


def test_a_token_of_a_server_is_told_nothing_of_the_new_place(registry: Registry, elsewhere: Deployment):
    move(registry, elsewhere)
    (token,) = registry.tokens.list()
    access = Access("bot", dict(token.grants), token.id)
    with (
        pytest.raises(ConflictError, match="was moved") as caught,
        Catalog(registry.settings.database_url).write(access),
    ):
        pass
    assert elsewhere.database_url not in caught.value.outside


@CROSSWISE
def test_it_is_moved_back(registry: Registry, elsewhere: Deployment, request: pytest.FixtureRequest, tmp_path: Path):
    move(registry, elsewhere)
    home = new_deployment(request, "sqlite+folder", tmp_path)
    with connect(**elsewhere.settings, author="ada") as moved:
        move(moved, home)
    assert rows_without_mark(home.database_url) == rows_without_mark(elsewhere.database_url)
    with connect(**home.settings, author="ada") as back:
        assert back.verify(read_data=True).ok
        assert back.push(HISTORY, "team/history").version.number == 1


def test_a_push_that_writes_when_the_registry_is_closed_is_moved_too(
    registry: Registry, local_deployment: Deployment, elsewhere: Deployment
):
    """The move waits for a transaction that has begun, and has what it wrote; the next is refused."""
    catalog = Catalog(local_deployment.database_url)
    writing, started, done = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        with catalog.write(Access.superuser("eve")) as tx:
            writing.set()
            started.wait()
            moving.join(1.0)  # it cannot end before this does
            assert moving.is_alive()
            tx.log("tag", None, None, alias="late")
        done.set()

    moving = threading.Thread(target=lambda: move(registry, elsewhere))
    writer = threading.Thread(target=write)
    writer.start()
    writing.wait()
    moving.start()
    started.set()
    writer.join()
    moving.join()
    assert done.is_set()
    with connect(**elsewhere.settings, author="ada") as moved:
        assert ("tag", {"alias": "late"}) in [(event.action, dict(event.detail)) for event in moved.events().items]
    with pytest.raises(ConflictError, match="was moved to"), catalog.write(Access.superuser("eve")):
        pass
    catalog.close()


@pytest.mark.parametrize(
    ("local_deployment", "kind"),
    [("sqlite+folder", "postgres+s3"), ("postgres+s3", "sqlite+folder"), ("sqlite+folder", "sqlite+folder")],
    indirect=["local_deployment"],
)
def test_a_move_goes_on_wherever_it_was_killed(
    registry: Registry, local_deployment: Deployment, request: pytest.FixtureRequest, tmp_path: Path, kind: str
):
    for at in itertools.count(1):
        target = new_deployment(request, kind, tmp_path, has_schema=True)
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, at)
            with contextlib.suppress(Killed):
                assert move(registry, target).new > 0
                break
        assert calls() == at
        report = move(registry, target)
        assert rows_without_mark(target.database_url) == rows_without_mark(local_deployment.database_url)
        again = move(registry, target)
        assert (again.new, again.known) == (0, report.blobs)
        registry.undo_move()
    assert at > 4


@CROSSWISE
def test_a_move_that_fails_after_it_closed_the_registry_is_taken_back(
    registry: Registry, elsewhere: Deployment, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            Catalog, "load", lambda self, path, rows, event: (_ for _ in ()).throw(IntegrityError("the disk is full"))
        )
        with pytest.raises(IntegrityError, match="disk is full"):
            move(registry, elsewhere)
    with pytest.raises(ConflictError, match="was moved"):
        registry.push(MOVIES, "team/movies")
    registry.undo_move()
    assert registry.push(MOVIES, "team/movies").created
    with pytest.raises(ConflictError, match="has not moved"):
        registry.undo_move()
    report = move(registry, elsewhere)
    assert report.rows["versions"] == 2


@CROSSWISE
def test_a_registry_that_is_not_whole_stays_open(registry: Registry, elsewhere: Deployment):
    store = registry.context.store
    assert isinstance(store, BlobStore)
    store.delete(registry.show("team/science").files[0].sha256)
    with pytest.raises(IntegrityError, match="not whole"):
        move(registry, elsewhere)
    assert registry.push(MOVIES, "team/movies").created


@CROSSWISE
def test_nothing_is_moved_over_another_registry(registry: Registry, elsewhere: Deployment, tmp_path: Path):
    with connect(**elsewhere.settings, author="eve") as other:
        other.upgrade()
        other.push(MOVIES, "mine")
        with pytest.raises(ConflictError, match="not empty"):
            move(registry, elsewhere)
        fresh = f"sqlite:///{tmp_path}/fresh.db"
        with pytest.raises(ConflictError, match="belongs to registry"):
            registry.move(fresh, elsewhere.storage_url, storage_endpoint=elsewhere.storage_endpoint)
        assert other.verify().ok
    assert registry.push(MOVIES, "team/movies").created


def test_a_store_may_stay_where_it_is(registry: Registry, local_deployment: Deployment, tmp_path: Path):
    """The mark in it names the same registry."""
    report = registry.move(
        f"sqlite:///{tmp_path}/fresh.db",
        local_deployment.storage_url,
        storage_endpoint=local_deployment.storage_endpoint,
    )
    assert (report.new, report.known) == (0, report.blobs)
    store = open_store(local_deployment.storage_url, local_deployment.storage_endpoint)
    assert store.owner() == rows_of(f"sqlite:///{tmp_path}/fresh.db")["registry"][0][0].strip("'")


def test_the_command_line_moves_and_takes_back(tmp_path: Path):
    old, new = command_line({"LOREG_HOME": str(tmp_path / "old")}), command_line({"LOREG_HOME": str(tmp_path / "new")})
    assert old("push", SCIENCE, "team/science").exit_code == 0
    database, storage = f"sqlite:///{tmp_path}/new/catalog.db", tmp_path / "new" / "store"
    moved = old("move", "--to-database", database, "--to-storage", storage)
    assert moved.exit_code == 0
    assert "moved 1 versions" in moved.stdout
    assert "can only be read" in moved.stderr
    assert new("verify").exit_code == 0
    refused = old("push", HISTORY, "team/history")
    assert refused.exit_code == ConflictError.exit_code
    assert f"moved to {database}" in refused.stderr
    assert old("move", "--undo").exit_code == 0
    assert old("push", HISTORY, "team/history").exit_code == 0
    assert old("move").exit_code == 2
