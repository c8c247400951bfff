"""Linear, SLERP and other methods that combine the deltas with coefficients which follow from their Gram matrix.

All are exact: the combination has rank Σ rₜ at most and is computed in the frames, k × k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra.spectrum import Spectrum, decompose
from loreg.merging.batch import Batch
from loreg.merging.method import Method, MethodFamily, Parameter, Values

#: From inner products of the deltas (n, T, T), weights (n, T) and parameters: the coefficients (n, T).
Coefficients = Callable[[Tensor, Tensor, Values], Tensor]

_PARALLEL = 1e-8  # sine below which two directions are the same and the great circle between them is a line


@dataclass(frozen=True)
class Combination:
    """A method's ``merge``: sum the deltas with the coefficients that a function finds."""

    coefficients: Coefficients

    def __call__(self, batch: Batch, values: Values) -> Spectrum:
        """Return the spectrum of ``Σ cₜ·Δₜ``."""
        framed = batch.framed
        chosen = self.coefficients(framed.gram(), batch.weights, values)
        size = (chosen.abs() * batch.norms()).sum(-1)
        return decompose(framed.left, framed.right, framed.weighted_sum(chosen), size)


def linear(gram: Tensor, weights: Tensor, values: Values) -> Tensor:
    """Return the weights: ``Σ wₜ·Δₜ``."""
    return weights


def slerp(gram: Tensor, weights: Tensor, values: Values) -> Tensor:
    """Return those of ``(sin((1−t)θ)·Δ₁ + sin(tθ)·Δ₂) / sin θ``, ``t = w₂/(w₁+w₂)``, θ the angle between the deltas.

    Where a delta is missing, zero or parallel to the other, the great circle is undefined and the line is taken.
    """
    shares = _shares(weights)
    if shares.shape[-1] == 1:
        return shares
    cosine = _cosines(gram)[..., 0, 1]
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    curved = torch.sin(shares * angle.unsqueeze(-1)) / sine.unsqueeze(-1)
    straight = (sine.abs() < _PARALLEL) | (gram.diagonal(dim1=-2, dim2=-1) == 0).any(-1)
    return torch.where(straight.unsqueeze(-1), shares, curved)


def karcher(gram: Tensor, weights: Tensor, values: Values) -> Tensor:
    """Return those of the Karcher mean of the deltas' directions on the unit sphere, times their weighted mean norm.

    The direction u is kept as coefficients of the unit deltas, so that every angle comes from the Gram matrix.
    """
    shares, norms, cosines = _shares(weights), gram.diagonal(dim1=-2, dim2=-1).sqrt(), _cosines(gram)
    present = norms > 0
    shares_of_directions = _shares(torch.where(present, shares, 0.0))
    mean = _unit(shares_of_directions, cosines)
    for _ in range(values["iterations"]):
        toward = (cosines @ mean.unsqueeze(-1)).squeeze(-1).clamp(-1, 1)
        angle = torch.acos(toward)
        stretch = torch.where(angle > _PARALLEL, angle / torch.sin(angle).clamp_min(_PARALLEL), 1.0)
        pull = shares_of_directions * stretch
        tangent = pull - (pull * toward).sum(-1, keepdim=True) * mean
        length = _length(tangent, cosines)
        moving = length > values["tolerance"]
        if not bool(moving.any()):
            break
        moved = torch.cos(length) * mean + torch.sin(length) / length.clamp_min(1e-300) * tangent
        mean = torch.where(moving, moved, mean)
    size = (shares * norms).sum(-1, keepdim=True)
    return torch.where(present, size * _unit(mean, cosines) / norms.clamp_min(1e-300), 0.0)


def model_stock(gram: Tensor, weights: Tensor, values: Values) -> Tensor:
    """Return those of ``t · Σ wₜ·Δₜ / Σ wₜ``, ``t = N·cos θ / (1 + (N−1)·cos θ)``, cos θ the mean over all pairs.

    The base is the anchor: deltas that have nothing in common (cos θ ≤ 0) leave it where it is.
    """
    count = weights.shape[-1]
    if count == 1:
        return _shares(weights)
    pairs = _cosines(gram)
    cosine = ((pairs.sum((-2, -1)) - count) / (count * (count - 1))).clamp(0, 1)
    share = count * cosine / (1 + (count - 1) * cosine)
    return share.unsqueeze(-1) * _shares(weights)


def _shares(weights: Tensor) -> Tensor:
    """Return weights that sum to 1; as they are where their sum is zero."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total.abs() > 0, weights / torch.where(total == 0, 1.0, total), weights)


def _cosines(gram: Tensor) -> Tensor:
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    sizes = norms.unsqueeze(-1) * norms.unsqueeze(-2)
    cosines = torch.where(sizes == 0, 0.0, gram / sizes.clamp_min(1e-300)).clamp(-1, 1)  # NaN stays
    return (
        cosines
        - torch.diag_embed(cosines.diagonal(dim1=-2, dim2=-1))
        + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    )


def _length(coefficients: Tensor, gram: Tensor) -> Tensor:
    squared = (coefficients.unsqueeze(-2) @ gram @ coefficients.unsqueeze(-1)).squeeze(-1)
    return squared.clamp_min(0).sqrt()


def _unit(coefficients: Tensor, gram: Tensor) -> Tensor:
    length = _length(coefficients, gram)
    return torch.where(length > 0, coefficients / length.clamp_min(1e-300), coefficients)


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
            Parameter("iterations", 10, "how often the mean is moved, at most", 1, 10_000),
            Parameter("tolerance", 1e-5, "stop when it moves by less than this angle, in radians", 0, 1),
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
