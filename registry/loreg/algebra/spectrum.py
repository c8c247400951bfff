"""Singular values of a merged delta, and the best factors of a given rank.

Source: Eckart & Young 1936; Golub & Van Loan, Matrix Computations, §2.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loreg.algebra.decompositions import svd
from loreg.algebra.factors import Factors
from loreg.algebra.frames import Frame


@dataclass(frozen=True)
class Spectrum:
    """``u (n, m, p) · diag(s) (n, p) · vᵀ``, ``v (n, m', p)``, of n deltas, in the coordinates of two frames.

    ``energy`` (n) is ``‖delta‖²``. If ``complete``, s has every singular value that is not zero; else only the p
    largest ones are known, and what is missing of the energy is the squares of the rest.
    """

    left: Frame | None
    right: Frame | None
    u: Tensor
    s: Tensor
    v: Tensor
    energy: Tensor
    complete: bool = True

    def numerical_rank(self) -> Tensor:
        """How many of the known singular values are not zero, (n)."""
        return self.s.count_nonzero(dim=-1)

    def lost(self, ranks: Tensor) -> Tensor:
        """``‖delta − delta_r‖²`` (n) of the truncations at ``ranks`` (n), exactly."""
        squares = self.s.square()
        beyond = torch.arange(squares.shape[-1], device=squares.device) >= ranks.unsqueeze(-1)
        if self.complete:
            return (squares * beyond).sum(-1)
        return (self.energy - (squares * ~beyond).sum(-1)).clamp_min(0)

    def scaled(self, scale: float) -> Spectrum:
        """The spectrum of ``scale · delta``."""
        u = self.u if scale >= 0 else -self.u
        return replace(self, u=u, s=abs(scale) * self.s, energy=scale**2 * self.energy)

    def truncate(self, ranks: Tensor) -> Factors:
        """The best approximations of ranks ``ranks`` (n), in Frobenius and spectral norm.

        ``b (n, out, r)``, ``a (n, r, in)`` with r the largest of the ranks, zeros beyond each module's own; a rank
        beyond the singular values is met with zeros too. √s goes to each side; the sign of each pair is chosen so
        that the entry of b with the largest magnitude is positive.
        """
        most = int(ranks.max())
        keep = min(most, self.s.shape[-1])
        within = torch.arange(keep, device=self.s.device) < ranks.unsqueeze(-1)
        root = (self.s[..., :keep].sqrt() * within).unsqueeze(-2)
        b, a = self.u[..., :keep] * root, self.v[..., :keep] * root
        b = self.left.to_full_space(b) if self.left else b
        a = self.right.to_full_space(a) if self.right else a
        least, most_positive = b.aminmax(dim=-2, keepdim=True)
        sign = torch.where(most_positive < -least, -1.0, 1.0).to(b.dtype)
        b, a = b.mul_(sign), a.mul_(sign).mT
        if most > keep:
            b = torch.nn.functional.pad(b, (0, most - keep))
            a = torch.nn.functional.pad(a, (0, 0, 0, most - keep))
        return Factors(b, a)


def decompose(left: Frame, right: Frame, core: Tensor, size: Tensor | float = 0.0) -> Spectrum:
    """The spectrum of ``left.q @ core @ right.qᵀ`` for cores (n, m, m').

    Singular values that are rounding error are zero, by LAPACK's and NumPy's threshold; ``size`` (n) is the norm of
    what the delta was summed from: where that cancels, what is left is rounding of its size.
    """
    u, s, vh = svd(core)
    s = without_rounding(s, size, max(left.columns.shape[-2], right.columns.shape[-2]))
    return Spectrum(left, right, u, s, vh.mT, s.square().sum(-1))


def without_rounding(s: Tensor, size: Tensor | float, longest: int) -> Tensor:
    """Singular values (n, p) with those set to zero that rounding made; ``longest`` is max(out, in)."""
    largest = torch.maximum(s[..., :1].squeeze(-1), torch.as_tensor(size, dtype=s.dtype, device=s.device))
    smallest = largest * longest * torch.finfo(s.dtype).eps
    return torch.where(s > smallest.unsqueeze(-1), s, 0.0)


def retained_energy(u: Tensor, v: Tensor, source: Factors, ranks: Tensor) -> Tensor:
    """``‖Uᵣᵀ·X·Vᵣ‖²`` (n): how much of the delta X lies in the subspaces that truncations at ``ranks`` (n) keep.

    ``u``, ``v`` and the factors of X are in the same coordinates.
    """
    keep = min(int(ranks.max()), u.shape[-1])
    within = (torch.arange(keep, device=u.device) < ranks.unsqueeze(-1)).to(u.dtype)
    left = (u[..., :keep] * within.unsqueeze(-2)).mT @ source.b
    right = source.a @ (v[..., :keep] * within.unsqueeze(-2))
    return ((left.mT @ left) * (right @ right.mT)).sum((-2, -1)).clamp_min(0)
