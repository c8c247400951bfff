"""An independent look at a registry: plain SQL and plain reads of the store, sharing no code with loreg.

``python -m faults.checker DATABASE_URL STORAGE_URL [STORAGE_ENDPOINT]`` prints every fault and ends with 1 if there is
one. What must be true is written from the schema in ``migrations/``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_KEPT = 1024 * 1024  # blobs up to that are documents that may be read again
_REPORTING = ("backup", "gc", "prune", "repair", "verify")  # the results of these jobs say what one run of them found
_WHOLE = ("adapter_config.json", "adapter_model.safetensors")

TABLES = (
    "adapters", "alias_moves", "aliases", "base_edges", "base_names", "base_upgrades", "bases", "blobs", "drafts",
    "events", "export_files", "exports", "files", "garbage", "jobs", "labels", "lineage", "merges", "metrics",
    "module_types", "registry", "tasks", "tombstones", "upgrade_verdicts", "uploads", "versions",
)  # fmt: skip
#: Table and column, and the table and column that it names a row of.
REFERENCES = (
    ("alias_moves", "adapter_id", "adapters", "id"),
    ("alias_moves", "version_id", "versions", "id"),
    ("aliases", "adapter_id", "adapters", "id"),
    ("aliases", "version_id", "versions", "id"),
    ("base_edges", "child_id", "bases", "id"),
    ("base_edges", "parent_id", "bases", "id"),
    ("base_names", "base_id", "bases", "id"),
    ("base_upgrades", "new_id", "bases", "id"),
    ("base_upgrades", "old_id", "bases", "id"),
    ("bases", "digest", "blobs", "digest"),
    ("events", "adapter_id", "adapters", "id"),
    ("events", "version_id", "versions", "id"),
    ("export_files", "digest", "blobs", "digest"),
    ("export_files", "export_id", "exports", "id"),
    ("exports", "version_id", "versions", "id"),
    ("files", "digest", "blobs", "digest"),
    ("files", "version_id", "versions", "id"),
    ("labels", "version_id", "versions", "id"),
    ("lineage", "child_id", "merges", "version_id"),
    ("merges", "version_id", "versions", "id"),
    ("metrics", "version_id", "versions", "id"),
    ("module_types", "version_id", "versions", "id"),
    ("tasks", "version_id", "versions", "id"),
    ("tombstones", "adapter_id", "adapters", "id"),
    ("upgrade_verdicts", "new_id", "bases", "id"),
    ("upgrade_verdicts", "version_id", "versions", "id"),
    ("versions", "adapter_id", "adapters", "id"),
    ("versions", "base_id", "bases", "id"),
)


@dataclass(frozen=True)
class Stored:
    """What lies under a blob's name: its true sha256 and size, and the bytes if they are few."""

    sha256: str
    size: int
    content: bytes


@dataclass(frozen=True)
class Seen:
    """Database and store at one moment. ``damage`` is what the database says of itself, ``left`` what is no blob.

    ``owner`` is the mark of the registry that the store belongs to.
    """

    tables: Mapping[str, list[Row]]
    stored: Mapping[str, Stored]
    damage: tuple[str, ...]
    left: tuple[str, ...]
    owner: str = ""

    def __getitem__(self, table: str) -> list[Row]:
        return self.tables.get(table, [])

    @functools.cached_property
    def names(self) -> dict[Any, str]:
        """The names of adapters, by id."""
        return {row["id"]: "/".join(filter(None, (row["namespace"], row["name"]))) for row in self["adapters"]}

    def by_id(self, table: str, column: str = "id") -> dict[Any, Row]:
        """The rows of a table by their key."""
        return {row[column]: row for row in self[table]}

    def rows_by(self, table: str, column: str) -> dict[Any, list[Row]]:
        """The rows of a table by what they belong to."""
        rows: dict[Any, list[Row]] = defaultdict(list)
        for row in self[table]:
            rows[row[column]].append(row)
        return rows


def look(database_url: str, storage_url: str, storage_endpoint: str = "") -> Seen:
    """Read all of the database, then all of the store: what is recorded was stored before."""
    read = _read_sqlite if database_url.startswith("sqlite") else _read_postgresql
    tables, damage = read(database_url)
    stored, left, owner = read_store(storage_url, storage_endpoint)
    return Seen(tables, stored, tuple(damage), tuple(left), owner)


