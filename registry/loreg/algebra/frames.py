"""Orthonormal frames of factors: from them, everything about a sum of low-rank deltas is k × k.

Notation: Golub & Van Loan, Matrix Computations, §5.2. The fast way is Cholesky's of the Gram matrix (CholeskyQR,
Stathopoulos & Wu 2002), with q left implicit as ``x r⁻¹``; it squares the condition number, so it is taken only
where that is harmless, and Householder's everywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra.decompositions import qr
from loreg.algebra.factors import Factors, Stack

#: The smallest sine between a column and those before it at which Cholesky's way still leaves 10 digits.
_INDEPENDENT = 1e-3


@dataclass(frozen=True)
class Frame:
    """``x = q @ r`` with orthonormal q (…, rows, m). ``columns`` is q, or x itself where q stays implicit."""

    columns: Tensor
    r: Tensor
    implicit: bool

    def to_full_space(self, coordinates: Tensor) -> Tensor:
        """``q @ coordinates``: (…, m, j) in the frame → (…, rows, j) in the open."""
        if not self.implicit:
            return self.columns @ coordinates
        solved: Tensor = torch.linalg.solve_triangular(self.r, coordinates, upper=True)
        return self.columns @ solved

    def turned(self, directions: Tensor) -> Tensor:
        """Directions (…, m, j), each with the sign at which its entries in the open add up to more than zero.

        A decomposition leaves that sign open. What decides by signs asks for this one, which depends on no basis.
        """
        solved = torch.linalg.solve_triangular(self.r, directions, upper=True) if self.implicit else directions
        return directions * torch.where(self.columns.sum(-2, keepdim=True) @ solved < 0, -1.0, 1.0).to(directions)


def frame(x: Tensor) -> Frame:
    """An orthonormal frame of the columns of ``x (…, rows, k)``, with m = min(rows, k) vectors."""
    if x.shape[-1] <= x.shape[-2]:
        gram = x.mT @ x
        norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        lower, failed = torch.linalg.cholesky_ex(gram / (norms.unsqueeze(-1) * norms.unsqueeze(-2)))
        sines = lower.diagonal(dim1=-2, dim2=-1)
        if not failed.any() and bool((sines >= _INDEPENDENT).all()):
            return Frame(x, lower.mT * norms.unsqueeze(-2), implicit=True)
    q, r = qr(x)
    return Frame(q, r, implicit=False)


@dataclass(frozen=True)
class Framed:
    """A stack seen from the frames of its columns and rows: ``delta_t = left.q @ core(t) @ right.qᵀ``."""

    left: Frame
    right: Frame
    ranks: tuple[int, ...]

    @property
    def stack(self) -> Stack:
        """The factors of every source in coordinates: of source t ``b (n, m, r_t)``, ``a (n, r_t, m')``."""
        return Stack(self.left.r, self.right.r.mT, self.ranks)

    def sources(self) -> list[Factors]:
        """The factors of every source in coordinates, one by one."""
        return self.stack.sources()

    def cores(self) -> Tensor:
        """Every delta in coordinates, (T, n, m, m')."""
        return torch.stack([part.b @ part.a for part in self.sources()])

    def weighted(self, coefficients: Tensor) -> Tensor:
        """``Σ cₜ·deltaₜ`` in coordinates, (n, m, m'), for coefficients (n, T)."""
        of_columns = coefficients.repeat_interleave(torch.tensor(self.ranks, device=coefficients.device), dim=-1)
        return (self.left.r * of_columns.unsqueeze(-2)) @ self.right.r.mT

    def gram(self) -> Tensor:
        """``⟨deltaᵢ, deltaⱼ⟩``, (n, T, T)."""
        products = (self.left.r.mT @ self.left.r) * (self.right.r.mT @ self.right.r)
        ends = torch.tensor(self.ranks).cumsum(0)[:-1]
        rows = torch.stack([block.sum(-2) for block in products.tensor_split(ends, dim=-2)], dim=-2)
        return torch.stack([block.sum(-1) for block in rows.tensor_split(ends, dim=-1)], dim=-1)


def framed(parts: Stack) -> Framed:
    """The frames of a stack. Costs ``O((out + in)·k²)`` for each of the n modules."""
    return Framed(frame(parts.b), frame(parts.a.mT), parts.ranks)
