"""compare: measure how alike adapters are, before merging them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from loreg.entities import AdapterSimilarity, Progress, no_progress
from loreg.errors import UsageError
from loreg.identity.clusters import link, seriate
from loreg.workspace.common_base import common_base
from loreg.workspace.context import Context
from loreg.workspace.plotting import open_plotting
from loreg.workspace.resolve_sources import merge_inputs, require_torch, resolve_sources


def compare(
    context: Context,
    sources: Sequence[str],
    *,
    initial: Sequence[str] = (),
    base: Path | str | None = None,
    device: str = "auto",
    plot: Path | str | None = None,
    progress: Progress = no_progress,
) -> tuple[AdapterSimilarity, ...]:
    """Compare every pair of adapters. See :meth:`loreg.registry.Registry.compare`."""
    if len(sources) < 2:
        raise UsageError("expected two adapters or more to compare", hint="loreg compare A B")
    require_torch()
    with resolve_sources(context, [*sources, *initial], progress) as resolved:
        opened, initials = resolved[: len(sources)], resolved[len(sources) :]
        from loreg.merging import compare as comparing
        from loreg.merging.device import choose_device

        common_base(context, opened, allow_derived=True)
        inputs = merge_inputs(opened, initials, base)
        pairs = comparing.compare(inputs, device=choose_device(device), progress=progress)
        if plot is not None:
            with open_plotting(Path(plot)) as drawing:
                order = order_by_likeness(len(opened), pairs)
                labels = [opened[place].label for place in order]
                drawing.draw_comparison(Path(plot), labels, _in_order(order, pairs))
        return tuple(pairs)


def order_by_likeness(count: int, pairs: Sequence[AdapterSimilarity]) -> list[int]:
    """Return an order of ``count`` adapters in which alike ones are neighbours, from the pairs of ``compare``."""
    import numpy as np

    distances = np.zeros((count, count))
    for (i, j), pair in zip(combinations(range(count), 2), pairs, strict=True):
        distances[i, j] = distances[j, i] = 1 - pair.cosine
    return seriate(distances)


def group_near_duplicates(count: int, pairs: Sequence[AdapterSimilarity]) -> list[list[int]]:
    """Return which of ``count`` adapters are nearly the same, in groups, from the pairs of ``compare``."""
    places = zip(combinations(range(count), 2), pairs, strict=True)
    return link(count, (place for place, pair in places if pair.near_duplicate))


def _in_order(order: Sequence[int], pairs: Sequence[AdapterSimilarity]) -> list[AdapterSimilarity]:
    """Return the pairs as comparing the adapters in this order gives them, but for which of two is called a."""
    by_place = dict(zip(combinations(range(len(order)), 2), pairs, strict=True))
    return [by_place[min(i, j), max(i, j)] for i, j in combinations(order, 2)]
