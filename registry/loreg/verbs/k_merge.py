"""k-merge: keep K adapters out of a stream of them, each later one merged into the most similar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loreg.entities import KeptAdapter, MergeOptions, Progress, no_progress
from loreg.errors import UsageError
from loreg.merging.shared_modules import refuse_different_bases
from loreg.refs import is_path, parse_adapter_name
from loreg.verbs.merge import merge
from loreg.workspace.common_base import common_base, refuse_another_base
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import ResolvedSource, merge_inputs, require_torch, resolve_sources


def k_merge(
    context: Context,
    sources: Sequence[str],
    keep: int,
    *,
    rank: int | Mapping[str, object] | None = None,
    base: Path | str | None = None,
    name: str | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> tuple[KeptAdapter, ...]:
    """Keep ``keep`` adapters out of the refs or folders ``sources``. See :meth:`loreg.registry.Registry.k_merge`."""
    if keep < 1 or not sources:
        raise UsageError(f"{len(sources)} adapters, of which {keep} are kept: expected one or more of both")
    if name is not None:
        parse_adapter_name(f"{name}-1")
    require_torch()
    with resolve_sources(context, sources, progress) as opened:
        from loreg.algebra.running_means import place_in_order
        from loreg.merging.compare import inner_products
        from loreg.merging.device import choose_device

        common, _ = common_base(context, opened, allow_derived=False)
        if base is not None:
            refuse_another_base(context, base, opened)
        for source in opened:
            _refuse_what_has_no_mean(source)
        inputs = merge_inputs(opened, (), base)
        placements = place_in_order(inner_products(inputs, device=choose_device(device), progress=progress), keep)
        groups = [
            [t for t, placement in enumerate(placements) if placement.group == group]
            for group in range(min(keep, len(opened)))
        ]
        for members in groups:  # before anything is written
            refuse_different_bases(
                [opened[t].structure for t in members],
                [opened[t].label for t in members],
                one_base=common is not None or base is not None,
            )
        # A version stays the one that was looked at, whatever its alias says by now.
        pinned = [text if is_path(text) else source.label for text, source in zip(sources, opened, strict=True)]
        labels = [source.label for source in opened]
    return tuple(
        KeptAdapter(
            tuple(labels[t] for t in members),
            tuple(placements[t].cosine for t in members),
            merge(
                context,
                [pinned[t] for t in members],
                MergeOptions([1 / len(members)] * len(members), rank=rank),
                base=base,
                name=f"{name}-{number}" if name is not None else None,
                folder=Path(folder).expanduser() / str(number) if folder is not None else None,
                device=device,
                progress=progress,
            ),
        )
        for number, members in enumerate(groups, 1)
    )


def _refuse_what_has_no_mean(source: ResolvedSource) -> None:
    """Raise UsageError for an adapter that is more than factors on a base that all share."""
    structure = source.structure
    if whole := structure.full_tensors_and_token_rows:
        raise UsageError(
            f"{source.label} has whole tensors, such as {min(whole)}, and of these there is no mean",
            hint="loreg merge takes them from one source, with --extras",
        )
    if structure.config.changes_the_base:
        raise UsageError(
            f"{source.label} changed its base as its training began: its delta needs the initial adapter",
            hint="loreg merge --initial makes a plain adapter of it first",
        )
