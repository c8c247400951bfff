"""Which recipes no other beats on every task."""

from __future__ import annotations

import numpy as np

from loreg.sweeping.loss_model import Array


def pareto_front(losses: Array) -> list[int]:
    """Return the rows of ``losses`` (P, T) that are dominated by none, in order; of two that are equal, the first.

    A row is dominated by another that is nowhere larger and somewhere smaller.
    """
    front = []
    for i, row in enumerate(losses):
        no_worse = (losses <= row).all(1)
        better = no_worse & (losses < row).any(1)
        twin = no_worse[:i] & (losses[:i] == row).all(1)
        if not better.any() and not twin.any() and np.isfinite(row).all():
            front.append(i)
    return front
