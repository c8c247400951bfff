"""gc: what is old goes and what is fresh stays, of everything that it removes; a dry run says so and does nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from sqlalchemy import select, update

import loreg
from concurrency import eventually
from deployments import HISTORY, SCIENCE, Deployment, Loreg, command_line
from live_server import live_server
from loreg import connect
from loreg.catalog import Catalog, pending_uploads, uploads
from loreg.catalog.schema import export_table, metadata, pending_upload_table, upload_table
from loreg.entities import Access, GarbageKind, GcReport, Upload
from loreg.local.upkeep import LocalUpkeep
from loreg.manifest import File
from loreg.refs import parse_adapter_name
from loreg.registry import Registry
from loreg.storage import Blob, SigningStore, put_bytes
from loreg.storage.blobs import key_of
from loreg.workspace import temporary_folders
from verbs.conftest import with_science

DAY = timedelta(days=1)
ROOT = Access.superuser("ada")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where gc looks for temporary folders."""
    folder = Path(temporary_folders.gettempdir())
    assert folder.is_relative_to(tmp_path)
    folder.mkdir()
    return folder


@pytest.fixture
def registry(science_registry: Registry) -> Registry:
    return science_registry


@pytest.fixture
def on_s3(postgres_and_s3: Deployment) -> Iterator[Registry]:
    yield from with_science(postgres_and_s3)


@pytest.fixture
def catalog(local_deployment: Deployment, registry: Registry) -> Iterator[Catalog]:
    opened = Catalog(local_deployment.database_url)
    yield opened
    opened.close()


class Bucket:
    """The objects of a deployment, as another program sees them."""

    def __init__(self, deployment: Deployment) -> None:
        self.name, _, self.prefix = deployment.storage_url.removeprefix("s3://").partition("/")
        self.client = boto3.client("s3", endpoint_url=deployment.storage_endpoint, region_name="us-east-1")

    def keys(self, below: str = "") -> list[str]:
        answer = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/{below}")
        return sorted(entry["Key"].removeprefix(f"{self.prefix}/") for entry in answer.get("Contents", ()))

    def begin_parts(self, content: bytes) -> None:
        key = f"{self.prefix}/{key_of('0' * 64)}"
        upload = self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        self.client.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=1, Body=content)

    def unfinished(self) -> int:
        answer = self.client.list_multipart_uploads(Bucket=self.name, Prefix=f"{self.prefix}/sha256/")
        return len(answer.get("Uploads", ()))


def wait(monkeypatch: pytest.MonkeyPatch, span: timedelta) -> None:
    """Let the database's clock be ahead of the store's by so much: what was stored just now is as old."""
    monkeypatch.setattr(LocalUpkeep, "now", lambda self: datetime.now(UTC) + span)


def set_back(catalog: Catalog, table: Any, column: str, span: timedelta, *conditions: Any) -> None:
    with catalog.write(ROOT) as tx:
        tx.connection.execute(update(table).where(*conditions).values({column: datetime.now(UTC) - span}))


def freed(report: GcReport) -> dict[tuple[str, str], tuple[int, int]]:
    return {(item.kind.value, item.namespace): (item.count, item.size) for item in report.freed}


def waiting(report: GcReport) -> dict[tuple[str, str], int]:
    return {(item.kind.value, item.namespace): item.count for item in report.waiting}


