"""Forgetting snapshots of a backup: what stays can be restored as before, what only the others had is gone."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deployments import HISTORY, MOVIES, SCIENCE, Deployment, Loreg
from factories import train
from loreg import connect
from loreg.catalog import collection
from loreg.entities import ForgetReport
from loreg.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError, UsageError
from loreg.local.upkeep import LocalUpkeep
from loreg.registry import Registry
from loreg.storage import BlobStore, DocumentStore, FolderStore, open_store, put_bytes
from loreg.storage.s3 import S3Store
from snapshots_of_rows import rows_of


@pytest.fixture
def registry(science_registry: Registry) -> Registry:
    return science_registry


@pytest.fixture
def backup(registry: Registry, local_deployment: Deployment, tmp_path: Path) -> str:
    """Where the backup goes: beside a registry in S3 to S3."""
    if local_deployment.storage_endpoint:
        return f"{local_deployment.storage_url}-backup"
    return str(tmp_path / "backup")


def back_up(registry: Registry, backup: str) -> str:
    return registry.backup(backup).snapshot.name


def names(registry: Registry, backup: str) -> list[str]:
    return [snapshot.name for snapshot in registry.list_backup(backup)]


def opened(registry: Registry, backup: str) -> DocumentStore:
    store = open_store(backup, registry.settings.storage_endpoint)
    assert isinstance(store, DocumentStore)
    return store


def everything_in(registry: Registry, backup: str) -> set[str]:
    """Digests and documents: all that a backup consists of."""
    store = opened(registry, backup)
    return {blob.sha256 for blob in store.list()} | {*store.list_documents("snapshots")}


def digests_of(registry: Registry, ref: str) -> set[str]:
    details = registry.show(ref)
    return {details.version.digest, *(file.sha256 for file in details.files)}


def going(report: ForgetReport) -> list[str]:
    return [decision.name for decision in report.decisions if decision.goes]


def reasons(report: ForgetReport) -> list[str]:
    return [decision.reason for decision in report.decisions]


def assert_whole(registry: Registry, backup: str) -> None:
    """Every snapshot that is listed has all that it refers to, as the page of the format says where that stands."""
    store = opened(registry, backup)
    stored = {blob.sha256 for blob in store.list()}
    for name in store.list_documents("snapshots"):
        document = json.loads(store.read_document(name))
        lines = gzip.decompress(store.read(document["blobs"]["sha256"])).decode().splitlines()
        assert len(lines) == document["blobs"]["count"] > 0
        assert {document["catalog"]["sha256"], *(line.split()[0] for line in lines)} <= stored


def assert_restorable(registry: Registry, backup: str, folder: Path, *snapshots: str) -> None:
    """Each of the snapshots makes a registry that is whole, byte by byte."""
    for number, name in enumerate(snapshots):
        endpoint = registry.settings.storage_endpoint
        with connect(home=str(folder / f"restored-{number}"), storage_endpoint=endpoint, author="eve") as restored:
            assert restored.restore(backup, snapshot=name).ok
            assert restored.verify(read_data=True).ok


def let_days_pass(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    now = LocalUpkeep.now
    monkeypatch.setattr(LocalUpkeep, "now", lambda self: now(self) + timedelta(days=days))


def test_the_newest_so_many_stay_and_can_be_restored(registry: Registry, backup: str, tmp_path: Path):
    taken, rows = [], []
    for source, name in ((HISTORY, "team/history"), (MOVIES, "team/movies"), (SCIENCE, "other/science")):
        registry.push(source, name)
        rows.append(rows_of(registry.settings.database_url, events_after=("backup",)))
        taken.append(back_up(registry, backup))
    report = registry.forget_snapshots(backup, keep_last=2)
    assert (going(report), report.kept_count) == ([taken[0]], 2)
    assert reasons(report) == ["the newest", "keep_last = 2", "keep_last = 2"]
    assert names(registry, backup) == [taken[2], taken[1]]
    # Of the snapshot that went, only its dump and its list were its own: nothing was deleted since.
    assert report.removed == 2
    for name, before in zip(taken[1:], rows[1:], strict=True):
        with connect(home=str(tmp_path / name), storage_endpoint=registry.settings.storage_endpoint) as restored:
            assert restored.restore(backup, snapshot=name).ok
            after = rows_of(restored.settings.database_url, events_after=("restore", "backup"))
            assert after == before
            assert restored.verify(read_data=True).ok


def test_what_was_deleted_is_gone_from_the_backup_too(registry: Registry, backup: str, tmp_path: Path):
    registry.push(HISTORY, "team/history")
    mine = digests_of(registry, "team/history") - digests_of(registry, "team/science")
    back_up(registry, backup)
    registry.delete("team/history", "asked for")
    newest = back_up(registry, backup)
    assert mine <= everything_in(registry, backup)
    report = registry.forget_snapshots(backup, keep_last=1)
    assert report.removed == len(mine) + 2
    assert not mine & everything_in(registry, backup)
    assert_restorable(registry, backup, tmp_path, newest)
    assert registry.backup(backup).new == 0


def test_young_ones_stay_and_one_rule_is_enough(registry: Registry, backup: str, monkeypatch: pytest.MonkeyPatch):
    for _ in range(4):
        back_up(registry, backup)
    young = registry.forget_snapshots(backup, keep_newer="7d", dry_run=True)
    assert (going(young), reasons(young)) == ([], ["the newest", *["keep_newer = 7d"] * 3])
    let_days_pass(monkeypatch, 8)
    both = registry.forget_snapshots(backup, keep_last=2, keep_newer=timedelta(days=9), dry_run=True)
    assert (going(both), reasons(both)[1:]) == ([], ["keep_last = 2", "keep_newer = 9d", "keep_newer = 9d"])
    old = registry.forget_snapshots(backup, keep_last=2, keep_newer="7d", dry_run=True)
    assert (old.going_count, reasons(old)[-1]) == (2, "keep_last = 2, keep_newer = 7d")
    assert registry.forget_snapshots(backup, keep_newer="7d").going_count == 3
    assert len(names(registry, backup)) == 1


def test_what_the_registry_lost_stays_in_the_backup(registry: Registry, backup: str):
    """The snapshots that are taken after the loss still refer to it: nights of them do not push it out."""
    store = registry.context.store
    assert isinstance(store, BlobStore)
    weights = next(f.sha256 for f in registry.show("team/science").files if f.path.endswith(".safetensors"))
    back_up(registry, backup)
    store.delete(weights)
    for _ in range(2):
        back_up(registry, backup)
    assert registry.forget_snapshots(backup, keep_last=1).going_count == 2
    assert registry.repair([backup]).repaired_count == 1
    assert registry.verify(read_data=True).ok


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [({}, "nothing says which"), ({"keep_last": 0}, "keep_last is 0"), ({"keep_newer": "soon"}, "invalid span")],
)
def test_without_a_rule_that_is_one_it_is_refused(registry: Registry, tmp_path: Path, rules: Any, complaint: str):
    back_up(registry, str(tmp_path / "backup"))
    with pytest.raises(UsageError, match=complaint):
        registry.forget_snapshots(tmp_path / "backup", **rules)
    assert len(names(registry, str(tmp_path / "backup"))) == 1


def test_a_dry_run_says_the_same_and_changes_nothing(registry: Registry, backup: str):
    registry.push(HISTORY, "team/history")
    back_up(registry, backup)
    registry.delete("team/history", "asked for")
    back_up(registry, backup)
    before, event = everything_in(registry, backup), registry.events(limit=1).items
    planned = registry.forget_snapshots(backup, keep_last=1, dry_run=True)
    assert (everything_in(registry, backup), registry.events(limit=1).items) == (before, event)
    done = registry.forget_snapshots(backup, keep_last=1)
    assert (planned.decisions, planned.removed, planned.removed_size) == (
        done.decisions, done.removed, done.removed_size,
    )  # fmt: skip
    assert (planned.dry_run, done.dry_run) == (True, False)
    assert len(before) - len(everything_in(registry, backup)) == done.removed + 1


def test_it_is_an_event_and_nothing_is_none(registry: Registry, backup: str):
    back_up(registry, backup)
    registry.forget_snapshots(backup, keep_last=1)
    assert registry.events(limit=1).items[0].action == "backup"
    back_up(registry, backup)
    report = registry.forget_snapshots(backup, keep_last=1)
    event = registry.events(limit=1).items[0]
    assert (event.action, event.author) == ("forget", "ada")
    assert event.detail == {
        "from": report.target, "snapshots": 1, "removed": report.removed, "size": report.removed_size,
    }  # fmt: skip


# ── killed ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The process ends here."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Die at the n-th call that removes or reads something of a store; returns how to count the calls."""
    calls, seen, lock = itertools.count(1), [0], threading.Lock()
    for class_ in (FolderStore, S3Store):
        for name in ("delete", "delete_document", "get"):
            original = getattr(class_, name)

            def patched(self: Any, *arguments: Any, _original: Any = original, **options: Any) -> Any:
                with lock:
                    seen[0] = next(calls)
                    if seen[0] >= at:
                        raise Killed
                return _original(self, *arguments, **options)

            monkeypatch.setattr(class_, name, patched)
    return lambda: seen[0]


