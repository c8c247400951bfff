"""A version with all that belongs to it, in one SELECT: the same for show, search and every ref."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, Row, ScalarSelect, Select, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from loreg.catalog.schema import (
    AdapterRow,
    AliasRow,
    BaseNameRow,
    BaseRow,
    LabelRow,
    MetricRow,
    ModuleTypeRow,
    TaskRow,
    VersionRow,
)
from loreg.records import BaseModel, Facts, Metric, ModuleType, Version
from loreg.refs import AdapterName


class JsonRows(FunctionElement[Any]):
    """Aggregates rows into one JSON array of arrays, so that children arrive with their parent's row."""

    name = "json_rows"
    type = JSON()
    inherit_cache = True


@compiles(JsonRows, "sqlite")
def _sqlite(element: JsonRows, compiler: Any, **options: Any) -> str:
    # SQLite's own JSON writes 15 digits of a float; 20 bring the same float back.
    cells = (
        f"printf('%!.20g', {compiler.process(cell, **options)})"
        if isinstance(cell.type, Float)
        else compiler.process(cell, **options)
        for cell in element.clauses
    )
    return f"json_group_array(json_array({', '.join(cells)}))"


@compiles(JsonRows, "postgresql")
def _postgresql(element: JsonRows, compiler: Any, **options: Any) -> str:
    cells = (compiler.process(cell, **options) for cell in element.clauses)
    return f"coalesce(json_agg(json_build_array({', '.join(cells)})), '[]')"


def json_rows(source: Any, *columns: Any, on: ColumnElement[bool]) -> ScalarSelect[Any]:
    """The rows of ``source`` that belong to a version, as one column of its row."""
    # Correlated by name: a statement may have joined one of the child tables itself.
    return select(JsonRows(*columns)).select_from(source).where(on).correlate(VersionRow, BaseRow).scalar_subquery()


def versions() -> Select[Any]:
    """Select versions with everything that :func:`to_version` needs."""
    mine = VersionRow.id
    return (
        select(
            *(column for column in VersionRow.__table__.columns if column.name != "card"),
            AdapterRow.namespace,
            AdapterRow.name,
            BaseRow.digest.label("base_digest"),
            BaseRow.tensors.label("base_tensors"),
            BaseRow.parameters.label("base_parameters"),
            BaseRow.struct.label("base_struct"),
            BaseRow.complete.label("base_complete"),
            BaseRow.license.label("base_license"),
            json_rows(BaseNameRow, BaseNameRow.name, on=BaseNameRow.base_id == BaseRow.id).label("base_names"),
            json_rows(TaskRow, TaskRow.task, on=TaskRow.version_id == mine).label("tasks"),
            json_rows(LabelRow, LabelRow.key, LabelRow.value, on=LabelRow.version_id == mine).label("labels"),
            json_rows(AliasRow, AliasRow.alias, on=AliasRow.version_id == mine).label("aliases"),
            json_rows(
                MetricRow,
                MetricRow.name,
                MetricRow.value,
                MetricRow.dataset,
                MetricRow.split,
                MetricRow.higher_is_better,
                on=MetricRow.version_id == mine,
            ).label("metrics"),
            json_rows(
                ModuleTypeRow,
                ModuleTypeRow.name,
                ModuleTypeRow.count,
                ModuleTypeRow.rank_min,
                ModuleTypeRow.rank_max,
                on=ModuleTypeRow.version_id == mine,
            ).label("module_types"),
        )
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .outerjoin(BaseRow, BaseRow.id == VersionRow.base_id)
    )


def to_version(row: Row[Any]) -> Version:
    """Make the frozen value of a row of :func:`versions`."""
    base = None
    if row.base_digest:
        names = tuple(sorted(name for (name,) in row.base_names))
        sizes = (row.base_tensors, row.base_parameters)
        struct, complete = row.base_struct, bool(row.base_complete)
        base = BaseModel(row.base_digest, names, *sizes, struct, complete, row.base_license)
    metrics = (
        Metric(name, float(value), dataset, split, bool(higher)) for name, value, dataset, split, higher in row.metrics
    )
    return Version(
        adapter=AdapterName(row.namespace, row.name),
        number=row.number,
        digest=row.digest,
        facts=Facts(
            variant=row.variant,
            task_type=row.task_type,
            rank_min=row.rank_min,
            rank_max=row.rank_max,
            alpha=row.alpha,
            parameters=row.parameters,
            dtype=row.dtype,
            module_types=tuple(sorted((ModuleType(*cells) for cells in row.module_types), key=lambda m: m.name)),
            base_hint=row.base_hint,
        ),
        size=row.bytes,
        author=row.author,
        message=row.message,
        created_at=row.created_at,
        yanked=row.yanked_at is not None,
        base=base,
        target=row.target,
        aliases=tuple(sorted(alias for (alias,) in row.aliases)),
        tasks=tuple(sorted(task for (task,) in row.tasks)),
        labels=dict(sorted(row.labels)),
        metrics=tuple(sorted(metrics, key=lambda m: (m.name, m.dataset, m.split))),
    )
