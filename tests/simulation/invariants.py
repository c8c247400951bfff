"""What must hold in every schedule, looked at with plain SQL and plain reads, sharing no code with what is tested.

After each transaction that changed something, and after each blob that was removed: no reference without its blob, and
none to a blob that a collector has claimed. At the end, after two collections: no orphan, and no garbage that waits.

Where versions go, a :class:`Watch` also sees that nothing goes which something keeps, and that nothing comes back.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from loreg.entities import Deletion
from simulation.catalog import SimulatedCatalog
from simulation.inputs import KEEP_LAST, KEEP_YANKED
from simulation.store import SimulatedBackup, SimulatedSigningStore, SimulatedStore
from simulation.world import World

UPLOADS_LAST = timedelta(days=7)
_REFERENCES = """
SELECT digest, 'files' AS kind FROM files
UNION SELECT digest, 'versions' FROM versions
UNION SELECT digest, 'export_files' FROM export_files
UNION SELECT digest, 'bases' FROM bases
UNION SELECT json_extract(value, '$[1]'), 'drafts' FROM drafts, json_each(drafts.files)
UNION SELECT digest, 'uploads' FROM uploads WHERE received AND created_at >= ?
"""
_CLAIMED = "SELECT digest FROM garbage WHERE claimed_at IS NOT NULL"
_CLAIMED_AT = "SELECT digest, claimed_at FROM garbage WHERE claimed_at IS NOT NULL AND marked_at > '1971-01-01'"
_VERSIONS = "SELECT id, adapter_id, number, digest, yanked_at FROM versions"
_CHILDREN = "SELECT child_id FROM lineage JOIN versions ON versions.id = child_id WHERE parent_digest = ?"
_TOMBSTONE = "SELECT 1 FROM tombstones WHERE adapter_id = ? AND number = ? AND digest = ?"
_NEEDED_BY_JOBS = """
SELECT json_extract(request, '$.sources[0]') FROM jobs WHERE state IN ('queued', 'running')
"""
_WEIGHTS = "adapter_model.safetensors"
_WAITING = "SELECT digest FROM garbage WHERE collected_at IS NULL"


def references(catalog: SimulatedCatalog, world: World) -> dict[str, str]:
    """Return every blob that the catalog refers to, with a table that does."""
    since = world.time - UPLOADS_LAST
    return dict(catalog.ask(_REFERENCES, f"{since:%Y-%m-%d %H:%M:%S.%f}"))


def look(catalog: SimulatedCatalog, store: SimulatedStore, world: World) -> None:
    """See that every reference has its blob, and that none is to a blob that is claimed or was collected."""
    referenced = references(catalog, world)
    for digest in sorted(referenced.keys() - store.objects.keys()):
        world.violate(f"{referenced[digest]} refers to blob {digest[:6]}, which is not in the store")
    for (digest,) in catalog.ask(_CLAIMED):
        if digest in referenced:
            world.violate(f"{referenced[digest]} refers to blob {digest[:6]}, which a collector has claimed")


def look_at_the_end(catalog: SimulatedCatalog, store: SimulatedStore, world: World) -> None:
    """See that nothing is left to collect, after everybody has ended and two collections a grace apart."""
    look(catalog, store, world)
    for digest in sorted(store.objects.keys() - references(catalog, world).keys()):
        world.violate(f"blob {digest[:6]} is an orphan that no collection removes")
    for (digest,) in catalog.ask(_WAITING):
        world.violate(f"blob {digest[:6]} is garbage for ever")


@dataclass(frozen=True)
class SeenVersion:
    """What was seen of a version: where it stands, its content, and when it was yanked."""

    adapter_id: int
    number: int
    digest: str
    yanked_at: str | None

    @property
    def name(self) -> str:
        return f"version {self.number} of adapter {self.adapter_id}"


class Watch:
    """Looks on at a registry whose versions go: what was there before each change, and what must stay away since."""

    def __init__(self, catalog: SimulatedCatalog, store: SimulatedStore, world: World) -> None:
        self._catalog, self._store, self._world = catalog, store, world
        #: Blobs that a deletion marked: they have no grace.
        self.removed_at_once: set[str] = set()
        #: What must not be referred to any more, and since when: manifests, and weights that nobody else had.
        self._banned: dict[str, float] = {}
        self._last_numbers: dict[int, int] = {}
        self._claims: dict[str, str] = {}
        self._referenced: frozenset[tuple[str, str]] = frozenset()
        self._versions: dict[int, SeenVersion] = {}
        self._files: dict[int, dict[str, str]] = {}
        self._with_alias: frozenset[int] = frozenset()
        self._needed_by_jobs: frozenset[str] = frozenset()
        self._see()

    def look(self) -> None:
        """Compare what is there after a change with what was there before."""
        before, files = self._versions, self._files
        with_alias, needed_by_jobs, referenced = self._with_alias, self._needed_by_jobs, self._referenced
        last_numbers, claims = dict(self._last_numbers), self._claims
        self._see()
        actor = self._world.actor
        kind = actor.name.partition("-")[0] if actor else ""
        for version_id in sorted(before.keys() - self._versions.keys()):
            version = before[version_id]
            if kind == "delete":
                self._look_at_deleted(version, files[version_id])
            elif kind == "prune":
                is_newest = self._was_newest(version, before)
                self._look_at_pruned(version, is_newest=is_newest, has_alias=version_id in with_alias)
                if f"team/a:v{version.number}" in needed_by_jobs and version.adapter_id == 1:
                    self._world.violate(f"{version.name} is pruned, which an open job needs")
            else:
                self._world.violate(f"{kind} removes {version.name}")
        for version_id in sorted(self._versions.keys() - before.keys()):
            version = self._versions[version_id]
            if version.number <= last_numbers.get(version.adapter_id, 0):
                self._world.violate(f"{version.name} has a number that was given before")
        for digest, table in sorted(self._referenced - referenced):
            if digest in self._banned:
                self._world.violate(f"blob {digest[:6]} was deleted for good, and {table} refers to it again")
        for digest, claimed_at in sorted(self._claims.items()):
            if claims.get(digest) != claimed_at and self._catalog.holders and kind != "delete":
                self._world.violate(f"{kind} claims blob {digest[:6]} while a backup is made")

    def look_at_deletion(self, deletion: Deletion) -> None:
        """See that what was deleted is gone when the deletion has ended, if nobody else is removing it."""
        if not self._catalog.ask("SELECT 1 FROM tombstones WHERE digest = ? AND is_banned", deletion.digest):
            self._world.violate(f"{deletion.ref} was deleted, and is not banned")
        if not deletion.waiting:
            self.look_at_banned()

    def look_at_banned(self) -> None:
        """See that nothing is stored which was deleted for good, but what was stored again since, and others' blobs."""
        referenced = references(self._catalog, self._world)
        for digest, since in self._banned.items():
            is_back = self._store.stored_at.get(digest, -1.0) > since
            if digest in self._store.objects and digest not in referenced and not is_back:
                self._world.violate(f"blob {digest[:6]} was deleted for good, and is in the store")

    def look_at_copies(self) -> None:
        """See that no folder of copies is left of a version that is gone."""
        if isinstance(self._store, SimulatedSigningStore):
            there = {version.digest for version in self._versions.values()}
            for digest in sorted(self._store.copies.keys() - there):
                self._world.violate(f"copies of {digest[:6]} are left, which no version has")

    def _see(self) -> None:
        ask = self._catalog.ask
        self._versions = {row[0]: SeenVersion(*row[1:]) for row in ask(_VERSIONS)}
        self._files = defaultdict(dict)
        for version_id, path, digest in ask("SELECT version_id, path, digest FROM files"):
            self._files[version_id][path] = digest
        self._with_alias = frozenset(version_id for (version_id,) in ask("SELECT version_id FROM aliases"))
        self._needed_by_jobs = frozenset(source for (source,) in ask(_NEEDED_BY_JOBS))
        self._referenced = frozenset(ask(_REFERENCES, "0"))
        self._claims = dict(ask(_CLAIMED_AT))
        self.removed_at_once |= {
            digest for (digest,) in ask("SELECT digest FROM garbage WHERE marked_at < '1971-01-01'")
        }
        for version in self._versions.values():
            last = self._last_numbers.get(version.adapter_id, 0)
            self._last_numbers[version.adapter_id] = max(last, version.number)
        for digest, weights in ask("SELECT digest, weights FROM tombstones WHERE is_banned"):
            self._ban(digest)
            self._ban(weights)

    def _ban(self, digest: str) -> None:
        if digest:
            self._banned.setdefault(digest, self._world.now)

    def _look_at_deleted(self, version: SeenVersion, files: Mapping[str, str]) -> None:
        """See that what only the deleted version had is on its way out of the store, and ban it."""
        self._ban(version.digest)
        if files[_WEIGHTS] not in {item[_WEIGHTS] for item in self._files.values()}:
            self._ban(files[_WEIGHTS])
        going = {digest for (digest,) in self._catalog.ask(_WAITING)}
        referenced = references(self._catalog, self._world)
        for digest in sorted({version.digest, *files.values()} - referenced.keys() - going):
            if digest in self._store.objects:
                self._world.violate(f"blob {digest[:6]} of {version.name} is deleted, and nothing marks it")

    def _was_newest(self, version: SeenVersion, before: Mapping[int, SeenVersion]) -> bool:
        of_adapter = [item for item in before.values() if item.adapter_id == version.adapter_id]
        of_adapter = [item for item in of_adapter if item.yanked_at is None] or of_adapter
        newest = sorted((item.number for item in of_adapter), reverse=True)[:KEEP_LAST]
        return version.number in newest

    def _look_at_pruned(self, version: SeenVersion, *, is_newest: bool, has_alias: bool) -> None:
        """See that nothing kept the version, by what was there when it went."""
        if is_newest:
            self._world.violate(f"{version.name} is pruned, the newest")
        if has_alias:
            self._world.violate(f"{version.name} is pruned, and an alias meant it")
        if self._catalog.ask(_CHILDREN, version.digest):
            self._world.violate(f"{version.name} is pruned, and what descends from it is kept")
        oldest = f"{self._world.time - KEEP_YANKED:%Y-%m-%d %H:%M:%S.%f}"
        if version.yanked_at is not None and version.yanked_at > oldest:
            self._world.violate(f"{version.name} is pruned, and was yanked a moment ago")
        if not self._catalog.ask(_TOMBSTONE, version.adapter_id, version.number, version.digest):
            self._world.violate(f"{version.name} is pruned without a tombstone")


