"""Search versions by task, base, rank, metric, text, …: one SQL statement per page, never a scan in Python."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    SQLColumnExpression,
    Subquery,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.sql.selectable import NamedFromClause, ReturnsRows

from loreg.catalog import bases
from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.near_names import resolve_terms
from loreg.catalog.paging import decode, encode, order_of
from loreg.catalog.schema import (
    MetricColumns,
    VersionColumns,
    adapter_table,
    base_name_table,
    base_table,
    label_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search_shape import (
    BY_DIGEST,
    BY_NEAR_NAMES,
    cursor_values,
    is_near,
    is_order_of_near_names,
    order_of_near_names,
    split_query,
)
from loreg.catalog.search_text import HasText, TextRank, split_query_words, text_parameter_names, text_parameters
from loreg.catalog.transaction import Transaction, visible_to
from loreg.catalog.version_json import select_versions, to_version
from loreg.entities import MetricCondition, Operator, Query, SearchPage, Sort, SortKey, TermMatch
from loreg.errors import UsageError

MAX_RANKED = 2000  # versions, the newest that match a text
_OPERATORS: dict[Operator, Callable[[SQLColumnExpression[float], BindParameter[float]], ColumnElement[bool]]] = {
    Operator.EQUAL: operator.eq,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


def search(tx: Transaction, query: Query) -> SearchPage:
    """Return a page of the versions that fulfill every condition. Raises UsageError for a cursor of another search.

    Tasks and base are taken as they are written. Only if that finds nothing, and they are the name of none, names that
    are near are taken instead, and the page says which.
    """
    if query.cursor is None or not is_order_of_near_names(order_of(query.cursor)):
        page = _select(tx, query, ())
        if page.items or not (query.tasks or query.base):
            return page
    matches = resolve_terms(tx, query)
    if query.cursor is not None or (matches and all(match.names for match in matches)):
        return _select(tx, query, matches)
    return replace(page, matches=matches)


def _select(tx: Transaction, query: Query, matches: Sequence[TermMatch]) -> SearchPage:
    statement, values = page_statement(query, tx.sees_all, matches)
    values |= search_parameters(tx, query)
    rows = tx.select_compiled(statement, **values)  # run by SQLAlchemy a page took 18 to 21 % longer (SQLite, median)
    shown = rows[: query.limit]
    ranked = shown[0][-1] if shown and query.sort.by == SortKey.RELEVANCE else 0
    keys = slice(1, -1 if query.sort.by == SortKey.RELEVANCE else None)
    order = order_of_near_names(query.order, matches)
    cursor = encode(order, list(shown[-1][keys])) if len(rows) > query.limit else None
    return SearchPage(
        tuple(to_version(document) for document, *_ in shown),
        cursor,
        query.reads_all_versions,
        query.best,
        tuple(matches),
        ranked if ranked == MAX_RANKED else None,
    )


def search_parameters(tx: Transaction, query: Query) -> dict[str, object]:
    """Return the parameters of the text of a query, which depend on the database and on the names of bases.

    Raises UsageError for a text that is none to search for.
    """
    words = split_query_words(query.text)
    return text_parameters(tx.connection, words) if words else {}


def page_statement(
    query: Query, sees_all: bool, matches: Sequence[TermMatch] = ()
) -> tuple[ReturnsRows, dict[str, object]]:
    """Return the statement of a page, and its parameters: it selects one row more than the limit, to know of a next.

    Those of the text are not among them: see :func:`search_parameters`.
    """
    if query.limit < 1:
        raise UsageError(f"a page of {query.limit} versions is not possible", hint="--limit 50")
    if query.best and query.sort.by != SortKey.METRIC:
        raise UsageError(f"the best by {query.sort} is no one version: expected a metric", hint="--best accuracy")
    shape, values = split_query(query, matches)
    if query.cursor:
        order = order_of_near_names(query.order, matches)
        values |= cursor_values(decode(query.cursor, order, _order(shape).types))
    return _select_page(shape, sees_all), values


@functools.lru_cache(maxsize=256)
def _select_page(shape: Query, sees_all: bool) -> ReturnsRows:
    """Select the ids of the page, in an order that an index has, so that no more is read; then those versions."""
    order = _order(shape)
    page = _select_ranked(shape, sees_all) if order is _BY_RELEVANCE else select_ids(shape, sees_all, shape.limit + 1)
    keys = _sort_columns(page)
    extra = [page.c.ranked] if order is _BY_RELEVANCE else []
    statement = select_versions().add_columns(*keys, *extra).join(page, page.c.id == version_table.c.id)
    return statement.order_by(*order.clauses(keys))


def _select_ranked(shape: Query, sees_all: bool) -> Subquery:
    """Select the ids of a page of the newest that match, by what their words count; of as many, the newest first.

    A word that half of all versions have would take a second to rank them all.
    """
    newest = replace(shape, sort=Sort(), cursor=None)
    candidates = select_ids(newest, sees_all, MAX_RANKED)
    weighted: list[ColumnElement[Any]] = []
    for name, weight in text_parameter_names(len(shape.text.split())):
        weighted += [bindparam(name, type_=Text()), literal_column(str(weight))]
    ranks = select(
        candidates.c.id,
        TextRank(candidates.c.id, *weighted).label("sort_0"),
        candidates.c.id.label("sort_1"),
        func.count().over().label("ranked"),
    ).subquery()
    keys = [ranks.c.sort_0, ranks.c.sort_1]
    statement = select(ranks).order_by(*(key.desc() for key in keys)).limit(_limit(shape.limit + 1))
    if shape.cursor:
        statement = statement.where(
            tuple_(*keys) < tuple_(*(bindparam(f"cursor_{i}", type_=Integer()) for i in (0, 1)))
        )
    return statement.subquery()


def select_ids(shape: Query, sees_all: bool, limit: int) -> Subquery:
    """Select the ids of so many versions at most, with their sort keys, on the base by content or by name."""
    order = _order(shape)
    pages = [_select_ids_on(shape, order, on, sees_all, limit) for on in _base_conditions(shape.base)]
    if len(pages) == 1:
        return pages[0]
    union = union_all(*map(select, pages)).subquery()
    return select(union).order_by(*order.clauses(_sort_columns(union))).limit(_limit(limit)).subquery()


def _select_ids_on(shape: Query, order: _Order, on: _BaseCondition, sees_all: bool, limit: int) -> Subquery:
    """Select the ids of a page of the versions on one base, with their sort keys."""
    columns = (column.label(f"sort_{index}") for index, column in enumerate(order.columns))
    statement = select(version_table.c.id, *columns).join(
        adapter_table, adapter_table.c.id == version_table.c.adapter_id
    )
    if order.join is not None:
        statement = statement.join(order.join, order.join.c.version_id == version_table.c.id).where(*order.conditions)
    # A version has each of these once: when they are joined, an index gives them in the order of the page.
    exact_tasks = [name for name in shape.tasks if not is_near(name)]
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
    near_tasks = (_has_task(version_table.c, name) for name in shape.tasks if is_near(name))
    on_base = on.with_task if exact_tasks and on.text is not None else on.on(version_table.c)
    statement = statement.where(
        visible_to(sees_all, adapter_table.c.namespace), *on_base, *near_tasks, *_conditions(shape, version_table.c)
    )
    if not shape.reads_all_versions:
        statement = statement.where(_is_newest())
    if shape.cursor:
        statement = statement.where(order.after())
    return statement.order_by(*order.clauses(order.columns)).limit(_limit(limit)).subquery()


def _sort_columns(page: FromClause) -> list[ColumnElement[object]]:
    return [column for column in page.c if column.name.startswith("sort_")]


def _limit(count: int) -> ColumnElement[int]:
    """Return how many rows are selected, written out: PostgreSQL plans for it."""
    return literal_column(str(count))


class _Order(msgspec.Struct, frozen=True):
    """A total order of versions: all columns go the same way, and the last is unique."""

    columns: Sequence[Column[Any]]
    types: Sequence[type]
    descending: bool
    join: NamedFromClause[MetricColumns] | None = None
    conditions: Sequence[ColumnElement[bool]] = ()

    def clauses(self, columns: Sequence[SQLColumnExpression[object]]) -> list[ColumnElement[object]]:
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        row = tuple_(*self.columns)
        values = tuple_(*(bindparam(f"cursor_{i}", type_=column.type) for i, column in enumerate(self.columns)))
        return row < values if self.descending else row > values


_BY_RELEVANCE = _Order((), (int, int), descending=True)


def _order(shape: Query) -> _Order:
    sort = shape.sort
    if sort.by == SortKey.RELEVANCE:
        return _BY_RELEVANCE
    if sort.by == SortKey.CREATED:  # ids grow as versions are recorded
        return _Order((version_table.c.id,), (int,), descending=True)
    if sort.by == SortKey.NAME:
        return _Order(
            (adapter_table.c.namespace, adapter_table.c.name, version_table.c.number), (str, str, int), descending=False
        )
    if sort.by == SortKey.RANK:
        return _Order((version_table.c.rank_max, version_table.c.id), (int, int), descending=False)
    if sort.by == SortKey.SIZE:
        return _Order((version_table.c.bytes, version_table.c.id), (float, int), descending=False)
    metric = metric_table.alias()
    conditions = (*_matches_metric(metric.c, sort), ~_has_better(shape, metric.c))
    columns = (metric.c.score, metric.c.version_id)
    return _Order(columns, (float, int), descending=True, join=metric, conditions=conditions)


def _has_better(shape: Query, measured: MetricColumns) -> ColumnElement[bool]:
    """Return the condition that another number goes before this one: of the version, or with ``best`` of its adapter.

    Of an adapter only the versions count that fulfill all other conditions.
    """
    better = metric_table.alias()
    keys = [tuple_(m.score, m.version_id, m.dataset, m.split) for m in (better.c, measured)]
    is_better = (*_matches_metric(better.c, shape.sort), keys[0] > keys[1])
    if not shape.best:
        return exists().where(better.c.version_id == measured.version_id, *is_better)
    other = version_table.alias()
    on_base = [and_(*on.on(other.c)) for on in _base_conditions(shape.base)]
    return exists().where(
        other.c.adapter_id == version_table.c.adapter_id,
        better.c.version_id == other.c.id,
        *is_better,
        or_(*on_base),
        *_conditions(shape, other.c),
        *_child_conditions(shape, other.c),
    )


class _BaseCondition(msgspec.Struct, frozen=True):
    """The conditions of being on a base.

    ``text`` is the base as :class:`loreg.catalog.schema.TaskColumns` names it, if there is one such name. A task joined
    with that name leaves only ``with_task`` to test: PostgreSQL takes an implied condition for an independent filter.
    """

    on: Callable[[VersionColumns], Sequence[ColumnElement[bool]]] = lambda version: (true(),)
    text: ColumnElement[str] | None = None
    with_task: Sequence[ColumnElement[bool]] = ()


def _base_conditions(kind: str) -> tuple[_BaseCondition, ...]:
    """Return the ways to be on the base: by content, or only by the name that the adapter declares."""
    if not kind:
        return (_BaseCondition(),)
    if kind == BY_NEAR_NAMES:
        names = text_array("base")
        any_id = select(base_name_table.c.base_id).where(AnyOf(base_name_table.c.name, names))
        return (
            _BaseCondition(lambda version: (version.base_id.in_(any_id),)),
            _BaseCondition(lambda version: (AnyOf(version.base_hint, names), version.base_id.is_(None))),
        )
    name: BindParameter[str] = bindparam("base")
    if kind == BY_DIGEST:
        ids = bases.select_named_or_digest_range(name, bindparam("base_digest"), bindparam("base_end"))
        return (_BaseCondition(lambda version: (version.base_id.in_(ids),)),)
    base_id = bases.select_named(name).scalar_subquery()
    digest = select(base_table.c.digest).where(base_table.c.id == base_id).scalar_subquery()
    return (
        _BaseCondition(lambda version: (version.base_id == base_id,), digest, (version_table.c.base_id.is_not(None),)),
        _BaseCondition(
            lambda version: (version.base_hint == name, version.base_id.is_(None)),
            name,
            (version_table.c.base_id.is_(None),),
        ),
    )


def _is_newest() -> ColumnElement[bool]:
    later = version_table.alias()
    return ~exists().where(
        later.c.adapter_id == version_table.c.adapter_id,
        later.c.number > version_table.c.number,
        later.c.yanked_at.is_(None),
    )


def _conditions(shape: Query, version: VersionColumns) -> list[ColumnElement[bool]]:
    """Return the conditions on a version itself, its metrics and its words."""
    conditions: list[ColumnElement[bool]] = [version.yanked_at.is_(None)]
    for index, rank in enumerate(shape.ranks):
        conditions.append(_OPERATORS[rank.operator](version.rank_max, bindparam(f"rank_{index}")))
    for index, metric in enumerate(shape.metrics):
        row = metric_table.alias()
        value = _OPERATORS[metric.comparison.operator](row.c.value, bindparam(f"metric_{index}_value"))
        conditions.append(exists().where(row.c.version_id == version.id, value, *_matches_metric(row.c, metric)))
    if shape.author:
        conditions.append(version.author == bindparam("author"))
    if shape.variant:
        conditions.append(version.variant == bindparam("variant"))
    if shape.text:
        conditions.append(HasText(version.id, bindparam("text", type_=Text())))
    return conditions


def _child_conditions(shape: Query, version: VersionColumns) -> list[ColumnElement[bool]]:
    """Return the conditions that a version has the tasks, modules and labels, without a join."""
    modules = (module_type_table.alias() for _ in shape.modules)
    labels = (label_table.alias() for _ in shape.labels)
    return [
        *(_has_task(version, name) for name in shape.tasks),
        *(
            exists().where(module.c.version_id == version.id, module.c.name == bindparam(name))
            for module, name in zip(modules, shape.modules, strict=True)
        ),
        *(
            exists().where(
                label.c.version_id == version.id, label.c.key == bindparam(key), label.c.value == bindparam(value)
            )
            for label, (key, value) in zip(labels, shape.labels, strict=True)
        ),
    ]


def _has_task(version: VersionColumns, name: str) -> ColumnElement[bool]:
    task = task_table.alias()
    is_it = AnyOf(task.c.task, text_array(name)) if is_near(name) else task.c.task == bindparam(name)
    return exists().where(task.c.version_id == version.id, is_it)


def _matches_metric(columns: MetricColumns, wanted: MetricCondition | Sort) -> list[ColumnElement[bool]]:
    """Return the conditions that a metric has the values of these parameters; an empty one matches any."""
    name = wanted.metric if isinstance(wanted, Sort) else wanted.name
    conditions: list[ColumnElement[bool]] = [columns.name == bindparam(name)]
    conditions += [columns.dataset == bindparam(wanted.dataset)] if wanted.dataset else []
    conditions += [columns.split == bindparam(wanted.split)] if wanted.split else []
    return conditions
