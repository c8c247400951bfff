"""The conditions of a search on a version, as parts of its one statement; values are parameters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    SQLColumnExpression,
    bindparam,
    exists,
    literal_column,
    select,
    true,
)

from loreg.catalog import bases
from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.schema import (
    MetricColumns,
    VersionColumns,
    base_name_table,
    base_table,
    fact_table,
    finding_table,
    label_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search_shape import BY_DIGEST, BY_NEAR_NAMES, is_near, text_share
from loreg.catalog.text_query import has_text
from loreg.entities import MetricCondition, Operator, Query, Sort

CHECK: ColumnElement[str] = literal_column("'check'")  # the name of the probe; see loreg.probes.check
_OPERATORS: dict[Operator, Callable[[SQLColumnExpression[float], BindParameter[float]], ColumnElement[bool]]] = {
    Operator.EQUAL: operator.eq,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


class BaseCondition(msgspec.Struct, frozen=True):
    """The conditions of being on a base.

    ``text`` is the base as :class:`loreg.catalog.schema.TaskColumns` names it, if there is one such name. A task joined
    with that name leaves only ``with_task`` to test: PostgreSQL takes an implied condition for an independent filter.
    """

    on: Callable[[VersionColumns], Sequence[ColumnElement[bool]]] = lambda version: (true(),)
    text: ColumnElement[str] | None = None
    with_task: Sequence[ColumnElement[bool]] = ()


def base_conditions(kind: str) -> tuple[BaseCondition, ...]:
    """Return the ways to be on the base: by content, or only by the name that the adapter declares."""
    if not kind:
        return (BaseCondition(),)
    if kind == BY_NEAR_NAMES:
        names = text_array("base")
        any_id = select(base_name_table.c.base_id).where(AnyOf(base_name_table.c.name, names))
        return (
            BaseCondition(lambda version: (version.base_id.in_(any_id),)),
            BaseCondition(lambda version: (AnyOf(version.base_hint, names), version.base_id.is_(None))),
        )
    name: BindParameter[str] = bindparam("base")
    if kind == BY_DIGEST:
        ids = bases.select_named_or_digest_range(name, bindparam("base_digest"), bindparam("base_end"))
        return (BaseCondition(lambda version: (version.base_id.in_(ids),)),)
    base_id = bases.select_named(name).scalar_subquery()
    digest = select(base_table.c.digest).where(base_table.c.id == base_id).scalar_subquery()
    return (
        BaseCondition(lambda version: (version.base_id == base_id,), digest, (version_table.c.base_id.is_not(None),)),
        BaseCondition(
            lambda version: (version.base_hint == name, version.base_id.is_(None)),
            name,
            (version_table.c.base_id.is_(None),),
        ),
    )


def is_newest() -> ColumnElement[bool]:
    """Return the condition that no later version of the adapter is there, but for yanked ones."""
    later = version_table.alias()
    return ~exists().where(
        later.c.adapter_id == version_table.c.adapter_id,
        later.c.number > version_table.c.number,
        later.c.yanked_at.is_(None),
    )


def conditions_of(shape: Query, version: VersionColumns) -> list[ColumnElement[bool]]:
    """Return the conditions on a version itself, its metrics and its words."""
    conditions: list[ColumnElement[bool]] = [version.yanked_at.is_(None)]
    for index, rank in enumerate(shape.ranks):
        conditions.append(_OPERATORS[rank.operator](version.rank_max, bindparam(f"rank_{index}")))
    for index, metric in enumerate(shape.metrics):
        row = metric_table.alias()
        value = _OPERATORS[metric.comparison.operator](row.c.value, bindparam(f"metric_{index}_value"))
        conditions.append(exists().where(row.c.version_id == version.id, value, *matches_metric(row.c, metric)))
    if shape.author:
        conditions.append(version.author == bindparam("author"))
    if shape.variant:
        conditions.append(version.variant == bindparam("variant"))
    if shape.loads_in:
        conditions += [was_checked(version.id), ~_has_finding(version.id)]
    if shape.text:
        conditions.append(has_text(version.id, text_share(shape)))
    return conditions


def was_checked(version_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that the probe ``check`` has said of a version which rules it breaks."""
    fact = fact_table.alias()
    return exists().where(fact.c.version_id == version_id, fact.c.probe == CHECK, fact.c.error == literal_column("''"))


def _has_finding(version_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that a version has one of the findings of the parameter ``without_findings``."""
    finding = finding_table.alias()
    return exists().where(finding.c.version_id == version_id, AnyOf(finding.c.code, text_array("without_findings")))


def child_conditions(shape: Query, version: VersionColumns) -> list[ColumnElement[bool]]:
    """Return the conditions that a version has the tasks, modules and labels, without a join."""
    modules = (module_type_table.alias() for _ in shape.modules)
    labels = (label_table.alias() for _ in shape.labels)
    return [
        *(has_task(version, name) for name in shape.tasks),
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


def has_task(version: VersionColumns, name: str) -> ColumnElement[bool]:
    """Return the condition that a version has the task of this parameter, or one of the tasks; see :func:`is_near`."""
    task = task_table.alias()
    is_it = AnyOf(task.c.task, text_array(name)) if is_near(name) else task.c.task == bindparam(name)
    return exists().where(task.c.version_id == version.id, is_it)


def matches_metric(columns: MetricColumns, wanted: MetricCondition | Sort) -> list[ColumnElement[bool]]:
    """Return the conditions that a metric has the values of these parameters; an empty one matches any."""
    name = wanted.metric if isinstance(wanted, Sort) else wanted.name
    conditions: list[ColumnElement[bool]] = [columns.name == bindparam(name)]
    conditions += [columns.dataset == bindparam(wanted.dataset)] if wanted.dataset else []
    conditions += [columns.split == bindparam(wanted.split)] if wanted.split else []
    return conditions
