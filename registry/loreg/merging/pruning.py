"""The rules by which methods prune a delta: keep the largest entries, those between two magnitudes, a random draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.merging.method import Values


@dataclass(frozen=True)
class Block:
    """A block of one source's entries: where it begins in the delta, and what decides which of them are kept.

    ``thresholds`` are the magnitudes that the rule asked for, ``key`` seeds a random draw, ``values`` are the method's
    parameters.
    """

    row: int
    column: int
    key: int
    thresholds: tuple[Tensor, ...]
    values: Values


@dataclass(frozen=True)
class PruneRule:
    """Which entries of a source are kept.

    ``prune(entries, block)`` sets the others to zero, in place. ``counts(values, total)`` says how many of ``total``
    entries shall reach each threshold; the thresholds are found first. ``whole_rows`` asks for blocks of whole rows.
    """

    prune: Callable[[Tensor, Block], None]
    counts: Callable[[Values, int], tuple[int, ...]]
    whole_rows: bool = False


def keep_largest(entries: Tensor, block: Block) -> None:
    """Keep entries whose magnitude reaches the threshold."""
    (threshold,) = block.thresholds
    if entries.is_cuda:  # where asking for the number means to wait for everything before it
        entries.mul_(entries.abs() >= threshold)
    elif threshold > 0:
        below = torch.nextafter(threshold, threshold.new_zeros(()))  # hardshrink keeps what is larger
        torch.hardshrink(entries, float(below), out=entries)


def keep_between(entries: Tensor, block: Block) -> None:
    """Keep entries whose magnitude reaches the lower threshold and stays below the upper one."""
    low, high = block.thresholds
    magnitudes = entries.abs()
    entries.mul_((magnitudes >= low) & (magnitudes < high))


def keep_at_random(entries: Tensor, block: Block) -> None:
    """Keep entries that a seeded draw chooses, rescaled by 1/density unless ``rescale`` says otherwise."""
    density = block.values["density"]
    # drop
    entries.mul_(counter_rng.bernoulli_mask(density, block.key, block.row, block.column, entries))
    # rescale
    if block.values["rescale"] == "density":
        entries.div_(density)


def keep_large_at_random(entries: Tensor, block: Block) -> None:
    """Keep entries by a draw whose probability grows with the rank of their magnitude in the row (MAGPRUNE)."""
    density, window = block.values["density"], block.values["epsilon"]
    columns = entries.shape[-1]
    # rank
    order = entries.abs().argsort(dim=-1, stable=True)
    places = torch.arange(columns, device=entries.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(-1, order, places)
    probability = (density + window * (ranks.double() / max(columns - 1, 1) - 0.5)).clamp(0, 1)
    # drop
    entries.mul_(counter_rng.bernoulli_mask(probability, block.key, block.row, block.column, entries))
    # rescale
    if block.values["rescale"] == "density":
        entries.div_(probability.clamp_min_(1e-12))


def count_largest(values: Values, total: int) -> tuple[int, ...]:
    """Return how many entries TIES and magnitude pruning keep: the ``⌊density·n⌋`` largest, as PEFT does."""
    return (int(values["density"] * total),)


def count_without_outliers(values: Values, total: int) -> tuple[int, ...]:
    """Return the counts of Breadcrumbs: without the ``⌊γ·n⌋`` largest, or fewer, the ``⌊density·n⌋`` below are kept."""
    kept = int(values["density"] * total)
    outliers = min(int(values["gamma"] * total), total - kept)
    return outliers + kept, outliers


def count_none(values: Values, total: int) -> tuple[int, ...]:
    """Return no count: a draw needs no threshold."""
    return ()


LARGEST = PruneRule(keep_largest, count_largest)
BETWEEN = PruneRule(keep_between, count_without_outliers)
AT_RANDOM = PruneRule(keep_at_random, count_none)
LARGE_AT_RANDOM = PruneRule(keep_large_at_random, count_none, whole_rows=True)
