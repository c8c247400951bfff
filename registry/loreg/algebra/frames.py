"""Orthonormal frames of factors: seen from them, everything about a sum of low-rank deltas is k × k.

The fast way to a frame is Cholesky's factorisation of the Gram matrix (CholeskyQR, Stathopoulos & Wu 2002), with q left
implicit as ``x r⁻¹``. It squares the condition number, so it is taken only where that is harmless, and Householder's QR
everywhere else (Golub & Van Loan, Matrix Computations, §5.2).

Shapes: n modules, T sources, k the sum of their ranks, m and m' the vectors of the left and the right frame. Suffixes:
n modules, t sources, k columns of a stack, m vectors of a frame; mm is one of each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra.decompositions import qr
from loreg.algebra.factors import Factors, Stack

#: The smallest sine between a column and those before it at which CholeskyQR still leaves 10 digits.
_MIN_SINE = 1e-3


@dataclass(frozen=True)
class Frame:
    """An orthonormal basis q (…, rows, m) of the columns of x: ``x = q @ r`` with ``r (…, m, k)``.

    ``columns`` is q, or x itself where q stays implicit.
    """

    columns: Tensor
    r: Tensor
    implicit: bool

    def to_full_space(self, coordinates: Tensor) -> Tensor:
        """Return ``q @ coordinates``: (…, m, j) in the frame becomes (…, rows, j) in the full space."""
        return self.columns @ self._in_columns(coordinates)

    def fix_signs(self, directions: Tensor) -> Tensor:
        """Return the directions (…, m, j), each with the sign that makes the sum of its entries in full space positive.

        A decomposition leaves that sign open. What decides by signs asks for this one, which depends on no basis.
        """
        sums = self.columns.sum(-2, keepdim=True) @ self._in_columns(directions)
        return directions * torch.where(sums < 0, -1.0, 1.0).to(directions)

    def _in_columns(self, coordinates: Tensor) -> Tensor:
        """Return what ``columns`` is multiplied with to get ``q @ coordinates``."""
        if not self.implicit:
            return coordinates
        solved: Tensor = torch.linalg.solve_triangular(self.r, coordinates, upper=True)
        return solved


def frame(x: Tensor) -> Frame:
    """Return an orthonormal frame of the columns of ``x (…, rows, k)``, with m = min(rows, k) vectors."""
    if x.shape[-1] <= x.shape[-2]:
        # CholeskyQR on columns of norm 1: the diagonal of the factor is then the sines.
        gram_kk = x.mT @ x
        norms_k = gram_kk.diagonal(dim1=-2, dim2=-1).sqrt()
        lower_kk, failed = torch.linalg.cholesky_ex(gram_kk / (norms_k.unsqueeze(-1) * norms_k.unsqueeze(-2)))
        sines_k = lower_kk.diagonal(dim1=-2, dim2=-1)
        if not failed.any() and bool((sines_k >= _MIN_SINE).all()):
            return Frame(x, lower_kk.mT * norms_k.unsqueeze(-2), implicit=True)
    q, r = qr(x)
    return Frame(q, r, implicit=False)


@dataclass(frozen=True)
class FramedStack:
    """A stack seen from the frames of its columns and rows: ``delta_t = left.q @ core_t @ right.qᵀ``, core (n, m, m').

    ``left.r`` is (n, m, k), ``right.r`` (n, m', k).
    """

    left: Frame
    right: Frame
    ranks: tuple[int, ...]

    @property
    def stack(self) -> Stack:
        """The factors of every source in coordinates: of source t ``b (n, m, r_t)``, ``a (n, r_t, m')``."""
        return Stack(self.left.r, self.right.r.mT, self.ranks)

    def sources(self) -> list[Factors]:
        """Return the factors of every source in coordinates: of source t ``b (n, m, r_t)``, ``a (n, r_t, m')``."""
        return self.stack.sources()

    def cores(self) -> Tensor:
        """Return every delta in coordinates, (T, n, m, m')."""
        return torch.stack([part.b @ part.a for part in self.sources()])

    def weighted_sum(self, coefficients: Tensor) -> Tensor:
        """Return ``Σₜ cₜ·deltaₜ`` in coordinates, (n, m, m'), for coefficients (n, T)."""
        ranks_t = torch.tensor(self.ranks, device=coefficients.device)
        coefficients_nk = coefficients.repeat_interleave(ranks_t, dim=-1)
        return (self.left.r * coefficients_nk.unsqueeze(-2)) @ self.right.r.mT

    def gram(self) -> Tensor:
        """Return the inner products ``⟨deltaᵢ, deltaⱼ⟩``, (n, T, T)."""
        products_nkk = (self.left.r.mT @ self.left.r) * (self.right.r.mT @ self.right.r)
        # Sum the block of every pair of sources.
        ends = torch.tensor(self.ranks).cumsum(0)[:-1]
        rows_ntk = torch.stack([block.sum(-2) for block in products_nkk.tensor_split(ends, dim=-2)], dim=-2)
        return torch.stack([block.sum(-1) for block in rows_ntk.tensor_split(ends, dim=-1)], dim=-1)


def frame_stack(parts: Stack) -> FramedStack:
    """Return the stack in the frames of its columns and rows. Costs ``O((out + in)·k²)`` for each of the n modules."""
    return FramedStack(frame(parts.b), frame(parts.a.mT), parts.ranks)
