"""gc beside others and cut off at every step: nothing that is referred to goes, and the next run finishes the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from concurrency import all_at_once
from deployments import HISTORY, SCIENCE, Deployment
from loreg import connect
from loreg.catalog import Catalog
from loreg.catalog.schema import garbage_table
from loreg.entities import Access
from loreg.errors import CollectedError, UnavailableError
from loreg.registry import Registry
from loreg.storage import BlobStore, collected, digest_of, put_bytes, removal
from loreg.upkeep import CLAIM_SECONDS
from loreg.verbs import gc as gc_module

ROOT = Access.superuser("ada")
WEIGHTS = digest_of(HISTORY / "adapter_model.safetensors").sha256
ORPHANS = [f"orphan {number}".encode() for number in range(5)]
DIES = """
import os, signal, sys
from loreg import connect
from loreg.local.upkeep import LocalUpkeep

def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)

with connect(database_url=sys.argv[2], storage_url=sys.argv[3], storage_endpoint=sys.argv[4]) as registry:
    kind = {"delete": type(registry.context.store), "settle_garbage": LocalUpkeep, "log": LocalUpkeep}[sys.argv[1]]
    setattr(kind, sys.argv[1], die)
    registry.gc(grace="0h")
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push tries again at once what it would try again in a moment."""
    monkeypatch.setattr(collected._IF_COLLECTED, "sleep", lambda seconds: None)


@pytest.fixture
def registry(local_deployment: Deployment) -> Iterator[Registry]:
    """With a version, a few blobs of nobody, and the weights of a push that is to come among them."""
    with connect(**local_deployment.settings, author="ada") as opened:
        opened.push(SCIENCE, "team/science")
        for content in (*ORPHANS, (HISTORY / "adapter_model.safetensors").read_bytes()):
            put_bytes(opened.context.store, content)
        yield opened


@pytest.fixture
def catalog(local_deployment: Deployment, registry: Registry) -> Iterator[Catalog]:
    opened = Catalog(local_deployment.database_url)
    yield opened
    opened.close()


def store_of(registry: Registry) -> BlobStore:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return store


def let_claims_run_out(catalog: Catalog) -> None:
    with catalog.write(ROOT) as tx:
        claimed = garbage_table.c.claimed_at.is_not(None) & garbage_table.c.collected_at.is_(None)
        for row in tx.connection.execute(select(garbage_table).where(claimed)).all():
            at = row.claimed_at - timedelta(minutes=16)
            is_row = garbage_table.c.digest == row.digest
            tx.connection.execute(update(garbage_table).where(is_row).values(claimed_at=at))


def states(catalog: Catalog) -> list[tuple[bool, bool]]:
    """Of each row of garbage, whether it was claimed and collected."""
    with catalog.read(ROOT) as tx:
        rows = tx.connection.execute(select(garbage_table.c.claimed_at, garbage_table.c.collected_at)).all()
    return [(claimed is not None, collected is not None) for claimed, collected in rows]


def killed_at(step: str, deployment: Deployment, folder: Path) -> None:
    places = (deployment.database_url, deployment.storage_url, deployment.storage_endpoint)
    command, environment = [sys.executable, "-c", DIES, step, *places], {**os.environ, "TMPDIR": str(folder)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize("step", ["delete", "settle_garbage", "log"])
def test_after_a_kill_the_next_run_finishes(
    step: str, registry: Registry, local_deployment: Deployment, catalog: Catalog, tmp_path: Path
):
    killed_at(step, local_deployment, tmp_path)
    registry.gc(grace="0h")
    let_claims_run_out(catalog)
    registry.gc(grace="0h")
    assert registry.verify(read_data=True).ok
    assert registry.verify().orphan_count == 0
    assert states(catalog) == [(True, True)] * (len(ORPHANS) + 1)


@pytest.mark.parametrize("step", ["delete", "settle_garbage"])
def test_a_push_of_what_a_killed_run_had_claimed_waits_for_the_claim_and_loses_nothing(
    step: str, registry: Registry, local_deployment: Deployment, catalog: Catalog, tmp_path: Path
):
    killed_at(step, local_deployment, tmp_path)
    with pytest.raises(CollectedError, match="is being removed") as error:
        registry.push(HISTORY, "team/history")
    assert error.value.hint == "push again in a minute"
    let_claims_run_out(catalog)
    assert registry.push(HISTORY, "team/history").created
    registry.gc(grace="0h")
    assert store_of(registry).size(WEIGHTS) is not None
    assert registry.verify(read_data=True).ok


def test_a_store_that_fails_in_the_middle_ends_the_run_and_the_next_one_finishes(
    registry: Registry, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    kind, deleted = type(registry.context.store), []
    delete = kind.delete

    def fail_once(self: Any, sha256: str) -> None:
        deleted.append(sha256)
        if len(deleted) == 3:
            raise UnavailableError("the store does not answer", hint="loreg doctor")
        delete(self, sha256)

    monkeypatch.setattr(store_of(registry), "parallelism", 1)
    monkeypatch.setattr(kind, "delete", fail_once)
    with pytest.raises(UnavailableError):
        registry.gc(grace="0h")
    assert len(deleted) == 3
    assert sorted(states(catalog)) == [(True, False)] * 4 + [(True, True)] * 2
    (event, *_) = registry.events().items
    assert (event.action, event.detail["removed"]) == ("gc", {"blob": 2})
    monkeypatch.setattr(kind, "delete", delete)
    assert registry.gc(grace="0h").removed == 0  # a request may still be on its way to the store
    let_claims_run_out(catalog)
    assert registry.gc(grace="0h").removed == 4
    assert registry.verify(read_data=True).ok


def test_a_collector_whose_claim_ran_out_deletes_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    before = {blob.sha256 for blob in store_of(registry).list()}
    clock = iter([0.0])  # before the claim; after it as much has passed as a claim holds for its collector
    for module in (gc_module, removal):
        monkeypatch.setattr(module, "seconds", lambda: next(clock, CLAIM_SECONDS))
    assert registry.gc(grace="0h").removed == 0
    assert {blob.sha256 for blob in store_of(registry).list()} == before
    with pytest.raises(CollectedError):  # until nothing of it can be on its way any more
        registry.push(HISTORY, "team/history")


def test_a_collector_that_sleeps_in_the_middle_of_a_batch_deletes_no_more(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    store, now = store_of(registry), [0.0]
    delete = type(store).delete

    def delete_and_sleep(self: Any, sha256: str) -> None:
        delete(self, sha256)
        now[0] += CLAIM_SECONDS / 3

    monkeypatch.setattr(store, "parallelism", 1)
    for module in (gc_module, removal):
        monkeypatch.setattr(module, "seconds", lambda: now[0])
    monkeypatch.setattr(type(store), "delete", delete_and_sleep)
    assert registry.gc(grace="0h").removed == 3
    assert registry.verify().orphan_count == len(ORPHANS) + 1 - 3


def test_what_a_collector_settles_too_late_is_not_taken_for_the_work_of_the_next(registry: Registry, catalog: Catalog):
    """Else a push would refer to a blob that the second one is about to delete."""
    upkeep = registry.context.backend.upkeep()
    registry.gc(grace="24h")
    first = upkeep.claim_garbage(timedelta(0), 100)
    let_claims_run_out(catalog)
    second = upkeep.claim_garbage(timedelta(0), 100)
    assert first is not None
    assert second is not None
    assert first.blobs == second.blobs
    upkeep.settle_garbage([blob.sha256 for blob in first.blobs], first.at)
    assert states(catalog) == [(True, False)] * (len(ORPHANS) + 1)
    with pytest.raises(CollectedError, match="is being removed"):
        registry.push(HISTORY, "team/history")
    upkeep.settle_garbage([blob.sha256 for blob in second.blobs], second.at)
    assert states(catalog) == [(True, True)] * (len(ORPHANS) + 1)


def test_of_two_collectors_at_once_each_blob_is_removed_by_one(
    registry: Registry, local_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gc_module, "_BATCH", 2)
    registry.gc(grace="24h")
    with connect(**local_deployment.settings) as other:
        reports = all_at_once([lambda: registry.gc(grace="0h"), lambda: other.gc(grace="0h")])
    assert sum(report.removed for report in reports) == len(ORPHANS) + 1
    assert registry.verify().orphan_count == 0
    assert registry.verify(read_data=True).ok


def test_pushes_beside_collectors_lose_nothing(registry: Registry, local_deployment: Deployment):
    """Pushes of the same weights, which are garbage again and again, beside two collectors without a grace."""

    def collect() -> int:
        with connect(**local_deployment.settings) as own:
            return sum(own.gc(grace="0h").removed for _ in range(4))

    def push(number: int) -> int:
        with connect(**local_deployment.settings, author=f"p{number}") as own:
            while True:
                try:
                    return own.push(HISTORY, f"team/history-{number}").version.number
                except CollectedError:  # the command says to push again
                    continue

    calls: list[Any] = [collect, collect, *(lambda number=number: push(number) for number in range(4))]
    all_at_once(calls)
    assert len(registry.adapters().items) == 5
    assert registry.verify(read_data=True).ok
