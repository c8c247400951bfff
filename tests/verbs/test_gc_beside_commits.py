"""Whoever stores blobs and commits then gets on, also when gc removes one in between: bases, exports, Hub clients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import select

from deployments import HISTORY, SCIENCE, Deployment
from loreg import connect
from loreg.bases.identify import identify
from loreg.catalog import garbage
from loreg.catalog.garbage import StaleSightingError
from loreg.catalog.schema import export_table
from loreg.entities import Access, Commit
from loreg.errors import CollectedError
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
def registry(local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="ada") as opened:
        opened.push(SCIENCE, "team/science")
        yield opened


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
