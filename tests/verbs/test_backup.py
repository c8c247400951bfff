"""backup and restore: what comes back is the registry as it was at one moment, row by row, or nothing."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import text

from concurrency import eventually
from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, Deployment, Loreg, command_line, empty_folders
from factories import train, write_base
from live.receivers import receiver
from loreg import MergeOptions, connect
from loreg.catalog import Catalog, dump
from loreg.catalog.engine import open_engine, write_connection
from loreg.entities import Access
from loreg.errors import ConflictError, IntegrityError, LoregError, NotFoundError, UnavailableError
from loreg.local.webhook_deliverer import delivering
from loreg.local.webhook_transport import parse_networks
from loreg.registry import Registry
from loreg.storage import BlobStore, FolderStore, open_store, put_bytes
from loreg.storage.s3 import S3Store
from services import new_database
from snapshots_of_rows import rows_of

OLD = Path(__file__).parents[1] / "data"


@pytest.fixture
def registry(local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="ada") as opened:
        opened.push(SCIENCE, "team/science", aliases=["prod"], message="zwei\nZeilen")
        yield opened


@pytest.fixture
def filled(registry: Registry, tmp_path: Path) -> Registry:
    """One with rows in every table that a client can fill: names, bases, a merge, an export, a job, tokens."""
    base, adapter = write_base(tmp_path / "base"), train(tmp_path / "adapter", 1)
    registry.push(adapter, "team/trained", base=str(base), tasks=["qa"], metrics=["loss=0.1"], labels={"u": "ß"})
    registry.bases.add(write_base(tmp_path / "next", {"head.bias": torch.ones(3)}), ["next"])
    registry.upgrade_base(base, tmp_path / "next")
    registry.push(HISTORY, "team/history")
    registry.merge(["team/science", "team/history"], MergeOptions([0.1, 0.9], rank=2), name="team/both")
    registry.pull("team/science", tmp_path / "out", profile="vllm")
    registry.yank("team/history:v1", reason="a trial")
    registry.declare_metric("carbon", lower_is_better=True, unit="kg")
    registry.tag("team/both:v1", "stable")
    registry.push(HISTORY, "team/both")
    registry.begin_canary("team/both:v2", "stable", "10%", rollback_if=["loss>9"])
    registry.tag("team/both:v1", "next")
    registry.tag("team/both:v2", "next", rollback_if=["loss>9"])
    registry.report_deployment("vllm-1", [("both", "team/both:v2", "stable")])
    webhook, _ = registry.webhooks.add("https://example.com/hook", patterns=["team/*"])
    with contextlib.suppress(UnavailableError):
        registry.webhooks.test(webhook.id, seconds=0)
    registry.map("sketch", again=True, processes=1)
    registry.tokens.create("bot", ["write:team"])
    registry.namespaces.set_public("team", True)
    registry.jobs.submit("merge", sources=["team/science"], name="team/merged")
    return registry


@pytest.fixture(params=["sqlite+folder", "postgres+s3"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Where a registry is restored to, of either kind whatever the source is."""
    return new_deployment(request, request.param, tmp_path)


#: Each kind is what is left and what is arrived at, once: a dump is the same whatever database it is of.
CROSSWISE = pytest.mark.parametrize(
    ("local_deployment", "elsewhere"),
    [("sqlite+folder", "postgres+s3"), ("postgres+s3", "sqlite+folder")],
    indirect=True,
)


def new_deployment(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, *, has_schema: bool = False
) -> Deployment:
    name = f"restored_{secrets.token_hex(8)}"  # this module may be imported twice
    if kind == "sqlite+folder":
        folder = tmp_path / name
        if has_schema:
            return empty_folders(folder)
        return Deployment(f"sqlite:///{folder}/catalog.db", str(folder / "store"))
    postgres = request.getfixturevalue("postgres")
    s3 = request.getfixturevalue("s3")
    stack = contextlib.ExitStack()
    request.addfinalizer(stack.close)
    template = "postgres" if has_schema else "template1"
    url = stack.enter_context(new_database(postgres, name, template=template))
    return Deployment(url, f"s3://{s3.bucket}/{name}", s3.endpoint)


