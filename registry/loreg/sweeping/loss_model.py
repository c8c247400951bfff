"""The loss of each task as a quadratic function of the sources' weights: predict, minimise, and find one strength.

Shapes: D documents, T tasks, K sources. Suffixes: d documents, t tasks, k sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

#: How far outside of what people try a minimiser may lie: beyond, a quadratic says nothing.
_MIN_WEIGHT, _MAX_WEIGHT = -0.5, 2.0
#: The ridge that draws a minimiser to one common strength, as a share of the mean curvature.
_RIDGE = 1e-3


@dataclass(frozen=True)
class LossModel:
    """The mean loss of each task near ``origin`` (K).

    ``losses`` (T), ``gradients`` (T, K), ``curvatures`` (T, K, K).
    """

    origin: Array
    losses: Array
    gradients: Array
    curvatures: Array

    def predict(self, weights: Array) -> Array:
        """Return the loss of each task, (…, T), at ``weights`` (…, K)."""
        step = weights - self.origin
        linear = step @ self.gradients.T
        bent: Array = np.einsum("...i,tij,...j->...t", step, self.curvatures, step)
        return np.asarray(self.losses + linear + bent / 2)

    def minimize(self, importance: Array) -> Array:
        """Return the weights (K) that minimise ``Σ importance·loss``, ``importance`` (T) at least 0.

        A ridge draws what the data leave open to the best common strength: two sources with the same delta share their
        weight. It grows until no weight is below −0.5 or above 2, where a quadratic model of a loss says nothing.
        """
        common = self.common_strength(importance)
        gradient, curvature = importance @ self.gradients, np.tensordot(importance, self.curvatures, 1)
        size = np.trace(curvature) / len(self.origin)
        ridge = _RIDGE
        # Levenberg's damping: the larger the ridge, the shorter the step from the common strength.
        at_common = gradient + curvature @ (common - self.origin)
        while True:
            damped = curvature + (ridge * size + 1e-12) * np.eye(len(self.origin))
            weights: Array = common - np.linalg.solve(damped, at_common)
            if ((weights >= _MIN_WEIGHT) & (weights <= _MAX_WEIGHT)).all() or ridge > 1e6:
                return np.clip(weights, _MIN_WEIGHT, _MAX_WEIGHT)
            ridge *= 4

    def common_strength(self, importance: Array) -> Array:
        """Return the weights (K), all the same, that minimise ``Σ importance·loss``."""
        ones = np.ones_like(self.origin)
        gradient, curvature = importance @ self.gradients, np.tensordot(importance, self.curvatures, 1)
        bend = ones @ curvature @ ones
        start = self.origin.mean()
        slope = ones @ (gradient + curvature @ (start * ones - self.origin))
        strength = start - slope / bend if bend > 0 else start
        return float(np.clip(strength, _MIN_WEIGHT, _MAX_WEIGHT)) * ones


def model_of_output_errors(products: Array, directions: Array) -> LossModel:
    """Return how the output error of each task bends with P weights, in means of the adapters' own output energies.

    ``products`` (T, N, N) are the inner products of the outputs of N deltas on the text of each task, the first T of
    which are the tasks' own; ``directions`` (P, N) says of which deltas each weight is. All tasks have one unit: an
    adapter that puts out more has more to lose, and errors divided by each task's own rank worse
    (docs/concepts/sweeps.md).
    """
    tasks = np.arange(len(products))
    own = products[tasks, tasks, tasks]
    unit = own.mean() or 1.0
    gradients = products[tasks, :, tasks] @ directions.T / unit
    curvatures = directions @ products @ directions.T / unit
    return LossModel(np.zeros(len(directions)), own / unit, -2 * gradients, 2 * curvatures)


@dataclass(frozen=True)
class DocumentLosses:
    """What was measured on D documents: sums over the ``tokens`` (D) of each, which belongs to a task (D).

    ``losses`` (D), ``gradients`` (D, K) and ``curvatures`` (D, K, K) are at the weights ``origin`` (K).
    """

    origin: Array
    tasks: npt.NDArray[np.int64]
    tokens: Array
    losses: Array
    gradients: Array
    curvatures: Array

    def fit(self, counts: Array | None = None) -> LossModel:
        """Return the model of these documents, or of a sample that has each document ``counts`` (D) times."""
        times = np.ones_like(self.tokens) if counts is None else counts
        sums = task_sums(self.tasks, times)
        tokens = sums @ self.tokens
        return LossModel(
            self.origin,
            sums @ self.losses / tokens,
            sums @ self.gradients / tokens[:, None],
            np.tensordot(sums, self.curvatures, 1) / tokens[:, None, None],
        )


def task_sums(tasks: npt.NDArray[np.int64], counts: Array) -> Array:
    """Return the matrix (T, D) that adds up documents by task, each ``counts`` (D) times."""
    return np.asarray((np.arange(tasks.max() + 1)[:, None] == tasks) * counts)
