"""verify names what is broken, whom that breaks and what mends it; and says nothing of what is whole."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broken_registries import ADAPTERS, NAMES, install, verdict_on
from deployments import Deployment, Loreg
from factories import train, write_base
from loreg.catalog import Catalog, pending_uploads, references, uploads
from loreg.entities import Access, ReferenceKind, Upload
from loreg.errors import NotFoundError, UnavailableError, UsageError
from loreg.manifest import File
from loreg.refs import parse_adapter_name
from loreg.registry import Registry, connect
from loreg.storage import Blob, FolderStore, digest_of, open_store, put_bytes
from loreg.storage.s3 import PART
from loreg.verbs import verify as verify_module
from stored_bytes import DAMAGES, Stored


@pytest.fixture(params=["sqlite+folder", "postgres+s3"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Where catalog and store are reached; a server refuses, see below."""
    if request.param == "postgres+s3":
        return request.getfixturevalue("postgres_and_s3")
    return Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))


@pytest.fixture
def folder_registry(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        yield registry


def verified(loreg: Loreg, *arguments: str) -> dict[str, Any]:
    """The report as JSON; the exit code is 6 if something is broken, else 0."""
    outcome = loreg("verify", *arguments, "--format", "json")
    report = json.loads(outcome.stdout)
    assert outcome.exit_code == (6 if report["damage_count"] else 0)
    assert report["ok"] == (outcome.exit_code == 0)
    return dict(report)


def seen(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What is broken, as verdicts write it."""
    return [
        {
            "kind": damage["kind"],
            "sha256": damage["sha256"],
            "owners": sorted([owner["name"], owner["path"]] for owner in damage["owners"]),
        }
        for damage in sorted(report["damages"], key=lambda damage: damage["sha256"])
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_registry_gets_its_verdict(name: str, deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install(name, deployment, tmp_path)
    verdict = verdict_on(name)
    report = verified(loreg, *(["--read-data"] if verdict["read_data"] else []))
    assert seen(report) == verdict["broken"]
    assert sorted(orphan["sha256"] for orphan in report["orphans"]) == verdict["orphans"]
    assert report["orphan_count"] == len(verdict["orphans"])
    assert report["leftover_count"] == verdict["leftovers"]
    if verdict["remedy"]:
        assert {damage["remedy"] for damage in report["damages"]} == {verdict["remedy"]}


@pytest.mark.parametrize("name", NAMES)
def test_people_read_what_breaks_whom_and_programs_the_refs(
    name: str, deployment: Deployment, loreg: Loreg, tmp_path: Path
):
    install(name, deployment, tmp_path)
    verdict = verdict_on(name)
    read = ["--read-data"] if verdict["read_data"] else []
    table, quiet = loreg("verify", *read), loreg("verify", *read, "--format", "quiet")
    names = {owner[0] for damage in verdict["broken"] for owner in damage["owners"]}
    assert set(quiet.stdout.split()) == names
    for damage in verdict["broken"]:
        assert damage["sha256"][:12] in table.stdout
    assert all(ref in table.stdout for ref in names)
    assert ("belong to nothing" in table.stderr) == bool(verdict["orphans"])
    assert ("interrupted writers" in table.stderr) == bool(verdict["leftovers"])
    assert table.exit_code == quiet.exit_code == (6 if verdict["broken"] else 0)
    assert " a second" in table.stdout


def test_a_flipped_bit_in_a_folder_is_found_by_reading_alone(loreg: Loreg, deployment: Deployment, tmp_path: Path):
    install("flipped-bit", deployment, tmp_path)
    assert verified(loreg)["damage_count"] == 0
    assert verified(loreg, "--read-data")["damage_count"] == 1


def test_every_kind_of_reference_is_looked_at(deployment: Deployment, tmp_path: Path):
    """Against a second opinion: a registry that only pushed and pulled has no blob that nothing refers to."""
    adapter = train(tmp_path / "adapter", 1, use_rslora=True)
    with connect(**deployment.settings) as registry:
        registry.push(adapter, "t/a", base=str(write_base(tmp_path / "base")))
        registry.pull("t/a", tmp_path / "pulled", profile="sglang")
        report = registry.verify()
        there = {blob.sha256 for blob in open_store(deployment.storage_url, deployment.storage_endpoint).list()}
        assert (report.ok, report.references, report.orphan_count) == (True, len(there), 0)
        for sha256 in there:
            Stored(deployment).change(sha256, DAMAGES["lost"])
        if not deployment.storage_endpoint:
            (tmp_path / "store" / "sha256").mkdir(exist_ok=True)
        broken = registry.verify()
        assert {damage.sha256 for damage in broken.damages} == there
        kinds = {owner.kind for damage in broken.damages for owner in damage.owners}
        assert kinds == {ReferenceKind.FILE, ReferenceKind.MANIFEST, ReferenceKind.EXPORT, ReferenceKind.BASE}


def test_the_remedies_of_a_base_and_of_an_export_mend_them(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    adapter, base = train(tmp_path / "adapter", 1, use_rslora=True), write_base(tmp_path / "base")
    loreg("base", "add", base, "--name", "tiny")
    loreg("push", adapter, "t/a", "--base", base)
    loreg("pull", "t/a", tmp_path / "pulled", "--profile", "sglang")
    with connect(**deployment.settings) as registry:
        files = {file.sha256 for file in registry.show("t/a").files}
        lists = registry.verify(["t/a"]).references
        stored = Stored(deployment)
        base_digest = registry.bases.show("tiny").base.digest
        of_export = digest_of(tmp_path / "pulled" / "loreg_export.json").sha256
        assert {base_digest, of_export}.isdisjoint(files)
        for sha256 in (base_digest, of_export):
            stored.change(sha256, DAMAGES["lost"])
        damages = {damage.owners[0].kind: damage for damage in registry.verify(["t/a"]).damages}
        assert set(damages) == {ReferenceKind.BASE, ReferenceKind.EXPORT}
        of_base = damages[ReferenceKind.BASE].remedy.replace("PATH", str(base)).split()
        assert loreg(*of_base[1:]).exit_code == 0
        of_export_command = damages[ReferenceKind.EXPORT].remedy.partition(";")[0].split()
        assert loreg(*of_export_command[1:]).exit_code == 0
        assert loreg("pull", "t/a", tmp_path / "again", "--profile", "sglang").exit_code == 0
        assert registry.verify(read_data=True).ok
        assert registry.verify(["t/a"]).references == lists


def test_uploads_under_way_are_references(deployment: Deployment, tmp_path: Path):
    store = open_store(deployment.storage_url, deployment.storage_endpoint)
    pending, received, reserved = (put_bytes(store, content) for content in (b"pending", b"received", b"reserved"))
    catalog = Catalog(deployment.database_url)
    catalog.upgrade()
    with catalog.write(Access.superuser("ada")) as tx:
        files = (File("README.md", pending.sha256, pending.size),)
        pending_uploads.save(tx, parse_adapter_name("t/a"), "main", pending_uploads.PendingUpload(files, ""))
        sent = [Upload(str(number) * 8, blob.sha256, blob.size) for number, blob in enumerate((received, reserved))]
        uploads.reserve(tx, sent)
        uploads.mark_received(tx, sent[0])
    catalog.close()
    with connect(**deployment.settings) as registry:
        report = registry.verify(read_data=True)
        assert (report.ok, report.references) == (True, 2)
        assert [orphan.sha256 for orphan in report.orphans] == [reserved.sha256]  # which nobody has sent yet
        for blob in (pending, received):
            store.delete(blob.sha256)
        damages = {damage.sha256: damage for damage in registry.verify().damages}
        owners = {sha256: (damage.owners[0].kind, damage.owners[0].name) for sha256, damage in damages.items()}
        assert owners == {
            pending.sha256: (ReferenceKind.PENDING_UPLOAD, "t/a:main"),
            received.sha256: (ReferenceKind.UPLOAD, "ada"),
        }


def test_pages_of_references_leave_nothing_out(deployment: Deployment, loreg: Loreg, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(references, "_PAGE", 2)
    monkeypatch.setattr(references, "_MAX_OWNERS", 1)
    install("store-of-another-catalog", deployment, tmp_path)
    report = verified(loreg)
    assert [damage["sha256"] for damage in seen(report)] == [
        damage["sha256"] for damage in verdict_on("store-of-another-catalog")["broken"]
    ]
    assert all(len(damage["owners"]) == 1 for damage in report["damages"])


def test_of_many_owners_the_first_are_listed_and_all_counted(deployment, loreg: Loreg, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(references, "_MAX_OWNERS", 1)
    install("other-size", deployment, tmp_path)
    (damage,) = verified(loreg)["damages"]
    assert [owner["name"] for owner in damage["owners"]] == ["team/news:v1"]
    assert damage["owner_count"] == 2
    assert "and 1 more" in loreg("verify").stdout


def test_with_refs_only_those_versions_are_looked_at(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("missing-blob", deployment, tmp_path)
    whole, broken = verified(loreg, "team/news:v2"), verified(loreg, "team/news:v1", "team/news:v2")
    assert (whole["references"], whole["damage_count"]) == (4, 0)  # three files and the manifest
    assert broken["damage_count"] == 1
    with pytest.raises(NotFoundError), connect(**deployment.settings) as registry:
        registry.verify(["team/none"])


def test_since_looks_at_what_came_since_then(deployment: Deployment, tmp_path: Path):
    with connect(**deployment.settings) as registry:
        registry.push(ADAPTERS / "first", "t/a")
        between = datetime.now(UTC)
        second = registry.push(ADAPTERS / "second", "t/b").version
        of_second = {file.sha256 for file in registry.show("t/b").files} | {second.digest}
        assert registry.verify(since=between).references == len(of_second)
        assert registry.verify(since=between.isoformat()).references == len(of_second)
        assert registry.verify(since=between + timedelta(days=1)).references == 0
        with pytest.raises(UsageError):
            registry.verify(since="yesterday")


def test_what_is_stored_and_committed_while_it_runs_is_no_orphan(deployment: Deployment, monkeypatch):
    """The store is listed first, and then the catalog is asked."""
    with connect(**deployment.settings) as registry:
        registry.push(ADAPTERS / "first", "t/a")
        store = registry.context.store
        listed = type(store).list

        def push_meanwhile(self):
            blobs = list(listed(self))
            with connect(**deployment.settings) as other:
                other.push(ADAPTERS / "second", "t/b")
            return iter([*blobs, *listed(self)])

        monkeypatch.setattr(type(store), "list", push_meanwhile)
        assert registry.verify().orphan_count == 0


def test_a_store_that_is_not_there_is_said_once_and_not_of_every_blob(tmp_path: Path, folder_registry: Registry):
    folder_registry.push(ADAPTERS / "first", "t/a")
    (tmp_path / "home" / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError, match="is not there, though"):
        folder_registry.verify()


def read_of(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which blobs are read from now on, in the order in which that began."""
    read: list[str] = []
    kind = type(registry.context.store)
    hash_stored, lock = kind.hash_stored, threading.Lock()

    def record_bytes(self: Any, sha256: str, *on_bytes: Any) -> Blob | None:
        with lock:
            read.append(sha256)
        return hash_stored(self, sha256, *on_bytes)

    monkeypatch.setattr(kind, "hash_stored", record_bytes)
    return read


def push_some(registry: Registry, tmp_path: Path, count: int = 6) -> set[str]:
    """Push adapters; returns all their blobs."""
    blobs = set()
    for seed in range(count):
        version = registry.push(train(tmp_path / f"a{seed}", seed), f"t/a{seed}").version
        blobs |= {version.digest, *(file.sha256 for file in registry.show(version.ref).files)}
    return blobs


def test_twenty_runs_of_a_twentieth_read_each_blob_once(folder_registry: Registry, tmp_path: Path, monkeypatch):
    blobs = push_some(folder_registry, tmp_path)
    read = read_of(folder_registry, monkeypatch)
    shares = [folder_registry.verify(read_data="5%") for _ in range(20)]
    assert sorted(read) == sorted(blobs)
    assert sum(report.read for report in shares) == len(blobs)
    assert all(one.read_to == other.read_from for one, other in itertools.pairwise(shares))
    assert all(report.references == len(blobs) for report in shares)  # all are looked at each time


def test_a_share_goes_around_the_end(folder_registry: Registry, tmp_path: Path, monkeypatch):
    blobs = push_some(folder_registry, tmp_path)
    read = read_of(folder_registry, monkeypatch)
    for _ in range(5):
        folder_registry.verify(read_data="60%")
    assert len(read) == 3 * len(blobs)
    assert {read.count(sha256) for sha256 in blobs} == {3}


def test_the_parts_of_a_whole_read_each_blob_once(folder_registry: Registry, tmp_path: Path, monkeypatch):
    blobs = push_some(folder_registry, tmp_path)
    read = read_of(folder_registry, monkeypatch)
    for part in ("1/3", "2/3", "3/3"):
        folder_registry.verify(read_data=part)
    assert sorted(read) == sorted(blobs)


def test_an_interrupted_run_is_gone_on_with(folder_registry: Registry, tmp_path: Path, monkeypatch):
    blobs = sorted(push_some(folder_registry, tmp_path))
    monkeypatch.setattr(verify_module, "_CHUNK", 1)
    monkeypatch.setattr(verify_module, "_SAVE_SECONDS", 0)
    hash_stored = FolderStore.hash_stored
    middle = blobs[len(blobs) // 2]

    def break_off(self: FolderStore, sha256: str) -> Blob | None:
        if sha256 >= middle:
            raise UnavailableError("the disk went away")
        return hash_stored(self, sha256)

    with monkeypatch.context() as broken, pytest.raises(UnavailableError):
        broken.setattr(FolderStore, "hash_stored", break_off)
        folder_registry.verify(read_data=True)
    read = read_of(folder_registry, monkeypatch)
    folder_registry.verify(read_data="50%")
    assert middle in read
    assert blobs[0] not in read


@pytest.mark.parametrize("share", ["0%", "101%", "five", "0/3", "4/3", "5", "-1%"])
def test_a_share_that_is_none_is_refused(folder_registry: Registry, share: str):
    with pytest.raises(UsageError, match="is not understood"):
        folder_registry.verify(read_data=share)


def test_a_share_in_percent_is_of_everything(folder_registry: Registry):
    folder_registry.push(ADAPTERS / "first", "t/a")
    with pytest.raises(UsageError):
        folder_registry.verify(["t/a"], read_data="5%")
    assert folder_registry.verify(["t/a"], read_data="1/1").read == 4


def test_what_the_checksum_of_s3_proves_is_not_read_unless_it_is_asked_for(postgres_and_s3: Deployment, monkeypatch):
    with connect(**postgres_and_s3.settings) as registry:
        registry.push(ADAPTERS / "first", "t/a")
        read = read_of(registry, monkeypatch)
        report = registry.verify(read_data=True)
        assert (report.proven, report.read, read) == (4, 0, [])
        assert registry.verify(read_data=True, trust_checksums=False).read == 4
        assert len(read) == 4


def test_an_object_of_many_parts_is_read(postgres_and_s3: Deployment, tmp_path: Path):
    """S3 keeps no checksum of the whole of it."""
    large = tmp_path / "large"
    shutil.copytree(ADAPTERS / "first", large)
    (large / "notes.txt").write_bytes(bytes(PART + 1))
    with connect(**postgres_and_s3.settings) as registry:
        registry.push(large, "t/a")
        report = registry.verify(read_data=True)
        assert (report.proven, report.read, report.read_size) == (4, 1, PART + 1)


def test_a_new_registry_is_whole(deployment: Deployment, loreg: Loreg):
    report = verified(loreg)
    assert (report["references"], report["damage_count"], report["orphan_count"]) == (0, 0, 0)
