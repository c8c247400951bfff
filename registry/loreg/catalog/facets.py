"""Count what the versions of a search have: tasks, bases, ranks, modules, variants and metrics."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import CTE, ColumnElement, Select, Text, cast, func, literal_column, select, union_all
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog.near_names import is_public_name, resolve_terms
from loreg.catalog.schema import (
    base_name_table,
    base_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search import split_for
from loreg.catalog.search_ids import select_ids
from loreg.catalog.transaction import Transaction
from loreg.entities import FacetCount, FacetKind, Facets, Query, Sort, TermMatch

MAX_COUNTED = 5000  # versions, the newest that match
_MAX_VALUES = 10  # of each kind
_TOTAL = "versions"


def count_facets(tx: Transaction, query: Query) -> Facets:
    """Return how many of the versions that fulfill every condition have which value, of the newest if there are many.

    Tasks and base are taken as :func:`loreg.catalog.search.search` takes them.
    """
    facets = _count(tx, query, ())
    if facets.versions or not (query.tasks or query.base):
        return facets
    matches = resolve_terms(tx, query)
    if matches and all(match.names for match in matches):
        return _count(tx, query, matches)
    return replace(facets, matches=matches)


def _count(tx: Transaction, query: Query, matches: Sequence[TermMatch]) -> Facets:
    query = replace(query, sort=Sort(), best=False, cursor=None, all_versions=query.reads_all_versions)
    shape, values = split_for(tx, query, matches)
    rows = tx.select_compiled(_select_facets(shape, tx.sees_all), **values)
    totals = [versions for kind, _, versions in rows if kind == _TOTAL]
    counts: dict[tuple[FacetKind, str], int] = {}
    for kind, value, versions in rows:
        if kind != _TOTAL:
            is_hidden = kind == FacetKind.BASE and not is_public_name(value)
            key = FacetKind(kind), "" if is_hidden else value
            counts[key] = counts.get(key, 0) + versions
    ordered = sorted(counts.items(), key=lambda item: (tuple(FacetKind).index(item[0][0]), -item[1], item[0][1]))
    return Facets(
        min(totals[0], MAX_COUNTED),
        totals[0] > MAX_COUNTED,
        tuple(FacetCount(kind, value, versions) for (kind, value), versions in ordered),
        tuple(matches),
    )


@functools.lru_cache(maxsize=64)
def _select_facets(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select kind, value and count; the first row counts the versions, one more than are looked at if any are left."""
    ids = select_ids(shape, sees_all, MAX_COUNTED + 1)
    matching = select(ids.c.id).cte("matching")
    name = select(func.min(base_name_table.c.name)).where(base_name_table.c.base_id == version_table.c.base_id)
    digest = select(base_table.c.digest).where(base_table.c.id == version_table.c.base_id)
    base = func.coalesce(name.scalar_subquery(), digest.scalar_subquery(), version_table.c.base_hint)
    of_version = version_table.c.id
    parts = [
        select(_text(_TOTAL), _text(""), func.count()).select_from(matching),
        _select_counts(FacetKind.TASK, task_table.c.task, task_table.c.version_id, matching),
        _select_counts(FacetKind.BASE, base, of_version, matching),
        _select_counts(FacetKind.RANK, cast(version_table.c.rank_max, Text()), of_version, matching),
        _select_counts(FacetKind.MODULE, module_type_table.c.name, module_type_table.c.version_id, matching),
        _select_counts(FacetKind.VARIANT, version_table.c.variant, of_version, matching),
        _select_counts(FacetKind.METRIC, metric_table.c.name, metric_table.c.version_id, matching),
    ]
    return union_all(*(select(part.subquery()) for part in parts))


def _select_counts(
    kind: FacetKind, value: ColumnElement[str], version_id: ColumnElement[int], matching: CTE
) -> Select[str, str, int]:
    # A version may have a metric on several datasets, and counts once; of all else it has a value once.
    versions = func.count(version_id.distinct()) if kind == FacetKind.METRIC else func.count()
    counts = select(value.label("value"), versions.label("versions")).join(matching, matching.c.id == version_id)
    top = counts.group_by(value).order_by(versions.desc(), value).limit(_MAX_VALUES).subquery()
    return select(_text(kind), top.c.value, top.c.versions)


def _text(word: str) -> ColumnElement[str]:
    return cast(literal_column(f"'{word}'"), Text())
