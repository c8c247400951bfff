"""What evaluations at some weights say of all others: a Gaussian process (Rasmussen and Williams 2006, ch. 2 and 5).

Shapes: P points that were evaluated, Q points that are asked for, K sources, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loreg.sweeping.loss_model import Array

_LENGTHS = (0.5, 0.7, 1.0, 1.5, 2.2, 3.0)  # in weights, over which a loss changes
_NOISES = (1e-6, 1e-4, 1e-2, 1e-1, 1.0)  # variance of an evaluation, of that of the loss


@dataclass(frozen=True)
class GaussianProcess:
    """A loss known at ``points`` (P, K), by its mean and the ``spread`` that it has far from them.

    ``inverse`` (P, P) is that of the points' covariance with noise, ``dual`` (P) its product with the losses.
    """

    points: Array
    mean: float
    spread: float
    length: float
    inverse: Array
    dual: Array

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return the expected loss at ``points`` (Q, K) and its standard deviation, both (Q)."""
        shared = _kernel(points, self.points, self.length)
        known = np.einsum("qi,ij,qj->q", shared, self.inverse, shared)
        return self.mean + self.spread * (shared @ self.dual), self.spread * np.sqrt((1 - known).clip(1e-12))


def fit_gaussian_process(points: Array, losses: Array) -> GaussianProcess:
    """Return the process through ``losses`` (P) at ``points`` (P, K): length and noise are the likeliest of a few.

    The kernel is ``exp(−|x − y|² / 2ℓ²)``; mean and variance are those of the losses.
    """
    mean, spread = float(losses.mean()), float(losses.std()) or 1.0
    scaled = (losses - mean) / spread
    best: tuple[float, float, Array, Array] | None = None
    for length in _LENGTHS:
        kernel = _kernel(points, points, length)
        for noise in _NOISES:
            values, vectors = np.linalg.eigh(kernel + noise * np.eye(len(points)))
            inverse = (vectors / values) @ vectors.T
            dual = inverse @ scaled
            # the variance that is likeliest for the length and the noise is scaledᵀ·dual / P
            likelihood = -len(points) * np.log(scaled @ dual + 1e-12) - np.log(values).sum()
            if best is None or likelihood > best[0]:
                best = likelihood, length, inverse, dual
    assert best is not None  # noqa: S101  there are lengths and noises
    return GaussianProcess(points, mean, spread, *best[1:])


def _kernel(x: Array, y: Array, length: float) -> Array:
    squares = np.square(x[:, None] - y[None]).sum(-1)
    return np.asarray(np.exp(-squares / (2 * length**2)))