def look_at_backup(backup: SimulatedBackup, world: World, document: bytes) -> None:
    """See that a backup has every blob of a snapshot, whole: those of its list, and those that its rows refer to."""
    snapshot = json.loads(document)
    catalog = gzip.decompress(backup.objects[snapshot["catalog"]["sha256"]]).decode()
    listed = gzip.decompress(backup.objects[snapshot["blobs"]["sha256"]]).decode()
    digests = {line.split(" ")[0] for line in listed.splitlines()}
    since = datetime.fromisoformat(snapshot["at"]) - UPLOADS_LAST
    for digest in sorted(digests | set(_references_of_dump(catalog, since))):
        if hashlib.sha256(backup.objects.get(digest, b"")).hexdigest() != digest:
            world.violate(f"a snapshot refers to blob {digest[:6]}, which is not in the backup")
    if snapshot["blobs"]["missing"]:
        world.violate("a snapshot lacks what the registry has whole")


def _references_of_dump(catalog: str, since: datetime) -> Iterator[str]:
    """Yield what the rows of a dumped catalog refer to."""
    table, columns = "", []
    for line in catalog.splitlines()[1:]:
        value = json.loads(line)
        if isinstance(value, dict):
            table, columns = value["table"], value["columns"]
            continue
        row = dict(zip(columns, value, strict=True))
        if table in ("files", "versions", "export_files", "bases"):
            yield row["digest"]
        if table == "drafts":
            yield from (digest for _, digest, _ in row["files"])
        if table == "uploads" and row["received"] and datetime.fromisoformat(row["created_at"]) >= since:
            yield row["digest"]
