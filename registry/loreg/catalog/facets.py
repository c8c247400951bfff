"""Count what the versions of a search have: tasks, bases, ranks, modules, variants, namespaces, servers and metrics."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace
from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Double,
    Integer,
    Label,
    Select,
    Text,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.near_names import is_public_name, resolve_terms
from loreg.catalog.schema import (
    adapter_table,
    base_name_table,
    base_table,
    finding_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search import split_for
from loreg.catalog.search_conditions import was_checked
from loreg.catalog.search_ids import select_ids
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonRows
from loreg.entities import FacetCount, FacetKind, Facets, MetricRange, Query, Sort, TermMatch
from loreg.refs import NO_NAMESPACE

MAX_COUNTED = 5000  # versions, the newest that match
_MAX_VALUES = 10  # of each kind
_TOTAL, _CHECKED, _FINDINGS = "versions", "checked", "findings"
_NO_RANGE: tuple[Label[float], ...] = tuple(cast(null(), Double()).label(name) for name in ("low", "high", "better"))


def count_facets(
    tx: Transaction, query: Query, servers: Mapping[str, Collection[str]] = MappingProxyType({})
) -> Facets:
    """Return how many of the versions that fulfill every condition have which value, of the newest if there are many.

    Tasks and base are taken as :func:`loreg.catalog.search.search` takes them. ``servers`` are the codes of findings
    that keep an adapter from being served, by the server's name.
    """
    facets = _count(tx, query, (), servers)
    if facets.versions or not (query.tasks or query.base):
        return facets
    matches = resolve_terms(tx, query)
    if matches and all(match.names for match in matches):
        return _count(tx, query, matches, servers)
    return replace(facets, matches=matches)


def _count(
    tx: Transaction, query: Query, matches: Sequence[TermMatch], servers: Mapping[str, Collection[str]]
) -> Facets:
    query = replace(query, sort=Sort(), best=False, cursor=None, all_versions=query.reads_all_versions)
    shape, values = split_for(tx, query, matches)
    values["keeping_codes"] = sorted({code for codes in servers.values() for code in codes})
    rows = tx.select_compiled(_select_facets(shape, tx.sees_all), **values)
    totals = {kind: versions for kind, _, versions, *_ in rows if kind in (_TOTAL, _CHECKED)}
    counts: Counter[tuple[FacetKind, str]] = Counter()
    for kind, value, versions, *_ in rows:
        if kind in set(FacetKind):
            is_hidden = kind == FacetKind.BASE and not is_public_name(value)
            counts[FacetKind(kind), "" if is_hidden else value] += versions
    findings = [
        ({code for (code,) in json.loads(value)}, versions) for kind, value, versions, *_ in rows if kind == _FINDINGS
    ]
    for server, codes in servers.items():
        kept_out = sum(versions for of_version, versions in findings if not of_version.isdisjoint(codes))
        if loading := totals[_CHECKED] - kept_out:
            counts[FacetKind.LOADS_IN, server] = loading
    if query.metrics:
        shape, values = split_for(tx, replace(query, metrics=()), matches)
        rows = tx.select_compiled(_select_ranges(shape, tx.sees_all), **values)
    ordered = sorted(counts.items(), key=lambda item: (tuple(FacetKind).index(item[0][0]), -item[1], item[0][1]))
    return Facets(
        min(totals[_TOTAL], MAX_COUNTED),
        totals[_TOTAL] > MAX_COUNTED,
        tuple(FacetCount(kind, value, versions) for (kind, value), versions in ordered),
        tuple(matches),
        tuple(
            MetricRange(value, low, high, better >= 0.5)  # undeclared, it may be told both ways: as the most are
            for kind, value, _, low, high, better in rows
            if kind == FacetKind.METRIC
        ),
        totals[_TOTAL] - totals[_CHECKED],
    )


@functools.lru_cache(maxsize=64)
def _select_facets(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select kind, value, count and the columns of :func:`_select_metrics`.

    The first row counts the versions, one more than are looked at if any are left.
    """
    matching = _select_matching(shape, sees_all)
    name = select(func.min(base_name_table.c.name)).where(base_name_table.c.base_id == version_table.c.base_id)
    digest = select(base_table.c.digest).where(base_table.c.id == version_table.c.base_id)
    base = func.coalesce(name.scalar_subquery(), digest.scalar_subquery(), version_table.c.base_hint)
    of_adapter = select(adapter_table.c.namespace).where(adapter_table.c.id == version_table.c.adapter_id)
    namespace = func.coalesce(func.nullif(of_adapter.scalar_subquery(), _text("")), _text(NO_NAMESPACE))
    of_version = version_table.c.id
    parts = [
        select(_text(_TOTAL), _text(""), func.count(), *_NO_RANGE).select_from(matching),
        select(_text(_CHECKED), _text(""), func.count(), *_NO_RANGE)
        .select_from(matching)
        .where(was_checked(matching.c.id)),
        _select_findings(matching),
        _select_counts(FacetKind.TASK, task_table.c.task, task_table.c.version_id, matching),
        _select_counts(FacetKind.BASE, base, of_version, matching),
        _select_counts(FacetKind.RANK, cast(version_table.c.rank_max, Text()), of_version, matching),
        _select_counts(FacetKind.MODULE, module_type_table.c.name, module_type_table.c.version_id, matching),
        _select_counts(FacetKind.VARIANT, version_table.c.variant, of_version, matching),
        _select_counts(FacetKind.NAMESPACE, namespace, of_version, matching),
        _select_metrics(matching),
    ]
    return union_all(*(select(part.subquery()) for part in parts))


