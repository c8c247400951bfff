"""The catalog as one file that SQLite and PostgreSQL both write and load: what a backup and a move carry.

Gzip over JSON Lines. The first line names the format and the schema's revision; an object begins a table and names its
columns; an array is a row. Tables stand in the order of their dependencies and rows in that of their keys: equal
catalogs make equal files, whatever database they lie in.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Float,
    MetaData,
    String,
    Table,
    collate,
    delete,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
)

from loreg.catalog import migrations, schema
from loreg.errors import ConflictError, IntegrityError

FORMAT = "loreg.catalog/1"
_BATCH = 1000  # rows in one statement
#: Marks of garbage are of one store at one time: they are not carried.
_NOT_CARRIED = frozenset({"garbage"})
_OF_THE_REGISTRY = "registry"
_NON_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}

Convert = Callable[[Any], Any]


def write(connection: Connection, path: Path) -> dict[str, int]:
    """Write every row that the connection sees to ``path``; return how many each table has. Memory stays small."""
    counts: dict[str, int] = {}
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as sink:
        sink.write(_line({"schema": FORMAT, "revision": migrations.revision_of(connection)}))
        for table in _tables(connection):
            columns = list(table.columns)
            sink.write(_line({"table": table.name, "columns": [column.name for column in columns]}))
            to_json = [_to_json(column) for column in columns]
            counts[table.name] = 0
            for row in connection.execution_options(yield_per=_BATCH).execute(_select_ordered(connection, table)):
                sink.write(_line([convert(value) for convert, value in zip(to_json, row, strict=True)]))
                counts[table.name] += 1
    return counts


def load(connection: Connection, path: Path) -> dict[str, int]:
    """Load a file into a database without content, at the revision that the file names; return the rows of each table.

    Ids stay, and new ones come after them. The schema is created or changed if need be. Raises ConflictError if there
    is content, or if the file is of a newer schema; IntegrityError for a file that is none of these.
    """
    with gzip.open(path, "rt", encoding="utf-8") as source:
        lines = iter(source)
        header = _parse(next(lines, ""))
        if not isinstance(header, dict) or header.get("schema") != FORMAT:
            raise _not_a_dump(path)
        migrations.change_to(connection, str(header["revision"]))
        refuse_content(connection)
        tables = {table.name: table for table in _tables(connection)}
        for table in (*reversed(tables.values()), *_reflect(connection, _NOT_CARRIED).tables.values()):
            connection.execute(delete(table))  # what a new schema has: the row of the registry
        counts = {}
        for name, columns, rows in _sections(path, lines):
            if name not in tables or not set(columns) <= {column.name for column in tables[name].columns}:
                raise _not_a_dump(path)
            counts[name] = _insert(connection, tables[name], columns, rows)
    for table in tables.values():
        _advance_sequence(connection, table)
    return counts


def refuse_content(connection: Connection) -> None:
    """Raise ConflictError if any table has a row that a new registry has not."""
    for table in _tables(connection):
        if (
            table.name != _OF_THE_REGISTRY
            and connection.execute(select(literal(1)).select_from(table).limit(1)).first()
        ):
            raise ConflictError(
                f"the registry is not empty: its table {table.name} has rows",
                hint="choose a new one: loreg --home ./new-folder …, or --database-url and --storage-url",
            )


def _tables(connection: Connection) -> Sequence[Table[Any]]:
    """Return the tables of the schema that the database has, those that others refer to first."""
    names = frozenset(schema.metadata.tables) - _NOT_CARRIED
    return _reflect(connection, names).sorted_tables


def _reflect(connection: Connection, names: frozenset[str]) -> MetaData:
    reflected = MetaData()
    reflected.reflect(connection, only=sorted(names & set(inspect(connection).get_table_names())))
    for table in reflected.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True
    return reflected


def _select_ordered(connection: Connection, table: Table[Any]) -> Any:
    """Select all rows by their keys, texts in the order of their code points in either database."""
    is_postgres = connection.dialect.name == "postgresql"
    values = [
        literal("").label(column.name) if (table.name, column.name) == (_OF_THE_REGISTRY, "moved_to") else column
        for column in table.columns
    ]
    order = [
        collate(column, "C") if is_postgres and isinstance(column.type, String) else column
        for column in table.primary_key.columns
    ]
    return select(*values).order_by(*order)


def _insert(connection: Connection, table: Table[Any], columns: Sequence[str], rows: Iterator[list[Any]]) -> int:
    from_json = [_from_json(connection, table.columns[name]) for name in columns]
    statement, count = insert(table), 0
    while batch := list(islice(rows, _BATCH)):
        values = [
            {name: convert(value) for name, convert, value in zip(columns, from_json, row, strict=True)}
            for row in batch
        ]
        connection.execute(statement, values)
        count += len(batch)
    return count


def _advance_sequence(connection: Connection, table: Table[Any]) -> None:
    """Let PostgreSQL count on behind the highest id; SQLite does so by itself."""
    if connection.dialect.name != "postgresql" or "id" not in table.columns:
        return
    sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, "id"))).scalar()
    highest = connection.execute(select(func.max(table.columns["id"]))).scalar()
    if sequence is not None and highest is not None:
        connection.execute(select(func.setval(sequence, highest)))


def _sections(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, list[str], Iterator[list[Any]]]]:
    """Yield each table with its columns and its rows, which are read before the next."""
    following = [next(lines, "")]

    def rows() -> Iterator[list[Any]]:
        for line in lines:
            row = _parse(line)
            if not isinstance(row, list):
                following[0] = line
                return
            yield row
        following[0] = ""

    while following[0]:
        section = _parse(following[0])
        if not isinstance(section, dict) or "table" not in section:
            raise _not_a_dump(path)
        yield section["table"], section["columns"], rows()


def _to_json(column: Column[Any]) -> Convert:
    if isinstance(column.type, DateTime):
        return lambda value: None if value is None else _format_time(value)
    if isinstance(column.type, Float):
        return lambda value: value if value is None or math.isfinite(value) else _NON_FINITE.get(value, "NaN")
    return lambda value: value


def _from_json(connection: Connection, column: Column[Any]) -> Convert:
    if isinstance(column.type, DateTime):
        return lambda value: None if value is None else datetime.fromisoformat(value)
    if isinstance(column.type, Float):
        return lambda value: None if value is None else float(value)
    return lambda value: value


def _format_time(value: datetime) -> str:
    naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return f"{naive.isoformat(timespec='microseconds')}Z"


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _not_a_dump(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path.name} is no dump of a catalog ({FORMAT}) that this loreg reads", hint="pip install --upgrade loreg"
    )


def lock_registry(connection: Connection) -> None:
    """Wait until no transaction writes, and let none begin before this one ends.

    Each begins by reading the table ``registry``, see :mod:`loreg.catalog.admission`. SQLite has one writer at a time.
    """
    if connection.dialect.name == "postgresql" and inspect(connection).has_table(_OF_THE_REGISTRY):
        connection.execute(text("LOCK TABLE registry IN ACCESS EXCLUSIVE MODE"))


def count_differences(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    """Return the tables whose numbers of rows differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name, 0) != other.get(name, 0))
