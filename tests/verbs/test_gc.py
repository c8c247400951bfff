"""gc: what nothing refers to is removed after the grace, and nothing else, whatever is at work beside it."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import subprocess
import tracemalloc
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from deployments import HISTORY, Deployment
from loreg import connect
from loreg.catalog import Catalog, garbage
from loreg.entities import Access, Garbage, GarbageClaim, MarkedGarbage
from loreg.errors import CollectedError, ConflictError
from loreg.registry import Registry
from loreg.storage import Blob, BlobStore, put_bytes
from loreg.verbs import gc as gc_module

ORPHAN = b"of nobody"
DIGEST = hashlib.sha256(ORPHAN).hexdigest()


@pytest.fixture
def registry(science_registry: Registry) -> Registry:
    return science_registry


def store_of(registry: Registry) -> BlobStore:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return store


def test_an_orphan_goes_when_the_grace_has_passed_since_it_was_found(registry: Registry):
    put_bytes(store_of(registry), ORPHAN)
    first = registry.gc(grace="24h")
    assert (first.removed, first.marked, first.marked_size, first.new) == (0, 1, len(ORPHAN), 1)
    second = registry.gc(grace="24h")
    assert (second.removed, second.marked, second.new) == (0, 1, 0)
    third = registry.gc(grace="0h")
    assert (third.removed, third.removed_size, third.marked) == (1, len(ORPHAN), 0)
    assert store_of(registry).size(DIGEST) is None
    assert registry.verify().orphan_count == 0


def test_nothing_that_is_referred_to_goes(registry: Registry, tmp_path: Path):
    registry.push(HISTORY, "team/history")
    registry.yank("team/history:v1")
    registry.pull("team/science", tmp_path / "out", profile="vllm")
    before = {blob.sha256 for blob in store_of(registry).list()}
    assert registry.gc(grace="0h").removed == 0
    assert {blob.sha256 for blob in store_of(registry).list()} == before
    assert registry.verify(read_data=True).ok


def test_a_dry_run_changes_nothing(registry: Registry):
    put_bytes(store_of(registry), ORPHAN)
    registry.gc(grace="24h")
    put_bytes(store_of(registry), b"another")
    report = registry.gc(grace="0h", dry_run=True)
    assert (report.dry_run, report.removed, report.new) == (True, 2, 1)
    assert store_of(registry).size(DIGEST) == len(ORPHAN)
    assert len(registry.events().items) == 1  # the push


def test_a_push_keeps_what_it_finds_marked(registry: Registry):
    store = store_of(registry)
    for path in HISTORY.iterdir():
        put_bytes(store, path.read_bytes())
    assert registry.gc(grace="24h").new > 0
    registry.push(HISTORY, "team/history")
    assert registry.gc(grace="0h").removed == 0
    assert registry.verify(read_data=True).ok


def test_a_push_whose_blobs_are_removed_before_it_commits_sends_them_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    backend, seen = registry.context.backend, []
    commit = backend.commit

    def collect_first(request):
        if not seen:
            seen.append(registry.gc(grace="0h").removed)
        return commit(request)

    monkeypatch.setattr(backend, "commit", collect_first)
    registry.push(HISTORY, "team/history")
    assert seen == [1]  # the weights: the configuration is that of team/science
    assert registry.verify(read_data=True).ok


@contextlib.contextmanager
def before_the_transaction(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> Iterator[None]:
    """Do something once, between the store's answer to a commit and the transaction that records it."""
    write, waiting = Catalog.write, [action]

    @contextlib.contextmanager
    def patched(self: Catalog, access: Access):
        if waiting:
            waiting.pop()()
        with write(self, access) as tx:
            yield tx

    monkeypatch.setattr(Catalog, "write", patched)
    yield
    monkeypatch.setattr(Catalog, "write", write)


def test_what_is_collected_between_the_look_and_the_commit_is_not_recorded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    backend, looks = registry.context.backend, []
    commit = backend.commit

    def racing(request):
        if looks:
            return commit(request)
        with before_the_transaction(monkeypatch, lambda: looks.append(registry.gc(grace="0h").removed)):
            return commit(request)

    monkeypatch.setattr(backend, "commit", racing)
    assert registry.push(HISTORY, "team/history").created
    assert looks[0] >= 2
    assert registry.verify(read_data=True).ok


def test_what_is_being_removed_cannot_be_committed_until_that_is_settled(registry: Registry):
    store = store_of(registry)
    put_bytes(store, ORPHAN)
    registry.gc(grace="24h")
    upkeep, catalog = registry.context.backend.upkeep(), registry.context.backend.catalog
    claim = upkeep.claim_garbage(timedelta(0), 10)
    assert claim is not None
    assert [blob.sha256 for blob in claim.blobs] == [DIGEST]
    with pytest.raises(CollectedError, match="is being removed"), catalog.write(Access.superuser("ada")) as tx:
        garbage.protect(tx, [DIGEST])
    assert upkeep.claim_garbage(timedelta(0), 10) is None  # it is another collector's
    store.delete(DIGEST)
    upkeep.settle_garbage([DIGEST], claim.at)
    with pytest.raises(garbage.StaleSightingError, match="was removed"), catalog.write(Access.superuser("ada")) as tx:
        garbage.protect(tx, [DIGEST])


