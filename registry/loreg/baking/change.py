"""What adapters do to one tensor of the base, row by row.

LoRA adds ``B·A``; DoRA (Liu et al. 2024, arXiv 2402.09353) also gives each output the norm that its magnitude says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loreg.baking.numbers import Array, Scratch


@dataclass(frozen=True)
class Term:
    """One adapter's change of a matrix (rows, columns) as it is stored: ``weight · p @ q``.

    p is (rows, r), q (r, columns). With a ``magnitude`` (outputs) it is
    ``weight · (m ⊙ (W + p@q)/‖W + p@q‖ − W)``; outputs are rows, or columns where the matrix is stored ``transposed``.
    """

    p: Array
    q: Array
    weight: float
    magnitude: Array | None = None
    transposed: bool = False


#: The stored rows ``first : first + n`` of the matrix, in a buffer that may be written to.
Rows = Callable[[int, int], Array]


class Change:
    """Several terms on one matrix."""

    def __init__(self, terms: Sequence[Term], wide: np.dtype[np.floating]) -> None:
        plain = [term for term in terms if term.magnitude is None]
        self._dora = [term for term in terms if term.magnitude is not None]
        self._p = np.concatenate([term.weight * term.p for term in plain], axis=1, dtype=wide) if plain else None
        self._q = np.concatenate([term.q for term in plain], axis=0, dtype=wide) if plain else None
        self._factors: list[Array] = []

    @property
    def needs_norms(self) -> bool:
        """Whether :meth:`measure` must see the whole matrix before any of it can be changed."""
        return any(term.transposed for term in self._dora)

    def measure(self, rows: Rows, height: int, step: int) -> None:
        """Find the norms of the columns of ``W + p@q`` where these are DoRA's outputs."""
        self._factors = []
        for term in self._dora:
            if term.transposed:
                squares = np.zeros(term.q.shape[1], np.float64)
                for first in range(0, height, step):
                    some = rows(first, min(step, height - first))
                    trained = some + term.p[first : first + len(some)] @ term.q
                    squares += np.square(trained, dtype=np.float64).sum(0)
                self._factors.append(np.sqrt(squares))

    def apply(self, tile: Array, first: int, scratch: Scratch) -> None:
        """Change ``tile`` (n, columns), which are the rows of the matrix from ``first`` on, in place."""
        end = first + len(tile)
        before = tile.copy() if self._dora else tile
        if self._p is not None and self._q is not None:
            delta = scratch.get("delta", tile.size, tile.dtype).reshape(tile.shape)
            np.matmul(self._p[first:end], self._q, out=delta)
            np.add(tile, delta, out=tile)
        norms = iter(self._factors)
        for term in self._dora:
            trained = before + (term.p[first:end] @ term.q).astype(tile.dtype, copy=False)
            magnitude = term.magnitude
            assert magnitude is not None  # noqa: S101  that is what makes it one of these
            if term.transposed:
                factor = magnitude / next(norms)
            else:
                factor = (magnitude[first:end] / np.linalg.norm(trained, axis=1))[:, None]
            tile += term.weight * (factor * trained - before)
