"""repair brings back what verify names, believes nothing without its hash, and lists what it cannot find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broken_registries import ADAPTERS, FOLDER, NAMES, install, verdict_on
from deployments import Deployment, Loreg
from live_server import live_server
from loreg import credentials
from loreg.errors import NotFoundError, UsageError
from loreg.registry import connect
from loreg.settings import load
from loreg.storage import Blob, open_store
from loreg.storage.blobs import key_of
from loreg.workspace.server_token import find_token
from stored_bytes import DAMAGES, Stored


@pytest.fixture(params=["sqlite+folder", "postgres+s3"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Where catalog and store are reached."""
    if request.param == "postgres+s3":
        return request.getfixturevalue("postgres_and_s3")
    return Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))


def repaired(loreg: Loreg, *arguments: str | Path) -> dict[str, Any]:
    """The report as JSON; the exit code is 6 if something stays broken, else 0."""
    outcome = loreg("repair", *arguments, "--format", "json")
    report = json.loads(outcome.stdout)
    assert outcome.exit_code == (6 if report["broken_count"] else 0)
    return dict(report)


def contents(deployment: Deployment) -> dict[str, tuple[int, Blob | None]]:
    """What the store has, with sizes and digests as they are."""
    store = open_store(deployment.storage_url, deployment.storage_endpoint)
    return {blob.sha256: (blob.size, store.hash_stored(blob.sha256)) for blob in store.list()}


@pytest.mark.parametrize("name", [name for name in NAMES if not verdict_on(name).get("owner")])
def test_a_broken_registry_is_mended_as_its_verdict_says(
    name: str, deployment: Deployment, loreg: Loreg, tmp_path: Path
):
    install(name, deployment, tmp_path)
    verdict = verdict_on(name)
    broken = {damage["sha256"] for damage in verdict["broken"]}
    read = ["--read-data"] if verdict["read_data"] else []
    if verdict["repair"] is None:
        report = repaired(loreg, "--from", ADAPTERS, *read)
        assert {damage["sha256"] for damage in report["broken"]} == broken
        assert loreg("verify").exit_code == 6
        return
    # As verify says itself, where all that is broken has one remedy.
    remedy = [str(ADAPTERS) if text == "DIR" else text for text in verdict["remedy"].split()[2:]]
    places = [str(FOLDER / text) if text == "adapters" else text for text in verdict["repair"]]
    arguments = remedy if verdict["remedy"] else [*places, *read]
    report = repaired(loreg, *arguments)
    assert {item["damage"]["sha256"] for item in report["repaired"]} == broken
    assert loreg("verify", "--read-data").exit_code == 0
    for sha256, (size, actual) in contents(deployment).items():
        assert actual == Blob(sha256, size)
    with connect(**deployment.settings) as registry:
        for version in registry.versions("team/news").items:
            registry.pull(version.ref, tmp_path / version.ref.replace(":", "-"))
    assert repaired(loreg, *arguments)["repaired_count"] == 0


