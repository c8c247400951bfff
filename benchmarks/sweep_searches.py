"""Searches that people use for the weights of a merge, each by ask and tell, and how many evaluations they need.

Random draws; CMA-ES as mergekit-evolve starts it; Optuna's TPE; a plain quadratic response surface; one strength for
all adapters, which is no search in more than one dimension; and what ``loreg sweep`` does with scores alone. None knows
more of an evaluation than its number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cmaes
import numpy as np
import optuna
from numpy.typing import NDArray

from loreg.sweeping.score_search import ScoreSearch

Weights = NDArray[np.float64]
Loss = Callable[[Weights], float]


class Search(Protocol):
    """Asks for weights to evaluate, and is told their loss, one after the other."""

    def ask(self) -> Weights: ...

    def tell(self, weights: Weights, loss: float) -> None: ...


class RandomSearch:
    """Uniform draws from [low, high] for each weight."""

    def __init__(self, count: int, seed: int, low: float = 0.0, high: float = 1.0) -> None:
        self._generator = np.random.default_rng(seed)
        self._box = low, high, count

    def ask(self) -> Weights:
        return self._generator.uniform(*self._box)

    def tell(self, weights: Weights, loss: float) -> None:
        pass


class EqualStrengths:
    """The same weight for all adapters: 0.1, 0.2, …, 1 and again, from the seed's place on."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._asked = count, seed - 1

    def ask(self) -> Weights:
        self._asked += 1
        return np.full(self._count, 0.1 * (1 + self._asked % 10))

    def tell(self, weights: Weights, loss: float) -> None:
        pass


class Evolution:
    """CMA-ES from 1/T each with σ = 1/6, without bounds: the defaults of mergekit-evolve 0.1.5, its population too."""

    def __init__(self, count: int, seed: int, start: float | None = None, sigma: float = 1 / 6) -> None:
        mean = np.full(count, 1 / count if start is None else start)
        self._strategy = cmaes.CMA(mean=mean, sigma=sigma, seed=seed)
        self._generation: list[tuple[Weights, float]] = []

    def ask(self) -> Weights:
        return self._strategy.ask()

    def tell(self, weights: Weights, loss: float) -> None:
        self._generation.append((weights, loss))
        if len(self._generation) == self._strategy.population_size:
            self._strategy.tell(self._generation)
            self._generation = []


class TreeParzen:
    """Optuna's TPE over [0, 1], multivariate; otherwise with its defaults, of which the first ten are random."""

    def __init__(self, count: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(multivariate=True, seed=seed))
        self._names = [f"w{place}" for place in range(count)]

    def ask(self) -> Weights:
        self._trial = self._study.ask()
        return np.array([self._trial.suggest_float(name, 0, 1) for name in self._names])

    def tell(self, weights: Weights, loss: float) -> None:
        self._study.tell(self._trial, loss)


class ResponseSurface:
    """A quadratic through all evaluations by least squares, evaluated where it is least, and fitted again.

    It begins with as many draws as it has coefficients, (T + 1)(T + 2) / 2. Evaluations count the more the closer
    they are to the best one, so that the surface becomes right where it matters.
    """

    def __init__(self, count: int, seed: int, high: float = 1.0) -> None:
        self._generator = np.random.default_rng(seed)
        self._count, self._high = count, high
        self._weights: list[Weights] = []
        self._losses: list[float] = []

    def ask(self) -> Weights:
        if len(self._weights) < (self._count + 1) * (self._count + 2) // 2:
            return self._generator.uniform(0, self._high, self._count)
        least = self._minimize(*self._fit())
        if min(np.abs(least - weights).max() for weights in self._weights) < 1e-3:
            return np.clip(least + 0.05 * self._generator.standard_normal(self._count), 0, self._high)
        return least

    def tell(self, weights: Weights, loss: float) -> None:
        self._weights.append(weights)
        self._losses.append(loss)

    def _fit(self) -> tuple[Weights, NDArray[np.float64]]:
        """Gradient at zero (T,) and Hessian (T, T) of the surface."""
        points = np.array(self._weights)
        rows, columns = np.triu_indices(self._count)
        features = np.hstack([np.ones((len(points), 1)), points, points[:, rows] * points[:, columns]])
        distances = np.linalg.norm(points - points[np.argmin(self._losses)], axis=1)
        closeness = np.exp(-((distances / np.median(distances)) ** 2) / 4)[:, None]
        scaled = np.vstack([features * closeness, 1e-3 * np.eye(features.shape[1])])
        values = np.concatenate([np.array(self._losses) * closeness[:, 0], np.zeros(features.shape[1])])
        coefficients = np.linalg.lstsq(scaled, values, rcond=None)[0]
        hessian = np.zeros((self._count, self._count))
        hessian[rows, columns] = coefficients[1 + self._count :]
        return coefficients[1 : 1 + self._count], hessian + hessian.T

    def _minimize(self, gradient: Weights, hessian: NDArray[np.float64]) -> Weights:
        """The least of the surface in the box, by coordinate descent from the best evaluation."""
        weights = np.clip(self._weights[int(np.argmin(self._losses))], 0, self._high)
        for _ in range(200):
            for place in range(self._count):
                slope = gradient[place] + hessian[place] @ weights - hessian[place, place] * weights[place]
                curvature = hessian[place, place]
                ends = np.array([0.0, self._high])
                if curvature > 0:
                    weights[place] = np.clip(-slope / curvature, 0, self._high)
                else:
                    weights[place] = ends[np.argmin(slope * ends + curvature * ends**2 / 2)]
        return weights


class Scores:
    """The search of ``loreg sweep`` where an evaluation gives a score and nothing else."""

    def __init__(self, count: int, seed: int) -> None:
        self._search = ScoreSearch(count, 1000, np.ones(1), seed)
        self._history: list[tuple[Weights, Weights | None]] = []
        self._asked: list[Weights] = []
        self._has_ended = False

    def ask(self) -> Weights:
        if not self._has_ended and not self._asked:
            self._asked = self._search.next_points(self._history)
            self._has_ended = not self._asked
        return self._history[-1][0] if self._has_ended else self._asked.pop(0)

    def tell(self, weights: Weights, loss: float) -> None:
        self._history.append((weights, np.array([loss])))


#: Each search as it is made for so many weights from a seed.
SEARCHES: dict[str, Callable[[int, int], Search]] = {
    "one strength for all, ten steps": EqualStrengths,
    "random [0, 1]": RandomSearch,
    "random [0, 0.7]": lambda count, seed: RandomSearch(count, seed, high=0.7),
    "CMA-ES from 1/T, σ 1/6 (mergekit-evolve)": Evolution,
    "CMA-ES from 0.5, σ 0.25": lambda count, seed: Evolution(count, seed, start=0.5, sigma=0.25),
    "TPE, multivariate (Optuna)": TreeParzen,
    "quadratic response surface": ResponseSurface,
    "loreg, scores alone": Scores,
}


def best_losses(search: Search, loss: Loss, budget: int) -> Weights:
    """The least loss after each of ``budget`` evaluations: (budget,)."""
    losses = []
    for _ in range(budget):
        weights = search.ask()
        losses.append(loss(weights))
        search.tell(weights, losses[-1])
    return np.minimum.accumulate(losses)


def evaluations_to(share: float, losses: Weights, base: float, least: float) -> float:
    """Evaluations until ``share`` of the best gain, ``base - least``, is reached; infinite where it never is."""
    reached = np.flatnonzero(base - losses >= share * (base - least))
    return float(reached[0] + 1) if len(reached) else np.inf
