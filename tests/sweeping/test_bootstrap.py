"""How sure an answer is, beside what statistics says of means."""

from __future__ import annotations

import numpy as np
import pytest

from loreg.sweeping.bootstrap import interval_of_difference, spread_of_minimizer
from loreg.sweeping.loss_model import DocumentLosses

DOCUMENTS = 400
IMPORTANCE = np.array([0.5, 0.5])
TASKS = np.repeat([0, 1], DOCUMENTS // 2)
TOKENS = np.full(DOCUMENTS, 50.0)


def test_the_interval_is_that_of_the_mean_of_independent_documents():
    differences = np.random.default_rng(1).normal(0.3, 1.0, DOCUMENTS) * TOKENS
    interval = interval_of_difference(TASKS, TOKENS, differences, IMPORTANCE, seed=0)
    by_task = [differences[task == TASKS] / 50 for task in (0, 1)]
    mean = sum(values.mean() for values in by_task) / 2
    error = sum(values.var() / len(values) for values in by_task) ** 0.5 / 2
    assert interval.mean == pytest.approx(mean)
    assert interval.low == pytest.approx(mean - 1.645 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(mean + 1.645 * error, abs=0.15 * error)
    assert not interval.holds_zero


def test_two_recipes_that_lose_the_same_have_no_difference():
    interval = interval_of_difference(TASKS, TOKENS, np.zeros(DOCUMENTS), IMPORTANCE, seed=0)
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)
    assert interval.holds_zero


def test_a_task_that_counts_for_nothing_says_nothing():
    differences = np.where(TASKS == 0, 50.0, -5000.0)
    interval = interval_of_difference(TASKS, TOKENS, differences, np.array([1.0, 0.0]), seed=0)
    assert (interval.low, interval.mean, interval.high) == (1, 1, 1)


def documents(count: int, noise: float) -> DocumentLosses:
    """Documents of one task, whose slopes scatter round one minimum at 0.4 (curvature 2, one source)."""
    slopes = 2 * (0.5 - 0.4) + np.random.default_rng(2).normal(0, noise, count)
    ones = np.ones(count)
    return DocumentLosses(np.array([0.5]), np.zeros(count, int), ones, ones, slopes[:, None], 2 * ones[:, None, None])


def test_the_minimum_moves_as_the_mean_of_the_slopes_does():
    spread = spread_of_minimizer(documents(400, noise=1.0), np.ones(1), seed=0)
    assert spread.weights_sd[0] == pytest.approx(1.0 / 2 / 400**0.5, rel=0.15)
    # A quadratic of curvature 2 loses the square of the distance.
    assert spread.regret == pytest.approx(spread.weights_sd[0] ** 2, rel=0.15)


def test_four_times_the_documents_cost_a_quarter_of_the_regret():
    few, many = (spread_of_minimizer(documents(count, 1.0), np.ones(1), seed=0) for count in (200, 800))
    assert many.regret == pytest.approx(few.regret / 4, rel=0.35)


def test_documents_that_agree_leave_nothing_to_chance():
    spread = spread_of_minimizer(documents(50, noise=0.0), np.ones(1), seed=0)
    assert spread.weights_sd[0] == pytest.approx(0, abs=1e-12)
    assert spread.regret == pytest.approx(0, abs=1e-12)
