"""What keeps a registry whole: references to blobs, what of them is broken, and what was brought back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class ReferenceKind(StrEnum):
    """What of the catalog refers to a blob; or a copy of it that the store has laid out for a server."""

    FILE = "file"
    MANIFEST = "manifest"
    EXPORT = "export"
    BASE = "base"
    PENDING_UPLOAD = "pending upload"
    UPLOAD = "upload"
    COPY = "copy"


class DamageKind(StrEnum):
    """How a blob that the catalog refers to is not as it must be.

    INCONSISTENT is a fault of the catalog: its rows do not make the manifest that the version's digest is of.
    """

    MISSING = "missing"
    SIZE = "other size"
    DAMAGED = "damaged"
    INCONSISTENT = "inconsistent"


class UpkeepAction(StrEnum):
    """What is done to a registry as a whole, as events name it."""

    REPAIR = "repair"
    GC = "gc"
    PRUNE = "prune"
    BACKUP = "backup"
    RESTORE = "restore"
    MOVE = "move"


@dataclass(frozen=True)
class Reference:
    """A blob that the catalog refers to, once, however many versions have it.

    ``size`` is None for a manifest that the rows of the catalog do not make.
    """

    sha256: str
    size: int | None


@dataclass(frozen=True)
class Owner:
    """One of those that a blob belongs to: the ref of a version, or the name of a base, a branch or a user.

    ``path`` is the file's, ``profile`` the server that an export is for.
    """

    kind: ReferenceKind
    name: str
    path: str = ""
    profile: str = ""


@dataclass(frozen=True)
class Owners:
    """Who a blob belongs to: the first of them, and how many there are in all."""

    listed: tuple[Owner, ...]
    count: int


@dataclass(frozen=True)
class Damage:
    """A blob that is not as the catalog has it, whom that breaks, and the command that mends it.

    ``size`` is what the catalog expects, ``stored_size`` what the store has; None where there is none. ``owners`` has
    the first hundred of ``owner_count``.
    """

    kind: DamageKind
    sha256: str
    size: int | None
    stored_size: int | None
    owners: tuple[Owner, ...]
    owner_count: int
    remedy: str


@dataclass(frozen=True)
class Orphan:
    """A stored blob that nothing in the catalog refers to."""

    sha256: str
    size: int


class GarbageKind(StrEnum):
    """What a garbage collection removes.

    The last three are rows of the catalog: the blobs that they refer to become garbage with them.
    """

    BLOB = "blob"
    UNFINISHED = "unfinished write"
    INCOMING = "incoming object"
    COPY = "copy for servers"
    TEMPORARY = "temporary folder"
    UPLOAD = "upload"
    PENDING_UPLOAD = "pending upload"
    EXPORT = "export"

    @property
    def is_row(self) -> bool:
        """Whether it is a row of the catalog, which takes no place of the store's."""
        return self in (GarbageKind.UPLOAD, GarbageKind.PENDING_UPLOAD, GarbageKind.EXPORT)


@dataclass(frozen=True)
class Garbage:
    """A stored blob that nothing refers to and that may be removed: its digest, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GarbageClaim:
    """Blobs that one collector may remove, and when it claimed them, by the database's clock."""

    at: datetime
    blobs: tuple[Garbage, ...]


@dataclass(frozen=True)
class GarbageCount:
    """How much of one kind there is, of one namespace where it has one; ``size`` is in bytes.

    That of rows is the size of the blobs that they refer to, which other rows may refer to as well.
    """

    kind: GarbageKind
    namespace: str
    count: int
    size: int


@dataclass(frozen=True)
class WaitingGarbage:
    """What will go, and when: the oldest of it waits ``since`` a time, and goes with the first run after ``due``."""

    kind: GarbageKind
    namespace: str
    count: int
    size: int
    since: datetime
    due: datetime


@dataclass(frozen=True)
class MarkedGarbage:
    """How many blobs are marked as garbage and not collected, their bytes, and since when the oldest of them is."""

    count: int
    size: int
    since: datetime | None


@dataclass(frozen=True)
class VersionContent:
    """What versions have one manifest: the namespace of the first of them, and whether one is not yanked."""

    namespace: str
    is_live: bool


