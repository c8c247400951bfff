"""The protocol of what keeps a whole registry: verifying, repairing and clearing it ask this beside the backend.

It is there where the catalog and the store are reached, and for administrators alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from loreg.entities import (
    CatalogSnapshot,
    Commit,
    Garbage,
    GarbageClaim,
    GarbageCount,
    MapChunk,
    MapRun,
    MarkedGarbage,
    NewExport,
    NewFacts,
    Owners,
    PruneDecision,
    Reference,
    Retention,
    Sketch,
    UpkeepAction,
    Version,
    VersionContent,
)
from loreg.refs import AdapterName, AdapterPattern, Ref


class Maps(Protocol):
    """Runs of one probe over many versions, in chunks that are each recorded once. Each call is one transaction."""

    def exclusive(self) -> AbstractContextManager[object]:
        """Let nobody else drive a run while the context is open; it ends with this process at the latest.

        Raises UnderWayError if somebody does.
        """
        ...

    def begin(self, wanted: MapRun, *, reads_weights: bool) -> MapRun:
        """Return the unfinished run of the same probe, release and selection, or begin it, inside :meth:`exclusive`.

        A new one is over the versions that there are now of which this release of the probe said nothing, or failed to,
        ``again`` over all of them; no later one is ever of it. Chunks are smaller for a probe that ``reads_weights``.
        """
        ...

    def claim(self, run: MapRun, limit: int) -> list[MapChunk]:
        """Claim up to ``limit`` chunks that nobody is at; none if all are done or claimed."""
        ...

    def finish(
        self,
        chunk: MapChunk,
        facts: Mapping[int, NewFacts],
        made: Mapping[int, NewExport | Commit] = MappingProxyType({}),
    ) -> Mapping[int, NewFacts] | None:
        """Record what the probe says of the versions of a chunk, by id, what it made of them, and the chunk as done.

        All at once. Return what is recorded of those that are not deleted by now; None, with nothing recorded, if
        another claimed it since. A new version has the tasks and labels of its source, and a fact that names it; why
        something is refused is a fact of the source. Raises CollectedError for a file that is not stored any more.
        """
        ...

    def give_back(self, chunk: MapChunk) -> None:
        """Let a chunk be claimed again."""
        ...

    def split(self, chunk: MapChunk) -> None:
        """Put two chunks of half as many versions in the place of one."""
        ...

    def close(self, run: MapRun) -> None:
        """Record that nothing is left to do of a run."""
        ...


class Upkeep(Protocol):
    """What the catalog knows of the store as a whole. Each call is one transaction, but for :meth:`references`.

    Every method raises NotAllowedError unless the caller is an administrator of everything.
    """

    def registry_id(self) -> str:
        """Return the id of the registry, 32 hexadecimal digits, which the mark in its store names."""
        ...

    def references(self, refs: Sequence[Ref], since: datetime | None, after: str = "") -> Iterator[Reference]:
        """Yield the blobs that the catalog refers to, in the order of their digests, from behind ``after``.

        Those of ``refs`` alone if there are any, and of what came ``since`` a time if one is given. They are read in
        pages, a transaction each: what is recorded meanwhile may be among them or not.
        """
        ...

    def owners(self, digests: Collection[str]) -> Mapping[str, Owners]:
        """Return whom each of the blobs belongs to, if anybody."""
        ...

    def unreferenced(self, digests: Collection[str]) -> frozenset[str]:
        """Return those of the digests that nothing in the catalog refers to."""
        ...

    def now(self) -> datetime:
        """Return the database's time, by which garbage is dated."""
        ...

    def find_new_garbage(self, digests: Collection[str], listed_at: datetime) -> frozenset[str]:
        """Return those of stored blobs that nothing refers to that :meth:`mark_garbage` would mark anew."""
        ...

    def mark_garbage(self, sizes: Mapping[str, int], listed_at: datetime) -> int:
        """Mark stored blobs that nothing refers to; return how many were not marked before.

        ``sizes`` are bytes by digest; ``listed_at`` is the database's time before the store was listed.
        """
        ...

    def due_garbage(self, grace: timedelta) -> Iterator[Garbage]:
        """Yield the blobs that :meth:`claim_garbage` would claim, in the order of their digests, read in pages."""
        ...

    def claim_garbage(self, grace: timedelta, limit: int) -> GarbageClaim | None:
        """Claim up to ``limit`` blobs that were marked longer than ``grace`` ago, and that nothing refers to.

        Nobody can refer to them until the claim is settled or has run out: the caller removes them from the store
        within ``CLAIM_SECONDS``, counted from before this call, and settles it. None if there are none.
        """
        ...

    def settle_garbage(self, digests: Collection[str], claimed_at: datetime) -> None:
        """Record that blobs that were claimed at that time are gone from the store; what was claimed since is not."""
        ...

    def marked_garbage(self, within: timedelta | None = None) -> MarkedGarbage:
        """Return what is marked and not collected yet; only what was marked ``within`` a time, if one is given."""
        ...

    def count_expired(self, before: datetime, *, with_live: bool) -> tuple[GarbageCount, ...]:
        """Return the rows that :meth:`discard_expired` would remove, by kind and namespace."""
        ...

    def discard_expired(self, before: datetime, *, with_live: bool) -> Iterator[GarbageCount]:
        """Remove rows that nobody needs any more, a transaction for a thousand of them; yield what was removed.

        Those are pending uploads untouched for 30 days, uploads that were announced over a week ago, and exports of
        yanked versions made ``before`` a time, ``with_live`` those of others too.
        """
        ...

    def known_uploads(self, upload_ids: Collection[str]) -> frozenset[str]:
        """Return those of the ids under which an upload was announced that has not expired."""
        ...

    def find_contents(self, digests: Collection[str]) -> Mapping[str, VersionContent]:
        """Return what versions have these manifests, by digest; a digest that no version has is left out."""
        ...

    def count_unsketched(self) -> int:
        """Return how many versions have no sketch."""
        ...

    def unsketched(self) -> Iterator[Version]:
        """Yield the versions that have no sketch, the oldest first. They are read in pages, a transaction each."""
        ...

    def record_sketch(self, ref: Ref, sketch: Sketch) -> bool:
        """Record the sketch of a version unless it has one; return whether it had none."""
        ...

    def maps(self) -> Maps:
        """Return what runs a probe over many versions."""
        ...

    def adapters(self, pattern: AdapterPattern) -> Iterator[AdapterName]:
        """Yield the adapters that match, by name. They are read in pages, a transaction each."""
        ...

    def plan_pruning(
        self, adapter: AdapterName, rules: Retention, pattern: AdapterPattern, guarded: Collection[str]
    ) -> tuple[PruneDecision, ...]:
        """Return what becomes of each version of an adapter, the newest first; nothing changes.

        ``pattern`` says which adapters may lose versions at all, ``guarded`` are the aliases whose last version is
        kept.
        """
        ...

    def prune(
        self, adapter: AdapterName, rules: Retention, pattern: AdapterPattern, guarded: Collection[str], limit: int
    ) -> tuple[tuple[PruneDecision, ...], int]:
        """Remove up to ``limit`` of an adapter's versions that go; return them, and how many wait for others.

        A version that others descend from goes after them: call it again when these are gone.
        """
        ...

    def hold_removals(
        self, *, alone: bool = False, on_wait: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Callable[[], None]]:
        """Let no collector claim anything while the context is open; it ends with this process at the latest.

        Many may hold removals off at once; with ``alone`` nobody else does meanwhile. ``on_wait`` is called while
        others are waited for. Yields a function to call now and then, which raises UnavailableError if the hold was
        lost.
        """
        ...

    def snapshot(self, catalog: Path, blobs: Path) -> CatalogSnapshot:
        """Write the catalog as it is at one moment to ``catalog``, and what it refers to, by digest, to ``blobs``."""
        ...

    def require_empty(self) -> None:
        """Raise ConflictError unless the registry is empty; a database without a schema gets it."""
        ...

    def restored_snapshot(self) -> str:
        """Return the snapshot that the registry was made of if nothing was done since; empty if not."""
        ...

    def load(self, catalog: Path, rows: Mapping[str, int], restored: Mapping[str, object] | None = None) -> None:
        """Fill the empty registry with what :meth:`snapshot` wrote, ids and all, in one transaction.

        It is then that registry, and of this revision. ``restored`` is the detail of an event ``restore`` that is
        recorded with it, and has its webhooks disabled; without it there is no event. Raises ConflictError for one
        that is not empty, and IntegrityError if the file has not these ``rows`` of each table.
        """
        ...

    def moved_to(self) -> str:
        """Return where the registry moved; empty if it did not."""
        ...

    def close_for(self, place: str, detail: Mapping[str, object]) -> None:
        """Record that the registry moved to ``place``, with an event: when it returns, nobody writes here any more.

        An empty place opens it again.
        """
        ...

    def log(self, action: UpkeepAction, detail: Mapping[str, object]) -> None:
        """Record an event of the whole registry."""
        ...


#: Seconds after which a collector must not remove what it claimed: half of what the claim holds.
CLAIM_SECONDS = 450.0
