"""The protocol of what keeps a whole registry: verifying, repairing and clearing it ask this beside the backend.

It is there where the catalog and the store are reached, and for administrators alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from loreg.entities import Garbage, Owners, Reference, UpkeepAction
from loreg.refs import Ref


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

    def mark_garbage(self, sizes: Mapping[str, int], listed_at: datetime) -> int:
        """Mark stored blobs that nothing refers to; return how many were not marked before.

        ``sizes`` are bytes by digest; ``listed_at`` is the database's time before the store was listed.
        """
        ...

    def claim_garbage(self, grace: timedelta, limit: int) -> tuple[Garbage, ...]:
        """Claim up to ``limit`` blobs that were marked longer than ``grace`` ago, and that nothing refers to.

        Nobody can refer to them until the claim is settled or has run out: the caller removes them from the store
        within ``CLAIM_SECONDS``, and settles it.
        """
        ...

    def settle_garbage(self, garbage: Collection[Garbage]) -> None:
        """Record that the claimed blobs are gone from the store; not of those that another collector claimed since."""
        ...

    def marked_garbage(self) -> tuple[int, int]:
        """Return the number and the bytes of the blobs that are marked and not collected yet."""
        ...

    def log(self, action: UpkeepAction, detail: Mapping[str, object]) -> None:
        """Record an event of the whole registry."""
        ...


#: Seconds after which a collector must not remove what it claimed: half of what the claim holds.
CLAIM_SECONDS = 450.0
