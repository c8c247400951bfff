"""What every store promises, of a folder and of a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from deployments import Deployment
from loreg.errors import IntegrityError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from loreg.storage import Blob, BlobStore, digest_of, open_store
from loreg.storage.blobs import VerifiedCache, key_of, partial_path
from storage.conformance import LARGE, DocumentStoreConformance, StoreConformance, write


@pytest.fixture
def store(deployment: Deployment) -> BlobStore:
    return open_store(deployment.storage_url, deployment.storage_endpoint)


@pytest.fixture
def damage(deployment: Deployment) -> Callable[[Blob, bytes], None]:
    """Replace the stored bytes of a blob behind the store's back."""

    def replace(blob: Blob, content: bytes) -> None:
        if deployment.storage_endpoint:
            bucket, _, prefix = deployment.storage_url.removeprefix("s3://").partition("/")
            key = f"{prefix}/{key_of(blob.sha256)}"
            client = boto3.client("s3", endpoint_url=deployment.storage_endpoint, region_name="us-east-1")
            client.put_object(Bucket=bucket, Key=key, Body=content)
        else:
            path = Path(deployment.storage_url) / key_of(blob.sha256)
            path.chmod(0o644)
            path.write_bytes(content)

    return replace


@pytest.fixture
def interrupt(deployment: Deployment) -> Callable[[bytes], None]:
    """Leave what a writer leaves that is killed: a file with a hidden name, or an upload in parts."""

    def leave(written: bytes) -> None:
        key = key_of("0" * 64)
        if deployment.storage_endpoint:
            bucket, _, prefix = deployment.storage_url.removeprefix("s3://").partition("/")
            client = boto3.client("s3", endpoint_url=deployment.storage_endpoint, region_name="us-east-1")
            where = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
            upload = client.create_multipart_upload(**where)["UploadId"]
            client.upload_part(**where, UploadId=upload, PartNumber=1, Body=written)
        else:
            folder = (Path(deployment.storage_url) / key).parent
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".put-0123456789abcdef").write_bytes(written)

    return leave


class TestEveryStore(StoreConformance):
    """On a folder, and on a real S3 server: by the fixture ``store`` of this file."""


class TestDocuments(DocumentStoreConformance):
    """On a folder, and on a real S3 server: by the fixture ``store`` of this file."""


@pytest.mark.parametrize("content", [b"other bytes, same size", b"cut", b"more bytes than there were before"])
def test_damaged_bytes_never_arrive(store: BlobStore, damage, tmp_path: Path, content: bytes):
    blob = write(tmp_path / "in", b"these are the weights.")
    store.put(blob, tmp_path / "in")
    damage(blob, content)
    with pytest.raises(IntegrityError, match="is damaged"):
        store.get(blob, tmp_path / "out")
    with pytest.raises(IntegrityError):
        store.read(blob.sha256)
    with pytest.raises(IntegrityError), store.checked_file(blob):
        pass
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_damaged_bytes_are_hashed_as_they_are(store: BlobStore, damage, tmp_path: Path):
    """Also of what was verified a moment ago."""
    blob = write(tmp_path / "in", b"weights")
    store.put(blob, tmp_path / "in")
    assert store.has(blob)
    damage(blob, b"weighty")
    inspected = store.inspect(blob.sha256)
    assert inspected is not None
    assert inspected.sha256 != blob.sha256
    assert store.hash_stored(blob.sha256) == Blob(hashlib.sha256(b"weighty").hexdigest(), 7)


class TestFolder:
    def test_a_pulled_file_can_be_changed_without_reaching_the_store(self, tmp_path: Path):
        store = open_store(str(tmp_path / "store"))
        blob = write(tmp_path / "in", b"weights")
        store.put(blob, tmp_path / "in")
        store.get(blob, tmp_path / "out")
        assert (tmp_path / "out").stat().st_ino != (tmp_path / "store" / key_of(blob.sha256)).stat().st_ino
        (tmp_path / "out").write_bytes(b"changed")
        assert store.read(blob.sha256) == b"weights"

    def test_blobs_are_read_only(self, tmp_path: Path):
        store = open_store(str(tmp_path / "store"))
        blob = write(tmp_path / "in", b"weights")
        store.put(blob, tmp_path / "in")
        assert (tmp_path / "store" / key_of(blob.sha256)).stat().st_mode & 0o222 == 0

    def test_a_store_below_a_file_is_an_error_with_a_hint(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UnavailableError) as error:
            open_store(str(tmp_path / "file" / "store")).check()
        assert "LOREG_STORAGE_URL" in error.value.hint

    def test_a_file_url_is_a_folder(self, tmp_path: Path):
        assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"

    @pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "file://host/x"])
    def test_other_urls_are_refused(self, url: str):
        with pytest.raises(UsageError, match="is not understood"):
            open_store(url)