def test_killed_anywhere_it_is_finished_by_the_next(registry: Registry, tmp_path: Path):
    registry.push(HISTORY, "team/history")
    for at in itertools.count(1):
        backup = str(tmp_path / f"backup-{at}")
        back_up(registry, backup)
        back_up(registry, backup)
        kept = back_up(registry, backup)
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, at)
            with contextlib.suppress(Killed):
                registry.forget_snapshots(backup, keep_last=1)
                break
        assert calls() >= at
        assert_whole(registry, backup)
        registry.forget_snapshots(backup, keep_last=1)
        assert names(registry, backup) == [kept]
        document = json.loads(opened(registry, backup).read_document(f"snapshots/{kept}.json"))
        needed = digests_of(registry, "team/history") | digests_of(registry, "team/science")
        needed |= {document["catalog"]["sha256"], document["blobs"]["sha256"]}
        assert everything_in(registry, backup) == needed | {f"snapshots/{kept}.json"}
    assert at > 5  # one list, two documents, two or more blobs
    assert_restorable(registry, backup, tmp_path, kept)


_DYING = """
import os, signal, sys
from loreg.storage import FolderStore
from loreg.storage.s3 import S3Store
from loreg_cli.main import cli
for class_ in (FolderStore, S3Store):
    def delete(self, *arguments):
        os.kill(os.getpid(), signal.SIGKILL)
    class_.delete = delete
cli(sys.argv[1:])
"""


