"""What a mirror brings from one registry to another, and what was in the way."""

from __future__ import annotations

from loreg.value import Value


class MirrorConflict(Value, frozen=True):
    """What could not be mirrored, for the target has something else there: a version's or an alias's ref, and why."""

    ref: str
    reason: str


class MirrorReport(Value, frozen=True):
    """What a mirror brought from one registry or bundle to another.

    ``known`` counts versions that the target had as they are, ``changed`` those whose description or history changed.
    ``blobs`` and ``size`` are what was sent, ``aliases`` counts those that were moved or removed. ``notes`` name what
    could not be read or was not taken.
    """

    source: str
    target: str
    adapters: int = 0
    new: int = 0
    changed: int = 0
    known: int = 0
    blobs: int = 0
    size: int = 0
    aliases: int = 0
    refs: tuple[str, ...] = ()
    conflicts: tuple[MirrorConflict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was in the way."""
        return not self.conflicts