def variant(folder: Path, number: int) -> Path:
    """A real adapter with a card of its own."""
    copy = Path(shutil.copytree(SCIENCE, folder / f"variant-{number}"))
    (copy / "README.md").write_text(f"variant {number}")
    return copy


def blobs_in(place: str, endpoint: str = "") -> dict[str, int]:
    return {blob.sha256: blob.size for blob in open_store(place, endpoint).list()}


def test_what_is_restored_is_what_was_backed_up_row_by_row(
    filled: Registry, local_deployment: Deployment, elsewhere: Deployment, tmp_path: Path
):
    before = rows_of(local_deployment.database_url)
    assert all(before[table] for table in before if table not in ("uploads", "drafts", "tombstones", "base_edges"))
    report = filled.backup(tmp_path / "backup")
    assert (report.ok, report.known) == (True, 0)
    assert report.new == report.snapshot.blobs > 10
    with connect(**elsewhere.settings, author="eve") as restored:
        outcome = restored.restore(tmp_path / "backup")
        assert (outcome.ok, outcome.new) == (True, report.new)
        after = rows_of(elsewhere.database_url, events_after=("restore", "webhook disable"))
        assert after.keys() == before.keys()
        assert {name for name in after if after[name] != before[name]} == {"webhooks", "webhook_deliveries"}
        assert [len(after[name]) for name in ("webhooks", "webhook_deliveries")] == [1, 1]
        urls = (local_deployment.database_url, elsewhere.database_url)
        assert len({dump_of(url, tmp_path / "dump") for url in urls}) == 1  # whatever the databases are
        assert restored.verify(read_data=True).ok
        assert restored.verify().orphan_count == 0
        # Ids go on behind those that came: on PostgreSQL that is a sequence of its own.
        assert restored.push(MOVIES, "team/movies").version.number == 1
        assert restored.push(NEWS, "team/science").version.number == 2
    source, target = (open_store(d.storage_url, d.storage_endpoint).owner() for d in (local_deployment, elsewhere))
    assert source == target != ""


def dump_of(url: str, path: Path) -> bytes:
    """The catalog as a file, without the events of what is tested here."""
    engine = open_engine(url)
    with write_connection(engine) as connection:
        connection.execute(text("DELETE FROM events WHERE action IN ('backup', 'restore', 'webhook disable')"))
        for table in ("webhook_deliveries", "webhooks"):  # see test_a_restored_registry_tells_nobody
            connection.execute(text(f"DELETE FROM {table}"))
        dump.write(connection, path)
    engine.dispose()
    return path.read_bytes()


@CROSSWISE
def test_a_restored_registry_tells_nobody(local_deployment: Deployment, elsewhere: Deployment, tmp_path: Path):
    networks = parse_networks("127.0.0.0/8")
    with receiver(500) as hook:
        with connect(**local_deployment.settings, author="ada") as registry:
            waiting, _ = registry.webhooks.add(hook.url, patterns=["team/*"], actions=["push"])
            idle, _ = registry.webhooks.add(hook.url, actions=["yank"])
            with closing(Catalog(local_deployment.database_url)) as catalog, delivering(catalog, networks):
                registry.push(NEWS, "team/news")
                eventually(lambda: len(hook.requests) > 0)
            registry.push(HISTORY, "team/history")  # which nobody has looked at when the backup is made
            registry.backup(tmp_path / "backup")
            (before,) = registry.webhooks.deliveries(waiting.id)
            assert before.state == "pending"
        hook.requests.clear()
        hook.statuses[:] = [204]
        with connect(**elsewhere.settings, author="eve") as restored:
            report = restored.restore(tmp_path / "backup")
            assert report.webhooks == (waiting.id, idle.id)
            assert all(webhook.disabled_at is not None for webhook in restored.webhooks.list())
            with closing(Catalog(elsewhere.database_url)) as catalog, delivering(catalog, networks):
                restored.push(MOVIES, "team/movies")
                restored.webhooks.enable(waiting.id)
                restored.push(DORA, "team/dora")
                eventually(lambda: len(hook.requests) > 0)
                assert hook.events == ["push team/dora:v1"]
                (given_up,) = [place for place in restored.webhooks.deliveries(waiting.id) if place.id == before.id]
                assert (given_up.state, given_up.error) == ("failed", "the registry was restored from a backup")
                restored.webhooks.redeliver(waiting.id, before.id)
                eventually(lambda: len(hook.requests) > 1)
                assert hook.requests[1].id == before.message_id