@dataclass(frozen=True)
class GcReport:
    """What a garbage collection removed, or with ``dry_run`` would remove now, and what must wait.

    ``new`` counts the blobs that this run was the first to find. Those of the rows that it removes are among them; a
    dry run, which removes no row, does not count these.
    """

    freed: tuple[GarbageCount, ...]
    waiting: tuple[WaitingGarbage, ...]
    new: int
    dry_run: bool = False

    @property
    def freed_size(self) -> int:
        """Bytes of everything that was removed and is no row."""
        return sum(item.size for item in self.freed if not item.kind.is_row)

    @property
    def removed(self) -> int:
        """How many blobs were removed."""
        return sum(item.count for item in self.freed if item.kind is GarbageKind.BLOB)

    @property
    def removed_size(self) -> int:
        """Bytes of the blobs that were removed."""
        return sum(item.size for item in self.freed if item.kind is GarbageKind.BLOB)

    @property
    def marked(self) -> int:
        """How many blobs are marked, and wait."""
        return sum(item.count for item in self.waiting if item.kind is GarbageKind.BLOB)

    @property
    def marked_size(self) -> int:
        """Bytes of the blobs that are marked, and wait."""
        return sum(item.size for item in self.waiting if item.kind is GarbageKind.BLOB)


@dataclass(frozen=True)
class VerifyReport:
    """What a look at every reference found.

    ``references`` counts blobs and ``size`` their bytes; ``proven`` counts those whose content the store's own checksum
    proved, ``read`` and ``read_size`` those that were read. ``damages``, ``orphans`` and ``leftovers`` have the first
    thousands of what their counts say. ``read_from`` and ``read_to`` are where the share that was read begins and ends
    among the digests; empty where all of them or none were.
    """

    references: int
    size: int
    proven: int
    read: int
    read_size: int
    seconds: float
    damages: tuple[Damage, ...]
    damage_count: int
    orphans: tuple[Orphan, ...] = ()
    orphan_count: int = 0
    orphan_size: int = 0
    leftovers: tuple[str, ...] = ()
    leftover_count: int = 0
    read_from: str = ""
    read_to: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is broken; orphans and leftovers break nothing."""
        return not self.damage_count


@dataclass(frozen=True)
class Repair:
    """A blob that was brought back, or could be, and from where."""

    damage: Damage
    source: str


@dataclass(frozen=True)
class RepairReport:
    """What was brought back, and what stays broken because no source has it; the first thousands of either."""

    repaired: tuple[Repair, ...]
    repaired_count: int
    broken: tuple[Damage, ...]
    broken_count: int
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing stays broken."""
        return not self.broken_count


@dataclass(frozen=True)
class Tombstone:
    """What is left of a version that is gone; ``is_banned`` refuses its digest, and its ``weights`` if not empty."""

    number: int
    digest: str
    weights: str
    is_banned: bool
    reason: str
    author: str
    at: datetime


@dataclass(frozen=True)
class SharedBlob:
    """A blob of a version that stays, because others have it too, and who they are."""

    sha256: str
    size: int
    owners: Owners


@dataclass(frozen=True)
class Deletion:
    """What deleting a version removes, and what it leaves.

    ``blobs`` and ``size`` are those of its files, manifest and exports that nobody else has; ``shared`` are the first
    hundred of ``shared_count`` that stay. ``aliases`` meant it, ``exports`` are the servers it was made for,
    ``pending_uploads`` unfinished uploads of the same weights: all of them go. ``children`` were merged from it, and
    stay. ``removed`` blobs are gone from the store; ``waiting`` ones are being removed by another process, or by one
    that died.
    """

    ref: str
    digest: str
    blobs: int
    size: int
    aliases: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    pending_uploads: tuple[str, ...] = ()
    shared: tuple[SharedBlob, ...] = ()
    shared_count: int = 0
    removed: int = 0
    waiting: int = 0
    dry_run: bool = False


