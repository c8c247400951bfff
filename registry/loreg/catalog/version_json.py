"""A version with its tasks, labels, metrics, …, as one JSON array that the database makes and this module reads.

Show, search and every ref select it: drivers and SQLAlchemy spend time on each column of each row, and this is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import JSON, Float, ScalarSelect, Select, SQLColumnExpression, Table, TypedColumns, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from loreg.catalog.schema import (
    adapter_table,
    alias_table,
    base_name_table,
    base_table,
    label_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.entities import BaseModel, Canary, Facts, Metric, ModuleType, Version
from loreg.refs import AdapterName

#: A row as the database wrote it into JSON: which types its cells have, the statement says.
JsonCells = Sequence[Any]


class JsonRow(FunctionElement[JsonCells]):
    """The SQL function that makes a JSON array of cells: times are strings, see :func:`parse_time`; floats may be."""

    name = "json_row"
    type = JSON()
    inherit_cache = True


class JsonRows(FunctionElement[Sequence[JsonCells]]):
    """The SQL function that aggregates rows into a JSON array of arrays: children arrive with their parent's row."""

    name = "json_rows"
    type = JSON()
    inherit_cache = True


def _compile_cells_sqlite(element: JsonRow | JsonRows, compiler: SQLCompiler, options: Mapping[str, object]) -> str:
    def compile_cell(cell: ColumnElement[object]) -> str:
        sql = compiler.process(cell, **options)
        if isinstance(cell.type, Float):  # SQLite's own JSON writes 15 digits; 20 bring the same float back
            return f"printf('%!.20g', {sql})"
        return f"json({sql})" if isinstance(cell.type, JSON) else sql

    return f"json_array({', '.join(map(compile_cell, element.clauses))})"


def _compile_cells_postgresql(element: JsonRow | JsonRows, compiler: SQLCompiler, options: Mapping[str, object]) -> str:
    return f"json_build_array({', '.join(compiler.process(cell, **options) for cell in element.clauses)})"


@compiles(JsonRow, "sqlite")
def _compile_row_sqlite(element: JsonRow, compiler: SQLCompiler, **options: object) -> str:
    return _compile_cells_sqlite(element, compiler, options)


@compiles(JsonRow, "postgresql")
def _compile_row_postgresql(element: JsonRow, compiler: SQLCompiler, **options: object) -> str:
    return _compile_cells_postgresql(element, compiler, options)


@compiles(JsonRows, "sqlite")
def _compile_rows_sqlite(element: JsonRows, compiler: SQLCompiler, **options: object) -> str:
    return f"json_group_array({_compile_cells_sqlite(element, compiler, options)})"


@compiles(JsonRows, "postgresql")
def _compile_rows_postgresql(element: JsonRows, compiler: SQLCompiler, **options: object) -> str:
    return f"coalesce(json_agg({_compile_cells_postgresql(element, compiler, options)}), '[]')"


def parse_time(text: str) -> datetime:
    """Return the time that a database wrote into JSON, in UTC: SQLite writes no zone."""
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def to_canary(cells: JsonCells) -> Canary:
    """Return the canary of a JSON array: alias, number, share, conditions, author and time."""
    alias, number, share, rollback_if, author, at = cells
    return Canary(alias, number, float(share), tuple(rollback_if), author, parse_time(at))


def json_rows(
    source: Table[TypedColumns], *columns: SQLColumnExpression[object], on: ColumnElement[bool]
) -> ScalarSelect[Sequence[JsonCells]]:
    """Return the rows of ``source`` that belong to a version, as one cell of its row."""
    # Correlated by name: a statement may have joined one of the child tables itself.
    return (
        select(JsonRows(*columns)).select_from(source).where(on).correlate(version_table, base_table).scalar_subquery()
    )


def _rows_of_version(table: Table[TypedColumns], *names: str) -> ScalarSelect[Sequence[JsonCells]]:
    return json_rows(table, *(table.c[name] for name in names), on=table.c["version_id"] == version_table.c.id)


_CELLS: dict[str, Any] = {
    **{name: version_table.c[name] for name in (
        "id", "adapter_id", "number", "digest", "target", "base_hint", "variant", "task_type", "rank_min", "rank_max",
        "alpha", "parameters", "bytes", "dtype", "author", "message", "created_at", "yanked_at",
    )},
    "namespace": adapter_table.c.namespace,
    "name": adapter_table.c.name,
    "base": JsonRow(*(base_table.c[name] for name in (
        "digest", "tensors", "parameters", "struct", "complete", "license", "config",
    ))),
    "base_names": json_rows(base_name_table, base_name_table.c.name, on=base_name_table.c.base_id == base_table.c.id),
    "tasks": _rows_of_version(task_table, "task"),
    "labels": _rows_of_version(label_table, "key", "value"),
    "aliases": _rows_of_version(alias_table, "alias"),
    "metrics": _rows_of_version(metric_table, "name", "value", "dataset", "split", "higher_is_better"),
    "module_types": _rows_of_version(module_type_table, "name", "count", "rank_min", "rank_max"),
}  # fmt: skip


def select_versions() -> Select[JsonCells]:
    """Select versions as the documents that :func:`to_version_record` reads, in the first column."""
    return (
        select(JsonRow(*_CELLS.values()).label("document"))
        .join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .outerjoin(base_table, base_table.c.id == version_table.c.base_id)
    )


class VersionRecord(msgspec.Struct, frozen=True):
    """A version, with the ids of its row and of its adapter's."""

    id: int
    adapter_id: int
    version: Version


def to_version_record(document: JsonCells) -> VersionRecord:
    """Return the version of a document that :func:`select_versions` selected."""
    cell = dict(zip(_CELLS, document, strict=True))
    base = None
    if cell["base"][0] is not None:
        digest, tensors, parameters, struct, complete, license_, config = cell["base"]
        names = tuple(sorted(name for (name,) in cell["base_names"]))
        base = BaseModel(digest, names, tensors, parameters, struct, bool(complete), license_, json.loads(config))
    metrics = [
        Metric(name, float(value), dataset, split, bool(higher))
        for name, value, dataset, split, higher in cell["metrics"]
    ]
    version = Version(
        adapter=AdapterName(cell["namespace"], cell["name"]),
        number=cell["number"],
        digest=cell["digest"],
        facts=Facts(
            variant=cell["variant"],
            task_type=cell["task_type"],
            rank_min=cell["rank_min"],
            rank_max=cell["rank_max"],
            alpha=float(cell["alpha"]),
            parameters=cell["parameters"],
            dtype=cell["dtype"],
            module_types=tuple(ModuleType(*cells) for cells in sorted(cell["module_types"])),
            base_hint=cell["base_hint"],
        ),
        size=cell["bytes"],
        author=cell["author"],
        message=cell["message"],
        created_at=parse_time(cell["created_at"]),
        yanked=cell["yanked_at"] is not None,
        base=base,
        target=cell["target"],
        aliases=tuple(sorted(alias for (alias,) in cell["aliases"])),
        tasks=tuple(sorted(task for (task,) in cell["tasks"])),
        labels=dict(sorted(cell["labels"])),
        metrics=tuple(sorted(metrics, key=lambda m: (m.name, m.dataset, m.split))),
    )
    return VersionRecord(cell["id"], cell["adapter_id"], version)


def to_version(document: JsonCells) -> Version:
    """Return the version alone, see :func:`to_version_record`."""
    return to_version_record(document).version
