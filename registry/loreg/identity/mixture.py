"""Find of which adapters another is a weighted sum: greedily by their sketches, then exactly by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_SOURCES = 8
#: The share of ‖Δ‖² that a source must explain beside the others.
_LEAST = 0.01
_NEARLY_ALL, _ROUNDING = 1e-4, 1e-7  # of ‖Δ‖², unexplained


def fit(target: Array, sources: Sequence[Array]) -> tuple[Array, Array]:
    """Return the weights (T) with which sketches come closest to ``target``, and what is left of it (256)."""
    matrix = np.array(sources).T
    weights: Array = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return weights, target - matrix @ weights


def solve(gram: Array) -> tuple[Array, float]:
    """Return the weights (T) of the sources, and the relative error, from inner products (1 + T, 1 + T) of deltas.

    The adapter itself comes first: min ‖Δ − Σ wᵢ·Δᵢ‖ / ‖Δ‖.
    """
    inner, products, energy = gram[1:, 1:], gram[1:, 0], float(gram[0, 0])
    if energy <= 0:
        return np.zeros(len(products)), 0.0
    norms = np.sqrt(np.maximum(np.diag(inner), 1e-300))
    scaled = inner / np.outer(norms, norms)
    weights: Array = np.linalg.lstsq(scaled, products / norms, rcond=1e-9)[0] / norms
    left = energy - 2 * float(weights @ products) + float(weights @ inner @ weights)
    return weights, math.sqrt(max(left, 0.0) / energy)


def needed_sources(gram: Array) -> list[int]:
    """Return the places, from 1 on, of the sources without which the sum is clearly worse.

    That is by a hundredth of ‖Δ‖², or, where nearly nothing is unexplained, by ten times what is. The least of them is
    left out first, and the rest judged anew.
    """
    kept = list(range(1, len(gram)))
    while len(kept) > 1:
        whole = solve(gram[np.ix_([0, *kept], [0, *kept])])[1] ** 2
        losses = []
        for place in kept:
            others = [0, *(other for other in kept if other != place)]
            losses.append((solve(gram[np.ix_(others, others)])[1] ** 2 - whole, place))
        loss, place = min(losses)
        if loss >= (_LEAST if whole > _NEARLY_ALL else max(10 * whole, _ROUNDING)):
            break
        kept.remove(place)
    return kept