@functools.lru_cache(maxsize=64)
def _select_ranges(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select the metrics of the versions alone, as :func:`_select_facets` does."""
    return _select_metrics(_select_matching(shape, sees_all))


def _select_matching(shape: Query, sees_all: bool) -> CTE:
    ids = select_ids(shape, sees_all, MAX_COUNTED + 1)
    return select(ids.c.id).cte("matching")


def _select_counts(
    kind: FacetKind, value: ColumnElement[str], version_id: Column[int], matching: CTE
) -> Select[str, str, int, float, float, float]:
    counts = select(value.label("value"), func.count().label("versions")).select_from(version_id.table)
    counts = counts.join(matching, matching.c.id == version_id)
    top = counts.group_by(value).order_by(func.count().desc(), value).limit(_MAX_VALUES).subquery()
    return select(_text(kind), top.c.value, top.c.versions, *_NO_RANGE)


def _select_findings(matching: CTE) -> Select[str, str, int, float, float, float]:
    """Select which codes of the parameter ``keeping_codes`` a version has together, and how many have just these."""
    codes = cast(JsonRows(finding_table.c.code), Text()).label("codes")
    of_versions = select(codes).join(matching, matching.c.id == finding_table.c.version_id)
    is_one = AnyOf(finding_table.c.code, text_array("keeping_codes"))
    by_version = of_versions.where(is_one).group_by(finding_table.c.version_id).subquery()
    return select(_text(_FINDINGS), by_version.c.codes, func.count(), *_NO_RANGE).group_by(by_version.c.codes)


def _select_metrics(matching: CTE) -> Select[str, str, int, float, float, float]:
    """Select of each metric its name, how many versions have it, least, greatest, and how often higher is better."""
    # A version may have a metric on several datasets, and counts once.
    versions = func.count(metric_table.c.version_id.distinct())
    top = (
        select(
            metric_table.c.name,
            versions.label("versions"),
            func.min(metric_table.c.value).label("low"),
            func.max(metric_table.c.value).label("high"),
            cast(func.avg(cast(metric_table.c.higher_is_better, Integer())), Double()).label("better"),
        )
        .join(matching, matching.c.id == metric_table.c.version_id)
        .group_by(metric_table.c.name)
        .order_by(versions.desc(), metric_table.c.name)
        .limit(_MAX_VALUES)
        .subquery()
    )
    return select(_text(FacetKind.METRIC), *top.c)


def _text(word: str) -> ColumnElement[str]:
    return cast(literal_column(f"'{word}'"), Text())
