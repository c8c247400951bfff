"""The loss at any weights by what was evaluated for real: enough to try searches on, which ask for ten thousand.

A Gaussian process with a squared exponential kernel. How far it is from an evaluation that it has not seen is printed
with the searches, and where it is least the real loss is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import cmaes
import numpy as np
from sweep_pool import HIGH, LOW, Array

LENGTHS = (0.7, 1.0, 1.4, 2.0, 2.8)
RIDGES = 10.0 ** np.arange(-8, -1)


class Emulator:
    """The mean of a Gaussian process: length scale and ridge have the least error in leave-one-out."""

    def __init__(self, weights: Array, losses: Array) -> None:
        self._points, self._mean = weights, losses.mean()
        #: What each evaluation is off when all others predict it.
        self.errors = np.full(len(losses), np.inf)
        for length in LENGTHS:
            kernel = _kernel(weights, weights, length)
            for ridge in RIDGES:
                inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
                dual = inverse @ (losses - self._mean)
                errors = dual / np.diag(inverse)
                if np.square(errors).mean() < np.square(self.errors).mean():
                    self.errors, self._dual, self._length = errors, dual, length

    def __call__(self, weights: Array) -> float:
        """The loss at weights (T,), moved into the box that was evaluated."""
        inside = np.clip(weights, LOW, HIGH)[None]
        return float(self._mean + _kernel(inside, self._points, self._length)[0] @ self._dual)

    def minimum(self) -> Array:
        """The weights (T,) in the box where the emulator is least, by CMA-ES from ten places."""
        count = self._points.shape[1]
        runs = []
        for seed in range(10):
            start = np.random.default_rng(seed).uniform(0, 0.7, count)
            strategy = cmaes.CMA(mean=start, sigma=0.1, bounds=np.array([[LOW, HIGH]] * count), seed=seed)
            for _ in range(150):
                asked = [strategy.ask() for _ in range(strategy.population_size)]
                generation = [(weights, self(weights)) for weights in asked]
                strategy.tell(generation)
                runs.append(min(generation, key=lambda pair: pair[1]))
        return min(runs, key=lambda pair: pair[1])[0].round(4)


def fit_emulator(
    weights: Array, losses: Array, evaluate: Callable[[Array], float], rounds: int = 4, near: int = 4
) -> tuple[Emulator, Array]:
    """Fit, evaluate for real where it is least and ``near`` draws round it, and fit again, ``rounds`` times.

    Returns the emulator and the best weights that were evaluated, (T,).
    """
    generator = np.random.default_rng(5)
    for _ in range(rounds):
        least = Emulator(weights, losses).minimum()
        near_points = least + 0.1 * generator.standard_normal((near, weights.shape[1]))
        asked = np.clip(np.vstack([least, near_points]), LOW, HIGH).round(4)
        weights, losses = np.vstack([weights, asked]), np.append(losses, [evaluate(row) for row in asked])
    return Emulator(weights, losses), weights[losses.argmin()]


def _kernel(x: Array, y: Array, length: float) -> Array:
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.exp(-squares / (2 * length**2))
