"""Singular values of a merged delta, and the best factors of a given rank.

Source: Eckart & Young 1936; Golub & Van Loan, Matrix Computations, §2.4.

Shapes: n modules, m and m' coordinates in the left and the right frame, p known singular values. Suffixes: n modules,
o out, i in, m coordinates, p singular values (or as many of them as are kept), r rank.
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
    """The decomposition ``u (n, m, p) · diag(s) (n, p) · vᵀ``, ``v (n, m', p)``, of n deltas.

    u and v are in the coordinates of the two frames, or in full space where there is none. ``energy`` (n) is
    ``‖delta‖²``. If ``complete``, s has every singular value that is not zero; else only the p largest ones are known,
    and what is missing of the energy is the squares of the rest.

    >>> eye, s = torch.eye(2).expand(1, 2, 2), torch.tensor([[4.0, 3.0]])
    >>> spectrum = Spectrum(None, None, eye, s, eye, s.square().sum(-1))
    >>> kept = spectrum.truncate(torch.tensor([1]))
    >>> (kept.b @ kept.a).tolist(), spectrum.truncation_error(torch.tensor([1])).item()
    ([[[4.0, 0.0], [0.0, 0.0]]], 9.0)
    """

    left: Frame | None
    right: Frame | None
    u: Tensor
    s: Tensor
    v: Tensor
    energy: Tensor
    complete: bool = True

    def numerical_rank(self) -> Tensor:
        """Return how many of the known singular values are not zero, (n)."""
        return self.s.count_nonzero(dim=-1)

    def truncation_error(self, ranks: Tensor) -> Tensor:
        """Return the squared error ``‖delta − delta_r‖²`` (n) of the truncations at ``ranks`` (n), exactly."""
        squares_np = self.s.square()
        is_cut_np = torch.arange(squares_np.shape[-1], device=squares_np.device) >= ranks.unsqueeze(-1)
        if self.complete:
            return (squares_np * is_cut_np).sum(-1)
        return (self.energy - (squares_np * ~is_cut_np).sum(-1)).clamp_min(0)

    def scaled(self, scale: float) -> Spectrum:
        """Return the spectrum of ``scale · delta``."""
        u = self.u if scale >= 0 else -self.u
        return replace(self, u=u, s=abs(scale) * self.s, energy=scale**2 * self.energy)

    def truncate(self, ranks: Tensor) -> Factors:
        """Return the best approximations of ranks ``ranks`` (n), in Frobenius and spectral norm (Eckart & Young 1936).

        ``b (n, out, r)``, ``a (n, r, in)`` with r the largest of the ranks, zeros beyond each module's own; a rank
        beyond the singular values is met with zeros too. √s goes to each side; the sign of each pair is chosen so
        that the entry of b with the largest magnitude is positive.
        """
        # truncate
        most = int(ranks.max())
        keep = min(most, self.s.shape[-1])
        is_kept_np = torch.arange(keep, device=self.s.device) < ranks.unsqueeze(-1)
        # balance
        root_n1p = (self.s[..., :keep].sqrt() * is_kept_np).unsqueeze(-2)
        b_nmp, a_nmp = self.u[..., :keep] * root_n1p, self.v[..., :keep] * root_n1p
        b_nop = self.left.to_full_space(b_nmp) if self.left else b_nmp
        a_nip = self.right.to_full_space(a_nmp) if self.right else a_nmp
        # fix signs
        least, largest = b_nop.aminmax(dim=-2, keepdim=True)
        sign_n1p = torch.where(largest < -least, -1.0, 1.0).to(b_nop.dtype)
        b, a = b_nop.mul_(sign_n1p), a_nip.mul_(sign_n1p).mT
        # pad
        if most > keep:
            b = torch.nn.functional.pad(b, (0, most - keep))
            a = torch.nn.functional.pad(a, (0, 0, 0, most - keep))
        return Factors(b, a)


def decompose(left: Frame, right: Frame, core: Tensor, size: Tensor | float = 0.0) -> Spectrum:
    """Return the spectrum of ``left.q @ core @ right.qᵀ`` for cores (n, m, m').

    Singular values that are rounding error are zero, by LAPACK's and NumPy's threshold; ``size`` (n) is the norm of
    what the delta was summed from: where that cancels, what is left is rounding of its size.
    """
    u_nmp, s_np, vh_npm = svd(core)
    s_np = zero_out_rounding(s_np, size, max(left.columns.shape[-2], right.columns.shape[-2]))
    return Spectrum(left, right, u_nmp, s_np, vh_npm.mT, s_np.square().sum(-1))


def zero_out_rounding(s: Tensor, size: Tensor | float, longest: int) -> Tensor:
    """Return the singular values (n, p), falling, with those set to zero that are rounding error.

    The threshold is that of NumPy's ``matrix_rank``, with ``longest`` = max(out, in). ``size``, (n) or one number,
    takes the place of the largest singular value where it is larger.
    """
    largest_n = torch.maximum(s[..., :1].squeeze(-1), torch.as_tensor(size, dtype=s.dtype, device=s.device))
    threshold_n = largest_n * longest * torch.finfo(s.dtype).eps
    return torch.where(s > threshold_n.unsqueeze(-1), s, 0.0)


def retained_energy(u: Tensor, v: Tensor, source: Factors, ranks: Tensor) -> Tensor:
    """Return ``‖Uᵣᵀ·X·Vᵣ‖²`` (n): how much of the delta X is in the subspaces that truncations at ``ranks`` (n) keep.

    ``u (n, m, p)``, ``v (n, m', p)`` and the factors of X, ``b (n, m, r)`` and ``a (n, r, m')``, are in the same
    coordinates.
    """
    keep = min(int(ranks.max()), u.shape[-1])
    is_kept_n1p = (torch.arange(keep, device=u.device) < ranks.unsqueeze(-1)).to(u.dtype).unsqueeze(-2)
    left_npr = (u[..., :keep] * is_kept_n1p).mT @ source.b
    right_nrp = source.a @ (v[..., :keep] * is_kept_n1p)
    return ((left_npr.mT @ left_npr) * (right_nrp @ right_nrp.mT)).sum((-2, -1)).clamp_min(0)
