"""Count the tasks, bases and metrics of what a caller may read, the most used first.

Each is counted anew: a table of counts would be a row that every push waits for. A server counts among a million
adapters no oftener than it can; see :mod:`loreg.local.recent_answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Integer, and_, cast, func, select

from loreg.catalog import metric_declarations
from loreg.catalog.near_names import is_public_name
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import adapter_table, base_name_table, base_table, metric_table, task_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import BaseSummary, Metric, MetricSummary, Page, TaskSummary
from loreg.metric_names import usual_metric
from loreg.refs import AdapterName

T = TypeVar("T")


def list_tasks(tx: Transaction, limit: int, cursor: str | None) -> Page[TaskSummary]:
    """Return a page of the tasks, those of the most versions first."""
    query = select(task_table.c.task).join(version_table, version_table.c.id == task_table.c.version_id)
    rows = tx.connection.execute(_count(_shown(tx, query))).all()
    page = _page([TaskSummary(*row) for row in rows], "tasks", lambda row: (row.versions, row.task), limit, cursor)
    names = [row.task for row in page.items]
    metrics = _most_common_metrics(tx, names)
    units = _units(tx)
    items = (
        TaskSummary(row.task, row.adapters, row.versions, _find_best(tx, units, metrics[row.task], row.task))
        if row.task in metrics
        else row
        for row in page.items
    )
    return Page(tuple(items), page.cursor)


def list_bases(tx: Transaction, limit: int, cursor: str | None) -> Page[BaseSummary]:
    """Return a page of the bases that versions are on, by content or by name, those of the most versions first."""
    version = version_table.c
    known = _count(_shown(tx, select(version.base_id).where(version.base_id.is_not(None)))).subquery()
    query = select(base_table.c.id, base_table.c.digest, known.c.adapters, known.c.versions)
    rows = tx.connection.execute(query.join(known, known.c.base_id == base_table.c.id)).all()
    of_bases = select(base_name_table.c.base_id, func.min(base_name_table.c.name).label("name")).group_by(
        base_name_table.c.base_id
    )
    names = {row.base_id: row.name for row in tx.connection.execute(of_bases)}
    summaries = [BaseSummary(names.get(id_, ""), digest, *numbers) for id_, digest, *numbers in rows]
    declared = _count(_shown(tx, select(version.base_hint).where(version.base_id.is_(None))))
    hidden = [0, 0]
    for hint, adapters, versions in tx.connection.execute(declared):
        if hint and is_public_name(hint):
            summaries.append(BaseSummary(hint, "", adapters, versions))
        else:
            hidden = [hidden[0] + adapters, hidden[1] + versions]
    summaries += [BaseSummary("", "", *hidden)] if hidden[1] else []
    return _page(summaries, "bases", lambda row: (row.versions, row.name or row.digest), limit, cursor)


def list_metrics(tx: Transaction, limit: int, cursor: str | None) -> Page[MetricSummary]:
    """Return a page of what is measured on what, the most common first, each with the best number and its ref."""
    keys = (metric_table.c.name, metric_table.c.dataset, metric_table.c.split)
    query = select(*keys, func.count().label("versions")).join(
        version_table, version_table.c.id == metric_table.c.version_id
    )
    rows = tx.connection.execute(_shown(tx, query.group_by(*keys))).all()
    page = _page(rows, "metrics", lambda row: (row.versions, f"{row.name}@{row.dataset}:{row.split}"), limit, cursor)
    units = _units(tx)
    summaries = (_find_best(tx, units, tuple(row)) for row in page.items)
    return Page(tuple(summary for summary in summaries if summary is not None), page.cursor)


def _shown(tx: Transaction, query: Any) -> Any:
    """Return the query with the conditions that a version may be read and is not yanked."""
    query = query.where(version_table.c.yanked_at.is_(None))
    if tx.sees_all:
        return query
    joined = query.join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    return joined.where(tx.visible(adapter_table.c.namespace))


def _count(query: Any) -> Any:
    """Return, for each value of the column that a query of versions selects, how many adapters and versions have it.

    Grouped twice: counting what is distinct sorts all rows, which took twice as long among a million.
    """
    (column,) = query.selected_columns
    by_adapter = query.add_columns(version_table.c.adapter_id, func.count().label("of_adapter"))
    rows = by_adapter.group_by(column, version_table.c.adapter_id).subquery()
    value = rows.c[column.name]
    versions = cast(func.sum(rows.c.of_adapter), Integer).label("versions")
    return select(value, func.count().label("adapters"), versions).group_by(value)


def _most_common_metrics(tx: Transaction, tasks: Sequence[str]) -> dict[str, tuple[str, str, str, int]]:
    """Return for each task the metric, dataset and split that most of its versions have, and how many."""
    keys = (metric_table.c.name, metric_table.c.dataset, metric_table.c.split)
    versions = func.count()
    query = (
        select(task_table.c.task, *keys, versions)
        .join(metric_table, metric_table.c.version_id == task_table.c.version_id)
        .join(version_table, version_table.c.id == task_table.c.version_id)
        .where(task_table.c.task.in_(tasks))
        .group_by(task_table.c.task, *keys)
        .order_by(versions, *(key.desc() for key in keys))
    )
    rows = tx.connection.execute(_shown(tx, query))
    return {task: (name, dataset, split, count) for task, name, dataset, split, count in rows}  # the last is the most


def _find_best(
    tx: Transaction, units: dict[str, str], row: tuple[str, str, str, int], task: str | None = None
) -> MetricSummary | None:
    """Return the best number of a metric on a dataset and split, with its version, of a task if one is named.

    None if no version has it any more: each statement sees what is there when it begins.
    """
    name, dataset, split, versions = row
    is_it = and_(metric_table.c.name == name, metric_table.c.dataset == dataset, metric_table.c.split == split)
    query = (
        select(
            adapter_table.c.namespace,
            adapter_table.c.name,
            version_table.c.number,
            metric_table.c.value,
            metric_table.c.higher_is_better,
        )
        .select_from(metric_table)
        .join(version_table, version_table.c.id == metric_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(is_it, *_has_task(task), version_table.c.yanked_at.is_(None), tx.visible(adapter_table.c.namespace))
        .order_by(metric_table.c.score.desc(), metric_table.c.version_id.desc())
        .limit(1)
    )
    best_row = tx.connection.execute(query).one_or_none()
    if best_row is None:
        return None
    namespace, adapter, number, value, higher = best_row
    usual = usual_metric(name)
    unit = units.get(name, usual.unit if usual else "")
    best = Metric(name, value, dataset, split, bool(higher))
    return MetricSummary(best, f"{AdapterName(namespace, adapter)}:v{number}", versions, unit)


def _has_task(task: str | None) -> list[ColumnElement[bool]]:
    of_task = select(task_table.c.version_id).where(task_table.c.task == task)
    return [] if task is None else [metric_table.c.version_id.in_(of_task)]


def _units(tx: Transaction) -> dict[str, str]:
    return {declaration.name: declaration.unit for declaration in metric_declarations.list_all(tx)}


def _page(
    rows: Sequence[T], order: str, key: Callable[[T], tuple[int, str]], limit: int, cursor: str | None
) -> Page[T]:
    """Return a page of the rows, those with the highest number first, and of as many by name."""
    ordered = sorted(rows, key=lambda row: (-key(row)[0], key(row)[1]))
    if cursor:
        number, name = decode(cursor, order, (int, str))
        ordered = [row for row in ordered if (-key(row)[0], key(row)[1]) > (-int(str(number)), str(name))]
    shown = ordered[:limit]
    return Page(tuple(shown), encode(order, key(shown[-1])) if len(ordered) > limit else None)
