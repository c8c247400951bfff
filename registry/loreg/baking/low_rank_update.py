"""Apply the low-rank updates of adapters to one matrix of the base, some rows at a time.

LoRA adds ``B·A``; DoRA (Liu et al. 2024, arXiv 2402.09353) also gives each output the norm that its magnitude says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loreg.baking.float_codec import Array, Scratch


@dataclass(frozen=True)
class LowRankTerm:
    """One adapter's change of a matrix W (rows, columns) as it is stored: ``weight · scale · p @ q``.

    p is (rows, r), q (r, columns). With a ``magnitude`` (outputs) it is ``weight · (m ⊙ V/‖V‖ − W)`` with
    ``V = W + scale · p @ q``; outputs are rows, or columns where the matrix is stored ``transposed``.
    """

    p: Array
    q: Array
    scale: float
    weight: float
    magnitude: Array | None = None
    transposed: bool = False


#: ``read(first, n)``: the stored rows ``first : first + n`` of the matrix, in a buffer that may be written to.
ReadRows = Callable[[int, int], Array]


class LowRankUpdate:
    """The sum of several terms on one matrix, computed in the dtype ``wide``."""

    def __init__(self, terms: Sequence[LowRankTerm], wide: np.dtype[np.floating]) -> None:
        plain = [term for term in terms if term.magnitude is None]
        self._dora = [term for term in terms if term.magnitude is not None]
        self._delta = _concatenate(plain, [term.weight * term.scale for term in plain], wide)
        self._deltas = [_concatenate([term], [term.scale], wide) for term in self._dora]
        self._norms: list[Array] = []

    @property
    def needs_norms(self) -> bool:
        """Whether :meth:`measure_norms` must see the whole matrix before any of it can be changed."""
        return any(term.transposed for term in self._dora)

    def measure_norms(self, read: ReadRows, height: int, step: int) -> None:
        """Compute the column norms of ``W + scale · p @ q`` for transposed DoRA, ``step`` rows at a time."""
        self._norms = []
        for term, (p, q) in zip(self._dora, self._deltas, strict=True):
            if term.transposed:
                squares = np.zeros(q.shape[1], np.float64)
                for first in range(0, height, step):
                    tile = read(first, min(step, height - first))
                    squares += np.square(tile + p[first : first + len(tile)] @ q, dtype=np.float64).sum(0)
                self._norms.append(np.sqrt(squares).astype(q.dtype))

    def apply(self, tile: Array, first: int, scratch: Scratch) -> None:
        """Change ``tile`` (n, columns), the rows of the matrix from ``first`` on, in place."""
        end = first + len(tile)
        before = tile.copy() if self._dora else tile
        p, q = self._delta
        if len(q):
            delta = scratch.get("delta", tile.size, tile.dtype).reshape(tile.shape)
            np.matmul(p[first:end], q, out=delta)
            np.add(tile, delta, out=tile)
        norms = iter(self._norms)
        for term, (p, q) in zip(self._dora, self._deltas, strict=True):
            trained = before + p[first:end] @ q
            magnitude = np.asarray(term.magnitude, tile.dtype)
            if term.transposed:
                factor = magnitude / next(norms)
            else:
                factor = (magnitude[first:end] / np.linalg.norm(trained, axis=1))[:, None]
            tile += term.weight * (factor * trained - before)


def _concatenate(
    terms: Sequence[LowRankTerm], factors: Sequence[float], wide: np.dtype[np.floating]
) -> tuple[Array, Array]:
    """Return ``p`` and ``q`` of ``Σ factor · p @ q`` as one product."""
    if not terms:
        return np.zeros((0, 0), wide), np.zeros((0, 0), wide)
    p = [np.multiply(term.p, factor, dtype=wide) for term, factor in zip(terms, factors, strict=True)]
    return np.concatenate(p, axis=1), np.concatenate([term.q for term in terms], axis=0, dtype=wide)
