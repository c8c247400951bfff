"""Blobs that the catalog refers to, and what of them is broken, brought back, or belongs to nothing."""

from __future__ import annotations

from enum import StrEnum

from loreg.value import Value


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

    VERIFY = "verify"
    REPAIR = "repair"
    GC = "gc"
    PRUNE = "prune"
    BACKUP = "backup"
    FORGET = "forget"
    RESTORE = "restore"
    MOVE = "move"


class Reference(Value, frozen=True):
    """A blob that the catalog refers to, once, however many versions have it.

    ``size`` is None for a manifest that the rows of the catalog do not make.
    """

    sha256: str
    size: int | None


class Owner(Value, frozen=True):
    """One of those that a blob belongs to: the ref of a version, or the name of a base, a branch or a user.

    ``path`` is the file's, ``profile`` the server that an export is for.
    """

    kind: ReferenceKind
    name: str
    path: str = ""
    profile: str = ""


class Owners(Value, frozen=True):
    """Who a blob belongs to: the first of them, and how many there are in all."""

    listed: tuple[Owner, ...]
    count: int


class Damage(Value, frozen=True):
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


class Orphan(Value, frozen=True):
    """A stored blob that nothing in the catalog refers to."""

    sha256: str
    size: int


class VerifyReport(Value, frozen=True):
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


class Repair(Value, frozen=True):
    """A blob that was brought back, or could be, and from where."""

    damage: Damage
    source: str


class RepairReport(Value, frozen=True):
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
