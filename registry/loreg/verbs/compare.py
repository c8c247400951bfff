"""compare: measure how alike adapters are, before merging them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from loreg.entities import AdapterComparison, Progress, no_progress
from loreg.entities.display.pictures import refuse_picture, save_picture
from loreg.errors import UsageError
from loreg.identity.clusters import link, seriate
from loreg.workspace.common_base import common_base
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import merge_inputs, require_torch, resolve_sources

FEW = 4  # adapters, which stay in the order in which they were named


def compare(
    context: Context,
    sources: Sequence[str],
    *,
    initial: Sequence[str] = (),
    base: Path | str | None = None,
    device: str = "auto",
    plot: Path | str | None = None,
    progress: Progress = no_progress,
) -> AdapterComparison:
    """Compare every pair of adapters. See :meth:`loreg.registry.Registry.compare`."""
    if len(sources) < 2:
        raise UsageError("expected two adapters or more to compare", hint="loreg compare --help")
    refuse_picture(plot)
    require_torch()
    with resolve_sources(context, [*sources, *initial], progress) as resolved:
        opened, initials = resolved[: len(sources)], resolved[len(sources) :]
        from loreg.merging import compare as comparing
        from loreg.merging.device import choose_device

        common_base(context, opened, allow_derived=True)
        inputs = merge_inputs(opened, initials, base)
        comparison = AdapterComparison(comparing.compare(inputs, device=choose_device(device), progress=progress))
        if len(sources) > FEW:
            comparison = comparison.reorder(order_by_likeness(comparison))
        if plot is not None:
            save_picture(comparison.plot(), plot)
        return comparison


def order_by_likeness(comparison: AdapterComparison) -> list[int]:
    """Return an order of the adapters that were compared, by their places, in which alike ones are neighbours."""
    import numpy as np

    return seriate(1 - np.array(comparison.matrix("cosine")))


def group_near_duplicates(comparison: AdapterComparison) -> list[list[int]]:
    """Return which of the adapters that were compared are nearly the same, in groups of places."""
    count = len(comparison.labels)
    places = zip(combinations(range(count), 2), comparison, strict=True)
    return link(count, (place for place, pair in places if pair.near_duplicate))
