"""A search by scores alone: what it evaluates, where it ends, and that it goes on where it was ended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from loreg.sweeping.loss_model import Array
from loreg.sweeping.score_search import ScoreSearch

Loss = Callable[[Array], Array | None]


def bowl(sources: int, seed: int = 0) -> tuple[Loss, Array]:
    """A quadratic loss of two tasks whose mean is least at the second value."""
    generator = np.random.default_rng(seed)
    best = generator.uniform(0.1, 0.7, sources)
    root = generator.normal(size=(sources, sources)) * 0.3 + np.eye(sources)
    tilt = generator.normal(size=sources)

    def loss(point: Array) -> Array:
        value = float(((point - best) @ root) @ ((point - best) @ root))
        return np.array([value + tilt @ point, value - tilt @ point])

    return loss, best


def run(loss: Loss, sources: int, budget: int, history: list[tuple[Array, Array | None]] | None = None):
    search = ScoreSearch(sources, budget, np.array([0.5, 0.5]), seed=3)
    history = [] if history is None else history
    while points := search.next_points(history):
        history += [(point, loss(point)) for point in points]
    return history


def mean_of(losses: Array | None) -> float:
    return np.inf if losses is None else float(losses.mean())


@pytest.mark.parametrize("sources", [2, 3, 5, 8])
def test_the_least_of_a_smooth_loss_is_come_near_in_a_few_evaluations_a_source(sources: int):
    loss, best = bowl(sources, seed=sources)
    history = run(loss, sources, budget=10 + 4 * sources)
    gain = mean_of(loss(np.zeros(sources))) - mean_of(loss(best))
    assert min(mean_of(losses) for _, losses in history) - mean_of(loss(best)) < 0.01 * gain


def test_points_that_are_evaluated_side_by_side_are_different_ones():
    loss, _ = bowl(4)
    search = ScoreSearch(4, 40, np.array([0.5, 0.5]), seed=3)
    history = run(loss, 4, budget=8)
    points = search.next_points(history, 4)
    assert len(points) == 4
    assert all(np.abs(x - y).max() > 0.01 for i, x in enumerate(points) for y in points[:i])
    np.testing.assert_array_equal(points[0], search.next_points(history)[0])


@pytest.mark.parametrize(("sources", "budget"), [(2, 3), (4, 9), (7, 25), (8, 40), (3, 60)])
def test_the_budget_is_kept(sources: int, budget: int):
    loss, _ = bowl(sources)
    assert len(run(loss, sources, budget)) <= budget


def test_common_strengths_come_first_and_weights_of_their_own_better_them():
    loss, _ = bowl(8, seed=1)
    history = run(loss, 8, budget=40)
    common = min(mean_of(losses) for point, losses in history if np.ptp(point) == 0)
    best = min(mean_of(losses) for _, losses in history)
    assert all(np.ptp(point) == 0 for point, _ in history[:4])
    assert best < 0.6 * common


@pytest.mark.parametrize("sources", [3, 8])
def test_it_goes_on_from_any_point_as_if_it_had_never_been_ended(sources: int):
    loss, _ = bowl(sources)
    whole = run(loss, sources, budget=20)
    for cut in range(len(whole)):
        search = ScoreSearch(sources, 20, np.array([0.5, 0.5]), seed=3)
        following = search.next_points(whole[:cut])
        assert following, cut
        np.testing.assert_array_equal(following[0], whole[cut][0])


@pytest.mark.parametrize("sources", [3, 8])
def test_evaluations_that_fail_do_not_end_it(sources: int):
    loss, best = bowl(sources, seed=5)
    calls = iter(range(1000))

    def sometimes(point: Array) -> Array | None:
        return None if next(calls) % 3 == 1 else loss(point)

    history = run(sometimes, sources, budget=30)
    assert any(losses is not None for _, losses in history)
    if sources == 3:
        point, _ = min(history, key=lambda pair: mean_of(pair[1]))
        assert np.abs(point - best).max() < 0.05
