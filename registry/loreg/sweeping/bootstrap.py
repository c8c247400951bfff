"""How sure an answer is: documents drawn again with replacement (Efron 1979), each task by itself.

Shapes: D documents, T tasks, K sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loreg.entities import Interval
from loreg.sweeping.loss_model import Array, DocumentLosses, task_sums

_DRAWS = 1000
_LEVEL = 0.9


@dataclass(frozen=True)
class Spread:
    """How the minimiser moves with the documents: its standard deviation ``weights_sd`` (K).

    ``regret`` is what a minimiser of other documents of the same kind loses on average, in nats a token.
    """

    weights_sd: Array
    regret: float


def spread_of_minimizer(documents: DocumentLosses, importance: Array, seed: int) -> Spread:
    """Return how far chance in the documents moves the weights that minimise ``Σ importance·loss``."""
    whole = documents.fit()
    best = importance @ whole.predict(whole.minimize(importance))
    minima = np.stack([documents.fit(counts).minimize(importance) for counts in _draw_counts(documents.tasks, seed)])
    regrets = whole.predict(minima) @ importance - best
    return Spread(minima.std(0), float(regrets.mean()))


def interval_of_difference(
    tasks: npt.NDArray[np.int64], tokens: Array, differences: Array, importance: Array, seed: int
) -> Interval:
    """Return the mean difference of two losses a token, weighted by task, with its 90 % interval.

    ``differences`` (D) are sums over the tokens of each document: both losses of one document are drawn together.
    """
    means = []
    for counts in (np.ones_like(tokens), *_draw_counts(tasks, seed)):
        sums = task_sums(tasks, counts)
        means.append(float(importance @ ((sums @ differences) / (sums @ tokens))))
    low, high = np.quantile(means[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(means[0], float(low), float(high))


def _draw_counts(tasks: npt.NDArray[np.int64], seed: int) -> Iterator[Array]:
    """Yield how often each document is drawn, (D), once for each sample."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(tasks == task) for task in range(int(tasks.max()) + 1)]
    for _ in range(_DRAWS):
        counts = np.zeros(len(tasks))
        for documents in members:
            counts[documents] = generator.multinomial(len(documents), np.full(len(documents), 1 / len(documents)))
        yield counts
