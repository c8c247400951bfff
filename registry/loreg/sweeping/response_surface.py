"""A quadratic through scores: where to measure, what fits, and where it is least (Box and Wilson 1951).

Shapes: K sources, P points.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from loreg.sweeping.loss_model import Array, LossModel


def design_size(sources: int) -> int:
    """Return how many points determine a quadratic of that many weights: 1, K and K·(K+1)/2 coefficients."""
    return (sources + 1) * (sources + 2) // 2


def design_points(center: Array, step: float) -> Array:
    """Return the points (P, K) round ``center`` (K) that determine a quadratic, the centre first."""
    unit = step * np.eye(len(center))
    pairs = [unit[i] + unit[j] for i, j in combinations(range(len(center)), 2)]
    return np.asarray(center + np.array([np.zeros_like(center), *unit, *-unit, *pairs]))


def fit_surface(points: Array, losses: Array) -> LossModel:
    """Return the quadratic through the ``losses`` (P, T) at ``points`` (P, K), by least squares where P is larger.

    Points near the best are trusted more. Directions in which a surface bends downwards are taken as flat: a minimum
    lies where something was measured. Raises ValueError for too few points.
    """
    count, sources = points.shape
    if count < design_size(sources):
        raise ValueError(f"{count} points do not determine a quadratic of {sources} weights")
    best = int(losses.mean(1).argmin())
    origin = points[best]
    step = points - origin
    rows, columns = np.triu_indices(sources)
    # ½·dᵀHd: a pair appears twice in the sum, a square once.
    products = step[:, rows] * step[:, columns] * np.where(rows == columns, 0.5, 1.0)
    terms = np.concatenate([np.ones((count, 1)), step, products], axis=1)
    spread = np.median(np.linalg.norm(step, axis=1)) or 1.0
    trust = np.exp(-0.5 * (np.linalg.norm(step, axis=1) / (2 * spread)) ** 2)[:, None]
    solution = np.linalg.lstsq(terms * trust, losses * trust, rcond=None)[0]
    curvatures = np.zeros((losses.shape[1], sources, sources))
    curvatures[:, rows, columns] = curvatures[:, columns, rows] = solution[1 + sources :].T
    return LossModel(origin, solution[0], solution[1 : 1 + sources].T, np.array([_bend_up(h) for h in curvatures]))


def _bend_up(curvature: Array) -> Array:
    """Return the nearest matrix without a negative eigenvalue (Higham 1988)."""
    values, vectors = np.linalg.eigh(curvature)
    return np.asarray((vectors * values.clip(0)) @ vectors.T)
