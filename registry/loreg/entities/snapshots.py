"""Backups, restores and moves: the registry at one moment, and what was copied of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from loreg.entities.references import Damage, VerifyReport
from loreg.value import Value


class CatalogSnapshot(Value, frozen=True):
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


class Snapshot(Value, frozen=True):
    """A snapshot in a backup, by its name; ``missing`` counts the blobs that the registry itself had not whole."""

    name: str
    registry_id: str
    revision: str
    at: datetime
    rows: Mapping[str, int]
    blobs: int
    size: int
    missing: int = 0


class BackupReport(Value, frozen=True):
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


class SnapshotList(Value, frozen=True):
    """The snapshots of a backup, the newest first: through a server the first hundred of ``count``."""

    snapshots: tuple[Snapshot, ...]
    count: int


class SnapshotRules(Value, frozen=True):
    """Which snapshots of a backup are kept: the newest ``keep_last``, and those taken less than ``keep_newer`` ago.

    The newest is always kept.
    """

    keep_last: int | None = None
    keep_newer: timedelta | None = None


class SnapshotDecision(Value, frozen=True):
    """Whether one snapshot goes, and the rule that says so, or why it stays."""

    name: str
    goes: bool
    reason: str


class ForgetReport(Value, frozen=True):
    """Which snapshots of a backup were forgotten, or would be, and what was removed with them.

    ``removed`` blobs, of ``removed_size`` bytes, are those that no snapshot refers to any more, and what killed backups
    had copied. ``leftovers`` are files and uploads that killed backups had begun.
    """

    target: str
    decisions: tuple[SnapshotDecision, ...]
    going_count: int
    kept_count: int
    removed: int
    removed_size: int
    leftovers: int = 0
    dry_run: bool = False


class RestoreReport(Value, frozen=True):
    """What was brought back, of which snapshot, and what the registry then was found to be.

    ``webhooks`` are the ids of those that are disabled, as all are: they would tell of what a copy does.
    """

    snapshot: Snapshot
    source: str
    new: int
    new_size: int
    known: int
    seconds: float
    verified: VerifyReport
    webhooks: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the registry is whole."""
        return self.verified.ok


class MoveReport(Value, frozen=True):
    """What was moved, and where to; ``new`` blobs were copied by this call, ``known`` were there."""

    target: str
    storage: str
    rows: Mapping[str, int]
    blobs: int
    new: int
    new_size: int
    known: int
    seconds: float