def test_a_dry_run_looks_for_everything_and_stores_nothing(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("store-of-another-catalog", deployment, tmp_path)
    before = contents(deployment)
    report = repaired(loreg, "--from", ADAPTERS, "--dry-run")
    assert report["repaired_count"] == len(verdict_on("store-of-another-catalog")["broken"])
    assert contents(deployment) == before
    assert "can be repaired" in loreg("repair", "--from", ADAPTERS, "--dry-run").stdout
    assert loreg("verify").exit_code == 6


def test_what_no_place_has_is_listed(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("store-of-another-catalog", deployment, tmp_path)
    with connect(**deployment.settings) as registry:
        weights = {
            ref: next(file.sha256 for file in registry.show(ref).files if file.path.endswith(".safetensors"))
            for ref in ("team/news:v1", "team/news:v2")
        }
        cards = [file.sha256 for file in registry.show("team/news:v2").files if file.path == "README.md"]
    outcome = loreg("repair", "--from", ADAPTERS / "first")
    assert outcome.exit_code == 6
    assert weights["team/news:v2"][:12] in outcome.stdout.partition("stay broken")[2]
    assert weights["team/news:v1"][:12] not in outcome.stdout.partition("stay broken")[2]
    stay = loreg("verify", "--format", "json").stdout
    assert {damage["sha256"] for damage in json.loads(stay)["damages"]} == {weights["team/news:v2"], *cards}
    assert loreg("repair").exit_code == 6
    assert "without --from" in loreg("repair").stderr


def test_bytes_of_the_right_size_and_name_are_not_believed(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    """In an adapter's folder, and in a store under the very name."""
    install("missing-blob", deployment, tmp_path)
    (damage,) = verdict_on("missing-blob")["broken"]
    right = (ADAPTERS / "first" / "adapter_model.safetensors").read_bytes()
    wrong = right[:-1] + bytes([right[-1] ^ 1])
    false = tmp_path / "false" / "adapter_model.safetensors"
    under_its_name = tmp_path / "false" / key_of(damage["sha256"])
    under_its_name.parent.mkdir(parents=True)
    for path in (false, under_its_name):
        path.write_bytes(wrong)
    assert repaired(loreg, "--from", tmp_path / "false")["broken_count"] == 1
    assert damage["sha256"] not in contents(deployment)
    (tmp_path / "false" / "right").write_bytes(right)
    assert repaired(loreg, "--from", tmp_path / "false")["repaired_count"] == 1


def test_a_source_that_changes_while_it_is_copied_is_not_believed(deployment, loreg: Loreg, tmp_path, monkeypatch):
    install("missing-blob", deployment, tmp_path)

    def copy_something_else(source: str, target: Path) -> None:
        target.write_bytes(bytes(Path(source).stat().st_size))

    monkeypatch.setattr("shutil.copyfile", copy_something_else)
    assert repaired(loreg, "--from", ADAPTERS)["broken_count"] == 1


@pytest.mark.parametrize("source", ["home", "store folder", "server"])
def test_other_registries_are_sources(source: str, deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("store-of-another-catalog", deployment, tmp_path)
    other = Deployment(f"sqlite:///{tmp_path}/other/catalog.db", str(tmp_path / "other" / "store"))
    with connect(**other.settings) as registry:
        for name in ("first", "second"):
            registry.push(ADAPTERS / name, "team/news")
    if source == "server":
        with live_server(other) as endpoint:
            assert repaired(loreg, "--from", endpoint)["broken_count"] == 0
    else:
        place = {"home": tmp_path / "other", "store folder": tmp_path / "other" / "store"}[source]
        assert repaired(loreg, "--from", place)["broken_count"] == 0
    assert loreg("verify", "--read-data").exit_code == 0


def test_another_prefix_of_the_same_s3_is_a_source(postgres_and_s3: Deployment, tmp_path: Path):
    other = f"{postgres_and_s3.storage_url}-other"
    with connect(
        database_url=f"sqlite:///{tmp_path}/o.db", storage_url=other, storage_endpoint=postgres_and_s3.storage_endpoint
    ) as registry:
        for name in ("first", "second"):
            registry.push(ADAPTERS / name, "team/news")
    install("store-of-another-catalog", postgres_and_s3, tmp_path)
    with connect(**postgres_and_s3.settings) as registry:
        assert registry.repair([other]).ok
        assert registry.verify(read_data=True, trust_checksums=False).ok


def test_a_damaged_source_does_not_stop_the_others(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("missing-blob", deployment, tmp_path)
    report = repaired(loreg, "--from", FOLDER / "missing-blob" / "store", "--from", ADAPTERS)
    assert [item["source"] for item in report["repaired"]] == [str(ADAPTERS)]


def test_an_object_that_the_store_holds_to_be_sound_is_replaced(postgres_and_s3: Deployment, monkeypatch):
    """A disk of S3 may rot while the checksum that was kept stays as it was."""
    with connect(**postgres_and_s3.settings) as registry:
        registry.push(ADAPTERS / "first", "t/a")
        (weights,) = [file for file in registry.show("t/a").files if file.path.endswith(".safetensors")]
        store = type(registry.context.store)
        hash_stored, put = store.hash_stored, store.put
        rotten, puts = [weights.sha256], []

        def read(self, sha256: str, *on_bytes) -> Blob | None:
            actual = hash_stored(self, sha256, *on_bytes)
            return Blob("0" * 64, weights.size) if sha256 in rotten and actual is not None else actual

        def record_put(self, blob: Blob, *arguments) -> bool:
            stored = put(self, blob, *arguments)
            puts.append((blob.sha256, stored))
            if stored:
                rotten.clear()
            return stored

        def refuse_what_is_there(self, blob: Blob, path: Path | None = None) -> bool | None:
            return True if self.inspect(blob.sha256) is not None else None

        monkeypatch.setattr(store, "hash_stored", read)
        monkeypatch.setattr(store, "put", record_put)
        monkeypatch.setattr(store, "_is_sound", refuse_what_is_there)
        report = registry.repair([ADAPTERS], read_data=True, trust_checksums=False)
        assert (report.ok, report.repaired_count) == (True, 1)
        assert puts == [(weights.sha256, False), (weights.sha256, True)]


def test_with_refs_only_those_versions_are_mended(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("store-of-another-catalog", deployment, tmp_path)
    repaired(loreg, "team/news:v1", "--from", ADAPTERS)
    assert loreg("verify", "team/news:v1").exit_code == 0
    assert loreg("verify", "team/news:v2").exit_code == 6


def test_a_folder_that_is_not_there_and_a_place_that_is_none_are_refused(deployment: Deployment):
    with connect(**deployment.settings) as registry:
        with pytest.raises(NotFoundError, match="there is no folder"):
            registry.repair(["./nowhere"])
        with pytest.raises(UsageError, match="is no place to repair from"):
            registry.repair(["ftp://example.org"])


def test_the_token_of_one_server_is_not_shown_to_another(monkeypatch):
    def token_of(url: str, variable: str = "") -> str:
        return find_token(url, load({}, {}), variable)

    credentials.write("https://ours.example.org", "secret")
    assert token_of("https://ours.example.org/") == "secret"
    assert token_of("https://theirs.example.org") == ""
    monkeypatch.setenv("LOREG_TOKEN", "given")
    assert token_of("https://theirs.example.org") == ""
    monkeypatch.setenv("LOREG_ENDPOINT", "https://theirs.example.org/")
    assert token_of("https://theirs.example.org") == "given"
    assert token_of("https://others.example.org") == ""
    monkeypatch.setenv("OTHERS", "named")
    assert token_of("https://others.example.org", "OTHERS") == "named"
    with pytest.raises(UsageError, match="NOBODYS is not set"):
        token_of("https://others.example.org", "NOBODYS")


def test_links_in_a_source_are_not_followed(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    """They may lead around in a circle."""
    install("missing-blob", deployment, tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "around").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "adapters").symlink_to(ADAPTERS)
    assert repaired(loreg, "--from", tmp_path / "tree")["broken_count"] == 1


def test_what_is_damaged_in_the_store_is_replaced(deployment: Deployment, tmp_path: Path):
    with connect(**deployment.settings) as registry:
        version = registry.push(ADAPTERS / "first", "t/a").version
        for file in (*registry.show("t/a").files,):
            Stored(deployment).change(file.sha256, DAMAGES["flipped"])
        Stored(deployment).change(version.digest, DAMAGES["longer"])
        report = registry.repair([ADAPTERS], read_data=True)
        assert (report.repaired_count, report.broken_count) == (4, 0)
        assert registry.verify(read_data=True, trust_checksums=False).ok


def test_a_store_of_another_registry_is_not_written_to(deployment: Deployment, loreg: Loreg, tmp_path: Path):
    install("wrong-owner", deployment, tmp_path)
    store = open_store(deployment.storage_url, deployment.storage_endpoint)
    damaged = next(iter(store.list())).sha256
    store.delete(damaged)
    before = contents(deployment)
    for more in ((), ("--dry-run",)):
        refused = loreg("repair", "--from", ADAPTERS, *more)
        assert (refused.exit_code, len(refused.stderr.strip().splitlines())) == (7, 1)
        assert "belongs to registry" in refused.stderr
    assert contents(deployment) == before
