"""Pauses before what has failed is tried again: each longer than the one before, and no two callers' the same."""

from __future__ import annotations

import random


class GrowingPauses:
    """Pauses of about ``first`` seconds, then twice as long each time, up to ``longest``.

    A random part of each is left out, so that not all who wait for one thing come back at once.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._length = first

    def next(self) -> float:
        """Return how many seconds to wait now."""
        length = self._length
        self._length = min(2 * length, self._longest)
        return min(length, self._longest) * random.uniform(0.5, 1.0)  # noqa: S311  nothing secret

    def reset(self) -> None:
        """Begin again with the first: something succeeded."""
        self._length = self._first