@dataclass(frozen=True)
class RetentionRules:
    """Which versions of an adapter are kept, beside those that are never pruned.

    Of those that are not yanked, the newest ``keep_last``, and those pushed less than ``keep_newer`` ago; without
    either of the two, all. Of those that are yanked, the ones yanked less than ``keep_yanked`` ago; without it, all.
    """

    keep_last: int | None = None
    keep_newer: timedelta | None = None
    keep_yanked: timedelta | None = None


@dataclass(frozen=True)
class Retention:
    """The rules of all namespaces: ``namespaces`` has those that have rules of their own, in place of ``rules``."""

    rules: RetentionRules
    namespaces: Mapping[str, RetentionRules] = field(default_factory=dict)

    def rules_for(self, namespace: str) -> RetentionRules:
        """Return the rules of a namespace; it is empty for adapters without one."""
        return self.namespaces.get(namespace, self.rules)


@dataclass(frozen=True)
class PruneDecision:
    """Whether one version goes, and the rule that says so, or why it stays."""

    ref: str
    digest: str
    size: int
    goes: bool
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """What was pruned, or would be: the first thousands of either kind, and how many there are.

    ``size`` is the bytes of all files of what goes; what of it others share stays.
    """

    going: tuple[PruneDecision, ...]
    going_count: int
    size: int
    kept: tuple[PruneDecision, ...]
    kept_count: int
    dry_run: bool = False


class UsageBy(StrEnum):
    """What storage is counted for."""

    NAMESPACE = "namespace"
    ADAPTER = "adapter"


@dataclass(frozen=True)
class UsageRow:
    """What a namespace (``-`` for none) or an adapter stores, in bytes.

    ``size`` adds up the files of all its ``versions``. Each blob once, those of exports too, are ``own``, which would
    be free if it went, and ``shared`` with others.
    """

    name: str
    versions: int
    size: int
    own: int
    shared: int


@dataclass(frozen=True)
class UsageTotals:
    """What the whole registry stores, in bytes, each blob once: of versions, else of exports, of bases, of none.

    ``other`` are of unfinished uploads, or of nobody; ``garbage`` blobs, of ``garbage_size`` bytes, wait to be
    collected. Manifests are not counted.
    """

    adapters: int
    versions: int
    files: int
    exports: int
    bases: int
    other: int
    garbage: int
    garbage_size: int


@dataclass(frozen=True)
class Usage:
    """A page of what is stored; ``totals`` come with the first page alone."""

    items: tuple[UsageRow, ...]
    cursor: str | None
    totals: UsageTotals | None = None


@dataclass(frozen=True)
class CatalogSnapshot:
    """The catalog as it was at one moment: of which registry, at which revision, with how many rows of each table.

    ``blobs`` and ``size`` count what it refers to; ``inconsistent`` are manifests that its rows do not make.
    """

    registry_id: str
    revision: str
    at: datetime
    rows: Mapping[str, int]
    blobs: int
    size: int
    inconsistent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a backup, by its name; ``missing`` counts the blobs that the registry itself had not whole."""

    name: str
    registry_id: str
    revision: str
    at: datetime
    rows: Mapping[str, int]
    blobs: int
    size: int
    missing: int = 0


@dataclass(frozen=True)
class BackupReport:
    """What a backup copied, and what was there already; ``damages`` are what the registry itself has not whole."""

    snapshot: Snapshot
    target: str
    new: int
    new_size: int
    known: int
    seconds: float
    damages: tuple[Damage, ...] = ()
    damage_count: int = 0

    @property
    def ok(self) -> bool:
        """Whether the snapshot is complete."""
        return not self.damage_count


@dataclass(frozen=True)
class RestoreReport:
    """What was brought back, of which snapshot, and what the registry then was found to be."""

    snapshot: Snapshot
    source: str
    new: int
    new_size: int
    known: int
    seconds: float
    verified: VerifyReport

    @property
    def ok(self) -> bool:
        """Whether the registry is whole."""
        return self.verified.ok


@dataclass(frozen=True)
class MoveReport:
    """What was moved, and where to; ``new`` blobs were copied by this call, ``known`` were there."""

    target: str
    storage: str
    rows: Mapping[str, int]
    blobs: int
    new: int
    new_size: int
    known: int
    seconds: float