def test_the_command_says_which_webhooks_are_disabled(tmp_path: Path):
    with connect(home=str(tmp_path / "home"), author="ada") as registry:
        registry.push(NEWS, "team/news")
        registry.webhooks.add("https://example.com/hook")
        registry.backup(tmp_path / "backup")
    restored = command_line({"LOREG_HOME": str(tmp_path / "restored")})
    outcome = restored("restore", tmp_path / "backup")
    (line,) = [line for line in outcome.stderr.splitlines() if "webhook" in line]
    assert line.endswith("1 webhook is disabled in what was restored; it tells again after: loreg webhook enable 1")
    assert restored("webhook", "enable", "1").exit_code == 0


def test_a_registry_that_was_moved_goes_on_telling(tmp_path: Path):
    with connect(home=str(tmp_path / "home"), author="ada") as registry:
        registry.push(NEWS, "team/news")
        registry.webhooks.add("https://example.com/hook")
        registry.move(f"sqlite:///{tmp_path}/new/catalog.db", str(tmp_path / "new" / "store"))
    with connect(home=str(tmp_path / "new")) as moved:
        assert [webhook.disabled_at for webhook in moved.webhooks.list()] == [None]


def test_only_what_is_new_is_copied(registry: Registry, tmp_path: Path):
    first = registry.backup(tmp_path / "backup")
    second = registry.backup(tmp_path / "backup")
    assert (second.new, second.new_size, second.known) == (0, 0, first.new)
    registry.push(MOVIES, "team/movies")
    third = registry.backup(tmp_path / "backup")
    assert third.new == 1 + len(registry.show("team/movies").files)
    names = [snapshot.name for snapshot in registry.list_backup(tmp_path / "backup")]
    assert names == [third.snapshot.name, second.snapshot.name, first.snapshot.name]
    assert [event.action for event in registry.events(limit=2).items] == ["backup", "push"]


def test_a_backup_in_s3_is_one_in_a_folder(registry: Registry, postgres_and_s3: Deployment, tmp_path: Path):
    endpoint, place = postgres_and_s3.storage_endpoint, postgres_and_s3.storage_url + "-backup"
    settings = {**registry_settings(registry), "storage_endpoint": endpoint}
    with connect(**settings, author="ada") as opened:
        report = opened.backup(place)
        assert opened.backup(place).new == 0
    before = rows_of(registry.settings.database_url, events_after=("backup",))
    with connect(home=str(tmp_path / "new"), storage_endpoint=endpoint, author="ada") as restored:
        assert restored.restore(place, snapshot=report.snapshot.name).ok
        assert rows_of(restored.settings.database_url, events_after=("restore", "backup")) == before


def registry_settings(registry: Registry) -> dict[str, str]:
    return {name: getattr(registry.settings, name) for name in ("database_url", "storage_url", "storage_endpoint")}


@CROSSWISE
def test_an_earlier_snapshot_is_restored(registry: Registry, elsewhere: Deployment, tmp_path: Path):
    before = rows_of(registry.settings.database_url)
    first = registry.backup(tmp_path / "backup").snapshot
    registry.push(MOVIES, "team/movies", aliases=["prod"])
    registry.untag("team/science", "prod")
    registry.backup(tmp_path / "backup")
    with connect(**elsewhere.settings, author="eve") as restored:
        assert restored.restore(tmp_path / "backup", snapshot=first.name[:27]).snapshot == first
        assert rows_of(elsewhere.database_url, events_after=("restore",)) == before
        with pytest.raises(NotFoundError):
            restored.show("team/movies")


