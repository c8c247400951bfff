"""Versions that go: deleted for good, or by a policy; and what of them stays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from loreg.entities.references import Owners
from loreg.value import Value


class Tombstone(Value, frozen=True):
    """What is left of a version that is gone; ``is_banned`` refuses its digest, and its ``weights`` if not empty."""

    number: int
    digest: str
    weights: str
    is_banned: bool
    reason: str
    author: str
    at: datetime


class SharedBlob(Value, frozen=True):
    """A blob of a version that stays, because others have it too, and who they are."""

    sha256: str
    size: int
    owners: Owners


class Deletion(Value, frozen=True):
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


class RetentionRules(Value, frozen=True):
    """Which versions of an adapter are kept, beside those that are never pruned.

    Of those that are not yanked, the newest ``keep_last``, those pushed less than ``keep_newer`` ago, and those whose
    number is a multiple of ``keep_every``; without any of the three, all. Of those that are yanked, the ones yanked
    less than ``keep_yanked`` ago; without it, all.
    """

    keep_last: int | None = None
    keep_newer: timedelta | None = None
    keep_every: int | None = None
    keep_yanked: timedelta | None = None


class Retention(Value, frozen=True):
    """The rules of all namespaces: ``namespaces`` has those that have rules of their own, in place of ``rules``."""

    rules: RetentionRules
    namespaces: Mapping[str, RetentionRules] = msgspec.field(default_factory=dict)

    def rules_for(self, namespace: str) -> RetentionRules:
        """Return the rules of a namespace; it is empty for adapters without one."""
        return self.namespaces.get(namespace, self.rules)


class PruneDecision(Value, frozen=True):
    """Whether one version goes, and the rule that says so, or why it stays."""

    ref: str
    digest: str
    size: int
    goes: bool
    reason: str


class PruneReport(Value, frozen=True):
    """What was pruned, or would be: the first thousands of either kind, and how many there are.

    ``size`` is the bytes of all files of what goes; what of it others share stays.
    """

    going: tuple[PruneDecision, ...]
    going_count: int
    size: int
    kept: tuple[PruneDecision, ...]
    kept_count: int
    dry_run: bool = False