def leave(path: Path, content: bytes, age: timedelta = timedelta()) -> Path:
    """A file of that age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    make_old(path, age)
    return path


def make_old(path: Path, age: timedelta) -> None:
    at = datetime.now().timestamp() - age.total_seconds()
    os.utime(path, (at, at))


def test_every_kind_of_temporary_folder_is_known():
    """But for the measurements of a server, which it keeps for as long as it runs."""
    source = Path(loreg.__file__).parent
    code = "\n".join(path.read_text("utf-8") for path in source.rglob("*.py"))
    made = set(re.findall(r'(?:TemporaryDirectory|mkdtemp)\(prefix="(loreg-[^"]*)"', code))
    assert made - {"loreg-measures-"} <= set(temporary_folders.PREFIXES)
    assert all(re.fullmatch("loreg-[a-z]+-", prefix) for prefix in made)


def test_what_interrupted_writers_left_in_a_folder_goes(local: Loreg, tmp_path: Path):
    store = tmp_path / "home" / "store"
    assert local("push", SCIENCE, "team/science").exit_code == 0
    old = [leave(store / "sha256" / "ab" / ".put-0123456789abcdef", b"12345", 2 * DAY)]
    old.append(leave(store / ".new-x", b"1", 2 * DAY))
    fresh = leave(store / "sha256" / "ab" / ".put-fedcba9876543210", b"1234")
    in_use = store / ".new-folder"
    (in_use / "sub").mkdir(parents=True)
    make_old(in_use, 2 * DAY)
    with connect(home=str(tmp_path / "home")) as registry:
        report = registry.gc()
        assert freed(report) == {("unfinished write", ""): (2, 6)}
        assert waiting(report) == {("unfinished write", ""): 1}
        assert [path.exists() for path in old] == [False, False]
        assert fresh.exists()
        assert in_use.exists()  # a folder that is not empty is none of ours
        (item,) = registry.gc(grace="0h").waiting  # its writer may be at work, and would fail
        assert item.due - item.since == timedelta(hours=1)
        assert fresh.exists()


def test_uploads_in_parts_that_were_begun_before_the_grace_are_aborted(
    on_s3: Registry, postgres_and_s3: Deployment, monkeypatch: pytest.MonkeyPatch
):
    bucket = Bucket(postgres_and_s3)
    bucket.begin_parts(b"x" * 1000)
    report = on_s3.gc()
    assert (freed(report), waiting(report)) == ({}, {("unfinished write", ""): 1})
    assert bucket.unfinished() == 1
    wait(monkeypatch, DAY + timedelta(minutes=1))
    assert freed(on_s3.gc()) == {("unfinished write", ""): (1, 1000)}
    assert bucket.unfinished() == 0


def test_uploads_that_were_announced_over_a_week_ago_are_forgotten(registry: Registry, catalog: Catalog):
    blobs = [put_bytes(registry.context.store, content) for content in (b"old", b"fresh")]
    sent = [Upload(name * 8, blob.sha256, blob.size) for name, blob in zip("of", blobs, strict=True)]
    with catalog.write(ROOT) as tx:
        uploads.reserve(tx, sent)
        for upload in sent:
            uploads.mark_received(tx, upload)
    assert registry.gc().freed == ()
    set_back(catalog, upload_table, "created_at", 8 * DAY, upload_table.c.id == "o" * 8)
    report = registry.gc()
    assert freed(report) == {("upload", ""): (1, 3)}
    assert report.new == 1  # its blob
    with catalog.read(ROOT) as tx:
        assert tx.connection.execute(select(upload_table.c.id)).scalars().all() == ["f" * 8]


def test_what_was_sent_for_uploads_that_are_not_known_goes(
    on_s3: Registry, postgres_and_s3: Deployment, monkeypatch: pytest.MonkeyPatch
):
    store, bucket = on_s3.context.store, Bucket(postgres_and_s3)
    assert isinstance(store, SigningStore)
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    for name in ("known", "unknown"):
        signed = store.upload_url(Blob(digest, len(content)), name)
        assert httpx.put(signed.url, headers=dict(signed.headers), content=content).is_success
    database = Catalog(postgres_and_s3.database_url)
    with database.write(ROOT) as tx:
        uploads.reserve(tx, [Upload("known", digest, len(content))])
    report = on_s3.gc()
    assert (freed(report), waiting(report)) == ({}, {("incoming object", ""): 1})
    wait(monkeypatch, DAY + timedelta(minutes=1))
    assert freed(on_s3.gc()) == {("incoming object", ""): (1, len(content))}
    assert bucket.keys("incoming/") == ["incoming/known"]
    set_back(database, upload_table, "created_at", 8 * DAY)
    database.close()
    assert freed(on_s3.gc()) == {("upload", ""): (1, 0), ("incoming object", ""): (1, len(content))}
    assert bucket.keys("incoming/") == []


def test_more_uploads_than_one_transaction_takes_are_forgotten_in_one_run(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        catalog = Catalog(f"sqlite:///{tmp_path}/home/catalog.db")
        with catalog.write(ROOT) as tx:
            uploads.reserve(tx, [Upload(f"{number:08}", "0" * 64, 1) for number in range(2001)])
        set_back(catalog, upload_table, "created_at", 8 * DAY)
        catalog.close()
        assert freed(registry.gc()) == {("upload", ""): (2001, 0)}


def test_a_server_forgets_expired_uploads_itself(on_s3: Registry, postgres_and_s3: Deployment):
    store, bucket = on_s3.context.store, Bucket(postgres_and_s3)
    assert isinstance(store, SigningStore)
    content = b"weights"
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    database = Catalog(postgres_and_s3.database_url)
    with database.write(ROOT) as tx:
        uploads.reserve(tx, [Upload(name, blob.sha256, blob.size) for name in ("old", "fresh")])
    for name in ("old", "fresh"):
        signed = store.upload_url(blob, name)
        assert httpx.put(signed.url, headers=dict(signed.headers), content=content).is_success
    set_back(database, upload_table, "created_at", 8 * DAY, upload_table.c.id == "old")
    with live_server(postgres_and_s3):
        eventually(lambda: bucket.keys("incoming/") == ["incoming/fresh"])
    with database.read(ROOT) as tx:
        assert tx.connection.execute(select(upload_table.c.id)).scalars().all() == ["fresh"]
    database.close()


def test_pending_uploads_that_nothing_was_added_to_for_a_month_go_by_namespace(registry: Registry, catalog: Catalog):
    blob = put_bytes(registry.context.store, b"half of an adapter")
    with catalog.write(ROOT) as tx:
        for name in ("team/a", "team/b", "other/c", "other/fresh"):
            files = (File("README.md", blob.sha256, blob.size),)
            pending_uploads.save(tx, parse_adapter_name(name), "", pending_uploads.PendingUpload(files, ""))
    assert registry.gc().freed == ()
    set_back(catalog, pending_upload_table, "updated_at", 31 * DAY, pending_upload_table.c.name != "fresh")
    assert freed(registry.gc()) == {
        ("pending upload", "other"): (1, blob.size),
        ("pending upload", "team"): (2, 2 * blob.size),
    }
    undrafted = [event.detail["adapter"] for event in registry.events().items if event.action == "undraft"]
    assert sorted(undrafted) == ["other/c", "team/a", "team/b"]
    assert registry.verify().references == 4  # one is still there, and its blob


def test_copies_of_versions_that_are_yanked_or_not_there_go_and_others_with_caches(
    on_s3: Registry, postgres_and_s3: Deployment, monkeypatch: pytest.MonkeyPatch
):
    store, bucket = on_s3.context.store, Bucket(postgres_and_s3)
    assert isinstance(store, SigningStore)
    yanked = on_s3.push(HISTORY, "other/history").version
    live = on_s3.show("team/science")
    files = {file.path: file.sha256 for file in live.files}
    for name in (yanked.digest, live.version.digest, "0" * 64):
        store.materialize_folder(name, files)
    on_s3.yank("other/history:v1")
    report = on_s3.gc()
    assert (freed(report), waiting(report)) == ({}, {("copy for servers", ""): 1, ("copy for servers", "other"): 1})
    size = sum(file.size for file in live.files)
    wait(monkeypatch, DAY + timedelta(minutes=1))
    assert freed(on_s3.gc()) == {("copy for servers", ""): (1, size), ("copy for servers", "other"): (1, size)}
    assert bucket.keys("named/") == sorted(f"named/{live.version.digest}/{path}" for path in files)
    assert freed(on_s3.gc(caches=True)) == {("copy for servers", "team"): (1, size)}
    assert bucket.keys("named/") == []
    store.materialize_folder(live.version.digest, files)
    assert len(bucket.keys("named/")) == len(files)


def test_exports_of_yanked_versions_go_by_namespace_and_others_with_caches(
    registry: Registry, catalog: Catalog, tmp_path: Path
):
    registry.push(HISTORY, "other/history")
    for name in ("team/science", "other/history"):
        registry.pull(name, tmp_path / name.replace("/", "-"), profile="vllm")
    registry.yank("other/history:v1")
    assert registry.gc(caches=True).freed == ()  # both were made just now
    set_back(catalog, export_table, "created_at", 2 * DAY)
    made = {path.name: path.stat().st_size for path in (tmp_path / "other-history").iterdir()}
    report = registry.gc()
    assert freed(report) == {("export", "other"): (1, sum(made.values()))}
    assert report.new > 0
    assert {event.ref for event in registry.events().items if event.action == "export drop"} == {"other/history:v1"}
    (of_science,) = registry.gc(caches=True).freed
    assert (of_science.kind, of_science.namespace, of_science.count) == (GarbageKind.EXPORT, "team", 1)
    assert registry.gc(grace="0h").removed > 0
    assert registry.verify(read_data=True).ok
    registry.pull("team/science", tmp_path / "again", profile="vllm")
    assert registry.verify(read_data=True).ok


def test_folders_that_killed_processes_left_on_this_machine_go(temporary: Path, tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        old = [temporary / f"loreg-{verb}-abc" for verb in ("push", "merge", "commit", "export", "upload", "repair")]
        at_work, others = temporary / "loreg-push-at-work", temporary / "loreg-bench-abc"
        for folder in (*old, at_work, others):
            leave(folder / "deep" / "file", b"1234", 2 * DAY)
            make_old(folder / "deep", 2 * DAY)
            make_old(folder, 2 * DAY)
        make_old(at_work / "deep" / "file", timedelta(hours=2))
        target = leave(tmp_path / "target" / "file", b"mine", 2 * DAY)
        (temporary / "loreg-push-link").symlink_to(target.parent)
        plain = leave(temporary / "loreg-push-file", b"no folder", 2 * DAY)
        cached = leave(tmp_path / "home" / "cache" / "bases" / ".new-abc", b"12", 2 * DAY)
        report = registry.gc()
        assert freed(report) == {("temporary folder", ""): (7, 6 * 4 + 2)}
        assert waiting(report) == {("temporary folder", ""): 1}
        assert not any(path.exists() for path in (*old, cached))
        assert all(path.exists() for path in (at_work, others, target, plain, temporary / "loreg-push-link"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to another user")
def test_another_users_folders_stay(temporary: Path, tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        foreign = temporary / "loreg-push-abc"
        foreign.mkdir()
        make_old(foreign, 2 * DAY)
        os.chown(foreign, 54321, 54321)
        assert registry.gc().freed == ()
        assert foreign.exists()


def state_of(deployment: Deployment) -> Any:
    """Every row of the catalog, and every file or object of the store."""
    catalog = Catalog(deployment.database_url)
    with catalog.read(ROOT) as tx:
        rows = {table.name: sorted(map(repr, tx.connection.execute(select(table)))) for table in metadata.sorted_tables}
    catalog.close()
    if deployment.storage_endpoint:
        bucket = Bucket(deployment)
        return rows, bucket.keys(), bucket.unfinished()
    return rows, sorted(str(path) for path in Path(deployment.storage_url).rglob("*"))


def fill_with_garbage(registry: Registry, deployment: Deployment, catalog: Catalog, temporary: Path) -> None:
    """Something of every kind that the deployment can have, all of it old."""
    store = registry.context.store
    registry.push(HISTORY, "team/history")
    registry.pull("team/history", temporary.parent / "out", profile="vllm")
    registry.yank("team/history")
    put_bytes(store, b"of nobody")
    registry.gc()
    blob = put_bytes(store, b"of a pending upload")
    with catalog.write(ROOT) as tx:
        files = (File("README.md", blob.sha256, blob.size),)
        pending_uploads.save(tx, parse_adapter_name("team/a"), "", pending_uploads.PendingUpload(files, ""))
        uploads.reserve(tx, [Upload("x" * 8, blob.sha256, blob.size)])
    for table, column in ((upload_table, "created_at"), (pending_upload_table, "updated_at")):
        set_back(catalog, table, column, 31 * DAY)
    set_back(catalog, export_table, "created_at", 3 * DAY)
    set_back(catalog, metadata.tables["garbage"], "marked_at", 3 * DAY)
    leave(temporary / "loreg-push-abc" / "file", b"1234", 3 * DAY)
    make_old(temporary / "loreg-push-abc", 3 * DAY)
    put_bytes(store, b"found now")
    if isinstance(store, SigningStore):
        Bucket(deployment).begin_parts(b"x" * 100)
        store.materialize_folder("0" * 64, {"README.md": blob.sha256})
        signed = store.upload_url(blob, "unknown")
        content = b"of a pending upload"
        assert httpx.put(signed.url, headers=dict(signed.headers), content=content).is_success
    else:
        leave(Path(deployment.storage_url) / ".new-abc", b"1", 3 * DAY)


def test_a_dry_run_says_what_the_next_run_removes_and_changes_nothing(
    registry: Registry,
    local_deployment: Deployment,
    catalog: Catalog,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    fill_with_garbage(registry, local_deployment, catalog, temporary)
    if local_deployment.storage_endpoint:
        wait(monkeypatch, 2 * DAY)
    before = state_of(local_deployment)
    report = registry.gc(dry_run=True)
    assert state_of(local_deployment) == before
    assert (temporary / "loreg-push-abc").exists()
    done = registry.gc()
    assert freed(report) == freed(done)
    kinds = {"blob", "unfinished write", "temporary folder", "upload", "pending upload", "export"}
    more = {"copy for servers", "incoming object"} if local_deployment.storage_endpoint else set()
    assert {item.kind.value for item in done.freed} == kinds | more
    assert report.new == 1  # what was found now
    assert done.new > 1  # and what the rows that went referred to
    again = registry.gc()
    assert again.freed == ()
    assert registry.verify(read_data=True).ok


def test_what_is_removed_is_an_event_by_kind(
    registry: Registry, local_deployment: Deployment, catalog: Catalog, temporary: Path
):
    fill_with_garbage(registry, local_deployment, catalog, temporary)
    report = registry.gc()
    (event, *_) = [event for event in registry.events().items if event.action == "gc"]
    counts: dict[str, int] = {}
    for item in report.freed:
        counts[item.kind.value] = counts.get(item.kind.value, 0) + item.count
    assert event.detail == {"removed": counts, "size": report.freed_size}
    assert counts["blob"] == 1


def test_a_dry_run_marks_no_store(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        owner = tmp_path / "home" / "store" / "owner"
        owner.unlink()
        put_bytes(registry.context.store, b"of nobody")
        report = registry.gc(grace="0h", dry_run=True)
        assert (report.removed, report.marked, owner.exists()) == (0, 1, False)  # nor would the run that marks it


def test_people_programs_and_scripts_read_what_is_freed(registry: Registry, local_deployment: Deployment):
    loreg = command_line(local_deployment.environment)
    put_bytes(registry.context.store, b"of nobody")
    table = loreg("gc", "--dry-run")
    assert (table.exit_code, table.stderr) == (0, "")
    assert "0 B would be freed, 1 blobs newly found" in table.stdout
    assert "GOES FROM" in table.stdout
    assert loreg("gc", "--grace", "24h", "--format", "quiet").stdout == "0\n"
    report = json.loads(loreg("gc", "--dry-run", "--grace", "0h", "--format", "json").stdout)
    assert report["freed"] == [{"kind": "blob", "namespace": "", "count": 1, "size": 9}]
    assert (report["freed_size"], report["waiting"], report["dry_run"]) == (9, [], True)
    assert "blob" in loreg("gc", "--grace", "0h").stdout
    assert registry.verify().orphan_count == 0


@pytest.mark.parametrize("grace", ["yesterday", "-1h", ""])
def test_a_grace_that_is_none_is_one_line_with_a_hint(local: Loreg, grace: str):
    outcome = local("gc", "--grace", grace)
    assert outcome.exit_code == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert "Hint: " in outcome.stderr
