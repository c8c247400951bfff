"""A Gaussian process through evaluations: right where they were made, and unsure where none was."""

from __future__ import annotations

import numpy as np
import pytest

from loreg.sweeping.gaussian_process import fit_gaussian_process
from loreg.sweeping.loss_model import Array


def wave(points: Array) -> Array:
    return 2 + np.sin(2 * points[:, 0]) * np.cos(points[:, 1])


@pytest.fixture
def points() -> Array:
    return np.random.default_rng(2).uniform(0, 1, (40, 2))


def test_it_foretells_a_smooth_loss_and_says_how_sure_it_is(points: Array):
    process = fit_gaussian_process(points, wave(points))
    elsewhere = np.random.default_rng(3).uniform(0.1, 0.9, (50, 2))
    expected, deviation = process.predict(elsewhere)
    np.testing.assert_allclose(expected, wave(elsewhere), atol=0.01)
    far, unsure = process.predict(np.array([[9.0, 9.0]]))
    assert far[0] == pytest.approx(wave(points).mean())
    assert unsure[0] > 20 * deviation.max()


def test_it_is_the_formula_of_the_book(points: Array):
    losses = wave(points)
    process = fit_gaussian_process(points, losses)
    asked, known = np.array([0.3, 0.6]), points

    def kernel(x: Array, y: Array) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * process.length**2)))

    # Rasmussen and Williams, eq. 2.25 and 2.26, for losses of unit variance
    covariance = np.linalg.inv(process.inverse)
    cross = np.array([kernel(asked, x) for x in known])
    scaled = (losses - losses.mean()) / losses.std()
    expected, deviation = process.predict(asked[None])
    assert expected[0] == pytest.approx(
        losses.mean() + losses.std() * cross @ np.linalg.solve(covariance, scaled), abs=1e-6
    )
    variance = 1 - cross @ np.linalg.solve(covariance, cross)
    assert deviation[0] == pytest.approx(losses.std() * np.sqrt(max(variance, 1e-12)), rel=0.05)


def test_noise_is_smoothed_and_not_followed(points: Array):
    noisy = wave(points) + 0.3 * np.random.default_rng(4).standard_normal(len(points))
    expected, _ = fit_gaussian_process(points, noisy).predict(points)
    assert np.abs(expected - wave(points)).mean() < 0.6 * np.abs(noisy - wave(points)).mean()


def test_equal_losses_say_nothing_and_break_nothing(points: Array):
    expected, _ = fit_gaussian_process(points, np.full(len(points), 1.5)).predict(points)
    np.testing.assert_allclose(expected, 1.5)