def read_store(url: str, endpoint: str = "") -> tuple[dict[str, Stored], list[str], str]:
    """Every blob that is stored, by digest, what else lies there, and the mark of its owner."""
    stored, left = _read_s3(url, endpoint) if "://" in url else _read_folder(Path(url))
    if "owner" not in left:
        return stored, left, ""
    return stored, [name for name in left if name != "owner"], read_document(url, "owner", endpoint).decode()


def read_document(url: str, name: str, endpoint: str = "") -> bytes:
    """The bytes of what lies in a store beside its blobs."""
    if "://" not in url:
        return Path(url, name).read_bytes()
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    key = f"{prefix}/{name}" if prefix else name
    return bytes(s3_client(endpoint).get_object(Bucket=bucket, Key=key)["Body"].read())


def faults(seen: Seen) -> list[str]:
    """Everything that is not as it must be, a sentence each."""
    return [*seen.damage, *(fault for rule in RULES for fault in rule(seen))]


# --- what must be true -----------------------------------------------------------------------------------------------


def _rows_refer_to_rows(seen: Seen) -> Iterator[str]:
    for table, column, target, key in REFERENCES:
        known = {row[key] for row in seen[target]}
        for row in seen[table]:
            if row[column] is not None and row[column] not in known:
                yield f"{table}.{column} is {row[column]!r}: there is no such row in {target}"


def _blobs_are_there_and_right(seen: Seen) -> Iterator[str]:
    for row in seen["blobs"]:
        yield from _wrong(seen, row["digest"], row["size"], f"blob {row['digest'][:12]}")


def _stored_blobs_are_what_they_are_called(seen: Seen) -> Iterator[str]:
    for digest, stored in seen.stored.items():
        if stored.sha256 != digest:
            yield f"store: under {digest[:12]} lie {stored.size} bytes with sha256 {stored.sha256[:12]}"


def _numbers_have_no_holes(seen: Seen) -> Iterator[str]:
    versions, gone = seen.rows_by("versions", "adapter_id"), seen.rows_by("tombstones", "adapter_id")
    for adapter in seen["adapters"]:
        name, buried = _of(seen, adapter["id"]), {row["number"] for row in gone[adapter["id"]]}
        numbers = sorted(row["number"] for row in versions[adapter["id"]])
        if again := sorted(buried.intersection(numbers)):
            yield f"{name} has the versions {again}, which are gone"
        if not numbers and not buried:
            yield f"{name} has no version"
        elif sorted(buried.union(numbers)) != list(range(1, len(numbers) + len(buried) + 1)) and not again:
            yield f"{name} has the versions {numbers}" + (f", gone are {sorted(buried)}" if buried else "")


def _what_was_deleted_is_not_there(seen: Seen) -> Iterator[str]:
    versions, weights = seen.rows_by("versions", "adapter_id"), {row["digest"] for row in seen["files"]}
    for row in seen["tombstones"]:
        name = f"{_of(seen, row['adapter_id'])}:v{row['number']}"
        if row["is_banned"] and row["digest"] in {version["digest"] for version in versions[row["adapter_id"]]}:
            yield f"{name} was deleted, and its content is there again"
        if row["is_banned"] and row["weights"] in weights:
            yield f"{name} was deleted, and a version has its weights"


def _what_is_removed_is_not_referred_to(seen: Seen) -> Iterator[str]:
    referred_to = _referred_to(seen)
    for row in seen["garbage"]:
        if row["claimed_at"] is not None and row["digest"] in referred_to:
            state = "is removed" if row["collected_at"] is None else "was removed"
            yield f"garbage: {row['digest'][:12]} {state}, and something refers to it"


def _referred_to(seen: Seen) -> set[str]:
    digests = {row["digest"] for table in ("versions", "files", "export_files", "bases") for row in seen[table]}
    digests |= {row["digest"] for row in seen["uploads"] if row["received"]}
    files = (file for row in seen["drafts"] for file in row["files"])
    return digests | {file["sha256"] if isinstance(file, dict) else file[1] for file in files}