def test_a_process_that_is_killed_for_real_leaves_no_lock(
    registry: Registry, backup: str, local_deployment: Deployment
):
    for _ in range(2):
        back_up(registry, backup)
    command = [sys.executable, "-c", _DYING, "backup", backup, "--forget", "--keep-last", "1"]
    environment = {**os.environ, **local_deployment.environment}
    outcome = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr
    assert len(names(registry, backup)) == 1
    newest = back_up(registry, backup)  # does not wait
    assert registry.forget_snapshots(backup, keep_last=1).removed >= 2
    assert names(registry, backup) == [newest]


def test_what_killed_backups_left_goes_too(registry: Registry, tmp_path: Path):
    backup = tmp_path / "backup"
    back_up(registry, str(backup))
    orphan = put_bytes(open_store(str(backup)), b"of a backup that was killed").sha256
    folder = backup / "sha256" / orphan[:2]
    folder.chmod(0o755)
    old, young = folder / ".put-0000", folder / ".put-1111"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    stranger = folder / ("x" * 64)
    stranger.write_bytes(b"no blob")
    report = registry.forget_snapshots(backup, keep_last=5)
    assert (report.going_count, report.removed, report.leftovers) == (0, 1, 1)
    assert report.removed_size == len(b"of a backup that was killed") + len(b"half")
    assert [path.exists() for path in (old, young, stranger)] == [False, True, True]


# ── beside a backup ────────────────────────────────────────────────────────────────────────────────────────────────


class StopWaiting(BaseException):
    """Raised where somebody waits, instead of waiting."""


def stop_waiting(what: str, done: int, total: int) -> None:
    if what.startswith("waiting"):
        raise StopWaiting(what)


def test_it_waits_for_a_backup_and_a_backup_waits_for_it(registry: Registry, local_deployment: Deployment, backup: str):
    for _ in range(2):
        back_up(registry, backup)
    before = everything_in(registry, backup)
    with connect(**local_deployment.settings, author="eve") as other:
        upkeep = other.context.backend.upkeep()
        with upkeep.hold_removals():  # as a backup does
            assert registry.backup(backup, progress=stop_waiting).ok  # several backups may run at once
            with pytest.raises(StopWaiting, match="waiting for a backup"):
                registry.forget_snapshots(backup, keep_last=1, progress=stop_waiting)
        assert before < everything_in(registry, backup)
        with upkeep.hold_removals(alone=True):
            with pytest.raises(StopWaiting, match="--forget"):
                registry.backup(backup, progress=stop_waiting)
            with pytest.raises(StopWaiting):
                registry.forget_snapshots(backup, keep_last=1, progress=stop_waiting)
    assert registry.forget_snapshots(backup, keep_last=1, progress=stop_waiting).going_count == 2
    assert registry.backup(backup, progress=stop_waiting).ok