@CROSSWISE
def test_every_version_of_a_snapshot_is_whole_though_others_push(
    local_deployment: Deployment, elsewhere: Deployment, tmp_path: Path
):
    stop, pushed = threading.Event(), threading.Event()

    def push_all() -> None:
        with connect(**local_deployment.settings, author="eve") as other:
            for number in range(8):
                other.push(variant(tmp_path, number), f"team/a{number}")
                pushed.set()
        stop.set()

    thread = threading.Thread(target=push_all)
    with connect(**local_deployment.settings, author="ada") as registry:
        thread.start()
        pushed.wait()
        taken = [registry.backup(tmp_path / "backup").snapshot]
        while not stop.is_set():
            taken.append(registry.backup(tmp_path / "backup").snapshot)
        thread.join()
    versions = [snapshot.rows["versions"] for snapshot in taken]
    assert versions == sorted(versions)
    with connect(**elsewhere.settings, author="ada") as restored:
        middle = taken[len(taken) // 2]
        assert restored.restore(tmp_path / "backup", snapshot=middle.name).ok
        assert len(restored.adapters().items) == middle.rows["versions"]
        assert restored.verify(read_data=True).ok


def test_nothing_is_collected_while_a_backup_is_made(filled: Registry, tmp_path: Path, monkeypatch: Any):
    filled.drop_export("team/science", "vllm")
    assert filled.gc(grace="24h").marked > 0
    removed = []
    snapshot = type(filled.context.backend.upkeep()).snapshot

    def collecting(self: Any, *arguments: Path) -> Any:
        with connect(**registry_settings(filled), author="eve") as other:
            removed.append(other.gc(grace="0h").removed)
        return snapshot(self, *arguments)

    monkeypatch.setattr(type(filled.context.backend.upkeep()), "snapshot", collecting)
    assert filled.backup(tmp_path / "backup").ok
    assert removed == [0]
    assert filled.gc(grace="0h").removed > 0


def test_what_is_deleted_during_a_backup_is_not_in_the_snapshot(filled: Registry, tmp_path: Path, monkeypatch: Any):
    """A legal deletion does not wait: rows and blobs go between the snapshot and the copy of the blobs."""
    upkeep, calls = type(filled.context.backend.upkeep()), []
    snapshot = upkeep.snapshot

    def deleting(self: Any, *arguments: Path) -> Any:
        taken = snapshot(self, *arguments)
        if not calls:
            digests = delete_exports(filled)
            store = filled.context.store
            assert isinstance(store, BlobStore)
            for digest in digests:
                store.delete(digest)
        calls.append(taken)
        return taken

    monkeypatch.setattr(upkeep, "snapshot", deleting)
    report = filled.backup(tmp_path / "backup")
    assert (report.ok, len(calls)) == (True, 2)
    assert report.snapshot.rows["export_files"] == 0
    assert report.snapshot.blobs == calls[1].blobs < calls[0].blobs


def delete_exports(registry: Registry) -> set[str]:
    """Delete the exports with what only they refer to."""
    engine = open_engine(registry.settings.database_url)
    with engine.begin() as connection:
        query = "SELECT digest FROM export_files WHERE digest NOT IN (SELECT digest FROM files)"
        digests = set(connection.execute(text(query)).scalars())
        for table in ("export_files", "exports"):
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()
    return digests


@CROSSWISE
def test_what_the_registry_lacks_is_named_and_the_rest_is_backed_up(
    registry: Registry, elsewhere: Deployment, tmp_path: Path
):
    registry.push(HISTORY, "team/history")
    store = registry.context.store
    assert isinstance(store, BlobStore)
    lost = {file.path: file.sha256 for file in registry.show("team/science").files}["adapter_model.safetensors"]
    store.delete(lost)
    report = registry.backup(tmp_path / "backup")
    assert not report.ok
    assert [(damage.sha256, damage.owners[0].name) for damage in report.damages] == [(lost, "team/science:v1")]
    assert report.snapshot.missing == 1
    loreg = command_line(elsewhere.environment)
    refused = loreg("restore", tmp_path / "backup")
    assert refused.exit_code == 6
    assert "--incomplete" in refused.stderr
    assert loreg("ls").stdout.strip() == "" or "nothing" in loreg("ls").stderr
    taken = loreg("restore", tmp_path / "backup", "--incomplete")
    assert (taken.exit_code, lost[:12] in taken.stdout) == (6, True)
    assert loreg("pull", "team/history", tmp_path / "pulled").exit_code == 0


@CROSSWISE
def test_a_flipped_bit_in_the_backup_is_found_and_nothing_is_restored(
    registry: Registry, elsewhere: Deployment, tmp_path: Path
):
    snapshot = registry.backup(tmp_path / "backup").snapshot
    file = registry.show("team/science").files[-1]
    path = tmp_path / "backup" / "sha256" / file.sha256[:2] / file.sha256
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with connect(**elsewhere.settings, author="eve") as restored:
        with pytest.raises(IntegrityError, match=file.sha256[:12]):
            restored.restore(tmp_path / "backup")
        assert restored.adapters().items == ()
        mended = registry.backup(tmp_path / "backup", verify=True)
        assert (mended.ok, mended.new) == (True, 1)
        assert restored.restore(tmp_path / "backup", snapshot=snapshot.name).ok


@pytest.mark.parametrize("which", ["catalog", "blobs"])
def test_a_damaged_catalog_in_the_backup_restores_nothing(registry: Registry, tmp_path: Path, which: str):
    name = registry.backup(tmp_path / "backup").snapshot.name
    document = json.loads((tmp_path / "backup" / "snapshots" / f"{name}.json").read_bytes())
    sha256 = document[which]["sha256"]
    path = tmp_path / "backup" / "sha256" / sha256[:2] / sha256
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with connect(home=str(tmp_path / "new"), author="ada") as restored:
        with pytest.raises(IntegrityError, match="is not whole"):
            restored.restore(tmp_path / "backup")
        assert restored.adapters().items == ()


def test_a_changed_snapshot_is_refused(registry: Registry, tmp_path: Path):
    name = registry.backup(tmp_path / "backup").snapshot.name
    path = tmp_path / "backup" / "snapshots" / f"{name}.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"missing":0', b'"missing":1'))
    with (
        connect(home=str(tmp_path / "new"), author="ada") as restored,
        pytest.raises(IntegrityError, match="digest of its name"),
    ):
        restored.restore(tmp_path / "backup")


@CROSSWISE
def test_a_registry_with_anything_in_it_is_not_overwritten(registry: Registry, elsewhere: Deployment, tmp_path: Path):
    registry.backup(tmp_path / "backup")
    with connect(**elsewhere.settings, author="eve") as other:
        other.upgrade()
        other.tokens.create("root", ["admin:*"])
        before = rows_of(elsewhere.database_url)
        with pytest.raises(ConflictError, match="not empty"):
            other.restore(tmp_path / "backup")
        assert rows_of(elsewhere.database_url) == before
        assert blobs_in(elsewhere.storage_url, elsewhere.storage_endpoint) == {}
    with pytest.raises(ConflictError, match="not empty"):
        registry.restore(tmp_path / "backup")


def test_a_store_of_another_registry_takes_nothing(registry: Registry, tmp_path: Path):
    registry.backup(tmp_path / "backup")
    with connect(home=str(tmp_path / "other"), author="eve") as other:
        other.push(MOVIES, "mine")
    with (
        connect(database_url=f"sqlite:///{tmp_path}/n.db", storage_url=str(tmp_path / "other" / "store")) as restored,
        pytest.raises(ConflictError, match="belongs to registry"),
    ):
        restored.restore(tmp_path / "backup")


def test_a_backup_goes_to_no_place_that_is_something_else(registry: Registry, tmp_path: Path):
    registry.backup(tmp_path / "backup")
    with connect(home=str(tmp_path / "other"), author="eve") as other:
        other.push(MOVIES, "mine")
        for place in (tmp_path / "backup", tmp_path / "other" / "store"):
            with pytest.raises(ConflictError, match=r"is a backup of another|is the store of"):
                other.backup(place)
        put_bytes(open_store(str(tmp_path / "unmarked")), b"a blob")
        with pytest.raises(ConflictError, match="no backup"):
            other.backup(tmp_path / "unmarked")
    # and no registry takes a backup for its store
    with (
        connect(database_url=registry.settings.database_url, storage_url=str(tmp_path / "backup")) as wrong,
        pytest.raises(ConflictError, match="belongs to registry"),
    ):
        wrong.push(MOVIES, "mine")


class Killed(BaseException):
    """The process ends here."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Die at the n-th call that changes or reads a store; returns how to count the calls."""
    calls = itertools.count(1)
    seen = [0]
    for class_ in (FolderStore, S3Store):
        for name in ("put", "get", "claim", "write_document", "create"):
            original = getattr(class_, name)

            def patched(self: Any, *arguments: Any, _original: Any = original, **options: Any) -> Any:
                seen[0] = next(calls)
                if seen[0] == at:
                    raise Killed
                return _original(self, *arguments, **options)

            monkeypatch.setattr(class_, name, patched)
    return lambda: seen[0]


def test_a_backup_goes_on_wherever_it_was_killed(registry: Registry, tmp_path: Path):
    for at in itertools.count(1):
        backup = tmp_path / f"backup-{at}"
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, at)
            with contextlib.suppress(Killed):
                assert registry.backup(backup).ok
                break
        assert calls() == at
        assert not list(backup.glob("snapshots/*"))
        stored = len(blobs_in(str(backup)))
        report = registry.backup(backup)
        assert report.ok
        assert report.known == min(stored, report.snapshot.blobs)
    assert at > 7  # the mark, three blobs, the catalog, the list, the document