def _the_store_is_its_own(seen: Seen) -> Iterator[str]:
    if seen.tables and len(seen["registry"]) != 1:
        yield f"the registry has {len(seen['registry'])} ids"
    elif seen["versions"] and seen.owner not in ("", seen["registry"][0]["id"]):
        yield f"the store belongs to {seen.owner[:12]}, the registry is {seen['registry'][0]['id'][:12]}"


def _versions_are_whole(seen: Seen) -> Iterator[str]:
    files, events = seen.rows_by("files", "version_id"), seen.rows_by("events", "version_id")
    kinds, sizes = seen.rows_by("module_types", "version_id"), seen.by_id("blobs", "digest")
    for version in seen["versions"]:
        name, rows = _ref(seen, version), files[version["id"]]
        manifest = _manifest((row["path"], row["digest"], row["size"]) for row in rows)
        if hashlib.sha256(manifest).hexdigest() != version["digest"]:
            yield f"{name}: its files are not those of its digest {version['digest'][:12]}"
        yield from _wrong(seen, version["digest"], None, f"{name}: its manifest")
        if (stored := seen.stored.get(version["digest"])) and stored.content != manifest:
            yield f"{name}: its stored manifest names other files than the database"
        for row in rows:
            yield from _wrong(seen, row["digest"], row["size"], f"{name}: {row['path']}")
            if (blob := sizes.get(row["digest"])) is not None and blob["size"] != row["size"]:
                yield f"{name}: {row['path']} has {row['size']} bytes, its blob {blob['size']}"
        if missing := set(_WHOLE) - {row["path"] for row in rows}:
            yield f"{name}: without {', '.join(sorted(missing))}"
        if version["bytes"] != sum(row["size"] for row in rows):
            yield f"{name}: {version['bytes']} bytes are recorded, its files have {sum(row['size'] for row in rows)}"
        if not kinds[version["id"]]:
            yield f"{name}: no module is recorded"
        if not any(event["action"] == "push" for event in events[version["id"]]):
            yield f"{name}: no event tells that it was pushed"


def _aliases_point_to_their_own(seen: Seen) -> Iterator[str]:
    versions = seen.by_id("versions")
    last = {(row["adapter_id"], row["alias"]): row for row in sorted(seen["alias_moves"], key=lambda row: row["id"])}
    now = {(row["adapter_id"], row["alias"]): row["version_id"] for row in seen["aliases"]}
    for row in (*seen["aliases"], *seen["alias_moves"]):
        version = versions.get(row["version_id"])
        if version is not None and version["adapter_id"] != row["adapter_id"]:
            owner = _of(seen, row["adapter_id"])
            yield f"alias {row['alias']!r} of {owner} means {_ref(seen, version)}, a version of another"
    for key in now.keys() | last.keys():
        moved = last[key]["version_id"] if key in last else "nowhere"
        if now.get(key) != moved:
            yield f"alias {key[1]!r} of {_of(seen, key[0])} means {now.get(key)}, it moved to {moved}"
    gone = {(row["adapter_id"], row["number"]) for row in seen["tombstones"]}
    for row in seen["alias_moves"]:
        if row["version_id"] is None and (row["adapter_id"], row["number"]) in gone:
            continue
        number = versions[row["version_id"]]["number"] if row["version_id"] in versions else None
        if row["number"] != number:
            owner = _of(seen, row["adapter_id"])
            yield f"alias {row['alias']!r} of {owner} moved to v{row['number']}, its version is v{number}"


def _exports_are_whole(seen: Seen) -> Iterator[str]:
    files, versions, sizes = (
        seen.rows_by("export_files", "export_id"),
        seen.by_id("versions"),
        seen.by_id("blobs", "digest"),
    )
    for export in seen["exports"]:
        name = f"export {export['id']} of {_ref(seen, versions.get(export['version_id']))}"
        rows = files[export["id"]]
        known = [(row["path"], row["digest"], sizes.get(row["digest"], {"size": -1})["size"]) for row in rows]
        if hashlib.sha256(_manifest(known)).hexdigest() != export["digest"]:
            yield f"{name}: its files are not those of its digest {export['digest'][:12]}"
        for path, digest, size in known:
            yield from _wrong(seen, digest, size, f"{name}: {path}")
        if missing := set(_WHOLE) - {row["path"] for row in rows}:
            yield f"{name}: without {', '.join(sorted(missing))}"


