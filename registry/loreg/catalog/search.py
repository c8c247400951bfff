"""Search: one SQL statement per page, never a scan in Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from loreg.catalog import bases
from loreg.catalog.paging import decode, encode
from loreg.catalog.projection import to_version, versions
from loreg.catalog.schema import AdapterRow, LabelRow, MetricRow, ModuleTypeRow, TaskRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.errors import UsageError
from loreg.records import Comparison, MetricCondition, Page, Query, Sort, Version

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def search(tx: Transaction, query: Query) -> Page[Version]:
    """The page of versions that hold every condition. Raises UsageError for a cursor of another search."""
    statement = page_statement(query).where(tx.visible(AdapterRow.namespace))
    order = _order(query.sort)
    rows = tx.connection.execute(statement).all()
    shown = rows[: query.limit]
    cursor = None
    if len(rows) > query.limit:
        key = [_plain(getattr(shown[-1], f"sort_{index}")) for index in range(len(order.columns))]
        cursor = encode(order.name, key)
    return Page(tuple(to_version(row) for row in shown), cursor)


def page_statement(query: Query) -> Select[Any]:
    """The one statement of a page: it selects one row more than the limit, to know whether there is a next."""
    if query.limit < 1:
        raise UsageError(f"a page of {query.limit} versions is not possible", hint="--limit 50")
    order = _order(query.sort)
    statement = versions().add_columns(*(c.label(f"sort_{i}") for i, c in enumerate(order.columns)))
    if order.join is not None:
        statement = statement.join(order.join, order.join.c.version_id == VersionRow.id)
    statement = statement.where(*_conditions(query))
    if query.cursor:
        statement = statement.where(order.after(decode(query.cursor, order.name, order.kinds)))
    return statement.order_by(*order.clauses()).limit(query.limit + 1)


@dataclass(frozen=True)
class _Order:
    """A total order of versions: all columns go the same way, and the last is unique."""

    name: str
    columns: Sequence[Any]
    kinds: Sequence[type]
    descending: bool
    join: Any = None

    def clauses(self) -> list[Any]:
        return [column.desc() if self.descending else column.asc() for column in self.columns]

    def after(self, key: list[Any]) -> ColumnElement[bool]:
        values = [_time(key[0]), *key[1:]] if self.name == "created" else key
        row = tuple_(*self.columns)
        return row < tuple_(*values) if self.descending else row > tuple_(*values)


def _order(sort: Sort) -> _Order:
    if sort.by == "created":
        return _Order("created", (VersionRow.created_at, VersionRow.id), (str, int), descending=True)
    if sort.by == "name":
        return _Order("name", (AdapterRow.name, AdapterRow.namespace, VersionRow.id), (str, str, int), descending=False)
    if sort.by == "rank":
        return _Order("rank", (VersionRow.rank_max, VersionRow.id), (int, int), descending=False)
    if sort.by == "size":
        return _Order("size", (VersionRow.bytes, VersionRow.id), (float, int), descending=False)
    score = case((MetricRow.higher_is_better, MetricRow.value), else_=-MetricRow.value)
    best = select(MetricRow.version_id, func.max(score).label("score")).where(MetricRow.name == sort.metric)
    if sort.dataset:
        best = best.where(MetricRow.dataset == sort.dataset)
    if sort.split:
        best = best.where(MetricRow.split == sort.split)
    table = best.group_by(MetricRow.version_id).subquery("best")
    name = f"metric:{sort.metric}@{sort.dataset}:{sort.split}"
    return _Order(name, (table.c.score, VersionRow.id), (float, int), descending=True, join=table)


def _conditions(query: Query) -> list[ColumnElement[bool]]:
    mine = VersionRow.id
    found: list[ColumnElement[bool]] = [VersionRow.yanked_at.is_(None)]
    if not query.all_versions:
        later = aliased(VersionRow)
        found.append(
            ~exists().where(
                later.adapter_id == VersionRow.adapter_id,
                later.number > VersionRow.number,
                later.yanked_at.is_(None),
            )
        )
    found += [exists().where(TaskRow.version_id == mine, TaskRow.task == task) for task in query.tasks]
    found += [exists().where(ModuleTypeRow.version_id == mine, ModuleTypeRow.name == name) for name in query.modules]
    found += [
        exists().where(LabelRow.version_id == mine, LabelRow.key == key, LabelRow.value == value)
        for key, value in query.labels
    ]
    found += [_compare(VersionRow.rank_max, comparison) for comparison in query.ranks]
    found += [_has_metric(condition) for condition in query.metrics]
    if query.base:
        found.append(_trained_on(query.base))
    if query.author:
        found.append(VersionRow.author == query.author)
    if query.variant:
        found.append(VersionRow.variant == query.variant)
    full_name = AdapterRow.namespace + "/" + AdapterRow.name
    for word in query.text.split():
        places = (full_name, VersionRow.message, VersionRow.card)
        found.append(or_(*(place.icontains(word, autoescape=True) for place in places)))
    return found


def _trained_on(base: str) -> ColumnElement[bool]:
    """Known by content to be ``base``, or only declared to be: the two sides of OR have an index each."""
    if bases.is_digest(base):
        return VersionRow.base_id.in_(bases.matching(base))
    declared = (VersionRow.base_hint == base) & VersionRow.base_id.is_(None)
    return or_(VersionRow.base_id == bases.matching(base).scalar_subquery(), declared)


def _compare(column: Any, comparison: Comparison) -> ColumnElement[bool]:
    result: ColumnElement[bool] = _OPERATORS[comparison.operator](column, comparison.value)
    return result


def _has_metric(condition: MetricCondition) -> ColumnElement[bool]:
    found = exists().where(
        MetricRow.version_id == VersionRow.id,
        MetricRow.name == condition.name,
        _compare(MetricRow.value, condition.comparison),
    )
    if condition.dataset:
        found = found.where(MetricRow.dataset == condition.dataset)
    if condition.split:
        found = found.where(MetricRow.split == condition.split)
    return found


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError("this cursor is not of this search", hint="start again without --cursor") from None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
