"""search, ls and show: finding versions and looking at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loreg.entities import AdapterEntry, Details, LineageEdge, Page, Query, Version
from loreg.parsing import parse_comparison, parse_metric_condition, parse_sort
from loreg.refs import parse_adapter_name, parse_ref
from loreg.workspace.context import Context


def search(
    context: Context,
    text: str = "",
    *,
    tasks: Sequence[str] = (),
    base: str = "",
    modules: Sequence[str] = (),
    ranks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    author: str = "",
    variant: str = "",
    sort: str = "created",
    all_versions: bool = False,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Version]:
    """A page of the versions for which every condition holds; of each adapter the newest, unless ``all_versions``.

    ``ranks`` are comparisons such as ``<=16`` with the largest rank, ``metrics`` such as ``accuracy>=0.9@imdb``.
    Raises UsageError for a condition that does not parse.
    """
    query = Query(
        text=text,
        tasks=tuple(tasks),
        base=base,
        modules=tuple(modules),
        ranks=tuple(parse_comparison(rank) for rank in ranks),
        metrics=tuple(parse_metric_condition(metric) for metric in metrics),
        labels=tuple((labels or {}).items()),
        author=author,
        variant=variant,
        sort=parse_sort(sort),
        all_versions=all_versions,
        limit=limit,
        cursor=cursor,
    )
    return context.backend.search(query)


def adapters(context: Context, *, limit: int = 50, cursor: str | None = None) -> Page[AdapterEntry]:
    """A page of all adapters, by name."""
    return context.backend.adapters(limit, cursor)


def versions(context: Context, name: str, *, limit: int = 50, cursor: str | None = None) -> Page[Version]:
    """A page of the versions of one adapter, the newest first, yanked ones too. Raises NotFoundError."""
    return context.backend.versions(parse_adapter_name(name), limit, cursor)


def show(context: Context, ref: str) -> Details:
    """All that is known of the version that ``ref`` means. Raises NotFoundError, ConflictError."""
    return context.backend.show(parse_ref(ref))


def lineage(context: Context, ref: str) -> tuple[Version, tuple[LineageEdge, ...]]:
    """The version that ``ref`` means, and every merge that it descends from, nearest first."""
    return context.backend.lineage(parse_ref(ref))
