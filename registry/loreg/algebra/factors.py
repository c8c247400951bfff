"""Low-rank factors and what is exact about them. Tensors in, tensors out; all arithmetic in float64.

A delta is ``scale · B @ A`` with ``B (out, r)`` and ``A (r, in)``. It is never formed here: everything is done in
the core, whose side is the sum of the ranks. Notation: Golub & Van Loan, Matrix Computations, §2.4 and §5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """``scale · b @ a`` with ``b (out, r)`` and ``a (r, in)``."""

    b: Tensor
    a: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the delta, (out, in)."""
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True)
class Spectrum:
    """A thin singular value decomposition of a delta: ``u (out, k) · diag(s) (k) · vᵀ``, ``v (in, k)``, float64."""

    u: Tensor
    s: Tensor
    v: Tensor

    def numerical_rank(self) -> int:
        """How many singular values are not zero."""
        return int(self.s.count_nonzero())


def stack(parts: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """The weighted sum of deltas ``Σ wᵢ·sᵢ·Bᵢ@Aᵢ``, exactly, as ``[wᵢ·sᵢ·Bᵢ] (out, k) @ [Aᵢ] (k, in)``, k = Σ rᵢ.

    The weight goes into B alone: in both factors it would count squared.
    """
    b = torch.cat([weight * part.scale * part.b.double() for part, weight in zip(parts, weights, strict=True)], dim=1)
    return Factors(b, torch.cat([part.a.double() for part in parts], dim=0))


def spectrum(factors: Factors, size: float = 0.0) -> Spectrum:
    """Decompose a delta through QR of both factors and an SVD of the (k, k) core.

    Costs ``O((out + in)·k² + k³)`` instead of ``O(out·in·min(out, in))``. Where k exceeds out or in, the reduced QR
    makes the core as small as the delta itself, and the result has min(out, in, k) singular values. Those that are
    rounding error are zero, by LAPACK's and NumPy's threshold; ``size`` is the norm of what the delta was summed
    from: where that cancels, what is left is rounding of its size.
    """
    q_b, r_b = torch.linalg.qr(factors.scale * factors.b.double())
    q_a, r_a = torch.linalg.qr(factors.a.double().T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    smallest = max(float(s[0]), size) * max(factors.shape) * torch.finfo(torch.float64).eps
    return Spectrum(q_b @ u, torch.where(s > smallest, s, 0.0), q_a @ vh.T)


def truncate(full: Spectrum, rank: int) -> Factors:
    """The best approximation of rank ``rank``, in Frobenius and spectral norm (Eckart–Young 1936).

    The singular values are split evenly, √s to each side; the sign of each pair is chosen so that the entry of u
    with the largest magnitude is positive. ``rank`` beyond the singular values is met with zeros.
    """
    keep = min(rank, full.s.numel())
    u, v, root = full.u[:, :keep], full.v[:, :keep], full.s[:keep].sqrt()
    largest = u.abs().argmax(dim=0, keepdim=True)
    sign = torch.where(u.gather(0, largest) < 0, -1.0, 1.0).to(u.dtype)
    b, a = u * sign * root, (v * sign * root).T
    if (missing := rank - keep) > 0:
        b = torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)
        a = torch.cat([a, a.new_zeros(missing, a.shape[1])], dim=0)
    return Factors(b.contiguous(), a.contiguous())


def inner(x: Factors, y: Factors) -> float:
    """``⟨X, Y⟩ = Σ Xᵢⱼ·Yᵢⱼ`` of two deltas, from their factors: ``Σ (B_xᵀB_y) ∘ (A_x A_yᵀ)``."""
    b = x.b.double().T @ y.b.double()
    a = x.a.double() @ y.a.double().T
    return x.scale * y.scale * float((b * a).sum())


def squared_norm(x: Factors) -> float:
    """``‖X‖²`` in Frobenius norm."""
    return max(inner(x, x), 0.0)


def retained(full: Spectrum, rank: int, source: Factors) -> float:
    """``‖Uᵣᵀ·X·Vᵣ‖²``: how much of the delta X lies in the subspaces that a truncation at ``rank`` keeps."""
    left = full.u[:, :rank].T @ source.b.double()
    right = source.a.double() @ full.v[:, :rank]
    return float(torch.linalg.matrix_norm(source.scale * left @ right) ** 2)


def rounding_error(exact: Factors, rounded: Factors) -> float:
    """``‖B'A' − BA‖²`` for factors of the same shapes, without the cancellation of subtracting two norms.

    ``B'A' − BA = (B'−B)·A' + B·(A'−A)``, a delta of twice the rank. Both scales must be 1.
    """
    b, a = exact.b.double(), exact.a.double()
    b2, a2 = rounded.b.double(), rounded.a.double()
    return squared_norm(Factors(torch.cat([b2 - b, b], dim=1), torch.cat([a2, a2 - a], dim=0)))