def test_no_snapshot_loses_a_blob_beside_backups(local_deployment: Deployment, backup: str, tmp_path: Path):
    """What one had found in the backup, and the other was about to remove, is there in every snapshot that is left."""
    stop, errors = threading.Event(), []

    def forget_all() -> None:
        with connect(**local_deployment.settings, author="eve") as other:
            while not stop.is_set():
                try:
                    other.forget_snapshots(backup, keep_last=1)
                except NotFoundError:  # there is no snapshot yet
                    stop.wait(0.01)
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=forget_all) for _ in range(2)]
    with connect(**local_deployment.settings, author="ada") as registry:
        registry.push(SCIENCE, "team/science")
        for thread in threads:
            thread.start()
        for number in range(8):  # of each snapshot the next needs no blob but those of the first version
            registry.push(train(tmp_path / f"adapter-{number}", number), f"team/a{number}")
            back_up(registry, backup)
            registry.delete(f"team/a{number}", "asked for")
        back_up(registry, backup)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert_restorable(registry, backup, tmp_path, *names(registry, backup))


def test_nothing_is_removed_when_the_lock_was_lost(registry: Registry, backup: str, monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        back_up(registry, backup)
    before = everything_in(registry, backup)

    @contextlib.contextmanager
    def lost(self: LocalUpkeep, **options: Any) -> Iterator[Callable[[], None]]:
        def heartbeat() -> None:
            raise UnavailableError("the database does not answer")

        yield heartbeat

    monkeypatch.setattr(LocalUpkeep, "hold_removals", lost)
    with pytest.raises(UnavailableError):
        registry.forget_snapshots(backup, keep_last=1)
    assert everything_in(registry, backup) == before


@pytest.fixture
def elsewhere(postgres_and_s3: Deployment, tmp_path: Path) -> Iterator[tuple[Registry, Registry, str]]:
    """Two who are at one registry in PostgreSQL, of which a connection can be lost, and the place of its backup."""
    settings = {"database_url": postgres_and_s3.database_url, "storage_url": str(tmp_path / "store")}
    with connect(**settings, author="ada") as one, connect(**settings, author="eve") as two:
        one.push(SCIENCE, "team/science")
        one.backup(tmp_path / "backup")
        yield one, two, str(tmp_path / "backup")


def lose_locks(database_url: str) -> None:
    """End every connection that holds an advisory lock, as a restart of the database does."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        holders = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        assert connection.execute(holders).fetchall()


def test_a_backup_that_lost_its_lock_leaves_no_snapshot(elsewhere: tuple[Registry, Registry, str], tmp_path: Path):
    registry, other, backup = elsewhere
    registry.push(HISTORY, "team/history")
    lost = []

    def lose(what: str, done: int, total: int) -> None:
        if what == "copying" and done == total and not lost:
            lost.append(True)
            lose_locks(registry.settings.database_url)
            assert other.forget_snapshots(backup, keep_last=1).removed > 0  # what was just copied

    before = names(registry, backup)
    with pytest.raises(UnavailableError):
        registry.backup(backup, progress=lose)
    assert lost
    assert names(other, backup) == before
    assert back_up(other, backup)
    assert_restorable(other, backup, tmp_path, *names(other, backup))


def test_who_forgets_stops_where_the_lock_is_lost(
    elsewhere: tuple[Registry, Registry, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    registry, other, backup = elsewhere
    for number in range(4):
        registry.push(train(tmp_path / f"adapter-{number}", number), f"team/a{number}")

    def die(what: str, done: int, total: int) -> None:
        if what == "copying" and done == total:
            raise StopWaiting(what)

    with pytest.raises(StopWaiting):  # all blobs are copied, and no snapshot refers to them
        registry.backup(backup, progress=die)
    delete, lock, removed = FolderStore.delete, threading.Lock(), []

    def lose_then_delete(store: FolderStore, sha256: str) -> None:
        with lock:
            if store.url == backup and not removed:
                lose_locks(registry.settings.database_url)
                assert other.backup(backup).known > 1  # it takes for granted what is there
            removed.append(sha256)
        delete(store, sha256)

    monkeypatch.setattr(FolderStore, "delete", lose_then_delete)
    with pytest.raises(UnavailableError):
        registry.forget_snapshots(backup, keep_last=2)
    assert len(removed) == opened(registry, backup).parallelism  # what was on its way


def test_who_waited_for_a_move_forgets_nothing(tmp_path: Path):
    home, new = tmp_path / "home", f"sqlite:///{tmp_path}/new/catalog.db"
    with connect(home=str(home), author="ada") as registry, connect(home=str(home), author="eve") as other:
        registry.push(SCIENCE, "team/science")
        for _ in range(2):
            registry.backup(tmp_path / "backup")
        outcome: list[object] = []
        waits = threading.Event()

        def on_wait(what: str, done: int, total: int) -> None:
            if what.startswith("waiting"):
                waits.set()

        def forget() -> None:
            try:
                outcome.append(other.forget_snapshots(tmp_path / "backup", keep_last=1, progress=on_wait))
            except ConflictError as error:
                outcome.append(error.message)

        thread = threading.Thread(target=forget)

        def let_it_wait(what: str, done: int, total: int) -> None:
            if not waits.is_set():
                thread.start()
                assert waits.wait(60)

        registry.move(new, str(tmp_path / "new" / "store"), progress=let_it_wait)
        thread.join()
        assert outcome == [f"this registry was moved to {new}"]
    with connect(database_url=new, storage_url=str(tmp_path / "new" / "store")) as moved:
        assert len(names(moved, str(tmp_path / "backup"))) == 2


def test_a_snapshot_is_dated_behind_those_that_a_wrong_clock_dated(
    registry: Registry, backup: str, monkeypatch: pytest.MonkeyPatch
):
    clock = collection.database_time
    with monkeypatch.context() as ahead:
        ahead.setattr(collection, "database_time", lambda tx: clock(tx) + timedelta(days=1))
        wrong = back_up(registry, backup)
    registry.push(HISTORY, "team/history")
    newest = back_up(registry, backup)
    assert names(registry, backup) == [newest, wrong]
    registry.forget_snapshots(backup, keep_last=1)
    assert names(registry, backup) == [newest]


# ── places and damage ──────────────────────────────────────────────────────────────────────────────────────────────


def test_only_a_backup_of_this_registry_is_touched(registry: Registry, tmp_path: Path):
    backup = str(tmp_path / "backup")
    for _ in range(2):
        back_up(registry, backup)
    before = everything_in(registry, backup)
    with connect(home=str(tmp_path / "other"), author="eve") as other:
        other.push(MOVIES, "mine")
        with pytest.raises(ConflictError, match="another registry"):
            other.forget_snapshots(backup, keep_last=1)
        for wrong in (tmp_path / "other" / "store", tmp_path / "nowhere"):
            with pytest.raises(NotFoundError, match="is no backup"):
                other.forget_snapshots(wrong, keep_last=1)
        assert other.verify(read_data=True).ok
        other.move(f"sqlite:///{tmp_path}/new/catalog.db", str(tmp_path / "new" / "store"))
        with pytest.raises(ConflictError, match="was moved to"):
            other.forget_snapshots(backup, keep_last=1)
    assert not (tmp_path / "nowhere").exists()
    assert everything_in(registry, backup) == before


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["document", "list"])
def test_if_a_snapshot_that_stays_cannot_be_read_nothing_is_removed(registry: Registry, tmp_path: Path, which: str):
    backup = tmp_path / "backup"
    registry.push(HISTORY, "team/history")
    back_up(registry, str(backup))
    registry.delete("team/history", "asked for")
    newest = back_up(registry, str(backup))
    document = backup / "snapshots" / f"{newest}.json"
    sha256 = json.loads(document.read_bytes())["blobs"]["sha256"]
    damaged = document if which == "document" else backup / "sha256" / sha256[:2] / sha256
    overwrite(damaged, damaged.read_bytes()[:-1] + b"x")
    before = everything_in(registry, str(backup))
    with pytest.raises(IntegrityError) as refused:
        registry.forget_snapshots(backup, keep_last=1)
    assert "take another" in refused.value.hint
    assert everything_in(registry, str(backup)) == before
    # what the hint says
    newest = back_up(registry, str(backup))
    assert registry.forget_snapshots(backup, keep_last=1).going_count == 2
    assert_restorable(registry, str(backup), tmp_path, newest)


def test_one_that_is_damaged_and_goes_is_no_hindrance(registry: Registry, tmp_path: Path):
    backup = tmp_path / "backup"
    oldest = back_up(registry, str(backup))
    newest = back_up(registry, str(backup))
    overwrite(backup / "snapshots" / f"{oldest}.json", b"{}")
    assert going(registry.forget_snapshots(backup, keep_last=1)) == [oldest]
    assert names(registry, str(backup)) == [newest]


def test_a_document_of_another_kind_is_a_reason_to_remove_nothing(registry: Registry, tmp_path: Path):
    backup = tmp_path / "backup"
    for _ in range(2):
        back_up(registry, str(backup))
    (backup / "snapshots" / "2027.snapshot").write_bytes(b"what a later loreg may write")
    with pytest.raises(ConflictError, match=r"2027\.snapshot"):
        registry.forget_snapshots(backup, keep_last=1)
    assert len(names(registry, str(backup))) == 2


def test_what_is_damaged_in_the_backup_is_left_for_backup_to_mend(registry: Registry, tmp_path: Path):
    backup = tmp_path / "backup"
    for _ in range(2):
        back_up(registry, str(backup))
    digest = registry.show("team/science").version.digest
    path = backup / "sha256" / digest[:2] / digest
    overwrite(path, b"cut off")
    registry.forget_snapshots(backup, keep_last=1)
    assert path.read_bytes() == b"cut off"
    assert registry.backup(backup, verify=True).new == 1


def test_many_snapshots_are_read_a_few_at_a_time(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.verbs.forget._LISTS_AT_ONCE", 2)
    backup = str(tmp_path / "backup")
    for number in range(7):
        registry.push(HISTORY, f"team/history-{number}")
        registry.tag(f"team/history-{number}", "prod")
        back_up(registry, backup)
    registry.push(MOVIES, "team/movies")
    back_up(registry, backup)
    kept = names(registry, backup)[:5]
    assert registry.forget_snapshots(backup, keep_last=5).kept_count == 5
    assert_restorable(registry, backup, tmp_path, kept[0], kept[4])


class TestCommand:
    @pytest.fixture
    def kept(self, local: Loreg, tmp_path: Path) -> Loreg:
        assert local("push", SCIENCE, "team/science").exit_code == 0
        for _ in range(3):
            assert local("backup", tmp_path / "kept").exit_code == 0
        return local

    def test_a_dry_run_shows_what_goes_and_why_the_others_stay(self, kept: Loreg, tmp_path: Path):
        listed = kept("backup", tmp_path / "kept", "--list", "--format", "quiet").stdout.split()
        outcome = kept("backup", tmp_path / "kept", "--forget", "--keep-last", "1", "--dry-run")
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        *rows, summary = outcome.stdout.splitlines()
        assert [row.split()[0] for row in rows[2:]] == listed
        assert ["would go" in row for row in rows[2:]] == [False, True, True]
        assert summary.startswith("2 snapshots would go, 1 stay; ")
        quiet = kept("backup", tmp_path / "kept", "--forget", "--keep-last", "1", "--dry-run", "--format", "quiet")
        assert quiet.stdout.split() == listed[1:]

    def test_it_says_what_is_gone(self, kept: Loreg, tmp_path: Path):
        outcome = kept("backup", tmp_path / "kept", "--forget", "--keep-newer", "30d", "--keep-last", "2")
        assert "0 snapshots are gone, 3 stay; 0 blobs are gone, 0 B" in outcome.stdout
        outcome = kept("backup", tmp_path / "kept", "--forget", "--keep-last", "2", "--format", "json")
        assert json.loads(outcome.stdout)["going_count"] == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--keep-last", "1"), ("--dry-run",), ("--forget", "--list"), ("--forget", "--verify"), ("--forget",),
            ("--forget", "--keep-last", "0"), ("--forget", "--keep-newer", "soon"),
        ],
    )  # fmt: skip
    def test_options_that_do_not_go_together_are_refused(self, kept: Loreg, tmp_path: Path, arguments: tuple[str, ...]):
        outcome = kept("backup", tmp_path / "kept", *arguments)
        assert (outcome.exit_code, len(outcome.stderr.strip().splitlines())) == (2, 1)
