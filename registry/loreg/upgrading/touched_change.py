"""Measure how much of a base's change an adapter meets: what lies in the space that it reads, and that it writes.

A delta ``Δ = B·A`` reads its input through the row space of Δ and writes into its column space. Of the change
``D = W' − W`` of its weight the part ``D·V`` acts on what the adapter reads, and ``Uᵀ·D`` on what it writes; U and V
are orthonormal bases of both. Nothing of the size of a weight is decomposed.

Shapes: o out, i in, r rank of one adapter, k ranks of several side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

#: Singular values of a delta, relative to the largest, below which a direction is not its own but rounding.
_RANK_TOLERANCE = 1e-6
_MAX_COLUMNS = 1024  # ranks that are multiplied with a change together


@dataclass(frozen=True)
class TouchedChange:
    """Squared Frobenius norms, of one matrix or of several together.

    ``delta`` is ‖Δ‖², ``weight`` ‖W‖², ``change`` ‖D‖², ``read`` ‖D·V‖², ``written`` ‖Uᵀ·D‖², ``both`` ‖Uᵀ·D·V‖²;
    ``inner`` is the inner product ⟨D, Δ⟩, which is ‖Δ‖² where the upgrade has taken the adapter in.
    """

    delta: float = 0.0
    weight: float = 0.0
    change: float = 0.0
    read: float = 0.0
    written: float = 0.0
    both: float = 0.0
    inner: float = 0.0

    def __add__(self, other: TouchedChange) -> TouchedChange:
        """Return the figures of both together: squared norms of different matrices add."""
        return TouchedChange(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Directions:
    """A delta ``u (o, r) · diag(s) (r) · vᵀ`` with ``v (i, r)``: u, v orthonormal, without the directions it lacks."""

    u: Array
    s: Array
    v: Array


def delta_directions(b: Array, a: Array, scale: float = 1.0) -> Directions:
    """Return the singular value decomposition of ``scale · b (o, r) @ a (r, i)``, in float64; of a zero delta r is 0.

    By QR of both factors and an SVD of the (r, r) core: the delta is never formed.

    >>> directions = delta_directions(np.array([[3.0], [4.0]]), np.array([[0.0, 2.0]]), scale=0.5)
    >>> directions.s.round(12).tolist(), abs(directions.v).round(12).tolist()
    ([5.0], [[0.0], [1.0]])
    """
    q_or, r_rr = np.linalg.qr(b.astype(np.float64))
    q_ir, l_rr = np.linalg.qr(a.T.astype(np.float64))
    u_rr, s_r, vh_rr = np.linalg.svd(scale * (r_rr @ l_rr.T), full_matrices=False)
    rank = int(np.sum(s_r > _RANK_TOLERANCE * s_r.max(initial=0.0)))
    return Directions(q_or @ u_rr[:, :rank], s_r[:rank], q_ir @ vh_rr[:rank].T)


def measure_touched(weight: Array, change: Array, deltas: Iterable[Directions]) -> Iterator[TouchedChange]:
    """Yield the figures of each delta on one matrix ``weight (o, i)`` that was changed by ``change (o, i)``.

    Many adapters cost one product: their directions stand side by side, about a thousand at a time.
    """
    weight_energy, change_energy = _energy(weight), _energy(change)
    for group in _groups(deltas):
        ends = np.cumsum([delta.s.size for delta in group])[:-1]
        v_ik = np.concatenate([delta.v for delta in group], axis=1).astype(change.dtype)
        u_ok = np.concatenate([delta.u for delta in group], axis=1).astype(change.dtype)
        read_ok, written_ki = change @ v_ik, u_ok.T @ change
        read_k = np.sum(np.square(read_ok), axis=0, dtype=np.float64)
        written_k = np.sum(np.square(written_ki), axis=1, dtype=np.float64)
        columns = (np.split(columns_k, ends) for columns_k in (read_k, written_k))
        for delta, u_or, read_or, of_read, of_written in zip(
            group, np.split(u_ok, ends, axis=1), np.split(read_ok, ends, axis=1), *columns, strict=True
        ):
            core_rr = u_or.T @ read_or
            yield TouchedChange(
                delta=_energy(delta.s),
                weight=weight_energy,
                change=change_energy,
                read=float(of_read.sum()),
                written=float(of_written.sum()),
                both=_energy(core_rr),
                inner=float(np.sum(core_rr.diagonal() * delta.s)),
            )


def _groups(deltas: Iterable[Directions]) -> Iterator[list[Directions]]:
    group: list[Directions] = []
    columns = 0
    for delta in deltas:
        if group and columns + delta.s.size > _MAX_COLUMNS:
            yield group
            group, columns = [], 0
        group.append(delta)
        columns += delta.s.size
    if group:
        yield group


def _energy(x: Array) -> float:
    """Return ‖x‖², summed in float64."""
    return float(np.sum(np.square(x, dtype=np.float64)))
