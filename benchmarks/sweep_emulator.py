"""The real loss at some weights, and at all others what a polynomial through them says: enough to try searches on.

A search from twenty seeds asks for ten thousand evaluations, and a real one takes seconds. The polynomial is of degree
4, by kernel ridge regression; how far it is from an evaluation that it has not seen is printed with the searches.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sweep_mixture import TaskLosses

Array = NDArray[np.float64]
DEGREE = 4


class Emulator:
    """A polynomial of degree 4 in the weights: kernel ((1 + x·y) / scale)⁴ with x centred, ridge by leave-one-out."""

    def __init__(self, weights: Array, losses: Array) -> None:
        self._points, self._centre = weights, weights.mean(0)
        self._scale = np.abs(weights - self._centre).max() ** 2 * weights.shape[1]
        self._mean = losses.mean()
        kernel = self._kernel(weights)
        self.errors = np.full(len(losses), np.inf)
        for ridge in 10.0 ** np.arange(-9, 0):
            inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
            dual = inverse @ (losses - self._mean)
            errors = dual / np.diag(inverse)
            if np.square(errors).mean() < np.square(self.errors).mean():
                #: What each evaluation is off when all others predict it.
                self.errors, self._dual = errors, dual

    def __call__(self, weights: Array) -> float:
        return float(self._mean + self._kernel(weights[None])[0] @ self._dual)

    def _kernel(self, weights: Array) -> Array:
        products = (weights - self._centre) @ (self._points - self._centre).T / self._scale
        return (1 + products) ** DEGREE


def recipes(count: int, wide: int, near: int, seed: int = 11) -> Array:
    """Weights to evaluate for real: none, each adapter alone, equal strengths, and draws from a wide and a near box.

    The near box is [0, 2.5/T] or [0, 0.7], whichever is smaller: the more adapters, the less of each is best.
    """
    generator = np.random.default_rng(seed)
    equal = np.array([0.15, 0.25, 0.35, 0.5, 0.7, 1.0])[:, None] * np.ones(count)
    wide_draws = generator.uniform(-0.1, 1.1, (wide, count))
    near_draws = generator.uniform(0, min(0.7, 2.5 / count), (near, count))
    return np.vstack([np.zeros((1, count)), np.eye(count), equal, near_draws, wide_draws]).round(4)


def evaluate(file: Path, weights: Array, losses: Callable[[], TaskLosses]) -> tuple[Array, Array]:
    """Evaluate what is not in ``file`` yet, line by line; return the weights (n, T) and losses (n, T) of the asked."""
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {tuple(line["weights"]): line["losses"] for line in map(json.loads, lines)}
    missing = [row for row in weights.tolist() if tuple(row) not in known]
    if missing:
        evaluator = losses()
        with file.open("a") as stream:
            for row in missing:
                known[tuple(row)] = evaluator(row)
                stream.write(json.dumps({"weights": row, "losses": known[tuple(row)]}) + "\n")
                stream.flush()
    return weights, np.array([[*known[tuple(row)].values()] for row in weights.tolist()])
