"""Whoever stores blobs and commits then gets on, also when gc removes one in between: bases, exports, Hub clients."""

from __future__ import annotations

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import select

from concurrency import eventually, somebody_waits
from deployments import HISTORY, Deployment
from factories import train, write_base
from loreg.bases.identify import identify
from loreg.catalog import Catalog, collection, garbage, versions
from loreg.catalog.garbage import StaleSightingError
from loreg.catalog.schema import export_table
from loreg.entities import Access, Commit
from loreg.errors import CollectedError
from loreg.local import reference_writes
from loreg.local.backend import LocalBackend
from loreg.local.commit import read_commit
from loreg.local.pending_uploads import HubCommit, commit_files
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, parse_ref
from loreg.registry import Registry
from loreg.storage import Blob, BlobStore, collected, digest_of, put_bytes
from loreg.storage.staged import StagedStore

ROOT = Access.superuser("ada")
FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again in a moment is tried again at once."""
    monkeypatch.setattr(collected._IF_COLLECTED, "sleep", lambda seconds: None)


@pytest.fixture
def registry(science_registry: Registry) -> Registry:
    return science_registry


@pytest.fixture
def store(registry: Registry) -> BlobStore:
    opened = registry.context.store
    assert isinstance(opened, BlobStore)
    return opened


@pytest.fixture
def backend(registry: Registry) -> LocalBackend:
    opened = registry.context.backend
    assert isinstance(opened, LocalBackend)
    return opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    weight = {"model.layers.0.self_attn.q_proj.weight": np.ones((2, 2), np.float32)}
    save_file(weight, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    return folder


def test_adding_a_base_keeps_what_it_finds_marked(
    registry: Registry, store: BlobStore, backend: LocalBackend, model: Path, monkeypatch: pytest.MonkeyPatch
):
    put_bytes(store, identify(model, ("org/base",)).tensor_list)
    assert registry.gc(grace="24h").new == 1
    add_base, marked = backend.add_base, []

    def look_first(base):
        marked.append(backend.upkeep().marked_garbage().count)
        return add_base(base)

    monkeypatch.setattr(backend, "add_base", look_first)
    registry.bases.add(model, ["org/base"])
    assert marked == [0]


def test_a_base_whose_list_is_removed_before_it_is_recorded_is_stored_again(
    registry: Registry, backend: LocalBackend, model: Path, monkeypatch: pytest.MonkeyPatch
):
    write, removed = backend.write_references, []

    def collect_first():
        if not removed:
            removed.append(registry.gc(grace="0h").removed)
        return write()

    monkeypatch.setattr(backend, "write_references", collect_first)
    assert registry.bases.add(model, ["org/base"]).created
    assert removed == [1]
    assert registry.verify(read_data=True).ok


def test_an_export_whose_files_are_removed_before_it_is_recorded_is_made_again(
    registry: Registry, backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, removed = backend.write_references, []

    def collect_first():
        if not removed:
            removed.append(registry.gc(grace="0h").removed)
        return write()

    monkeypatch.setattr(backend, "write_references", collect_first)
    registry.pull("team/science", tmp_path / "out", profile="vllm")
    assert removed[0] > 0
    assert registry.verify(read_data=True).ok


def test_making_an_export_keeps_what_it_finds_marked(
    registry: Registry, backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    registry.pull("team/science", tmp_path / "out", profile="vllm")
    with backend.catalog.read(ROOT) as tx:
        request = tx.connection.execute(select(export_table.c.request)).scalar_one()
    backend.drop_export(parse_ref("team/science:v1"), request)
    assert registry.gc(grace="24h").new > 0
    write, marked = backend.write_references, []

    def look_first():
        marked.append(backend.upkeep().marked_garbage().count)
        return write()

    monkeypatch.setattr(backend, "write_references", look_first)
    registry.pull("team/science", tmp_path / "again", profile="vllm")
    assert marked == [0]


def staged(store: BlobStore, folder: Path) -> tuple[StagedStore, dict[str, Blob]]:
    """Return the files of an adapter as a Hub client sent them, by path, and the store that has staged them."""
    folder.mkdir()
    blobs, into = {}, StagedStore(store, folder)
    for path in FILES:
        blobs[path] = digest_of(HISTORY / path)
        shutil.copy(HISTORY / path, folder / "sent")
        into.put(blobs[path], folder / "sent")
    return into, blobs


@pytest.fixture
def after_a_collection(registry: Registry, store: BlobStore) -> None:
    """The adapter that a client is about to send lay in the store, and was collected a moment ago."""
    for path in FILES:
        put_bytes(store, (HISTORY / path).read_bytes())
    assert registry.gc(grace="0h").removed > 0


@pytest.mark.usefixtures("after_a_collection")
def test_a_hub_client_can_commit_what_was_collected(
    registry: Registry, store: BlobStore, backend: LocalBackend, tmp_path: Path
):
    sent, blobs = staged(store, tmp_path / "sent")
    commit_files(backend, ROOT, sent, AdapterName("team", "hub"), "", HubCommit("", blobs, ()))
    assert registry.show("team/hub:v1").version.number == 1
    assert registry.verify(read_data=True).ok


@pytest.mark.usefixtures("after_a_collection")
def test_a_rehearsal_does_not_say_that_collected_blobs_are_back(
    store: BlobStore, backend: LocalBackend, tmp_path: Path
):
    sent, blobs = staged(store, tmp_path / "sent")
    manifest = Manifest(tuple(File(path, blobs[path].sha256, blobs[path].size) for path in FILES))
    backend.rehearse(read_commit(sent, Commit(AdapterName("team", "hub"), manifest), {}), sent)
    weights = blobs[FILES[1]].sha256
    with pytest.raises(StaleSightingError, match="was removed"), backend.catalog.write(ROOT) as tx:
        garbage.protect(tx, [weights])


@pytest.mark.usefixtures("after_a_collection")
def test_a_rehearsal_finds_what_is_neither_sent_nor_stored(store: BlobStore, backend: LocalBackend, tmp_path: Path):
    sent, blobs = staged(store, tmp_path / "sent")
    manifest = Manifest(tuple(File(path, blobs[path].sha256, blobs[path].size) for path in FILES))
    parsed = read_commit(sent, Commit(AdapterName("team", "hub"), manifest), {})
    with pytest.raises(CollectedError, match="was removed"):
        backend.rehearse(parsed, store)


def test_a_push_that_brings_its_base_and_a_deletion_lock_in_one_order(
    registry: Registry, backend: LocalBackend, local_deployment: Deployment, tmp_path: Path
):
    """The deletion has the adapter when the push comes, and then locks what is referred to."""
    adapter, base = train(tmp_path / "adapter", 1), str(write_base(tmp_path / "base"))
    with ThreadPoolExecutor(1) as pool:
        with backend.catalog.write(ROOT) as tx:
            versions.lock_adapter(tx, versions.find_adapter_id(tx, AdapterName("team", "science")))
            pushed = pool.submit(registry.push, adapter, "team/science", base=base)
            eventually(lambda: somebody_waits(local_deployment.database_url))
            garbage.lock(tx, shared=False)
        assert pushed.result().version.number == 2


@pytest.mark.usefixtures("after_a_collection")
def test_a_rehearsal_and_a_commit_of_the_same_blobs_lock_in_one_order(
    store: BlobStore,
    backend: LocalBackend,
    local_deployment: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The commit has the adapter when the rehearsal tries again, and then forgets that the blobs were collected."""
    sent, blobs = staged(store, tmp_path / "sent")
    manifest = Manifest(tuple(File(path, blobs[path].sha256, blobs[path].size) for path in FILES))
    parsed = read_commit(sent, Commit(AdapterName("team", "science"), manifest), {})
    is_sent_back, may_try_again = Event(), Event()
    require_another_attempt = reference_writes._require_another_attempt

    def wait_first(*arguments) -> None:
        is_sent_back.set()
        assert may_try_again.wait(60)
        require_another_attempt(*arguments)

    monkeypatch.setattr(reference_writes, "_require_another_attempt", wait_first)
    with ThreadPoolExecutor(1) as pool:
        rehearsed = pool.submit(backend.rehearse, parsed, sent)
        assert is_sent_back.wait(60)
        with backend.catalog.write(ROOT) as tx:
            versions.lock_adapter(tx, versions.find_adapter_id(tx, AdapterName("team", "science")))
            may_try_again.set()
            eventually(lambda: somebody_waits(local_deployment.database_url))
            garbage.unmark(tx, [blob.sha256 for blob in blobs.values()])
        rehearsed.result()


def test_a_collector_does_not_wait_for_a_push_that_leases_what_is_marked(postgres_url: str):
    """It goes by the time of the marks, a push by digest: of two who wait for each other one would be sent back."""
    catalog, digests = Catalog(postgres_url), [character * 64 for character in "ab"]
    with contextlib.closing(catalog):
        with catalog.write(ROOT) as tx:
            collection.mark(tx, dict.fromkeys(digests, 1), collection.database_time(tx))
        with catalog.write(ROOT) as push:
            garbage.lease(push, digests[:1])
            with catalog.write(ROOT) as collector:
                claimed = collection.claim(collector, timedelta(), 10)
    assert claimed is not None
    assert [blob.sha256 for blob in claimed.blobs] == digests[1:]
