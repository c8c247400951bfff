"""Select the ids of the versions that a search finds, in an order that an index has, so that no more is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    SQLColumnExpression,
    Subquery,
    and_,
    bindparam,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from loreg.catalog.compiled import AnyOf, id_array
from loreg.catalog.schema import (
    adapter_table,
    label_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search_conditions import (
    BaseCondition,
    base_conditions,
    child_conditions,
    conditions_of,
    has_task,
    is_newest,
    matches_metric,
)
from loreg.catalog.search_shape import FEW_ADAPTERS, is_near
from loreg.catalog.transaction import visible_to
from loreg.entities import Query, SortKey


def select_ids(shape: Query, sees_all: bool, limit: int, extra: Sequence[Column[Any]] = ()) -> Subquery:
    """Select the ids of so many versions at most, with their sort keys, on the base by content or by name.

    ``extra`` are other columns of the versions, or of their adapters.
    """
    order = order_of_shape(shape)
    pages = [_select_ids_on(shape, order, on, sees_all, limit, extra) for on in base_conditions(shape.base)]
    if len(pages) == 1:
        return pages[0]
    union = union_all(*map(select, pages)).subquery()
    return select(union).order_by(*order.clauses(sort_columns(union))).limit(limit_to(limit)).subquery()


def _select_ids_on(
    shape: Query, order: Order, on: BaseCondition, sees_all: bool, limit: int, extra: Sequence[Column[Any]]
) -> Subquery:
    """Select the ids of a page of the versions on one base, with their sort keys."""
    exact_tasks = [name for name in shape.tasks if not is_near(name)]
    with_task = bool(exact_tasks) and on.text is not None
    if shape.sort.by == SortKey.METRIC and exact_tasks and on.text is not None:
        order = _by_metric(shape, _measured_for_task(shape, exact_tasks.pop(0), on.text))
    columns = (column.label(f"sort_{index}") for index, column in enumerate(order.columns))
    statement = select(version_table.c.id, *columns, *extra).join(
        adapter_table, adapter_table.c.id == version_table.c.adapter_id
    )
    if order.join is not None:
        statement = statement.join(order.join, order.join.c.version_id == version_table.c.id).where(*order.conditions)
    # A version has each of these once: when they are joined, an index gives them in the order of the page.
    for name in exact_tasks:
        task = task_table.alias()
        statement = statement.join(task, task.c.version_id == version_table.c.id).where(task.c.task == bindparam(name))
        if on.text is not None:
            statement = statement.where(task.c.base == on.text)
    for name in shape.modules:
        module = module_type_table.alias()
        statement = statement.join(module, module.c.version_id == version_table.c.id).where(
            module.c.name == bindparam(name)
        )
    for key, value in shape.labels:
        label = label_table.alias()
        statement = statement.join(label, label.c.version_id == version_table.c.id)
        statement = statement.where(label.c.key == bindparam(key), label.c.value == bindparam(value))
    near_tasks = (has_task(version_table.c, name) for name in shape.tasks if is_near(name))
    on_base = on.with_task if with_task else on.on(version_table.c)
    statement = statement.where(
        visible_to(sees_all, adapter_table.c.namespace), *on_base, *near_tasks, *conditions_of(shape, version_table.c)
    )
    if shape.namespace == FEW_ADAPTERS:
        statement = statement.where(AnyOf(version_table.c.adapter_id, id_array("adapter_ids")))
    elif shape.namespace:
        statement = statement.where(adapter_table.c.namespace == bindparam(shape.namespace))
    if not shape.reads_all_versions:
        statement = statement.where(is_newest())
    if shape.cursor:
        statement = statement.where(order.after())
    return statement.order_by(*order.clauses(order.columns)).limit(limit_to(limit)).subquery()


def sort_columns(page: FromClause) -> list[ColumnElement[object]]:
    """Return those columns of a page by which it is in order."""
    return [column for column in page.c if column.name.startswith("sort_")]


def limit_to(count: int) -> ColumnElement[int]:
    """Return how many rows are selected, written out: PostgreSQL plans for it."""
    return literal_column(str(count))


class Order(msgspec.Struct, frozen=True):
    """A total order of versions: all columns go the same way, and the last is unique."""

    columns: Sequence[ColumnElement[Any]]
    types: Sequence[type]
    descending: bool
    join: FromClause | None = None
    conditions: Sequence[ColumnElement[bool]] = ()

    def clauses(self, columns: Sequence[SQLColumnExpression[object]]) -> list[ColumnElement[object]]:
        """Return the columns as ORDER BY takes them."""
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        """Return the condition that a version comes after the cursor."""
        row = tuple_(*self.columns)
        values = tuple_(*(bindparam(f"cursor_{i}", type_=column.type) for i, column in enumerate(self.columns)))
        return row < values if self.descending else row > values


BY_RELEVANCE = Order((), (int, int), descending=True)


def order_of_shape(shape: Query) -> Order:
    """Return the order in which a search wants its versions."""
    sort = shape.sort
    if sort.by == SortKey.RELEVANCE:
        return BY_RELEVANCE
    if sort.by == SortKey.CREATED:  # ids grow as versions are recorded
        return Order((version_table.c.id,), (int,), descending=True)
    if sort.by == SortKey.NAME:
        return Order(
            (adapter_table.c.namespace, adapter_table.c.name, version_table.c.number), (str, str, int), descending=False
        )
    if sort.by == SortKey.RANK:
        return Order((version_table.c.rank_max, version_table.c.id), (int, int), descending=False)
    if sort.by == SortKey.SIZE:
        return Order((version_table.c.bytes, version_table.c.id), (float, int), descending=False)
    metric = metric_table.alias()
    return _by_metric(shape, metric, *matches_metric(metric.c, sort))


def _by_metric(shape: Query, measured: FromClause, *conditions: ColumnElement[bool]) -> Order:
    """Return the order by a metric, whose numbers are those rows of ``measured`` that fulfill the conditions."""
    conditions = (*conditions, ~_has_better(shape, measured.c))
    columns = (measured.c.score, measured.c.version_id)
    return Order(columns, (float, int), descending=True, join=measured, conditions=conditions)


def _measured_for_task(shape: Query, task_name: str, base: ColumnElement[str]) -> Subquery:
    """Select the numbers of a metric, in order, of all versions for a task on a base.

    They are few enough to be sorted before anything else is asked of them, which is then asked until a page is full.
    The OFFSET keeps PostgreSQL from asking that of all.
    """
    metric, task = metric_table.alias(), task_table.alias()
    columns = metric.c
    return (
        select(columns.version_id, columns.score, columns.dataset, columns.split)
        .join(task, task.c.version_id == columns.version_id)
        .where(task.c.task == bindparam(task_name), task.c.base == base, *matches_metric(columns, shape.sort))
        .order_by(columns.score.desc(), columns.version_id.desc())
        .offset(literal_column("0"))
        .subquery()
    )


def _has_better(shape: Query, measured: Any) -> ColumnElement[bool]:
    """Return the condition that another number goes before this one: of the version, or with ``best`` of its adapter.

    Of an adapter only the versions count that fulfill all other conditions.
    """
    better = metric_table.alias()
    keys = [tuple_(m.score, m.version_id, m.dataset, m.split) for m in (better.c, measured)]
    is_better = (*matches_metric(better.c, shape.sort), keys[0] > keys[1])
    if not shape.best:
        return exists().where(better.c.version_id == measured.version_id, *is_better)
    other = version_table.alias()
    on_base = [and_(*on.on(other.c)) for on in base_conditions(shape.base)]
    return exists().where(
        other.c.adapter_id == version_table.c.adapter_id,
        better.c.version_id == other.c.id,
        *is_better,
        or_(*on_base),
        *conditions_of(shape, other.c),
        *child_conditions(shape, other.c),
    )
