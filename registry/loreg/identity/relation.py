"""Say in one word what the weights of an adapter are to those of another, from exact sums over their deltas.

How much two deltas may differ and still be the same follows from their dtypes: rounding to p bits of significand leaves
a relative error of 2⁻ᵖ at most in each number, and some half of it in a product of two rounded factors.
"""

from __future__ import annotations

import math

from loreg.entities import KinshipKind
from loreg.identity.comparison import PairSums

#: |cosine| from which one adapter is taken for a trained-on state of the other, and from which they are relatives.
NEAR, RELATED = 0.9, 0.35
_SMALLEST_TOLERANCE = 1e-6  # sums of squares in float64 tell nothing below 1e-8


def tolerance(precision: int) -> float:
    """Return the relative error of deltas that rounding to ``precision`` bits of significand explains."""
    return max(1.5 * 2.0**-precision, _SMALLEST_TOLERANCE)


def relate(sums: PairSums, precision: int) -> KinshipKind | None:
    """Return what one adapter is to the other; None if they have nothing in common.

    ``precision`` is that of the coarser of the two. ``reranked`` has no direction: the lower rank is the copy.
    """
    if sums.is_equal and math.isclose(sums.scale, 1.0, rel_tol=1e-12):
        return KinshipKind.WEIGHTS
    allowed = tolerance(precision)
    if sums.error <= allowed:
        if abs(sums.scale - 1) > max(allowed, 1e-6):
            return KinshipKind.SCALED
        if sums.is_close:
            return KinshipKind.PRECISION
        if sums.has_other_factors:
            return KinshipKind.REFACTORED
        # The factors are the other's but for more than rounding: training has moved them.
    if _is_best_approximation(sums, allowed):
        return KinshipKind.RERANKED
    if abs(sums.cosine) >= NEAR:
        return KinshipKind.NEAR
    return KinshipKind.RELATED if abs(sums.cosine) >= RELATED else None


def retention(sums: PairSums) -> float:
    """Return ‖Δ‖² of the lower rank as a share of that of the higher."""
    low, high = sorted((sums.qq, sums.cc))
    return low / high if high else 0.0


def _is_best_approximation(sums: PairSums, allowed: float) -> bool:
    """Return whether the one of lower rank is the truncated singular value decomposition of the other.

    It is if the rest is orthogonal to it, and it keeps as much of ‖Δ‖² as any of its rank can (Eckart and Young 1936).
    """
    if bool(sums.lower_q) == bool(sums.lower_c):
        return False
    low = sums.qq if sums.lower_q else sums.cc
    slack = max(3 * allowed, 1e-5)
    return low > 0 and abs(sums.qc - low) <= slack * low and abs(low - sums.best) <= slack * sums.best
