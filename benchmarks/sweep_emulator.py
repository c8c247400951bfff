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
EQUAL_STRENGTHS = (0.15, 0.25, 0.35, 0.5, 0.7, 1.0)


class Emulator:
    """A polynomial of degree 4 in the weights: kernel (1 + x·y / scale)⁴ of centred x, ridge by leave-one-out."""

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

    The near box is [0, 0.7], of more than five adapters [0, 4/T]: the more there are, the less of each is best.
    """
    generator = np.random.default_rng(seed)
    equal = np.array(EQUAL_STRENGTHS)[:, None] * np.ones(count)
    wide_draws = generator.uniform(-0.1, 1.1, (wide, count))
    near_draws = generator.uniform(0, min(0.7, 4 / count), (near, count))
    return np.vstack([np.zeros((1, count)), np.eye(count), equal, near_draws, wide_draws]).round(4)


def evaluate(file: Path, weights: Array, evaluator: Callable[[], TaskLosses]) -> Array:
    """Return the losses (n, 2, tasks) of weights (n, T) on dev and test documents.

    What is not in ``file`` yet is evaluated, and added line by line.
    """
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {tuple(line.pop("weights")): line for line in map(json.loads, lines)}
    for row in weights.tolist():
        if tuple(row) not in known:
            known[tuple(row)] = evaluator()(row)
            with file.open("a") as stream:
                stream.write(json.dumps({"weights": row, **known[tuple(row)]}) + "\n")
    return np.array([[[*known[tuple(row)][split].values()] for split in ("dev", "test")] for row in weights.tolist()])
