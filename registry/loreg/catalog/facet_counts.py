"""The statement that counts what versions have, by kind of facet: each version and its adapter are read once."""

from __future__ import annotations

import functools

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Label,
    Select,
    Text,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog.compiled import AnyOf, text_array
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
from loreg.catalog.search_conditions import was_checked
from loreg.catalog.search_ids import select_ids
from loreg.catalog.version_json import JsonRows
from loreg.entities import FacetKind, Query
from loreg.refs import NO_NAMESPACE

MAX_COUNTED = 2000  # versions, the newest that match: as many as are ranked
TOTAL, CHECKED, FINDINGS = "versions", "checked", "findings"
MAX_VALUES = 10  # of each kind
_NO_RANGE: tuple[Label[float], ...] = tuple(cast(null(), Double()).label(name) for name in ("low", "high", "better"))
Counts = Select[str, str, int, float, float, float]


@functools.lru_cache(maxsize=64)
def select_facets(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select kind, value, count and the columns of :func:`select_ranges`.

    The row ``TOTAL`` counts the versions, one more than are looked at if any are left; ``CHECKED`` those that were
    checked, and each row ``FINDINGS`` those that have just these codes of the parameter ``keeping_codes``.
    """
    matching = _select_matching(shape, sees_all)
    namespace = func.coalesce(func.nullif(matching.c.namespace, _text("")), _text(NO_NAMESPACE))
    parts = [
        select(_text(TOTAL), _text(""), func.count(), *_NO_RANGE).select_from(matching),
        select(_text(CHECKED), _text(""), func.count(), *_NO_RANGE)
        .select_from(matching)
        .where(was_checked(matching.c.id)),
        _select_findings(matching),
        _select_counts(FacetKind.TASK, task_table.c.task, _of_versions(task_table, matching)),
        _select_bases(matching),
        _select_counts(FacetKind.RANK, cast(matching.c.rank_max, Text()), matching),
        _select_counts(FacetKind.MODULE, module_type_table.c.name, _of_versions(module_type_table, matching)),
        _select_counts(FacetKind.VARIANT, matching.c.variant, matching),
        _select_counts(FacetKind.NAMESPACE, namespace, matching),
        _select_metrics(matching),
    ]
    return union_all(*(select(part.subquery()) for part in parts))


@functools.lru_cache(maxsize=64)
def select_ranges(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select the metrics of the versions alone: name, versions, least, greatest, and how often higher is better."""
    return _select_metrics(_select_matching(shape, sees_all))


def _select_matching(shape: Query, sees_all: bool) -> CTE:
    version = version_table.c
    columns = (version.rank_max, version.variant, version.base_id, version.base_hint, adapter_table.c.namespace)
    return select(select_ids(shape, sees_all, MAX_COUNTED + 1, columns)).cte("matching")


def _of_versions(table: FromClause, matching: CTE) -> FromClause:
    return table.join(matching, matching.c.id == table.c.version_id)


def _select_counts(
    kind: FacetKind,
    value: ColumnElement[str],
    source: FromClause,
    versions: ColumnElement[int] = func.count(),  # noqa: B008  a clause, which nothing changes
) -> Counts:
    counts = select(value.label("value"), versions.label("versions")).select_from(source)
    top = counts.group_by(value).order_by(versions.desc(), value).limit(MAX_VALUES).subquery()
    return select(_text(kind), top.c.value, top.c.versions, *_NO_RANGE)


def _select_bases(matching: CTE) -> Counts:
    """Select bases by their first name, or else by digest; those that are known by name only by that."""
    hint = case((matching.c.base_id.is_(None), matching.c.base_hint))
    rows = select(matching.c.base_id, hint.label("hint"), func.count().label("versions"))
    of_base = rows.group_by(matching.c.base_id, hint).subquery()
    name = select(func.min(base_name_table.c.name)).where(base_name_table.c.base_id == of_base.c.base_id)
    digest = select(base_table.c.digest).where(base_table.c.id == of_base.c.base_id)
    value = func.coalesce(name.scalar_subquery(), digest.scalar_subquery(), of_base.c.hint)
    named = select(value.label("value"), of_base.c.versions).subquery()
    versions = cast(func.sum(named.c.versions), Integer())
    return _select_counts(FacetKind.BASE, named.c.value, named, versions)


def _select_findings(matching: CTE) -> Counts:
    """Select which codes of the parameter ``keeping_codes`` a version has together, and how many have just these."""
    codes = cast(JsonRows(finding_table.c.code), Text()).label("codes")
    of_versions = select(codes).join(matching, matching.c.id == finding_table.c.version_id)
    is_one = AnyOf(finding_table.c.code, text_array("keeping_codes"))
    by_version = of_versions.where(is_one).group_by(finding_table.c.version_id).subquery()
    return select(_text(FINDINGS), by_version.c.codes, func.count(), *_NO_RANGE).group_by(by_version.c.codes)


def _select_metrics(matching: CTE) -> Counts:
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
        .limit(MAX_VALUES)
        .subquery()
    )
    return select(_text(FacetKind.METRIC), *top.c)


def _text(word: str) -> ColumnElement[str]:
    return cast(literal_column(f"'{word}'"), Text())
