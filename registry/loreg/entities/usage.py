"""How much is stored, and for whom."""

from __future__ import annotations

from enum import StrEnum

from loreg.value import Value


class UsageBy(StrEnum):
    """What storage is counted for."""

    NAMESPACE = "namespace"
    ADAPTER = "adapter"


class UsageRow(Value, frozen=True):
    """What a namespace (``-`` for none) or an adapter stores, in bytes.

    ``size`` adds up the files of all its ``versions``. Each blob once, those of exports too, are ``own``, which would
    be free if it went, and ``shared`` with others.
    """

    name: str
    versions: int
    size: int
    own: int
    shared: int


class UsageTotals(Value, frozen=True):
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


class Usage(Value, frozen=True):
    """A page of what is stored; ``totals`` come with the first page alone."""

    items: tuple[UsageRow, ...]
    cursor: str | None
    totals: UsageTotals | None = None
