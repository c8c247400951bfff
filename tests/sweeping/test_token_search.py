"""A search by the losses of tokens, on losses that are known: what it takes, and at which strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loreg.entities import SweepCandidate
from loreg.sweeping.loss_model import Array, DocumentLosses
from loreg.sweeping.token_search import Texts, TokenSearch

TEXTS = Texts(np.repeat([0, 1], 20), np.full(40, 100.0))
BEST = {"linear": 0.3, "method": 0.6, "other": 0.9}
LEAST = {"linear": 2.0, "method": 1.5, "other": 1.8}


class Bowls:
    """The loss a token is a parabola in the strength of what is merged, and least at ``BEST`` of its method."""

    def curve(self, candidates: Sequence[SweepCandidate], origin: Sequence[float], share: float) -> DocumentLosses:
        mixed = np.array([np.mean(candidate.strengths) for candidate in candidates])
        off = float(mixed @ np.array(origin)) - BEST[candidates[0].method]
        ones, count = np.ones(len(TEXTS.tasks)), len(candidates)
        gradient, curvature = 2 * off * mixed, 2 * np.outer(mixed, mixed)
        return DocumentLosses(
            np.array(origin),
            TEXTS.tasks,
            TEXTS.tokens,
            100 * (LEAST[candidates[0].method] + off**2) * ones,
            100 * ones[:, None] * gradient.reshape(1, count),
            100 * ones[:, None, None] * curvature.reshape(1, count, count),
        )

    def evaluate(self, candidate: SweepCandidate) -> Array:
        off = np.mean(candidate.strengths) * (len(candidate.strengths) if candidate.method == "linear" else 1)
        return 100 * np.full(len(TEXTS.tasks), LEAST[candidate.method] + (off - BEST[candidate.method]) ** 2)

    def confirm(self, candidate: SweepCandidate) -> Array:
        return self.evaluate(candidate)

    def rank_errors(self, candidate: SweepCandidate) -> None:
        return None

    def seconds(self, candidate: SweepCandidate) -> float:
        return 0.0


@pytest.mark.parametrize("shares", [(1.0,), (0.25, 0.5, 1.0), (0.5, 1.0)])
def test_a_method_is_taken_at_its_best_strength_however_often_it_is_looked_at(shares: tuple[float, ...]):
    search = TokenSearch(Bowls(), 2, TEXTS, TEXTS, np.array([0.5, 0.5]), 40, ("method", "other"), 0, None, shares)
    answer = search.run()
    assert answer.best.method == "method"
    assert answer.best.scale == pytest.approx(0.6, abs=1e-3)
