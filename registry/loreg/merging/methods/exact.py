"""Linear, SLERP and other methods that combine the deltas with coefficients which follow from their Gram matrix.

All are exact: the combination has rank Σ rₜ at most and is computed in the frames, k × k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from loreg.algebra.spectrum import Spectrum, decompose
from loreg.merging.batch import Batch
from loreg.merging.coefficients import (
    ITERATIONS,
    TOLERANCE,
    Coefficients,
    karcher,
    linear,
    model_stock,
    slerp,
)
from loreg.merging.method import Method, MethodFamily, Parameter, Values


@dataclass(frozen=True)
class Combination:
    """A method's ``merge``: sum the deltas with the coefficients that a function finds."""

    coefficients: Coefficients

    def __call__(self, batch: Batch, values: Values) -> Spectrum:
        """Return the spectrum of ``Σ cₜ·Δₜ``."""
        framed = batch.framed
        # T × T numbers for each module: on the host, where a preview computes them too
        with np.errstate(invalid="ignore"):  # what is not finite is refused by whoever merges
            coefficients = self.coefficients(framed.gram().cpu().numpy(), batch.weights.cpu().numpy(), values)
        chosen = torch.from_numpy(coefficients).to(batch.weights.device)
        size = (chosen.abs() * batch.norms()).sum(-1)
        return decompose(framed.left, framed.right, framed.weighted_sum(chosen), size)


METHODS = (
    Method(
        name="linear",
        family=MethodFamily.EXACT,
        summary="the weighted sum of the deltas",
        source="Ilharco et al. 2023, task arithmetic, arXiv 2212.04089",
        concept=(
            "``Σ wₜ·Δₜ``, the weighted sum of the deltas (task arithmetic). The result has rank Σ rₜ at most and is "
            "written without loss if no rank is asked for. There are no cross terms: deltas are added, not factors."
        ),
        use="first: it is exact, has nothing to tune but the weights, and a negative weight takes a task away",
        merge=Combination(linear),
        adds_up=True,
    ),
    Method(
        name="slerp",
        family=MethodFamily.EXACT,
        summary="along the great circle between two deltas",
        source="Shoemake 1985, Animating rotation with quaternion curves",
        concept=(
            "Two deltas are walked between along the great circle, ``(sin((1−t)θ)·Δ₁ + sin(tθ)·Δ₂) / sin θ`` with θ "
            "the angle between them and t the second's share of the weights. Where a delta is missing, zero or "
            "parallel to the other, the straight line is taken."
        ),
        use="for exactly two adapters of about the same norm, where their average would come out shorter than either",
        merge=Combination(slerp),
        min_sources=2,
        max_sources=2,
    ),
    Method(
        name="karcher",
        family=MethodFamily.EXACT,
        summary="the mean direction on the sphere, at the mean norm",
        source="Karcher 1977, Riemannian center of mass",
        concept=(
            "The mean direction of the deltas on the unit sphere, found by moving along the mean of the tangents that "
            "point to them, times the weighted mean of their norms: like SLERP, for any number of adapters."
        ),
        use="for three or more adapters whose average would come out shorter than they are",
        merge=Combination(karcher),
        parameters=(
            Parameter("iterations", ITERATIONS, "how often the mean is moved, at most", 1, 10_000),
            Parameter("tolerance", TOLERANCE, "stop when it moves by less than this angle, in radians", 0, 1),
        ),
    ),
    Method(
        name="model_stock",
        family=MethodFamily.EXACT,
        summary="the mean, drawn towards the base as far as the deltas disagree",
        source="Jang et al. 2024, Model Stock, arXiv 2403.19522",
        concept=(
            "The weighted mean of the deltas, times ``t = N·cos θ / (1 + (N−1)·cos θ)``, cos θ the mean cosine of all "
            "pairs: the less the deltas have in common, the closer the result stays to the base."
        ),
        use=(
            "for adapters of one task from several runs; of different tasks, whose deltas are nearly orthogonal, "
            "hardly anything is left"
        ),
        merge=Combination(model_stock),
    ),
)
