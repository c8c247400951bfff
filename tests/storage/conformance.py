"""What every store must do: a store of somebody else's proves itself by a subclass with a fixture ``store``.

class TestMyStore(StoreConformance):
    @pytest.fixture
    def store(self) -> BlobStore:
        return MyStore(...)  # empty

    @pytest.fixture
    def interrupt(self, store) -> Callable[[bytes], None]:
        return ...  # what leaves in the store what a writer leaves that is killed after so many bytes
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from concurrency import all_at_once
from loreg.errors import IntegrityError, NotFoundError
from loreg.storage import Blob, BlobStore, DocumentStore, SigningStore, digest_of
from loreg.storage.blobs import partial_path

LARGE = 40 * 1024 * 1024 + 17  # three parts of 16 MiB


def write(path: Path, content: bytes) -> Blob:
    """A file with that content, as a blob."""
    path.write_bytes(content)
    return Blob(hashlib.sha256(content).hexdigest(), len(content))


class StoreConformance:
    """The promises of :class:`loreg.storage.BlobStore`, each a test."""

    @pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 16 * 1024 * 1024, 16 * 1024 * 1024 + 1, LARGE])
    def test_what_goes_in_comes_out(self, store: BlobStore, tmp_path: Path, size: int):
        blob = write(tmp_path / "in", os.urandom(size))
        assert store.size(blob.sha256) is None
        assert store.put(blob, tmp_path / "in")
        assert store.size(blob.sha256) == blob.size
        store.get(blob, tmp_path / "out")
        assert digest_of(tmp_path / "out") == blob
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []

    def test_nothing_is_sent_twice(self, store: BlobStore, tmp_path: Path):
        blob = write(tmp_path / "in", b"weights")
        assert store.put(blob, tmp_path / "in")
        assert not store.put(blob, tmp_path / "in")

    @pytest.mark.parametrize("size", [0, 100, 16 * 1024 * 1024 + 1])
    def test_what_is_stored_can_be_inspected_and_hashed(self, store: BlobStore, tmp_path: Path, size: int):
        blob = write(tmp_path / "in", os.urandom(size))
        assert store.inspect(blob.sha256) is None
        assert store.hash_stored(blob.sha256) is None
        store.put(blob, tmp_path / "in")
        inspected = store.inspect(blob.sha256)
        assert inspected is not None
        assert inspected.size == size
        assert inspected.sha256 in ("", blob.sha256)
        read: list[int] = []
        assert store.hash_stored(blob.sha256, read.append) == blob
        assert sum(read) == size
        assert list(store.list_leftovers()) == []

    @pytest.mark.parametrize("size", [0, 100, LARGE])
    def test_a_blob_is_a_file_for_a_while(
        self, store: BlobStore, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ):
        blob = write(tmp_path / "in", os.urandom(size))
        with pytest.raises(NotFoundError), store.checked_file(blob):
            pass
        store.put(blob, tmp_path / "in")
        monkeypatch.setattr("loreg.storage.blobs._IN_MEMORY", 1024 * 1024)
        with store.checked_file(blob) as path:
            assert path.read_bytes() == (tmp_path / "in").read_bytes()
        assert store.hash_stored(blob.sha256) == blob

    def test_what_an_interrupted_writer_left_is_listed_with_its_age_and_can_be_removed(
        self, store: BlobStore, tmp_path: Path, interrupt: Callable[[bytes], None]
    ):
        blob = write(tmp_path / "in", b"weights")
        store.put(blob, tmp_path / "in")
        before = datetime.now(UTC)
        interrupt(b"half")
        (leftover,) = store.list_leftovers()
        assert leftover.size == len(b"half")
        assert abs(leftover.at - before) < timedelta(minutes=1)
        leftover.remove()
        leftover.remove()
        assert list(store.list_leftovers()) == []
        assert set(store.list()) == {blob}

    def test_a_store_is_claimed_once_and_its_mark_is_no_blob(self, store: BlobStore, tmp_path: Path):
        store.put(write(tmp_path / "in", b"weights"), tmp_path / "in")
        assert store.owner() == ""
        ids = [f"{number:032x}" for number in range(1, 7)]
        claims = all_at_once([partial(store.claim, registry_id) for registry_id in ids])
        assert set(claims) == {store.owner()}
        assert store.owner() in ids
        assert store.claim("f" * 32) == store.owner()
        assert len(list(store.list())) == 1

    def test_what_came_by_a_signed_url_is_listed_until_it_is_forgotten(self, store: BlobStore):
        if not isinstance(store, SigningStore):
            pytest.skip("only a store that signs")
        content = b"weights"
        signed = store.upload_url(Blob(hashlib.sha256(content).hexdigest(), len(content)), "upload-1")
        assert list(store.list_uploads()) == []
        assert httpx.put(signed.url, headers=dict(signed.headers), content=content).is_success
        (upload,) = store.list_uploads()
        assert (upload.upload_id, upload.size) == ("upload-1", len(content))
        assert abs(upload.at - datetime.now(UTC)) < timedelta(minutes=1)
        assert list(store.list()) == []
        store.forget_uploads(["upload-1"])
        assert list(store.list_uploads()) == []

    def test_folders_of_copies_are_listed_and_removed_each_as_one(self, store: BlobStore, tmp_path: Path):
        if not isinstance(store, SigningStore):
            pytest.skip("only a store that copies")
        blob = write(tmp_path / "in", b"weights")
        store.put(blob, tmp_path / "in")
        for name in ("a", "ab"):
            store.materialize_folder(name, {"x": blob.sha256, "deep/y": blob.sha256})
        copied = [(file.name, file.path, file.size) for file in store.list_copied_files()]
        assert sorted(copied) == [("a", "deep/y", 7), ("a", "x", 7), ("ab", "deep/y", 7), ("ab", "x", 7)]
        assert len([*itertools.groupby(copied, lambda file: file[0])]) == 2  # those of one folder in a row
        assert all(abs(file.at - datetime.now(UTC)) < timedelta(minutes=1) for file in store.list_copied_files())
        store.remove_copy("a")
        store.remove_copy("a")
        assert {file.name for file in store.list_copied_files()} == {"ab"}
        assert store.size(blob.sha256) == blob.size

    def test_every_byte_is_counted_once(self, store: BlobStore, tmp_path: Path):
        blob = write(tmp_path / "in", os.urandom(3 * 1024 * 1024))
        sent: list[int] = []
        store.put(blob, tmp_path / "in", sent.append)
        got: list[int] = []
        store.get(blob, tmp_path / "out", got.append)
        assert sum(sent) == sum(got) == blob.size

    @pytest.mark.parametrize("size", [100, LARGE])
    def test_a_file_that_changed_since_it_was_hashed_is_not_stored(self, store: BlobStore, tmp_path: Path, size: int):
        blob = write(tmp_path / "in", os.urandom(size))
        write(tmp_path / "in", os.urandom(size))
        with pytest.raises(IntegrityError, match="changed while it was read"):
            store.put(blob, tmp_path / "in")
        assert store.size(blob.sha256) is None

    def test_a_blob_that_is_not_there_is_said_so_and_leaves_nothing(self, store: BlobStore, tmp_path: Path):
        with pytest.raises(NotFoundError):
            store.get(Blob("0" * 64, 5), tmp_path / "out")
        with pytest.raises(NotFoundError):
            store.read("0" * 64)
        assert not (tmp_path / "out").exists()

    def test_small_blobs_are_read_whole(self, store: BlobStore, tmp_path: Path):
        blob = write(tmp_path / "in", b"{}")
        store.put(blob, tmp_path / "in")
        assert store.read(blob.sha256) == b"{}"

    def test_racing_writers_of_one_blob_all_succeed(self, store: BlobStore, tmp_path: Path):
        blob = write(tmp_path / "in", os.urandom(100_000))
        outcomes = all_at_once([lambda: store.put(blob, tmp_path / "in")] * 6)
        assert any(outcomes)
        store.get(blob, tmp_path / "out")

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=3000), cut=st.integers(0, 3000))
    def test_an_interrupted_download_goes_on_from_any_byte(
        self, store: BlobStore, tmp_path: Path, content: bytes, cut: int
    ):
        blob = write(tmp_path / "in", content)
        store.put(blob, tmp_path / "in")
        partial_path(tmp_path / "out", blob).write_bytes(content[:cut])
        store.get(blob, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content

    def test_check_passes_on_a_store_that_can_be_used_and_makes_nothing(self, store: BlobStore, tmp_path: Path):
        before = sorted(tmp_path.iterdir())
        store.check()
        assert sorted(tmp_path.iterdir()) == before
        assert not any(store.list())
        store.put(write(tmp_path / "in", b"weights"), tmp_path / "in")
        assert any(store.list())

    def test_what_is_stored_is_listed_with_its_size(self, store: BlobStore, tmp_path: Path):
        blobs = {write(tmp_path / str(size), bytes([size]) * size) for size in (0, 1, 100)}
        for blob in blobs:
            store.put(blob, tmp_path / str(blob.size))
        assert set(store.list()) == blobs

    def test_what_is_deleted_is_gone_and_can_be_stored_again(self, store: BlobStore, tmp_path: Path):
        blob, other = write(tmp_path / "in", b"weights"), write(tmp_path / "other", b"others")
        store.put(blob, tmp_path / "in")
        store.put(other, tmp_path / "other")
        store.delete(blob.sha256)
        store.delete(blob.sha256)
        assert (store.size(blob.sha256), store.has(blob)) == (None, False)
        with pytest.raises(NotFoundError):
            store.read(blob.sha256)
        assert set(store.list()) == {other}
        assert store.put(blob, tmp_path / "in")
        assert store.has(blob)


class DocumentStoreConformance:
    """The promises of :class:`loreg.storage.DocumentStore`; the fixture ``store`` is of one that is not there yet."""

    def test_documents_are_listed_read_and_replaced(self, store: DocumentStore):
        store.create()
        assert store.list_documents("snapshots") == []
        for name, content in (("snapshots/b.json", b"2"), ("snapshots/a.json", b"1"), ("other/c.json", b"3")):
            store.write_document(name, content)
        store.write_document("snapshots/b.json", b"two")
        assert store.list_documents("snapshots") == ["snapshots/a.json", "snapshots/b.json"]
        assert store.read_document("snapshots/b.json") == b"two"
        with pytest.raises(NotFoundError, match=r"snapshots/x\.json"):
            store.read_document("snapshots/x.json")

    def test_a_document_is_deleted_and_no_other(self, store: DocumentStore):
        store.create()
        for name in ("snapshots/a.json", "snapshots/b.json"):
            store.write_document(name, b"1")
        for _ in range(2):
            store.delete_document("snapshots/a.json")
            assert store.list_documents("snapshots") == ["snapshots/b.json"]
        store.delete_document("nowhere/a.json")

    def test_documents_are_no_blobs_and_no_mark(self, store: DocumentStore):
        store.create()
        store.write_document("snapshots/a.json", b"1")
        assert list(store.list()) == []
        assert store.owner() == ""
        assert store.claim("0" * 32) == "0" * 32
        assert store.list_documents("snapshots") == ["snapshots/a.json"]
