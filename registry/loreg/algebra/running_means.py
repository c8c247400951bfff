"""Keep K running means of a stream of deltas: where each goes, from their inner products alone.

Source: Shenaj et al. 2025, K-Merge, arXiv 2510.13537: the first K are kept; each later one is merged into the most
similar of those that are kept, which counts for as many as it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """Into which group a delta went, and its cosine with the mean of that group before; None if it opened the group."""

    group: int
    cosine: float | None


def place_in_order(gram: Tensor, keep: int) -> list[Placement]:
    """Place T deltas, in their order, into ``keep`` groups; ``gram`` (T, T) has their inner products.

    The mean of a group is that of the deltas that it holds, so that its inner products are sums of those in ``gram``.
    Of groups that are equally similar the first is taken; the cosine with a delta of zero is 0.

    >>> import torch
    >>> place_in_order(torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 2.0], [0.0, 2.0, 4.0]]), 2)[2]
    Placement(group=1, cosine=0.5)
    """
    members: list[list[int]] = []
    placements = []
    for t in range(len(gram)):
        if len(members) < keep:
            members.append([t])
            placements.append(Placement(len(members) - 1, None))
            continue
        cosines = [_cosine_with_mean(gram, t, group) for group in members]
        best = max(range(keep), key=cosines.__getitem__)
        members[best].append(t)
        placements.append(Placement(best, cosines[best]))
    return placements


def _cosine_with_mean(gram: Tensor, t: int, group: list[int]) -> float:
    """Return the cosine of a delta with the mean of a group: the number of its members cancels."""
    product = float(gram[t, group].sum())
    size = max(float(gram[t, t] * gram[group][:, group].sum()), 0.0) ** 0.5
    return max(-1.0, min(1.0, product / size)) if size else 0.0
