"""What is declared of metrics, and the names in use: a number of the other direction than declared is refused."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace
from sqlalchemy import select, update

from loreg.catalog.near_names import list_metric_names
from loreg.catalog.schema import metric_declaration_table, metric_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Metric, MetricDeclaration, MetricDeclared, MetricVocabulary
from loreg.errors import ConflictError


def declare(tx: Transaction, name: str, higher_is_better: bool, unit: str) -> MetricDeclared:
    """Declare a metric, in place of what was declared before, and turn the numbers that have the other direction."""
    row = {"higher_is_better": higher_is_better, "unit": unit, "author": tx.author, "at": tx.at}
    tx.upsert(metric_declaration_table, {"name": name, **row})
    score = metric_table.c.value if higher_is_better else -metric_table.c.value
    differs = (metric_table.c.name == name) & (metric_table.c.higher_is_better != higher_is_better)
    statement = update(metric_table).where(differs).values(higher_is_better=higher_is_better, score=score)
    turned = tx.connection.execute(statement).rowcount
    tx.log("metric declare", None, None, metric=name, higher_is_better=higher_is_better, unit=unit, turned=turned)
    return MetricDeclared(MetricDeclaration(name, higher_is_better, unit, tx.author, tx.at), turned)


def list_all(tx: Transaction) -> tuple[MetricDeclaration, ...]:
    """Return all declarations, by name."""
    columns = metric_declaration_table.c
    rows = tx.connection.execute(select(metric_declaration_table).order_by(columns.name))
    return tuple(MetricDeclaration(row.name, bool(row.higher_is_better), row.unit, row.author, row.at) for row in rows)


def vocabulary(tx: Transaction) -> MetricVocabulary:
    """Return the names of the metrics of what the caller may read, and all declarations."""
    return MetricVocabulary(tuple(list_metric_names(tx)), list_all(tx))


def turn_as_declared(tx: Transaction, metrics: Collection[Metric]) -> tuple[Metric, ...]:
    """Return the metrics, each with the direction that is declared for its name, if one is."""
    columns = metric_declaration_table.c
    names = {metric.name for metric in metrics}
    query = select(columns.name, columns.higher_is_better).where(columns.name.in_(names))
    declared = {row.name: bool(row.higher_is_better) for row in tx.connection.execute(query)}
    return tuple(
        replace(metric, higher_is_better=declared.get(metric.name, metric.higher_is_better)) for metric in metrics
    )


def refuse_other_direction(tx: Transaction, metric: Metric) -> None:
    """Raise ConflictError if the metric is declared to be better in the other direction."""
    columns = metric_declaration_table.c
    query = select(columns.higher_is_better, columns.author).where(columns.name == metric.name)
    row = tx.connection.execute(query).one_or_none()
    if row is not None and bool(row.higher_is_better) != metric.higher_is_better:
        declared, recorded = ("higher", "lower") if row.higher_is_better else ("lower", "higher")
        raise ConflictError(
            f"{row.author} declared that {declared} is better for {metric.name!r}, this number says {recorded} is",
            hint="loreg metric ls",
        )
