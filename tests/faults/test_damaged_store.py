"""What lies damaged in a store is found by who pushes it again, and replaced; every hint that says so is true."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments import MOVIES, NEWS, Deployment, Loreg
from factories import copy
from loreg.errors import CollectedError, IntegrityError, LoregError, NotFoundError
from loreg.registry import Registry, connect
from loreg.storage import Blob, BlobStore, open_store
from loreg.storage.blobs import key_of
from loreg.storage.s3 import S3Store
from server.conftest import Guarded
from services import S3Server
from stored_bytes import DAMAGES, Stored


@pytest.fixture
def stored(deployment: Deployment) -> Stored:
    return Stored(deployment)


@pytest.fixture
def store(deployment: Deployment) -> BlobStore:
    return open_store(deployment.storage_url, deployment.storage_endpoint)


@pytest.fixture
def on_a_folder(guarded_folder: Guarded, tmp_path: Path) -> tuple[Registry, Stored]:
    """A client of a server whose store is a folder, and that store."""
    return guarded_folder.registry("writer"), Stored(Deployment("", str(tmp_path / "store")))


@dataclass(frozen=True)
class Parts:
    """A folder of a bucket, into which others send objects in parts, each with its SHA-256."""

    s3: S3Server
    prefix: str

    def store(self) -> S3Store:
        """As a process that remembers nothing has it."""
        return S3Store(self.s3.bucket, self.prefix, self.s3.endpoint)

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.s3.endpoint, region_name="us-east-1")

    def key(self, blob: Blob) -> str:
        return f"{self.prefix}/{key_of(blob.sha256)}"

    def send(self, blob: Blob, content: bytes, size: int = 16 * 1024 * 1024) -> None:
        target: Any = {"Bucket": self.s3.bucket, "Key": self.key(blob)}
        upload = self.client.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(content), size), 1):
            body = content[start : start + size]
            part = {"ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode(), "PartNumber": number}
            parts.append(
                {**part, "ETag": self.client.upload_part(**target, UploadId=upload, Body=body, **part)["ETag"]}
            )
        self.client.complete_multipart_upload(**target, UploadId=upload, MultipartUpload={"Parts": parts})


# Who asks a server for the bytes that were promised gets them, and no word of what follows them.
SEEN_BY_ALL = [damage for damage in DAMAGES if damage != "longer"]
LARGE = 40 * 1024 * 1024 + 17  # three parts of 16 MiB


def write(path: Path, content: bytes) -> Blob:
    path.write_bytes(content)
    return Blob(hashlib.sha256(content).hexdigest(), len(content))


def digests_of(registry: Registry, ref: str) -> dict[str, str]:
    return {file.path: file.sha256 for file in registry.show(ref).files}


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    return all((other / name).read_bytes() == (one / name).read_bytes() for name in names if (other / name).exists())


@pytest.mark.parametrize("damage", SEEN_BY_ALL)
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_what_is_damaged_or_lost_is_named_by_pull_and_mended_by_pushing_again(
    registry: Registry, stored: Stored, file: str, damage: str, tmp_path: Path
):
    registry.push(NEWS, "t/news")
    digest = digests_of(registry, "t/news")[file]
    stored.change(digest, DAMAGES[damage])
    with pytest.raises(NotFoundError if damage == "lost" else IntegrityError, match=digest[:12]) as error:
        registry.pull("t/news", tmp_path / "before")
    assert "push the adapter again" in error.value.hint
    assert not registry.push(NEWS, "t/news").created
    registry.pull("t/news", tmp_path / "after")
    assert same_files(NEWS, tmp_path / "after")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_push_under_another_name_never_says_pushed_over_damaged_weights(
    registry: Registry, stored: Stored, file: str, damage: str, tmp_path: Path
):
    registry.push(NEWS, "t/news")
    stored.change(digests_of(registry, "t/news")[file], DAMAGES[damage])
    assert registry.push(NEWS, "t/other").created
    registry.pull("t/other", tmp_path / "after")
    assert same_files(NEWS, tmp_path / "after")


@pytest.mark.parametrize("damage", SEEN_BY_ALL)
def test_through_a_server_on_a_folder_it_is_the_same(on_a_folder: tuple[Registry, Stored], damage: str, tmp_path: Path):
    registry, stored = on_a_folder
    registry.push(NEWS, "team/news")
    for file, digest in digests_of(registry, "team/news").items():
        stored.change(digest, DAMAGES[damage])
        with pytest.raises(LoregError, match=digest[:12]) as error:
            registry.pull("team/news", tmp_path / f"before-{file}")
        assert "push the adapter again" in error.value.hint
        registry.push(NEWS, "team/news")
        registry.pull("team/news", tmp_path / f"after-{file}")
        assert same_files(NEWS, tmp_path / f"after-{file}")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_lost_manifest_is_stored_again_by_the_next_push(
    registry: Registry, stored: Stored, store: BlobStore, damage: str
):
    digest = registry.push(NEWS, "t/news").version.digest
    stored.change(digest, DAMAGES[damage])
    registry.push(NEWS, "t/news")
    assert store.read(digest)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("size", [1000, 200_000, LARGE])
def test_a_put_replaces_what_is_damaged_and_leaves_what_is_sound(
    store: BlobStore, stored: Stored, damage: str, size: int, tmp_path: Path
):
    blob = write(tmp_path / "in", os.urandom(size))
    assert store.put(blob, tmp_path / "in")
    assert store.has(blob)
    assert not store.put(blob, tmp_path / "in")
    stored.change(blob.sha256, DAMAGES[damage])
    assert not store.has(blob)
    assert store.put(blob, tmp_path / "in")
    assert store.has(blob)
    store.get(blob, tmp_path / "out")


def test_an_object_that_another_program_copied_there_is_read_and_left_alone(
    store: BlobStore, stored: Stored, tmp_path: Path
):
    """A bucket that was moved keeps no SHA-256 of its objects: then their bytes say whether they are sound."""
    blob = write(tmp_path / "in", os.urandom(200_000))
    store.put(blob, tmp_path / "in")
    stored.change(blob.sha256, lambda content: content)
    assert store.has(blob)
    assert not store.put(blob, tmp_path / "in")


def test_every_byte_is_counted_once_where_damage_is_replaced(store: BlobStore, stored: Stored, tmp_path: Path):
    for size in (1000, 200_000):
        blob = write(tmp_path / "in", os.urandom(size))
        store.put(blob, tmp_path / "in")
        stored.change(blob.sha256, DAMAGES["flipped"])
        counted: list[int] = []
        store.put(blob, tmp_path / "in", counted.append)
        assert sum(counted) == size


def test_the_hint_of_the_command_line_is_true(loreg: Loreg, registry: Registry, stored: Stored):
    assert loreg("push", NEWS, "t/news").exit_code == 0
    stored.change(digests_of(registry, "t/news")["adapter_model.safetensors"], DAMAGES["flipped"])
    refused = loreg("pull", "t/news", "one")
    assert (refused.exit_code, "push the adapter again" in refused.stderr) == (6, True)
    assert loreg("push", NEWS, "t/news").exit_code == 0
    assert loreg("pull", "t/news", "two").exit_code == 0


def test_a_version_with_other_files_is_not_made_of_damaged_ones(registry: Registry, stored: Stored, tmp_path: Path):
    """A commit names blobs that it does not send: the store is asked for each."""
    from loreg.entities import Commit
    from loreg.manifest import Manifest
    from loreg.refs import parse_adapter_name

    registry.push(NEWS, "t/news")
    files = registry.show("t/news").files
    for damage in DAMAGES.values():
        stored.change(digests_of(registry, "t/news")["adapter_model.safetensors"], damage)
        with pytest.raises((CollectedError, IntegrityError), match="that blob") as error:
            registry.context.backend.commit(Commit(parse_adapter_name("t/other"), Manifest(files)))
        assert error.value.hint == "push again"
        registry.push(NEWS, "t/news")
    with pytest.raises(NotFoundError):
        registry.show("t/other")


def test_the_base_of_an_adapter_is_mended_by_adding_it_again(registry: Registry, stored: Stored, minilm: Path):
    digest = registry.bases.add(minilm).base.digest
    for damage in DAMAGES.values():
        stored.change(digest, damage)
        with pytest.raises(LoregError, match="base") as error:
            registry.push(NEWS, "t/news", base=digest)
        assert "add its base again" in error.value.hint or error.value.hint == "push again"
        registry.bases.add(minilm)
        assert registry.push(NEWS, "t/news", base=digest)


def test_what_is_left_of_a_damaged_blob_is_no_start_of_a_download(registry: Registry, stored: Stored, tmp_path: Path):
    registry.push(MOVIES, "t/movies")
    stored.change(digests_of(registry, "t/movies")["adapter_model.safetensors"], DAMAGES["flipped"])
    with pytest.raises(IntegrityError):
        registry.pull("t/movies", tmp_path / "out")
    registry.push(copy(MOVIES, tmp_path / "again"), "t/movies")
    registry.pull("t/movies", tmp_path / "out")
    assert same_files(MOVIES, tmp_path / "out")


def test_a_blob_that_is_replaced_has_its_digest_at_once_for_who_reads_it(store: BlobStore, stored: Stored, tmp_path):
    blob = write(tmp_path / "in", b"weights")
    store.put(blob, tmp_path / "in")
    stored.change(blob.sha256, DAMAGES["flipped"])
    with pytest.raises(IntegrityError):
        store.read(blob.sha256)
    store.put(blob, tmp_path / "in")
    assert store.read(blob.sha256) == b"weights"
    assert store.read_part(blob.sha256, 2, 3) == b"igh"
    assert store.size(blob.sha256) == Blob(blob.sha256, 7).size


def test_the_same_process_sees_what_another_lost(deployment: Deployment, stored: Stored, tmp_path: Path):
    """Nothing is called present from memory: not by a client that pushed it, not by a server that read it."""
    with connect(**deployment.settings) as registry:
        registry.push(NEWS, "t/news")
        for path, digest in digests_of(registry, "t/news").items():
            stored.change(digest, DAMAGES["lost"])
            assert registry.push(NEWS, f"t/{path.lower().replace('_', '-')}").created
            registry.pull("t/news", tmp_path / path)


class TestWhatS3SaysOfParts:
    """Of an object that came in parts S3 keeps no SHA-256 of its own, but the digest of its parts' digests."""

    @pytest.fixture
    def parts(self, s3: S3Server, tmp_path: Path) -> Parts:
        return Parts(s3, tmp_path.parent.parent.name + tmp_path.name)

    def test_other_bytes_in_as_many_parts_are_no_sound_object(self, parts: Parts, tmp_path: Path):
        """As a backup that was damaged is restored: S3 has a right checksum of the wrong bytes."""
        content = os.urandom(LARGE)
        blob = write(tmp_path / "in", content)
        assert parts.store().put(blob, tmp_path / "in")
        parts.send(blob, content[:-1] + bytes([content[-1] ^ 1]))
        assert not parts.store().has(blob)
        assert parts.store().put(blob, tmp_path / "in")
        assert parts.store().has(blob)
        parts.store().get(blob, tmp_path / "out")

    def test_an_object_in_parts_is_known_by_them_and_not_read_by_who_has_the_file(self, parts: Parts, tmp_path: Path):
        blob = write(tmp_path / "in", os.urandom(LARGE))
        sender = parts.store()
        sender.put(blob, tmp_path / "in")
        for store in (sender, parts.store()):
            store._client.meta.events.register("before-parameter-build.s3.GetObject", lambda **_: pytest.fail("read"))
            assert not store.put(blob, tmp_path / "in")
            assert store.has(blob)

    def test_the_same_bytes_in_other_parts_are_left_alone(self, parts: Parts, tmp_path: Path):
        content = os.urandom(LARGE)
        blob = write(tmp_path / "in", content)
        parts.send(blob, content, size=8 * 1024 * 1024)
        assert parts.store().has(blob)
        assert not parts.store().put(blob, tmp_path / "in")

    def test_who_meets_damage_that_s3_takes_for_sound_is_told_how_to_be_rid_of_it(self, parts: Parts, tmp_path: Path):
        blob = write(tmp_path / "in", os.urandom(200_000))
        parts.store().put(blob, tmp_path / "in")
        parts.client.put_object(Bucket=parts.s3.bucket, Key=parts.key(blob), Body=b"\0" * blob.size)
        store = parts.store()
        right = base64.b64encode(bytes.fromhex(blob.sha256)).decode()
        store._client.meta.events.register(
            "after-call.s3.HeadObject", lambda parsed, **_: parsed.update(ChecksumSHA256=right)
        )
        assert not store.put(blob, tmp_path / "in")
        with pytest.raises(IntegrityError) as error:
            store.get(blob, tmp_path / "out")
        assert f"first: aws s3 rm s3://{parts.s3.bucket}/{parts.key(blob)} --endpoint-url" in error.value.hint
        parts.client.delete_object(Bucket=parts.s3.bucket, Key=parts.key(blob))
        assert parts.store().put(blob, tmp_path / "in")
        parts.store().get(blob, tmp_path / "out")
