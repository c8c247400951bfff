"""The smallest rank that costs next to nothing: the output error of each cut orders the ranks, evaluations scale it."""

from __future__ import annotations

from collections.abc import Callable

from loreg.sweeping.loss_model import Array

#: How much of the gain over the base a cut may cost.
BOUND = 0.01
MAX_EVALUATIONS = 2


def choose_rank(errors: Array, gain: float, added_loss: Callable[[int], float]) -> int | None:
    """Return the smallest power of two that costs at most 1 % of ``gain``, or None where no cut does.

    ``errors`` (R + 1) is the output error of a cut to each rank, falling to zero. The loss is taken to grow with it:
    first as if cutting all cost the whole gain, then as ``added_loss`` of a rank has measured, twice at most.
    """
    slope, bound = gain / errors[0] if errors[0] > 0 else 0.0, BOUND * gain
    measured: dict[int, float] = {}
    while len(measured) < MAX_EVALUATIONS:
        rank = 1
        while rank < len(errors) - 1 and slope * errors[rank] > bound:
            rank *= 2
        if rank >= len(errors) - 1 or rank in measured:
            break
        measured[rank] = added_loss(rank)
        slope = max(measured[rank], 0.0) / errors[rank] if errors[rank] > 0 else 0.0
    return min((rank for rank, added in measured.items() if added <= bound), default=None)