def _bases_are_whole(seen: Seen) -> Iterator[str]:
    for base in seen["bases"]:
        yield from _wrong(seen, base["digest"], None, f"base {base['digest'][:12]}")
        stored = seen.stored.get(base["digest"])
        if stored is not None and stored.sha256 == base["digest"] and stored.content:
            document = json.loads(stored.content)
            if len(document["tensors"]) != base["tensors"]:
                yield (
                    f"base {base['digest'][:12]}: {base['tensors']} tensors are recorded, its list has"
                    f" {len(document['tensors'])}"
                )


def _merges_name_their_sources(seen: Seen) -> Iterator[str]:
    lineage, versions = seen.rows_by("lineage", "child_id"), seen.by_id("versions")
    for merge in seen["merges"]:
        positions = sorted(row["position"] for row in lineage[merge["version_id"]])
        if not positions or positions != list(range(positions[0], positions[0] + len(positions))):
            yield f"{_ref(seen, versions.get(merge['version_id']))} was merged from the positions {positions}"


def _what_is_said_twice_is_the_same(seen: Seen) -> Iterator[str]:
    versions, bases = seen.by_id("versions"), seen.by_id("bases")
    for row in seen["metrics"]:
        if row["score"] != (row["value"] if row["higher_is_better"] else -row["value"]):
            yield f"{_ref(seen, versions.get(row['version_id']))}: metric {row['name']} scores {row['score']}"
    for row in seen["tasks"]:
        version = versions.get(row["version_id"])
        base = bases.get(version["base_id"]) if version else None
        if version is not None and row["base"] != (base["digest"] if base else version["base_hint"]):
            yield f"{_ref(seen, version)}: task {row['task']} is filed under the base {row['base']!r}"


def _jobs_are_what_they_say(seen: Seen) -> Iterator[str]:
    digests = {row["digest"] for row in seen["versions"]}
    for job in seen["jobs"]:
        if job["state"] == "done" and (made := job["result"].get("digest")) and made not in digests:
            yield f"job {job['id']} is done, and its version {made[:12]} is not there"
        if job["state"] == "done" and not job["result"]:
            yield f"job {job['id']} is done and has no result"
        if job["state"] == "failed" and not job["error"]:
            yield f"job {job['id']} failed and does not say why"


def _drafts_can_be_gone_on_with(seen: Seen) -> Iterator[str]:
    for pending in seen["drafts"]:
        for file in pending["files"]:
            path, digest, size = (file[k] for k in ("path", "sha256", "size")) if isinstance(file, dict) else file
            name = "/".join(filter(None, (pending["namespace"], pending["name"])))
            yield from _wrong(seen, digest, size, f"draft of {name}: {path}")


RULES: tuple[Callable[[Seen], Iterable[str]], ...] = (
    _rows_refer_to_rows,
    _blobs_are_there_and_right,
    _stored_blobs_are_what_they_are_called,
    _numbers_have_no_holes,
    _what_was_deleted_is_not_there,
    _what_is_removed_is_not_referred_to,
    _the_store_is_its_own,
    _versions_are_whole,
    _aliases_point_to_their_own,
    _exports_are_whole,
    _bases_are_whole,
    _merges_name_their_sources,
    _what_is_said_twice_is_the_same,
    _jobs_are_what_they_say,
    _drafts_can_be_gone_on_with,
)


# --- what two registries are compared by -----------------------------------------------------------------------------


