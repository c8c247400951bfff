"""Low-rank factors of one source, or of several side by side, with their inner products and norms.

A delta is ``b @ a`` with ``b (…, out, r)`` and ``a (…, r, in)``, its scale included. It is never formed here. Leading
dimensions are a batch of matrices of one shape.

Suffixes: o out, i in, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """The delta ``b @ a`` with ``b (…, out, r)`` and ``a (…, r, in)``.

    >>> x = Factors(torch.tensor([[1.0], [2.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
    >>> x.shape, x.rank, squared_norm(x).item()  # (1 + 4 + 4) · (9 + 16)
    ((3, 2), 1, 225.0)
    """

    b: Tensor
    a: Tensor

    @property
    def rank(self) -> int:
        """The inner dimension r."""
        return self.a.shape[-2]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of one delta, (out, in)."""
        return self.b.shape[-2], self.a.shape[-1]


@dataclass(frozen=True)
class Stack:
    """The factors of T sources side by side, for n modules of one shape: ``b (n, out, k)``, ``a (n, k, in)``.

    Source t has ``ranks[t]`` of the k columns; ``b @ a`` is the plain sum of the deltas. Float64.
    """

    b: Tensor
    a: Tensor
    ranks: tuple[int, ...]

    def source(self, t: int) -> Factors:
        """Return the factors of source t for every module: ``b (n, out, r_t)``, ``a (n, r_t, in)``."""
        start = sum(self.ranks[:t])
        end = start + self.ranks[t]
        return Factors(self.b[..., start:end], self.a[..., start:end, :])

    def sources(self) -> list[Factors]:
        """Return the factors of each of the T sources, as :meth:`source` does."""
        return [self.source(t) for t in range(len(self.ranks))]


def stack(parts: Sequence[Factors]) -> Stack:
    """Lay the factors of several sources, ``b (n, out, r_t)`` and ``a (n, r_t, in)``, side by side in float64."""
    return Stack(
        torch.cat([part.b for part in parts], dim=-1).double(),
        torch.cat([part.a for part in parts], dim=-2).double(),
        tuple(part.rank for part in parts),
    )


def inner_product(x: Factors, y: Factors) -> Tensor:
    """Return ``⟨X, Y⟩ = Σ Xᵢⱼ·Yᵢⱼ`` (…) of two deltas of one shape, their ranks may differ.

    From the factors: ``Σ (B_xᵀB_y) ∘ (A_x A_yᵀ)``, both products (…, r_x, r_y).
    """
    return ((x.b.mT @ y.b) * (x.a @ y.a.mT)).sum((-2, -1))


def squared_norm(x: Factors) -> Tensor:
    """Return the squared Frobenius norm ``‖X‖²`` (…) of a delta."""
    return inner_product(x, x).clamp_min(0)


def rounding_error(balanced: Factors, stored: Factors) -> Tensor:
    """Return ``‖B'A' − BA‖²`` (…) of factors stored in another dtype, without subtracting two large norms.

    ``balanced`` is ``U√S, √SVᵀ`` with orthonormal U and V. With E = B' − B and D = A' − A the difference is
    ``E·A + B·D``, and a term that is smaller by the dtype's precision.
    """
    e_or, d_ri = stored.b - balanced.b, stored.a - balanced.a
    # The rows of A, and the columns of B, are orthogonal with squared norms S: ‖E·A‖² = Σᵣ sᵣ ‖eᵣ‖², the same for B·D.
    s_r = balanced.a.square().sum(-1)
    squares = (s_r * (e_or.square().sum(-2) + d_ri.square().sum(-1))).sum(-1)
    cross = inner_product(Factors(e_or, balanced.a), Factors(balanced.b, d_ri))
    return (squares + 2 * cross).clamp_min(0)
