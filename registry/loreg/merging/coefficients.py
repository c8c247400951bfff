"""Find the coefficients by which the exact methods sum deltas: they follow from inner products, and need no torch.

Every function takes the inner products of the deltas ``gram (n, T, T)``, the ``weights (n, T)`` and the parameters of
the method, and returns the coefficients ``c (n, T)`` of ``Σ cₜ·Δₜ``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Coefficients = Callable[[Array, Array, Mapping[str, Any]], Array]

#: How often the Karcher mean is moved at most, and the angle in radians at which that stops.
ITERATIONS, TOLERANCE = 10, 1e-5
_PARALLEL = 1e-8  # sine below which two directions are the same and the great circle between them is a line
_TINY = 1e-300


def linear(gram: Array, weights: Array, values: Mapping[str, Any]) -> Array:
    """Return the weights: ``Σ wₜ·Δₜ``."""
    return weights


def slerp(gram: Array, weights: Array, values: Mapping[str, Any]) -> Array:
    """Return those of ``(sin((1−t)θ)·Δ₁ + sin(tθ)·Δ₂) / sin θ``, ``t = w₂/(w₁+w₂)``, θ the angle between the deltas.

    Where a delta is missing, zero or parallel to the other, the great circle is undefined and the line is taken.
    """
    shares = _shares(weights)
    if shares.shape[-1] == 1:
        return shares
    angle = np.arccos(_cosines(gram)[..., 0, 1])
    sine = np.sin(angle)
    is_straight = (np.abs(sine) < _PARALLEL) | (_diagonal(gram) == 0).any(-1)
    curved = np.sin(shares * angle[..., None]) / np.where(is_straight, 1.0, sine)[..., None]
    return np.where(is_straight[..., None], shares, curved)


def karcher(gram: Array, weights: Array, values: Mapping[str, Any]) -> Array:
    """Return those of the Karcher mean of the deltas' directions on the unit sphere, times their weighted mean norm.

    The direction u is kept as coefficients of the unit deltas, so that every angle comes from the Gram matrix.
    """
    shares, norms, cosines = _shares(weights), np.sqrt(_diagonal(gram)), _cosines(gram)
    present = norms > 0
    shares_of_directions = _shares(np.where(present, shares, 0.0))
    mean = _unit(shares_of_directions, cosines)
    for _ in range(values["iterations"]):
        toward = np.clip((cosines @ mean[..., None])[..., 0], -1, 1)
        angle = np.arccos(toward)
        stretch = np.where(angle > _PARALLEL, angle / np.maximum(np.sin(angle), _PARALLEL), 1.0)
        pull = shares_of_directions * stretch
        tangent = pull - (pull * toward).sum(-1, keepdims=True) * mean
        length = _length(tangent, cosines)
        is_moving = length > values["tolerance"]
        if not is_moving.any():
            break
        moved = np.cos(length) * mean + np.sin(length) / np.maximum(length, _TINY) * tangent
        mean = np.where(is_moving, moved, mean)
    size = (shares * norms).sum(-1, keepdims=True)
    return np.where(present, size * _unit(mean, cosines) / np.maximum(norms, _TINY), 0.0)


def model_stock(gram: Array, weights: Array, values: Mapping[str, Any]) -> Array:
    """Return those of ``t · Σ wₜ·Δₜ / Σ wₜ``, ``t = N·cos θ / (1 + (N−1)·cos θ)``, cos θ the mean over all pairs.

    The base is the anchor: deltas that have nothing in common (cos θ ≤ 0) leave it where it is.
    """
    count = weights.shape[-1]
    if count == 1:
        return _shares(weights)
    cosine = np.clip((_cosines(gram).sum((-2, -1)) - count) / (count * (count - 1)), 0, 1)
    share: Array = count * cosine / (1 + (count - 1) * cosine)
    return share[..., None] * _shares(weights)


#: The methods whose merged delta is a sum of the sources' deltas, with the parameters that they have by default.
LINEAR_METHODS: Mapping[str, tuple[Coefficients, Mapping[str, Any]]] = {
    "linear": (linear, {}),
    "slerp": (slerp, {}),
    "karcher": (karcher, {"iterations": ITERATIONS, "tolerance": TOLERANCE}),
    "model_stock": (model_stock, {}),
}


def _shares(weights: Array) -> Array:
    """Return weights that sum to 1; as they are where their sum is zero."""
    total = weights.sum(-1, keepdims=True)
    return np.where(total != 0, weights / np.where(total == 0, 1.0, total), weights)


def _cosines(gram: Array) -> Array:
    norms = np.sqrt(np.maximum(_diagonal(gram), 0))
    sizes = norms[..., :, None] * norms[..., None, :]
    cosines = np.clip(np.where(sizes == 0, 0.0, gram / np.maximum(sizes, _TINY)), -1, 1)  # NaN stays
    return np.where(np.eye(gram.shape[-1], dtype=bool), 1.0, cosines)


def _diagonal(gram: Array) -> Array:
    diagonal: Array = np.diagonal(gram, axis1=-2, axis2=-1)
    return diagonal


def _length(coefficients: Array, gram: Array) -> Array:
    squared: Array = (coefficients[..., None, :] @ gram @ coefficients[..., None])[..., 0]
    length: Array = np.sqrt(np.maximum(squared, 0))
    return length


def _unit(coefficients: Array, gram: Array) -> Array:
    length = _length(coefficients, gram)
    return np.where(length > 0, coefficients / np.maximum(length, _TINY), coefficients)