class TestS3:
    def test_a_large_download_goes_on_where_it_stopped(self, s3, tmp_path: Path):
        """What was there already is not asked for again; if it turns out to be of something else, all is."""
        store = open_store(f"s3://{s3.bucket}/resume", s3.endpoint)
        content = os.urandom(LARGE)
        blob = write(tmp_path / "in", content)
        store.put(blob, tmp_path / "in")
        partial = partial_path(tmp_path / "out", blob)
        ranges: list[str] = []
        store._client.meta.events.register(
            "before-parameter-build.s3.GetObject", lambda params, **_: ranges.append(params["Range"])
        )
        partial.write_bytes(content[: LARGE - 5])
        store.get(blob, tmp_path / "out")
        assert digest_of(tmp_path / "out") == blob
        partial.write_bytes(b"\0" * (LARGE - 5))
        store.get(blob, tmp_path / "out")
        assert digest_of(tmp_path / "out") == blob
        assert ranges == [f"bytes={LARGE - 5}-", f"bytes={LARGE - 5}-", "bytes=0-"]

    def test_a_server_that_is_not_there_is_one_line_with_a_hint(self):
        with pytest.raises(UnavailableError) as error:
            open_store("s3://bucket/x", "http://127.0.0.1:9").check()
        assert "\n" not in str(error.value)
        assert error.value.hint

    def test_a_wrong_key_is_not_allowed(self, s3, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(NotAllowedError, match="refused"):
            open_store(f"s3://{s3.bucket}/x", s3.endpoint).check()

    def test_no_key_at_all_is_not_allowed(self, s3, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(NotAllowedError, match="no credentials"):
            open_store(f"s3://{s3.bucket}/x", s3.endpoint).check()

    def test_a_missing_bucket_is_named(self, s3):
        with pytest.raises(NotFoundError, match="bucket 'nothing-here' does not exist"):
            open_store("s3://nothing-here/x", s3.endpoint).check()

    def test_a_push_that_breaks_leaves_no_upload_behind(self, s3, tmp_path: Path):
        store = open_store(f"s3://{s3.bucket}/broken", s3.endpoint)
        blob = write(tmp_path / "in", os.urandom(LARGE))

        def stop(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put(blob, tmp_path / "in", stop)
        client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1")
        uploads = client.list_multipart_uploads(Bucket=s3.bucket, Prefix="broken/")
        assert uploads.get("Uploads", []) == []
        assert store.size(blob.sha256) is None


class TestWhatTheServerEnforces:
    """SHA-256 of all bytes, and that nothing is ever written over: shown by breaking our side of it."""

    def test_other_bytes_than_were_announced_are_refused(self, s3, tmp_path: Path, monkeypatch):
        from loreg.storage import s3 as module

        store = open_store(f"s3://{s3.bucket}/announced", s3.endpoint)
        blob = write(tmp_path / "in", b"weights")
        monkeypatch.setattr(module, "_base64_of", lambda digest: base64.b64encode(b"\x01" * 32).decode())
        with pytest.raises(IntegrityError, match="received other bytes"):
            store.put(blob, tmp_path / "in")
        assert store.size(blob.sha256) is None

    @pytest.mark.parametrize("size", [100, LARGE])
    def test_a_blob_that_someone_else_stored_meanwhile_is_not_written_over(self, s3, tmp_path: Path, monkeypatch, size):
        store = open_store(f"s3://{s3.bucket}/meanwhile", s3.endpoint)
        blob = write(tmp_path / "in", os.urandom(size))
        assert store.put(blob, tmp_path / "in")
        client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1")
        key = f"meanwhile/{key_of(blob.sha256)}"
        before = client.head_object(Bucket=s3.bucket, Key=key)
        is_sound, calls = store._is_sound, []

        def nothing_there_at_first(blob: Blob, path: Path) -> bool | None:
            calls.append(blob)
            return None if size == LARGE and len(calls) == 1 else is_sound(blob, path)

        monkeypatch.setattr(store, "_is_sound", nothing_there_at_first)
        assert not store.put(blob, tmp_path / "in")
        after = client.head_object(Bucket=s3.bucket, Key=key)
        assert (after["LastModified"], after["ETag"]) == (before["LastModified"], before["ETag"])
        assert client.list_multipart_uploads(Bucket=s3.bucket, Prefix="meanwhile/").get("Uploads", []) == []


def test_what_was_proven_lately_holds_for_that_state_and_no_other():
    proven = VerifiedCache()
    for number in range(5000):
        proven.add(str(number), ("size", number))
    assert proven.contains("4999", ("size", 4999))
    assert not proven.contains("4999", ("size", 5000))
    assert not proven.contains("0", ("size", 0))  # of so many the oldest is forgotten


def test_what_was_proven_is_asked_again_after_a_minute(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    proven = VerifiedCache()
    proven.add("blob", "state")
    now[0] = 59.0
    assert proven.contains("blob", "state")
    now[0] = 61.0
    assert not proven.contains("blob", "state")
