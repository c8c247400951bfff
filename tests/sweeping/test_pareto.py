"""The front: who is beaten by none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loreg.sweeping.pareto import pareto_front

LOSSES = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0, 2.0]))


@given(LOSSES)
def test_who_is_left_out_is_beaten_or_a_twin_and_who_stays_is_not(losses: np.ndarray):
    front = pareto_front(losses)
    rows = losses.tolist()
    for i, row in enumerate(rows):
        beaten = any(
            all(x <= y for x, y in zip(other, row, strict=True)) and any(x < y for x, y in zip(other, row, strict=True))
            for other in rows
        )
        assert (i in front) == (not beaten and row not in rows[:i])


def test_a_row_that_is_no_number_is_on_no_front():
    assert pareto_front(np.array([[np.nan, 0.0], [1.0, 1.0]])) == [1]
