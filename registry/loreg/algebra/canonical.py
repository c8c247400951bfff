"""Bring a low-rank delta to its canonical form, which does not depend on how the delta is factored.

Suffixes: o out, i in, r rank; each tensor may have leading batch dimensions besides.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from loreg.algebra.decompositions import qr, svd
from loreg.algebra.factors import Factors


@dataclass(frozen=True)
class CanonicalForm:
    """A delta as ``u (…, out, r) · diag(s) (…, r) · vᵀ`` with ``v (…, in, r)``: u, v orthonormal, s falling."""

    u: Tensor
    s: Tensor
    v: Tensor


def canonicalize(x: Factors) -> CanonicalForm:
    """Return the thin singular value decomposition of the delta ``b (…, out, r) @ a (…, r, in)``.

    By QR of both factors and an SVD of the (r, r) core: the delta is never formed.

    >>> import torch
    >>> form = canonicalize(Factors(torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0, 2.0]])))
    >>> round(form.s.item(), 5), form.u.shape, form.v.shape  # σ = 5 · 2
    (10.0, torch.Size([2, 1]), torch.Size([2, 1]))
    """
    q_or, r_rr = qr(x.b)
    q_ir, l_rr = qr(x.a.mT)
    u_rr, s_r, vh_rr = svd(r_rr @ l_rr.mT)
    return CanonicalForm(q_or @ u_rr, s_r, q_ir @ vh_rr.mT)
