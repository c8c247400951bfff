"""Which entries of a delta a method keeps: the largest, those between two magnitudes, a seeded draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.merging.method import Values

if TYPE_CHECKING:
    from loreg.merging.entrywise import TiledDelta


@dataclass(frozen=True)
class PruneRule:
    """Which entries are kept.

    ``drop(module, entries, t, row, column)`` sets entries of source t to zero, in place, in the block that begins at
    (row, column). ``counts(values, n)`` says how many of the n largest bound those that are kept: their magnitudes
    are found first, as ``module.cuts[t]``. ``whole_rows`` asks for blocks of whole rows.
    """

    prune: Callable[[TiledDelta, Tensor, int, int, int], None]
    counts: Callable[[Values, int], tuple[int, ...]]
    whole_rows: bool = False


def keep_largest(module: TiledDelta, entries: Tensor, t: int, row: int, column: int) -> None:
    """Entries whose magnitude reaches the cut."""
    (cut,) = module.thresholds[t]
    if entries.is_cuda:  # where asking for the number means to wait for everything before it
        entries.mul_(entries.abs() >= cut)
    elif cut > 0:
        below = torch.nextafter(cut, cut.new_zeros(()))  # hardshrink keeps what is larger
        torch.hardshrink(entries, float(below), out=entries)


def keep_between(module: TiledDelta, entries: Tensor, t: int, row: int, column: int) -> None:
    """Entries whose magnitude reaches the lower cut and stays below the upper one."""
    low, high = module.thresholds[t]
    magnitude = entries.abs()
    entries.mul_((magnitude >= low) & (magnitude < high))


def keep_at_random(module: TiledDelta, entries: Tensor, t: int, row: int, column: int) -> None:
    """Entries that a seeded draw keeps; rescaled by 1/density unless another rule is chosen."""
    density = module.values["density"]
    entries.mul_(counter_rng.bernoulli_mask(density, module.keys[t], row, column, entries))
    if module.values["rescale"] == "density":
        entries.div_(density)


def keep_large_at_random(module: TiledDelta, entries: Tensor, t: int, row: int, column: int) -> None:
    """Entries by a draw whose probability grows with the rank of their magnitude in the row (MAGPRUNE)."""
    density, window = module.values["density"], module.values["epsilon"]
    columns = entries.shape[-1]
    order = entries.abs().argsort(dim=-1, stable=True)
    places = torch.arange(columns, device=entries.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(-1, order, places)
    probability = (density + window * (ranks.double() / max(columns - 1, 1) - 0.5)).clamp(0, 1)
    entries.mul_(counter_rng.bernoulli_mask(probability, module.keys[t], row, column, entries))
    if module.values["rescale"] == "density":
        entries.div_(probability.clamp_min_(1e-12))


def count_largest(values: Values, total: int) -> tuple[int, ...]:
    """TIES and magnitude pruning keep the ``⌊density·n⌋`` largest, as PEFT does."""
    return (int(values["density"] * total),)


def count_without_outliers(values: Values, total: int) -> tuple[int, ...]:
    """Breadcrumbs drops the ``⌊γ·n⌋`` largest, or fewer, and keeps the ``⌊density·n⌋`` below them."""
    kept = int(values["density"] * total)
    outliers = min(int(values["gamma"] * total), total - kept)
    return outliers + kept, outliers


def count_none(values: Values, total: int) -> tuple[int, ...]:
    """Nothing is kept by its place among the others."""
    return ()


LARGEST = PruneRule(keep_largest, count_largest)
BETWEEN = PruneRule(keep_between, count_without_outliers)
AT_RANDOM = PruneRule(keep_at_random, count_none)
LARGE_AT_RANDOM = PruneRule(keep_large_at_random, count_none, whole_rows=True)
