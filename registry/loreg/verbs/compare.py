"""compare: measure how alike adapters are, before merging them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loreg.entities import AdapterComparison, Progress, no_progress
from loreg.entities.display.pictures import refuse_picture, save_picture
from loreg.errors import UsageError
from loreg.identity.likeness import sort_by_likeness
from loreg.workspace.common_base import common_base
from loreg.workspace.context import Context
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
        comparison = sort_by_likeness(comparison)
        if plot is not None:
            save_picture(comparison.plot(), plot)
        return comparison
