"""What S3 has besides blobs: copies in folders for servers are compared with versions, what was sent with uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import text

from deployments import HISTORY, SCIENCE, Deployment, command_line
from loreg.catalog import Catalog, uploads
from loreg.entities import Access, DamageKind, ReferenceKind, Upload
from loreg.registry import Registry, connect
from loreg.storage import SigningStore
from loreg.storage.s3 import PART

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Served:
    """A registry with team/science on S3, copied for a server, and the objects behind its back."""

    registry: Registry
    deployment: Deployment

    @property
    def store(self) -> SigningStore:
        store = self.registry.context.store
        assert isinstance(store, SigningStore)
        return store

    def copy(self, ref: str = "team/science") -> str:
        """Lay the version out as the route for such servers does; return the folder's name."""
        details = self.registry.show(ref)
        self.store.materialize_folder(details.version.digest, {file.path: file.sha256 for file in details.files})
        return details.version.digest

    def put(self, name: str, content: bytes) -> None:
        """Write an object as a program does that sends a SHA-256 along."""
        client = boto3.client("s3", endpoint_url=self.deployment.storage_endpoint, region_name="us-east-1")
        bucket, _, prefix = self.deployment.storage_url.removeprefix("s3://").partition("/")
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content, ChecksumSHA256=checksum)

    def content(self, digest: str, path: str) -> bytes:
        client = boto3.client("s3", endpoint_url=self.deployment.storage_endpoint, region_name="us-east-1")
        bucket, _, prefix = self.deployment.storage_url.removeprefix("s3://").partition("/")
        body: Any = client.get_object(Bucket=bucket, Key=f"{prefix}/named/{digest}/{path}")["Body"]
        return bytes(body.read())


@pytest.fixture
def served(postgres_and_s3: Deployment) -> Iterator[Served]:
    with connect(**postgres_and_s3.settings, author="ada") as registry:
        registry.push(SCIENCE, "team/science")
        yield Served(registry, postgres_and_s3)


def test_copies_as_they_were_made_are_no_damage_and_no_leftovers(served: Served):
    served.registry.push(HISTORY, "team/history")
    served.copy()
    served.copy("team/history")
    served.registry.yank("team/history:v1")
    report = served.registry.verify()
    assert (report.ok, report.leftover_count, report.orphan_count) == (True, 0, 0)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), DamageKind.DAMAGED),
        (lambda content: content[:-1], DamageKind.SIZE),
        (lambda content: b"", DamageKind.SIZE),
    ],
)
def test_a_wrong_copy_is_damage_and_its_remedy_mends_it(served: Served, change: Any, kind: DamageKind):
    digest = served.copy()
    right = (SCIENCE / WEIGHTS).read_bytes()
    served.put(f"named/{digest}/{WEIGHTS}", change(right))
    (damage,) = served.registry.verify().damages
    owner = damage.owners[0]
    assert (damage.kind, damage.sha256, damage.size) == (kind, hashlib.sha256(right).hexdigest(), len(right))
    assert (damage.stored_size, owner.kind, owner.name, owner.path) == (
        len(change(right)),
        ReferenceKind.COPY,
        "team/science:v1",
        WEIGHTS,
    )
    loreg = command_line(served.deployment.environment)
    assert loreg("verify").exit_code == 6
    assert loreg("verify", "team/science").exit_code == 0  # of a version alone its blobs are looked at
    dry = json.loads(loreg("repair", "--dry-run", "--format", "json").stdout)
    assert dry["repaired_count"] == 1
    assert served.content(digest, WEIGHTS) == change(right)
    assert loreg(*damage.remedy.split()[1:]).exit_code == 0
    assert loreg("verify").exit_code == 0
    served.copy()
    assert served.content(digest, WEIGHTS) == right
    assert served.registry.verify().ok


def test_copies_of_nothing_are_leftovers(served: Served):
    digest = served.copy()
    served.put(f"named/{digest}/another.txt", b"x")
    served.put(f"named/{'0' * 64}/{CONFIG}", b"{}")
    report = served.registry.verify()
    assert (report.ok, report.leftover_count) == (True, 2)
    url = served.deployment.storage_url
    assert sorted(report.leftovers) == [f"{url}/named/{'0' * 64}/{CONFIG}", f"{url}/named/{digest}/another.txt"]


def test_a_copy_of_an_object_of_many_parts_is_no_damage(served: Served, tmp_path: Path):
    shutil.copytree(SCIENCE, tmp_path / "large")
    (tmp_path / "large" / "notes.txt").write_bytes(bytes(PART + 1))
    served.registry.push(tmp_path / "large", "team/large")
    digest = served.copy("team/large")
    assert served.registry.verify().ok
    served.put(f"named/{digest}/notes.txt", bytes(PART))
    assert [damage.kind for damage in served.registry.verify().damages] == [DamageKind.SIZE]


def test_what_was_sent_for_no_upload_or_one_that_expired_is_a_leftover(served: Served):
    catalog = Catalog(served.deployment.database_url)
    names = ("announced", "expired")
    with catalog.write(Access.superuser("ada")) as tx:
        uploads.reserve(tx, [Upload(name, "1" * 64, 1) for name in names])
        late = {"at": tx.at - uploads.EXPIRES_AFTER - timedelta(minutes=1)}
        tx.connection.execute(text("UPDATE uploads SET created_at = :at WHERE id = 'expired'"), late)
    catalog.close()
    for name in (*names, "unknown"):
        served.put(f"incoming/{name}", b"x")
    report = served.registry.verify()
    assert (report.ok, report.leftover_count) == (True, 2)
    url = served.deployment.storage_url
    assert sorted(report.leftovers) == [f"{url}/incoming/expired", f"{url}/incoming/unknown"]
