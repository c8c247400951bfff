"""A loss that is quadratic in the weights: its minimum, one strength, and what the data leave open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.sweeping.loss_model import DocumentLosses, LossModel

RANGE = np.linspace(-0.4, 1.9, 231)


def quadratic(seed: int, tasks: int = 3, sources: int = 2, flat: bool = False) -> LossModel:
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(tasks, sources, sources if not flat else 1))
    minima = generator.uniform(0.1, 0.7, (tasks, sources))
    curvatures = roots @ roots.swapaxes(1, 2)
    origin = np.full(sources, 1 / sources)
    gradients = np.einsum("tij,tj->ti", curvatures, origin - minima)
    return LossModel(origin, generator.uniform(2, 4, tasks), gradients, curvatures)


def test_the_prediction_is_the_second_order_expansion_at_the_origin():
    model = quadratic(1)
    weights = np.array([0.9, -0.1])
    step = weights - model.origin
    for task, predicted in enumerate(model.predict(weights)):
        by_hand = model.losses[task] + step @ model.gradients[task] + step @ model.curvatures[task] @ step / 2
        assert predicted == pytest.approx(by_hand, rel=1e-12)
    assert model.predict(np.stack([weights, weights])).shape == (2, 3)


@given(st.integers(0, 10_000))
def test_no_point_of_a_grid_is_better_than_the_minimum(seed: int):
    model, importance = quadratic(seed), np.array([0.5, 0.3, 0.2])
    weights = model.minimize(importance)
    grid = np.stack(np.meshgrid(RANGE, RANGE), -1)
    values = model.predict(grid) @ importance
    at_minimum = float(model.predict(weights) @ importance)
    # The ridge draws the answer to one common strength by a thousandth of the mean curvature, and no more.
    size = np.trace(np.tensordot(importance, model.curvatures, 1)) / 2
    common = model.common_strength(importance)
    unseen = 0.5 * 1e-3 * size * float(((grid.reshape(-1, 2) - common) ** 2).sum(-1).max())
    inside = (weights > -0.5).all() and (weights < 2).all()
    assert at_minimum <= values.min() + unseen or not inside


@given(st.integers(0, 10_000))
def test_no_other_common_strength_is_better(seed: int):
    model, importance = quadratic(seed, sources=4), np.full(3, 1 / 3)
    common = model.common_strength(importance)
    assert np.ptp(common) == 0
    rivals = model.predict(RANGE[:, None] * np.ones(4)) @ importance
    assert float(model.predict(common) @ importance) <= rivals.min() + 1e-9


def test_two_sources_with_the_same_delta_share_their_weight():
    bent = np.array([[[2.0, 2.0], [2.0, 2.0]]])
    model = LossModel(np.array([0.5, 0.5]), np.array([1.0]), np.array([[0.8, 0.8]]), bent)
    first, second = model.minimize(np.ones(1))
    assert first == pytest.approx(second)
    assert first + second == pytest.approx(1 - 0.4, rel=1e-3)


def test_a_flat_direction_stays_where_something_was_measured():
    model = quadratic(3, flat=True)
    weights = model.minimize(np.array([1.0, 0.0, 0.0]))
    assert ((weights >= -0.5) & (weights <= 2)).all()


def test_a_loss_that_bends_nowhere_has_no_minimum_and_stays_in_the_range():
    model = LossModel(np.array([0.5, 0.5]), np.ones(1), np.array([[1.0, -1.0]]), np.zeros((1, 2, 2)))
    weights = model.minimize(np.ones(1))
    assert np.isfinite(weights).all()
    assert ((weights >= -0.5) & (weights <= 2)).all()


def test_documents_add_up_by_tokens_within_their_task():
    documents = DocumentLosses(
        np.array([0.5]),
        np.array([0, 1, 0]),
        np.array([10.0, 5.0, 30.0]),
        np.array([20.0, 5.0, 120.0]),
        np.array([[1.0], [2.0], [3.0]]),
        np.array([[[1.0]], [[2.0]], [[7.0]]]),
    )
    model = documents.fit()
    assert model.losses.tolist() == [140 / 40, 1.0]
    assert model.gradients.tolist() == [[4 / 40], [2 / 5]]
    assert model.curvatures.tolist() == [[[8 / 40]], [[2 / 5]]]
    assert documents.fit(np.array([0.0, 1.0, 2.0])).losses.tolist() == [4.0, 1.0]