@pytest.mark.parametrize(
    ("local_deployment", "kind"),
    [("sqlite+folder", "postgres+s3"), ("postgres+s3", "sqlite+folder")],
    indirect=["local_deployment"],
)
def test_a_restore_goes_on_wherever_it_was_killed(
    registry: Registry, request: pytest.FixtureRequest, tmp_path: Path, kind: str
):
    before = rows_of(registry.settings.database_url)
    registry.backup(tmp_path / "backup")
    for at in itertools.count(1):
        target = new_deployment(request, kind, tmp_path, has_schema=True)
        with connect(**target.settings, author="eve") as restored:
            with pytest.MonkeyPatch.context() as patch:
                calls = dying(patch, at)
                with contextlib.suppress(Killed):
                    assert restored.restore(tmp_path / "backup").ok
                    break
            assert calls() == at
            assert rows_of(target.database_url)["adapters"] == []
            assert restored.restore(tmp_path / "backup").ok
            assert rows_of(target.database_url, events_after=("restore",)) == before
    assert at > 7


@CROSSWISE
def test_a_restore_whose_database_fails_leaves_it_empty_and_is_gone_on_with(
    registry: Registry, elsewhere: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    registry.backup(tmp_path / "backup")
    with connect(**elsewhere.settings, author="eve") as restored:
        with monkeypatch.context() as patch:
            patch.setattr(dump, "count_differences", lambda one, other: ["events"])
            with pytest.raises(IntegrityError, match="events"):
                restored.restore(tmp_path / "backup")
        assert restored.adapters().items == ()
        assert restored.restore(tmp_path / "backup").new == 0


@CROSSWISE
def test_a_process_that_is_killed_for_real_is_gone_on_with(
    local_deployment: Deployment, elsewhere: Deployment, tmp_path: Path
):
    with connect(**local_deployment.settings, author="ada") as registry:
        for number in range(6):
            registry.push(variant(tmp_path, number), f"team/a{number}")
        before = rows_of(local_deployment.database_url)
        for source, arguments, blobs in (
            (local_deployment, ("backup", tmp_path / "backup"), lambda: blobs_in(str(tmp_path / "backup"))),
            (
                elsewhere,
                ("restore", tmp_path / "backup"),
                lambda: blobs_in(elsewhere.storage_url, elsewhere.storage_endpoint),
            ),
        ):
            kill_in_the_middle(source, *arguments)
            copied = len(blobs())
            assert copied > 0
            outcome = command_line(source.environment)(*arguments, "--format", "json")
            assert outcome.exit_code == 0
            report = json.loads(outcome.stdout)
            assert (report["ok"], report["known"]) == (True, copied)
            if source is local_deployment:  # its lock is free
                assert registry.gc(grace="0h").removed == 0
        assert rows_of(elsewhere.database_url, events_after=("restore",)) == before


_SLOW = """
import os, signal, sys
from loreg.storage import FolderStore
from loreg.storage.s3 import S3Store
from loreg_cli.main import cli
done = []
for class_ in (FolderStore, S3Store):
    def put(self, *arguments, _put=class_.put):
        stored = _put(self, *arguments)
        done.append(stored)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return stored
    class_.put = put
cli(sys.argv[1:])
"""


def kill_in_the_middle(deployment: Deployment, *arguments: str | Path) -> None:
    """Run a command that is killed, with SIGKILL, when it has stored five blobs."""
    command = [sys.executable, "-c", _SLOW, *map(str, arguments)]
    outcome = subprocess.run(command, env={**os.environ, **deployment.environment}, capture_output=True, check=False)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr


@pytest.mark.parametrize("old", sorted(OLD.glob("catalog-*.sql")), ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["sqlite+folder", "postgres+s3"])
def test_a_snapshot_of_an_older_schema_is_upgraded(
    old: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """Restored to an empty registry of today's schema, it is what upgrading the old catalog in its place makes."""
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(old.read_text())
    engine = open_engine(f"sqlite:///{tmp_path}/old.db")
    with engine.connect() as connection:
        counts = dump.write(connection, tmp_path / "dump")
    engine.dispose()
    with gzip.open(tmp_path / "dump", "rt") as lines:
        assert json.loads(next(lines)) == {"schema": "loreg.catalog/1", "revision": old.stem[-4:]}
    Catalog(f"sqlite:///{tmp_path}/old.db").upgrade()
    target = new_deployment(request, kind, tmp_path)
    catalog = Catalog(target.database_url)
    catalog.upgrade()
    catalog.load(tmp_path / "dump", counts, lambda tx: None)
    upgraded, restored = (rows_of(url) for url in (f"sqlite:///{tmp_path}/old.db", target.database_url))
    for rows in (upgraded, restored):
        assert len(rows.pop("registry")) == 1  # an id of its own each, made by the migration
    assert restored == upgraded
    with catalog.write(Access.superuser("ada")) as tx:
        tx.log("test", None, None)  # with the next id
    catalog.close()


def test_a_newer_schema_is_refused(tmp_path: Path):
    with gzip.open(tmp_path / "dump", "wt") as sink:
        sink.write('{"schema":"loreg.catalog/1","revision":"9999"}\n')
    with pytest.raises(ConflictError, match="9999"):
        Catalog(f"sqlite:///{tmp_path}/c.db").load(tmp_path / "dump", {}, lambda tx: None)


def test_a_store_that_is_gone_makes_no_snapshot(local_deployment: Deployment, tmp_path: Path, loreg_at: Loreg):
    pushed = loreg_at("push", SCIENCE, "team/science")
    assert pushed.exit_code == 0
    environment = {"LOREG_STORAGE_URL": str(tmp_path / "not-mounted")}
    outcome = loreg_at("backup", tmp_path / "backup", **environment)
    assert outcome.exit_code == UnavailableError.exit_code
    assert not (tmp_path / "backup").exists() or not list((tmp_path / "backup").glob("snapshots/*"))


@pytest.fixture
def loreg_at(local_deployment: Deployment) -> Loreg:
    return command_line(local_deployment.environment)


def test_the_command_line_says_what_it_did(loreg_at: Loreg, tmp_path: Path):
    assert loreg_at("push", SCIENCE, "team/science").exit_code == 0
    made = loreg_at("backup", tmp_path / "backup")
    assert made.exit_code == 0
    assert "new blobs" in made.stdout
    listed = loreg_at("backup", tmp_path / "backup", "--list", "--format", "quiet").stdout.split()
    assert len(listed) == 1
    assert listed[0] in made.stdout
    assert loreg_at("restore", tmp_path / "backup", "--list").stdout.count(listed[0]) == 1
    new = tmp_path / "new"
    assert loreg_at("--home", new, "restore", tmp_path / "backup").exit_code == 0
    assert "team/science" in loreg_at("--home", new, "ls").stdout
    missing = loreg_at("restore", tmp_path / "nothing")
    assert missing.exit_code == NotFoundError.exit_code


def test_every_error_of_a_wrong_place_is_one_line(loreg_at: Loreg, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for place in ("ftp://x/y", tmp_path / "file"):
        outcome = loreg_at("backup", place)
        assert outcome.exit_code in (LoregError.exit_code, 2, 4)
        assert len(outcome.stderr.strip().splitlines()) == 1
