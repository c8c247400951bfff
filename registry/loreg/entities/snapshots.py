"""Backups, restores and moves: the registry at one moment, and what was copied of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

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


class RestoreReport(Value, frozen=True):
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
