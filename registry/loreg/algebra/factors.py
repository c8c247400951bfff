"""Low-rank factors. Tensors in, tensors out; leading dimensions are a batch of matrices of one shape.

A delta is ``b @ a`` with ``b (…, out, r)`` and ``a (…, r, in)``, its scale included. It is never formed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """``b @ a`` with ``b (…, out, r)`` and ``a (…, r, in)``."""

    b: Tensor
    a: Tensor

    @property
    def rank(self) -> int:
        """r, the inner dimension."""
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
        """The factors of source t for every module."""
        start = sum(self.ranks[:t])
        return Factors(self.b[..., start : start + self.ranks[t]], self.a[..., start : start + self.ranks[t], :])

    def sources(self) -> list[Factors]:
        """The factors of every source."""
        return [self.source(t) for t in range(len(self.ranks))]


def stack(parts: Sequence[Factors]) -> Stack:
    """Lay the factors of several sources side by side, in float64."""
    return Stack(
        torch.cat([part.b for part in parts], dim=-1).double(),
        torch.cat([part.a for part in parts], dim=-2).double(),
        tuple(part.rank for part in parts),
    )


def inner(x: Factors, y: Factors) -> Tensor:
    """``⟨X, Y⟩ = Σ Xᵢⱼ·Yᵢⱼ`` (…) of two deltas, from their factors: ``Σ (B_xᵀB_y) ∘ (A_x A_yᵀ)``."""
    return ((x.b.mT @ y.b) * (x.a @ y.a.mT)).sum((-2, -1))


def squared_norm(x: Factors) -> Tensor:
    """``‖X‖²`` (…) in Frobenius norm."""
    return inner(x, x).clamp_min(0)


def rounding_error(balanced: Factors, stored: Factors) -> Tensor:
    """``‖B'A' − BA‖²`` (…) of factors stored in another dtype, without subtracting two large norms.

    ``balanced`` is ``U√S, √SVᵀ`` with orthonormal U and V. With E = B' − B and D = A' − A the difference is
    ``E·A + B·D``, and a term that is smaller by the dtype's precision.
    """
    e, d = stored.b - balanced.b, stored.a - balanced.a
    sizes = balanced.a.square().sum(-1)
    own = (sizes * (e.square().sum(-2) + d.square().sum(-1))).sum(-1)
    return (own + 2 * inner(Factors(e, balanced.a), Factors(balanced.b, d))).clamp_min(0)
