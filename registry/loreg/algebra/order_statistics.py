"""Where to cut very many numbers that come in tiles so that k of them are left, exactly and in little memory.

A random sample brackets the answer; one pass counts what lies above the bracket and keeps what lies inside. Where
the bracket misses, it is moved and the pass repeated. Source: Floyd & Rivest 1975, made for streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

_DEVIATIONS = 4  # of the binomial distribution, on either side of the quantile: one cut in 16,000 needs another pass


def kth_largest(tiles: Callable[[], Iterable[Tensor]], sample: Tensor, total: int, k: int) -> Tensor:
    """A cut that k (1 ≤ k < total) of the ``total`` numbers in ``tiles()`` reach: midway to the next largest.

    Midway, so that a number which another order of summation changes in its last bit stays on its side. Equal
    numbers stay together, and then more than k may reach the cut. ``sample`` is some of the numbers, at random.
    """
    ordered = sample.flatten().sort(descending=True).values
    count = ordered.numel()
    share = k / total
    spread = _DEVIATIONS * (count * share * (1 - share)) ** 0.5 + 1
    first, last = int(count * share - spread), int(count * share + spread)
    high = ordered[first] if first >= 0 else torch.full_like(ordered[0], torch.inf)
    low = ordered[last] if last < count else torch.full_like(ordered[0], -torch.inf)
    while True:
        above, inside = 0, []
        for tile in tiles():
            reaching, between = _compare(tile, low, high)
            above += reaching
            inside.append(between)
        found = sum(part.numel() for part in inside)
        if above < k < above + found:
            between = torch.cat(inside)
            kth, following = (between.kthvalue(above + found - place).values for place in (k - 1, k))
            return following + (kth - following) / 2
        if k <= above:
            low, high = high, torch.full_like(high, torch.inf)
        else:
            low, high = torch.full_like(low, -torch.inf), low if found == 0 or k > above + found else high


def _compare(tile: Tensor, low: Tensor, high: Tensor) -> tuple[int, Tensor]:
    """How many numbers reach ``high``, and those between ``low`` and it."""
    if tile.is_cuda:
        reaching = tile >= high
        return int(reaching.count_nonzero()), tile[(tile >= low) ^ reaching]
    numbers = tile.numpy()  # shares the memory; NumPy picks by a mask ten times as fast as torch does on a CPU
    large = numbers >= high.numpy()
    return int(np.count_nonzero(large)), torch.from_numpy(numbers[(numbers >= low.numpy()) ^ large])
