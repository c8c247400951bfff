"""Find the k-th largest of very many numbers that come in tiles, exactly and in little memory.

A random sample brackets the answer; one pass counts what lies above the bracket and keeps what lies inside. Where
the bracket misses, it is moved and the pass repeated. Source: Floyd & Rivest 1975, Expected time bounds for selection,
CACM 18(3), made for streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

#: Half the bracket's width, in standard deviations of the binomial distribution: one in 16,000 needs another pass.
_DEVIATIONS = 4


def kth_largest(tiles: Callable[[], Iterable[Tensor]], sample: Tensor, total: int, k: int) -> Tensor:
    """Return a threshold () that k (1 ≤ k < total) of the ``total`` numbers in ``tiles()`` reach.

    It lies midway between the k-th largest and the next, so that a number which another order of summation changes in
    its last bit stays on its side. Equal numbers stay together, and then more than k may reach it. The tiles may have
    any shape, and ``tiles()`` is called again for every pass. ``sample`` is some of the numbers, at random.

    >>> tiles = [torch.tensor([5.0, 1.0]), torch.tensor([[4.0, 2.0]])]
    >>> kth_largest(lambda: tiles, tiles[0], total=4, k=2).item()  # midway between 4 and 2
    3.0
    """
    # bracket
    ordered = sample.flatten().sort(descending=True).values
    count = ordered.numel()
    share = k / total
    spread = _DEVIATIONS * (count * share * (1 - share)) ** 0.5 + 1
    first, last = int(count * share - spread), int(count * share + spread)
    high = ordered[first] if first >= 0 else torch.full_like(ordered[0], torch.inf)
    low = ordered[last] if last < count else torch.full_like(ordered[0], -torch.inf)
    while True:
        # count what lies above, keep what lies inside
        above, inside = 0, []
        for tile in tiles():
            tile_above, tile_inside = _split_tile(tile, low, high)
            above += tile_above
            inside.append(tile_inside)
        inside_count = sum(part.numel() for part in inside)
        if above < k < above + inside_count:
            # select
            numbers = torch.cat(inside)
            kth, following = (numbers.kthvalue(above + inside_count - place).values for place in (k - 1, k))
            return following + (kth - following) / 2
        # move the bracket
        if k <= above:
            low, high = high, torch.full_like(high, torch.inf)
        else:
            is_below = inside_count == 0 or k > above + inside_count
            low, high = torch.full_like(low, -torch.inf), low if is_below else high


def _split_tile(tile: Tensor, low: Tensor, high: Tensor) -> tuple[int, Tensor]:
    """Return how many numbers reach ``high``, and those from ``low`` up to it."""
    if tile.is_cuda:
        is_above = tile >= high
        return int(is_above.count_nonzero()), tile[(tile >= low) ^ is_above]
    numbers = tile.numpy()  # shares the memory; NumPy picks by a mask ten times as fast as torch does on a CPU
    mask_above = numbers >= high.numpy()
    return int(np.count_nonzero(mask_above)), torch.from_numpy(numbers[(numbers >= low.numpy()) ^ mask_above])
