"""usage and du: what the database counts is what a count over the store says."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import asdict

from deployments import HISTORY, MOVIES, SCIENCE, Deployment, Loreg
from factories import write_base
from loreg import connect
from loreg.entities import UsageRow
from loreg.errors import UsageError
from loreg.refs import AdapterName, parse_adapter_pattern
from loreg.registry import Registry
from loreg.storage import BlobStore, put_bytes


@pytest.fixture
def behind(deployment: Deployment) -> Iterator[Registry]:
    settings = {name: getattr(deployment, name) for name in ("database_url", "storage_url", "storage_endpoint")}
    with connect(**settings, author="ada") as opened:
        yield opened


def store_of(registry: Registry) -> BlobStore:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return store


def with_card(folder: Path, to: Path, text: str) -> Path:
    shutil.copytree(folder, to)
    (to / "README.md").write_text(text)
    return to


@pytest.fixture
def filled(registry: Registry, behind: Registry, tmp_path: Path) -> Registry:
    """Versions that share weights within an adapter, between adapters and between namespaces; an export, a base."""
    registry.push(SCIENCE, "team/science")
    registry.push(with_card(SCIENCE, tmp_path / "1", "# One"), "team/science")
    registry.push(with_card(SCIENCE, tmp_path / "2", "# Two"), "team/copy")
    registry.push(HISTORY, "team/history")
    registry.push(HISTORY, "other/history")
    registry.push(MOVIES, "movies")
    registry.pull("movies", tmp_path / "out", profile="vllm")
    registry.pull("team/science", tmp_path / "out2", profile="vllm:max_lora_rank=64")
    registry.bases.add(write_base(tmp_path / "base"), ["one"])
    return registry


def brute_force(registry: Registry, pattern: str, by: str) -> dict[str, tuple[int, int, int, int]]:
    """Versions, bytes of all files, and of each stored blob once, own and shared: by a look at every version."""
    sizes = {blob.sha256: blob.size for blob in store_of(registry).list()}
    chosen = parse_adapter_pattern(pattern)
    owners: dict[str, set[str]] = defaultdict(set)
    versions: dict[str, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    for entry in registry.adapters(limit=1000).items:
        name = str(entry.adapter) if by == "adapter" else entry.adapter.namespace or "-"
        group = name if chosen.matches(entry.adapter) else f"(not counted) {entry.adapter}"
        for version in registry.versions(str(entry.adapter), limit=1000).items:
            versions[group] += 1
            details = registry.show(version.ref)
            totals[group] += sum(file.size for file in details.files)
            for file in details.files:
                owners[file.sha256].add(group)
            for manifest in exports_of(registry, entry.adapter, version.number):
                for digest in manifest:
                    owners[digest].add(group)
    counted = {}
    for group, count in versions.items():
        mine = {digest for digest, groups in owners.items() if group in groups}
        own = sum(sizes[digest] for digest in mine if owners[digest] == {group})
        shared = sum(sizes[digest] for digest in mine) - own
        counted[group] = (count, totals[group], own, shared)
    return {group: row for group, row in counted.items() if not group.startswith("(")}


def exports_of(registry: Registry, adapter: AdapterName, number: int) -> list[list[str]]:
    """The digests of the files of each export of a version, straight from the rows."""
    from sqlalchemy import text

    query = text(
        "SELECT exports.id, export_files.digest FROM exports JOIN export_files ON export_id = exports.id "
        "JOIN versions ON versions.id = version_id JOIN adapters ON adapters.id = adapter_id "
        "WHERE namespace = :namespace AND name = :name AND number = :number"
    )
    files = defaultdict(list)
    with registry.context.backend.catalog.read() as tx:
        values = {"namespace": adapter.namespace, "name": adapter.name, "number": number}
        for export_id, digest in tx.connection.execute(query, values):
            files[export_id].append(digest)
    return list(files.values())


PATTERNS = ("*", "team/*", "team/s*", "-/*", "*/history", "team/cop?", "movies", "nobody/*", "TEAM/*", "team/_*")


def test_the_count_is_that_of_the_store(filled: Registry, behind: Registry):
    for by, pattern in itertools.product(("namespace", "adapter"), PATTERNS):
        usage = filled.usage(pattern, by=by)
        counted = {row.name: (row.versions, row.size, row.own, row.shared) for row in usage.items}
        assert counted == brute_force(behind, pattern, by), (by, pattern)


def test_own_is_what_is_free_when_it_goes(filled: Registry, behind: Registry):
    manifests = {version.digest for name in ("movies",) for version in behind.versions(name).items}
    before = {blob.sha256: blob.size for blob in store_of(behind).list()}
    (row,) = filled.usage("movies").items
    filled.delete("movies:v1", "to see what that frees")
    gone = before.keys() - {blob.sha256 for blob in store_of(behind).list()}
    assert row.own == sum(before[digest] for digest in gone - manifests) > 0


def test_the_totals_are_those_of_the_store(filled: Registry, behind: Registry):
    totals = filled.usage().totals
    assert totals is not None
    sizes = {blob.sha256: blob.size for blob in store_of(behind).list()}
    adapters = behind.adapters(limit=1000).items
    versions = [version for entry in adapters for version in behind.versions(str(entry.adapter)).items]
    files = {file.sha256 for version in versions for file in behind.show(version.ref).files}
    bases = {base.digest for base in behind.bases.list().items}
    exports = set(sizes) - files - bases - {version.digest for version in versions}
    assert (totals.adapters, totals.versions) == (len(adapters), len(versions))
    assert totals.files == sum(sizes[digest] for digest in files)
    assert totals.bases == sum(sizes[digest] for digest in bases)
    assert totals.exports == sum(sizes[digest] for digest in exports) > 0
    assert (totals.other, totals.garbage, totals.garbage_size) == (0, 0, 0)
    put_bytes(behind.context.store, b"of nobody")
    behind.gc(grace="24h")
    marked = filled.usage().totals
    assert marked is not None
    assert (marked.garbage, marked.garbage_size) == (1, len(b"of nobody"))


def test_pages_hold_what_one_page_does(filled: Registry):
    whole = filled.usage(by="adapter")
    rows: list[UsageRow] = []
    cursor = None
    while True:
        page = filled.usage(by="adapter", limit=2, cursor=cursor)
        assert (page.totals is None) == (cursor is not None)
        rows += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert tuple(rows) == whole.items
    assert len(rows) == 5
    with pytest.raises(UsageError, match="not of this search"):
        filled.usage(by="namespace", cursor=filled.usage(by="adapter", limit=1).cursor)


def test_an_empty_registry_stores_nothing(registry: Registry):
    usage = registry.usage()
    assert (usage.items, usage.cursor) == ((), None)
    assert usage.totals is not None
    assert set(asdict(usage.totals).values()) == {0}


@pytest.mark.parametrize("pattern", ["", "a b", "team/[ab]", "team/sub/x", "Ä*"])
def test_what_is_no_pattern_is_refused(registry: Registry, pattern: str):
    with pytest.raises(UsageError, match="invalid pattern"):
        registry.usage(pattern)


def test_what_is_nothing_to_count_by_is_refused(registry: Registry):
    with pytest.raises(UsageError, match="nothing to count by"):
        registry.usage(by="author")


def test_the_command_prints_a_table_json_or_names(filled: Registry, loreg: Loreg):
    outcome = loreg("du", "--by", "adapter", "team/*")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["ADAPTER", "VERSIONS", "SIZE", "OWN", "SHARED"]
    assert [line.split()[0] for line in lines[2:-1]] == ["team/copy", "team/history", "team/science"]
    assert lines[-1].startswith("6 versions of 5 adapters: ")
    document = json.loads(loreg("du", "--format", "json").stdout)
    assert [row["name"] for row in document["items"]] == ["-", "other", "team"]
    assert document["totals"]["versions"] == 6
    assert loreg("du", "--format", "quiet").stdout.split() == ["-", "other", "team"]
    assert "--cursor" in loreg("du", "--limit", "1").stderr