def contents(seen: Seen) -> dict[str, Any]:
    """All that people see, by name: without ids, times and events, so that two registries can be compared."""
    content: dict[str, Any] = {}
    versions, bases = seen.by_id("versions"), seen.by_id("bases")

    def ref(row: Row) -> str:
        return _ref(seen, versions.get(row["version_id"]))

    for version in seen["versions"]:
        base = bases.get(version["base_id"])
        content[_ref(seen, version)] = {
            **_without(version, "id", "adapter_id", "base_id", "created_at", "yanked_at"),
            "base": base["digest"] if base else None,
            "yanked": version["yanked_at"] is not None,
        }
    for alias in seen["aliases"]:
        content[f"alias {_of(seen, alias['adapter_id'])}:{alias['alias']}"] = ref(alias)
    for table, key in (("files", "path"), ("module_types", "name"), ("tasks", "task"), ("labels", "key")):
        for row in seen[table]:
            content[f"{table} {ref(row)} {row[key]}"] = _without(row, "version_id")
    for metric in seen["metrics"]:
        name = " ".join(metric[key] for key in ("name", "dataset", "split"))
        content[f"metric {ref(metric)} {name}"] = _without(metric, "version_id", "created_at")
    for merge in seen["merges"]:
        content[f"merge {ref(merge)}"] = _without(merge, "version_id")
    for row in seen["lineage"]:
        content[f"lineage {ref({'version_id': row['child_id']})} {row['position']}"] = _without(row, "child_id")
    for export in seen["exports"]:
        content[f"export {ref(export)} {export['request']}"] = export["digest"]
    for base in seen["bases"]:
        content[f"base {base['digest']}"] = _without(base, "id", "created_at")
    for name in seen["base_names"]:
        content[f"base name {name['name']}"] = bases[name["base_id"]]["digest"] if name["base_id"] in bases else None
    for row in seen["base_upgrades"]:
        ends = (bases.get(row[column], {}).get("digest") for column in ("old_id", "new_id"))
        content[f"upgrade {' '.join(map(str, ends))}"] = _without(row, "old_id", "new_id", "at")
    for row in seen["upgrade_verdicts"]:
        new_base = bases.get(row["new_id"], {}).get("digest")
        content[f"verdict on {ref(row)} for {new_base}"] = _without(row, "version_id", "old_id", "new_id", "at")
    for job in seen["jobs"]:
        result = job["result"] if job["kind"] not in _REPORTING else bool(job["result"])
        content[f"job {job['id']}"] = [job["kind"], job["state"], result, job["error"]]
    for pending in seen["drafts"]:
        content[f"draft {pending['namespace']}/{pending['name']}:{pending['branch']}"] = pending["files"]
    for row in seen["tombstones"]:
        content[f"tombstone {_of(seen, row['adapter_id'])}:v{row['number']}"] = _without(row, "adapter_id", "at")
    for row in seen["registry"]:
        content["moved"] = bool(row["moved_to"])
    return content


def garbage(seen: Seen) -> dict[str, str]:
    """What became of every blob that nothing referred to, and what is stored."""
    states = {f"garbage {row['digest']}": _state(row) for row in seen["garbage"]}
    return states | {f"blob {digest}": "stored" for digest in seen.stored}


def _state(row: Row) -> str:
    if row["collected_at"] is not None:
        return "collected"
    return "marked" if row["claimed_at"] is None else "claimed"


def differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is otherwise than it would be if nothing had been disturbed."""
    missing = [f"without {key}" for key in expected.keys() - actual.keys()]
    more = [f"with {key}" for key in actual.keys() - expected.keys()]
    other = [
        f"{key} is {_short(actual[key])} instead of {_short(expected[key])}"
        for key in actual.keys() & expected.keys()
        if actual[key] != expected[key]
    ]
    return sorted(missing) + sorted(more) + sorted(other)


def files_below(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def half(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """What is wrong with a folder that must be absent, empty or whole."""
    files = files_below(folder)
    return [f"{folder.name} is half there: {fault}" for fault in differences(files, expected)] if files else []


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_sqlite(url: str) -> tuple[dict[str, list[Row]], list[str]]:
    """Read a copy: what a kill left is for the next command to recover, not for this look at it."""
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        return {}, []
    with tempfile.TemporaryDirectory(prefix="checker-") as folder:
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{end}", f"{folder}/copy{end}")
        with contextlib.closing(sqlite3.connect(f"{folder}/copy")) as connection:
            connection.row_factory = sqlite3.Row
            try:
                damage = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
                known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                rows = {
                    table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES if table in known
                }
            except sqlite3.DatabaseError as error:
                return {}, [f"the database cannot be read: {error}"]
    missing = [f"there is no table {table}" for table in TABLES if known and table not in known]
    return {table: [plain(dict(row)) for row in table_rows] for table, table_rows in rows.items()}, damage + missing


def _read_postgresql(url: str) -> tuple[dict[str, list[Row]], list[str]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        known = {row["tablename"] for row in connection.execute("SELECT tablename FROM pg_tables")}
        tables = {t: list(connection.execute(f"SELECT * FROM {t}")) for t in TABLES if t in known}  # type: ignore[call-overload]
    return tables, [f"there is no table {table}" for table in TABLES if tables and table not in known]


def plain(row: Row) -> Row:
    """A row of SQLite as PostgreSQL would give it: JSON read, booleans true or false."""
    for column in ("detail", "files", "request", "grants", "result", "error", "recipe", "certificate"):
        if isinstance(row.get(column), str) and row[column].startswith(("[", "{")):
            row[column] = json.loads(row[column])
    for column in ("verified", "complete", "higher_is_better", "received", "is_banned"):
        if column in row:
            row[column] = bool(row[column])
    return row


def _read_folder(folder: Path) -> tuple[dict[str, Stored], list[str]]:
    stored, left = {}, []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        if parts[0] == "sha256" and not path.name.startswith("."):
            stored["/".join(parts[2:]) if parts[1] == parts[2][:2] else "/".join(parts)] = _stored(path.read_bytes())
        else:
            left.append("/".join(parts))
    return stored, left


def _read_s3(url: str, endpoint: str) -> tuple[dict[str, Stored], list[str]]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix, client = f"{prefix}/" if prefix else "", s3_client(endpoint)
    stored, left = {}, []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"].removeprefix(prefix)
            if key.startswith("sha256/"):
                content = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                parts = key.split("/")
                stored[parts[2] if len(parts) == 3 and parts[1] == parts[2][:2] else key] = _stored(content)
            elif not key.startswith("named/"):
                left.append(key)
    unfinished = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])
    return stored, [*left, *(f"multipart upload of {upload['Key'].removeprefix(prefix)}" for upload in unfinished)]


_clients: dict[tuple[str, int], Any] = {}


def s3_client(endpoint: str) -> Any:
    """One for each process: a forked one must not share its parent's connections."""
    import boto3
    from botocore.config import Config

    key = endpoint, os.getpid()
    if key not in _clients:
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
        _clients[key] = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    return _clients[key]


def _stored(content: bytes) -> Stored:
    return Stored(hashlib.sha256(content).hexdigest(), len(content), content if len(content) <= _KEPT else b"")


# --- words -----------------------------------------------------------------------------------------------------------


def _wrong(seen: Seen, digest: str, size: int | None, what: str) -> Iterator[str]:
    """Say what is wrong with the bytes that are stored under a digest."""
    stored = seen.stored.get(digest)
    if stored is None:
        yield f"{what}: {digest[:12]} is not stored"
    elif stored.sha256 != digest:
        yield f"{what}: {digest[:12]} is damaged in the store ({stored.size} bytes there)"
    elif size is not None and stored.size != size:
        yield f"{what}: {size} bytes are recorded, {stored.size} are stored"


def _manifest(files: Iterable[tuple[str, str, int]]) -> bytes:
    """The canonical JSON whose sha256 is a version's digest."""
    rows = [{"path": path, "sha256": sha256, "size": size} for path, sha256, size in sorted(files)]
    document = {"files": rows, "schema": "loreg.manifest/1"}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _of(seen: Seen, adapter_id: Any) -> str:
    return seen.names.get(adapter_id, f"adapter {adapter_id}")


def _ref(seen: Seen, version: Row | None) -> str:
    if version is None:
        return "a version that is not there"
    return f"{_of(seen, version['adapter_id'])}:v{version['number']}"


def _without(row: Row, *columns: str) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 120 else f"{text[:120]}…"


def main(arguments: list[str]) -> int:
    """Print every fault; the exit status is 1 if there is one."""
    seen = look(*arguments)
    sentences = faults(seen)
    print(*sentences, sep="\n", end="\n" if sentences else "")
    sizes = Counter({table: len(rows) for table, rows in seen.tables.items()})
    print(f"{sizes['versions']} versions, {sizes['blobs']} blobs, {len(seen.stored)} stored: {len(sentences)} faults")
    return int(bool(sentences))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
