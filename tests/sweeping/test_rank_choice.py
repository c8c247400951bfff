"""Which rank is small enough: by output errors, and by the loss that one or two evaluations find."""

from __future__ import annotations

import numpy as np

from loreg.sweeping.rank_choice import choose_rank


class Evaluation:
    """A loss that grows with the error of the cut, at another rate than the errors promise."""

    def __init__(self, errors: np.ndarray, gain: float, rate: float) -> None:
        self.errors, self.slope, self.ranks = errors, rate * gain / errors[0], []

    def __call__(self, rank: int) -> float:
        self.ranks.append(rank)
        return float(self.slope * self.errors[rank])


def halving(most: int) -> np.ndarray:
    """Errors (R + 1) of cuts to each rank, a half of what is left with each, none at the whole rank."""
    return np.append(2.0 ** -np.arange(most), 0.0)


def choose(errors: np.ndarray, rate: float) -> tuple[int | None, list[int]]:
    evaluation = Evaluation(errors, gain=0.3, rate=rate)
    return choose_rank(errors, 0.3, evaluation), evaluation.ranks


def test_the_smallest_power_of_two_that_costs_a_hundredth_of_the_gain():
    # 2⁻⁸ is below 0.01, 2⁻⁴ is not
    assert choose(halving(20), rate=1) == (8, [8])


def test_an_evaluation_that_finds_the_loss_steeper_asks_for_a_larger_rank():
    assert choose(halving(20), rate=4) == (16, [8, 16])


def test_an_evaluation_that_finds_it_flatter_asks_for_a_smaller_one():
    assert choose(halving(20), rate=0.1) == (4, [8, 4])


def test_where_no_cut_is_cheap_enough_the_rank_stays():
    assert choose(halving(6), rate=1) == (None, [])
    assert choose(halving(12), rate=100) == (None, [8])


def test_directions_that_do_nothing_cost_nothing():
    assert choose(np.array([1.0, 0, 0, 0, 0]), rate=1) == (1, [1])
