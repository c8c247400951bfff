"""Where to evaluate next when an evaluation is a black box that gives scores: what was tried says it, and nothing else.

Few weights: a quadratic response surface. Many: one common strength, then CMA-ES round it (Hansen 2016, arXiv
1604.00772). The next points follow from the points before them and the seed, so that a sweep goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from loreg.errors import MissingExtraError
from loreg.sweeping.loss_model import Array
from loreg.sweeping.response_surface import design_points, design_size, fit_surface

#: Points that were evaluated, and the loss of each task there, (T); None where the evaluation failed.
History: TypeAlias = Sequence[tuple[Array, Array | None]]

#: The strength at which it begins: with real adapters the best common strength was near it.
CENTRE = 0.35
_STEP = 0.2
_MAX_SURFACE_SOURCES = 6  # sources
_STRENGTHS = (0.2, 0.35, 0.6, 1.0)
_SIGMA = 0.15
_MIN_WEIGHT, _MAX_WEIGHT = -0.2, 1.2
_SAME = 0.02  # two points nearer than this, in each weight, are one


@dataclass(frozen=True)
class ScoreSearch:
    """A search over the weights of ``sources`` with ``budget`` evaluations, by the losses of all tasks together."""

    sources: int
    budget: int
    importance: Array
    seed: int

    def next_points(self, history: History) -> list[Array]:
        """Return the points to evaluate next, all of which may be evaluated at once; none when the search has ended."""
        left = self.budget - len(history)
        if left <= 0:
            return []
        return self._surface_points(history, left) if self._has_surface else self._strength_points(history, left)

    @property
    def _has_surface(self) -> bool:
        return self.sources <= _MAX_SURFACE_SOURCES and self.budget >= design_size(self.sources) + 2

    def _surface_points(self, history: History, left: int) -> list[Array]:
        design = list(design_points(np.full(self.sources, CENTRE), _STEP))
        if len(history) < len(design):
            return design[len(history) :][:left]
        points, losses = self._successes(history)
        if len(points) < design_size(self.sources):  # some failed: measure elsewhere instead
            generator = np.random.default_rng([self.seed, len(history)])
            return [CENTRE + _STEP * generator.uniform(-1, 1, self.sources)]
        return self._unless_tried(fit_surface(points, losses).minimize(self.importance), history)

    def _strength_points(self, history: History, left: int) -> list[Array]:
        ones = np.ones(self.sources)
        strengths = [CENTRE, *sorted({1 / self.sources, *_STRENGTHS} - {CENTRE})]
        if len(history) < len(strengths):
            return [strength * ones for strength in strengths[len(history) :]][:left]
        points, losses = self._successes(history[: len(strengths)])
        if len(history) == len(strengths) and len(points) >= 3:
            vertex = fit_surface(points[:, :1], losses).minimize(self.importance)
            if tried := self._unless_tried(vertex * ones, history):
                return tried
        return self._evolve(history, len(strengths), left)

    def _evolve(self, history: History, start: int, left: int) -> list[Array]:
        """Return the next generation of CMA-ES, whose earlier ones are the points of the history."""
        try:
            from cmaes import CMA
        except ImportError as error:
            message = "a sweep of many sources by scores needs cmaes, which is not installed"
            raise MissingExtraError(message, hint="pip install 'loreg[sweep]'") from error
        points, losses = self._successes(history)
        if not len(points):
            return []
        bounds = np.tile([_MIN_WEIGHT, _MAX_WEIGHT], (self.sources, 1))
        common = [i for i in range(len(points)) if np.ptp(points[i]) < 1e-12]
        best = points[min(common or range(len(points)), key=lambda i: float(losses[i] @ self.importance))]
        evolution = CMA(mean=best.clip(_MIN_WEIGHT, _MAX_WEIGHT), sigma=_SIGMA, bounds=bounds, seed=self.seed)
        drawn = [np.asarray(evolution.ask()) for _ in range(evolution.population_size)]
        position = next((i for i in range(start, len(history)) if _is_near(history[i][0], drawn[0], 1e-12)), None)
        while position is not None and position + len(drawn) <= len(history):
            worst = max((float(x @ self.importance) for _, x in history if x is not None), default=0.0)
            generation = history[position : position + len(drawn)]
            evolution.tell([(p, worst + 1 if x is None else float(x @ self.importance)) for p, x in generation])
            position += len(drawn)
            drawn = [np.asarray(evolution.ask()) for _ in range(evolution.population_size)]
        started = len(history) - position if position is not None else 0
        return drawn[started:][:left]

    def _successes(self, history: History) -> tuple[Array, Array]:
        pairs = [(point, losses) for point, losses in history if losses is not None]
        return np.array([point for point, _ in pairs]), np.array([losses for _, losses in pairs])

    def _unless_tried(self, point: Array, history: History) -> list[Array]:
        """Return the point alone, or nothing if it was tried: then the search has converged."""
        clipped = point.clip(_MIN_WEIGHT, _MAX_WEIGHT)
        return [] if any(_is_near(clipped, tried, _SAME) for tried, _ in history) else [clipped]


def _is_near(x: Array, y: Array, distance: float) -> bool:
    return bool((abs(x - y) < distance).all())