def test_a_store_of_another_registry_is_refused(local_deployment: Deployment, registry: Registry, tmp_path: Path):
    settings = {**local_deployment.settings, "database_url": f"sqlite:///{tmp_path}/other.db"}
    with connect(**settings, author="eve") as other:
        for change in (lambda: other.push(HISTORY, "team/history"), lambda: other.gc(grace="0h")):
            with pytest.raises(ConflictError, match="belongs to registry"):
                change()
        assert other.adapters().items == ()
    assert registry.verify(read_data=True).ok


def test_the_run_that_marks_the_store_removes_nothing(registry: Registry, tmp_path: Path):
    store = store_of(registry)
    put_bytes(store, ORPHAN)
    registry.gc(grace="24h")
    Path(store.url, "owner").unlink() if Path(store.url).is_dir() else pytest.skip("the mark of S3 is no file")
    assert registry.gc(grace="0h").removed == 0
    assert registry.gc(grace="0h").removed == 1


def test_a_blob_that_was_collected_can_be_pushed_again(registry: Registry, tmp_path: Path):
    store = store_of(registry)
    (tmp_path / "x").write_bytes(ORPHAN)
    for _ in range(2):
        assert store.put(Blob(DIGEST, len(ORPHAN)), tmp_path / "x")
        assert registry.gc(grace="0h").removed == 1


def run_by_a_person(command: str) -> None:
    """Run a command as its hint has it; of aws, which is not installed here, do what it says that it does."""
    words = shlex.split(command)
    if words[0] != "aws":
        subprocess.run(words, check=True)
        return
    aws, s3, rm, url, option, endpoint = words
    assert [aws, s3, rm, option] == ["aws", "s3", "rm", "--endpoint-url"]
    bucket, _, key = url.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.head_object(Bucket=bucket, Key=key)  # it is there
    client.delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize("refused", ["push", "gc"])
def test_the_hint_for_a_store_of_a_registry_that_is_gone_mends_it(
    refused: str, local_deployment: Deployment, registry: Registry, tmp_path: Path
):
    settings = {**local_deployment.settings, "database_url": f"sqlite:///{tmp_path}/new.db"}
    with connect(**settings, author="eve") as new:
        with pytest.raises(ConflictError, match="belongs to registry") as error:
            new.push(HISTORY, "team/history") if refused == "push" else new.gc()
        run_by_a_person(error.value.hint.rpartition("first: ")[2])
    with connect(**settings, author="eve") as new:
        assert new.push(HISTORY, "team/history").created
        assert new.gc().marked > 0  # what only the other one had
        assert new.verify(read_data=True).ok


class Endless:
    """A store of many small blobs, every tenth of them garbage, and the upkeep of its catalog."""

    url, parallelism = "endless", 2

    def __init__(self, count: int) -> None:
        self.count, self.deleted, self.left = count, 0, count // 10

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: iter(())  # what there is none of

    def registry_id(self) -> str:
        return "0" * 32

    owner = registry_id

    def list(self) -> Iterator[Blob]:
        return (Blob(f"{number:064x}", 10) for number in range(self.count))

    def now(self) -> datetime:
        return datetime.now(UTC)

    def unreferenced(self, digests: Collection[str]) -> frozenset[str]:
        return frozenset(digest for digest in digests if int(digest, 16) % 10 == 0)

    def mark_garbage(self, sizes: Mapping[str, int], listed_at: datetime) -> int:
        return len(sizes)

    def claim_garbage(self, grace: timedelta, limit: int) -> GarbageClaim | None:
        count = min(limit, self.left)
        self.left -= count
        blobs = tuple(Garbage(f"{number:064x}", 10) for number in range(count))
        return GarbageClaim(self.now(), blobs) if count else None

    def marked_garbage(self, within: timedelta | None = None) -> MarkedGarbage:
        return MarkedGarbage(0, 0, None)


def test_memory_does_not_grow_with_the_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gc_module, "_BATCH", 100)
    monkeypatch.setattr(gc_module, "store_of", lambda context: context.store)

    def peak(count: int) -> int:
        endless = Endless(count)
        backend = SimpleNamespace(upkeep=lambda: endless)
        tracemalloc.start()
        report = gc_module.gc(SimpleNamespace(backend=backend, store=endless, base_cache=tmp_path / "x"))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (report.removed, report.new) == (count // 10, count // 10)
        return most

    peak(1000)  # imports
    assert peak(50_000) < 1.5 * peak(5_000)
