"""What nothing refers to or nobody needs any more: counted, claimed, freed, waiting."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from loreg.value import Value


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


class Garbage(Value, frozen=True):
    """A stored blob that nothing refers to and that may be removed: its digest, and its size in bytes."""

    sha256: str
    size: int


class GarbageClaim(Value, frozen=True):
    """Blobs that one collector may remove, and when it claimed them, by the database's clock."""

    at: datetime
    blobs: tuple[Garbage, ...]


class GarbageCount(Value, frozen=True):
    """How much of one kind there is, of one namespace where it has one; ``size`` is in bytes.

    That of rows is the size of the blobs that they refer to, which other rows may refer to as well.
    """

    kind: GarbageKind
    namespace: str
    count: int
    size: int


class WaitingGarbage(Value, frozen=True):
    """What will go, and when: the oldest of it waits ``since`` a time, and goes with the first run after ``due``."""

    kind: GarbageKind
    namespace: str
    count: int
    size: int
    since: datetime
    due: datetime


class MarkedGarbage(Value, frozen=True):
    """How many blobs are marked as garbage and not collected, their bytes, and since when the oldest of them is."""

    count: int
    size: int
    since: datetime | None


class VersionContent(Value, frozen=True):
    """What versions have one manifest: the namespace of the first of them, and whether one is not yanked."""

    namespace: str
    is_live: bool


class GcReport(Value, frozen=True):
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
