"""Where to evaluate next when an evaluation is a black box that gives scores: what was tried says it, and nothing else.

Some common strengths, a step along each weight from the best of them, then always where a Gaussian process through all
evaluations expects the least loss; where it has been there, where the least is to be hoped for. It is measured beside
CMA-ES, TPE and a quadratic surface in docs/concepts/sweeps.md. The next points follow from those before them and the
seed, so that a sweep goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from loreg.sweeping.gaussian_process import GaussianProcess, fit_gaussian_process
from loreg.sweeping.loss_model import Array

#: Points that were evaluated, and the loss of each task there, (T); None where the evaluation failed.
History: TypeAlias = Sequence[tuple[Array, Array | None]]

#: The strength at which it begins: with real adapters the best common strength was near it.
CENTRE = 0.35
_STRENGTHS = (CENTRE, 0.6, 1.0)
_STEP = 0.2
_MIN_WEIGHT, _MAX_WEIGHT = -0.2, 1.2
_SAME = 0.02  # two points nearer than this, in each weight, are one
_DOUBT = 1.0  # standard deviations below what is expected
_DRAWS, _KEPT = 400, 10
_WIDTHS = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the draws round what was best before


@dataclass(frozen=True)
class ScoreSearch:
    """A search over the weights of ``sources`` with ``budget`` evaluations, by the losses of all tasks together."""

    sources: int
    budget: int
    importance: Array
    seed: int

    def next_points(self, history: History, count: int = 1) -> list[Array]:
        """Return points to evaluate next, all of which may be evaluated at once; none when the search has ended.

        At most ``count`` of them follow from what was evaluated before: each is chosen as if the others had given what
        is expected of them.
        """
        left = self.budget - len(history)
        strengths = [s * np.ones(self.sources) for s in dict.fromkeys((CENTRE, 1 / self.sources, *_STRENGTHS))]
        if len(history) < len(strengths):
            return strengths[len(history) :][: max(left, 0)]
        evaluated = [(point, float(x @ self.importance)) for point, x in history if x is not None]
        if not evaluated:
            return []
        steps = self._steps([pair for pair in evaluated if np.ptp(pair[0]) == 0] or evaluated)
        done = len(history) - len(strengths)
        if done < len(steps):
            return steps[done:][: max(left, 0)]
        failed = [point for point, losses in history if losses is None]
        points: list[Array] = []
        while len(points) < min(count, left):
            point, expected = self._propose(evaluated, failed, len(history) + len(points))
            if any(_is_near(point, tried) for tried, _ in evaluated):
                break
            points.append(point)
            evaluated.append((point, expected))
        return points

    def _steps(self, strengths: Sequence[tuple[Array, float]]) -> list[Array]:
        """Return a step along each weight from the best strength, every second one down."""
        best = min(strengths, key=lambda pair: pair[1])[0]
        signs = np.where(np.arange(self.sources) % 2, -1.0, 1.0)
        return [best + sign * _STEP * unit for sign, unit in zip(signs, np.eye(self.sources), strict=True)]

    def _propose(
        self, evaluated: Sequence[tuple[Array, float]], failed: Sequence[Array], number: int
    ) -> tuple[Array, float]:
        """Return where the least loss is expected, or hoped for if that is known, and what is expected there."""
        points, losses = np.array([point for point, _ in evaluated]), np.array([loss for _, loss in evaluated])
        process = fit_gaussian_process(points, losses)
        for doubt in (0.0, _DOUBT):
            least = self._minimize(process, doubt, points[losses.argmin()], failed, number)
            if not any(_is_near(least, point) for point in points):
                break
        return least, float(process.predict(least[None])[0][0])

    def _minimize(
        self, process: GaussianProcess, doubt: float, best: Array, failed: Sequence[Array], number: int
    ) -> Array:
        """Return the point in the box where the loss, less ``doubt`` deviations, is least: by draws that narrow.

        It is none that is near one that ``failed``.
        """
        generator = np.random.default_rng([self.seed, number])
        kept = np.vstack([best, generator.uniform(_MIN_WEIGHT, _MAX_WEIGHT, (_DRAWS // 2, self.sources))])
        for width in _WIDTHS:
            drawn = kept[:, None] + width * generator.standard_normal((len(kept), _DRAWS // _KEPT, self.sources))
            asked = np.vstack([kept, drawn.reshape(-1, self.sources)]).clip(_MIN_WEIGHT, _MAX_WEIGHT)
            asked = asked[[not any(_is_near(point, other) for other in failed) for point in asked]]
            expected, deviation = process.predict(asked)
            kept = asked[np.argsort(expected - doubt * deviation, kind="stable")[:_KEPT]]
        return np.asarray(kept[0])


def _is_near(x: Array, y: Array) -> bool:
    return bool((abs(x - y) < _SAME).all())
