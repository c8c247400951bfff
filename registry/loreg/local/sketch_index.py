"""An index in memory of the signs of all sketches: the nearest of a million in some ten milliseconds.

The signs of two sketches differ in a share of θ/π of their bits, where θ is the angle between the deltas (Goemans and
Williamson 1995; Charikar 2002): 32 bytes a version are counted, and the numbers themselves compared for the few that
are nearest. Rows are only ever added here; what was deleted since is not found in the catalog.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from loreg.catalog import Transaction

_WORDS = 4  # of 64 signs
_BITS = 64 * _WORDS
_PAGE = 20_000  # rows read at once
_OVERLAP = 200  # rows read again: of two writers the one with the lower id may commit later
_BLOCK = 1 << 16  # rows counted at once, so that they stay in the processor's cache


class SketchIndex:
    """The signs of the sketches of one catalog. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last_id = 0
        self._recent: dict[int, int] = {}  # the last rows: version by id
        self._namespaces: dict[str, int] = {}
        self._columns: tuple[Any, ...] = ()

    def refresh(self, tx: Transaction) -> None:
        """Add the rows that came since the last call."""
        from loreg.catalog import sketches

        with self._lock:
            after = max(self._last_id - _OVERLAP, 0)
            while rows := sketches.list_signs(tx, after, _PAGE):
                after = rows[-1].id
                self._append([row for row in rows if self._recent.get(row.id) != row.version_id])
                self._last_id = max(self._last_id, after)
                self._recent |= {row.id: row.version_id for row in rows[-_OVERLAP:]}
                if len(rows) < _PAGE:
                    break
            self._recent = {row: version for row, version in self._recent.items() if row >= self._last_id - _OVERLAP}

    def nearest(self, signs: Collection[int], count: int, readable: Collection[str] | None) -> list[int]:
        """Return the ids of the ``count`` versions whose signs agree, or disagree, with ``signs`` the most.

        Only those in the namespaces that are ``readable``; None for all.
        """
        import numpy as np

        with self._lock:
            size, columns, namespaces = self._count, self._columns, dict(self._namespaces)
        if not size:
            return []
        words, versions, places = columns
        query = np.array(list(signs), np.int64).view(np.uint64)  # of a signed one its magnitude would be counted
        agreement = np.empty(size, np.uint8)
        for start in range(0, size, _BLOCK):
            block = slice(start, min(start + _BLOCK, size))
            different = np.bitwise_count(words[0, block] ^ query[0])
            for word in range(1, _WORDS):  # 256 that differ become 0, which is as far from a half
                different += np.bitwise_count(words[word, block] ^ query[word])
            # |different − 128|, of 8 bits throughout
            np.abs((different ^ np.uint8(_BITS // 2)).view(np.int8), out=agreement[block].view(np.int8))
        if readable is not None:
            allowed = np.zeros(max(len(namespaces), 1), bool)
            allowed[[place for name, place in namespaces.items() if name in readable]] = True
            agreement[~allowed[places[:size]]] = 0
        return [int(versions[row]) for row in _largest(agreement, count) if agreement[row]]

    def _append(self, rows: list[Any]) -> None:
        import numpy as np

        if not rows:
            return
        needed = self._count + len(rows)
        if not self._columns or needed > self._columns[1].size:
            capacity = max(needed, 2 * self._count, 1024)
            old = self._columns
            self._columns = (
                np.zeros((_WORDS, capacity), np.uint64), np.zeros(capacity, np.int64), np.zeros(capacity, np.int32),
            )  # fmt: skip
            for new_column, column in zip(self._columns, old, strict=False):
                new_column[..., : self._count] = column[..., : self._count]
        words, versions, places = self._columns
        new = slice(self._count, needed)
        words[:, new] = np.array([row.signs for row in rows], np.int64).view(np.uint64).T
        versions[new] = [row.version_id for row in rows]
        places[new] = [self._namespaces.setdefault(row.namespace, len(self._namespaces)) for row in rows]
        self._count = needed


def _largest(agreement: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """Return where the ``count`` largest are, the largest first; of equal ones the first."""
    import numpy as np

    above = np.cumsum(np.bincount(agreement, minlength=_BITS // 2 + 1)[::-1])[::-1]  # how many are so large or larger
    least = max(int(np.searchsorted(-above, -count, side="right")) - 1, 0)
    rows = np.flatnonzero(agreement >= least)
    ordered: NDArray[np.intp] = rows[np.argsort(-agreement[rows].astype(np.int16), kind="stable")[:count]]
    return ordered
