"""The canonical form of a low-rank delta: what does not depend on how it is factored."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from loreg.algebra.decompositions import qr, svd
from loreg.algebra.factors import Factors


@dataclass(frozen=True)
class Canonical:
    """``u (…, out, r) · diag(s) (…, r) · vᵀ``, ``v (…, in, r)``: orthonormal, s falling."""

    u: Tensor
    s: Tensor
    v: Tensor


def canonical(x: Factors) -> Canonical:
    """The thin singular value decomposition of a delta, by QR of both factors and an SVD of the (r, r) core."""
    q_b, r_b = qr(x.b)
    q_a, r_a = qr(x.a.mT)
    u, s, vh = svd(r_b @ r_a.mT)
    return Canonical(q_b @ u, s, q_a @ vh.mT)
