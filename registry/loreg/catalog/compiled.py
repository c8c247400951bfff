"""Statements that are written once and run again and again, with other values each time.

SQLAlchemy takes longer to see that it knows such a statement, and to run it, than PostgreSQL to answer it. So each is
compiled once for each database, and the driver runs it on SQLAlchemy's connection.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, JSON, Boolean, Connection, Dialect, Insert, Text, bindparam
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import ReturnsRows
from sqlalchemy.types import TypeDecorator

Row = tuple[Any, ...]


class TextArray(TypeDecorator[Sequence[str]]):
    """Some words as one parameter: an array, or JSON where there are none."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """What the database calls it."""
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else JSON())


class AnyOf(FunctionElement[bool]):
    """``AnyOf(column, words(…))``: whether the column is one of them; the statement is the same for any number."""

    name = "any_of"
    type = Boolean()
    inherit_cache = True


@compiles(AnyOf, "postgresql")
def _of_array(element: AnyOf, compiler: Any, **options: Any) -> str:
    column, some = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY({some})"


@compiles(AnyOf, "sqlite")
def _of_json(element: AnyOf, compiler: Any, **options: Any) -> str:
    column, some = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({some}))"  # noqa: S608  only what the compiler wrote


def text_array(name: str) -> Any:
    """The parameter ``name``, whose value is a list of words."""
    return bindparam(name, type_=TextArray())


@dataclass(frozen=True)
class CompiledStatement:
    """A statement as a driver takes it, its own values, and what makes cells and parameters of a driver's values."""

    sql: str
    values: Mapping[str, Any]
    writers: Mapping[str, Callable[[Any], Any]]
    readers: Mapping[int, Callable[[Any], Any]]

    def bind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters as the driver takes them: the statement's own and ``values``."""
        every = {**self.values, **values}
        for name, writer in self.writers.items():
            every[name] = writer(every[name])
        return every

    def read(self, row: Row) -> Row:
        """Return the cells of a row as Python values, which not every driver makes of them."""
        return tuple(self.readers[i](cell) if i in self.readers else cell for i, cell in enumerate(row))


def select_rows(connection: Connection, statement: ReturnsRows, values: Mapping[str, Any]) -> list[Row]:
    """What ``statement`` selects, or returns of the row that it inserts. Raises DBAPIError."""
    columns: tuple[str, ...] = ()
    if isinstance(statement, Insert):
        columns = tuple(name for name in values if name in statement.table.columns)
    written = _compile(statement, columns, connection.dialect)
    found = _execute(connection, written.sql, written.bind(values), fetch=True)
    return [written.read(row) for row in found] if written.readers else found


def insert_rows(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run ``statement`` for each of the rows, which name the same columns. Raises DBAPIError."""
    written = _compile(statement, tuple(rows[0]), connection.dialect)
    _execute(connection, written.sql, *map(written.bind, rows), fetch=False)


@functools.lru_cache(maxsize=512)
def _compile(statement: Any, columns: tuple[str, ...], dialect: Dialect) -> CompiledStatement:
    compiled = statement.compile(dialect=dialect, column_keys=columns or None)
    binds = {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in compiled.binds.items()}
    writers = {name: writer for name, writer in binds.items() if writer is not None}
    readers = {}
    if dialect.name != "postgresql":  # whose driver makes times, arrays and JSON of what comes
        for index, column in enumerate(statement.exported_columns):
            if reader := column.type.dialect_impl(dialect).result_processor(dialect, None):
                readers[index] = reader
    return CompiledStatement(str(compiled), compiled.params, writers, readers)


def _execute(connection: Connection, sql: str, *given: Mapping[str, Any], fetch: bool) -> list[Row]:
    """Run ``sql`` for each of the values, and fetch the rows if asked to. The driver's errors become SQLAlchemy's."""
    dialect = connection.dialect
    raw: Any = connection.connection
    found: list[Row] = []
    try:
        if dialect.is_async:
            found = raw.dbapi_connection.run_async(lambda driver: _execute_async(driver, sql, given, fetch))
        else:
            with contextlib.closing(raw.driver_connection.cursor()) as cursor:
                if len(given) > 1:
                    cursor.executemany(sql, given)
                else:
                    cursor.execute(sql, *given)
                if fetch:
                    found = cursor.fetchall()
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, raw.dbapi_connection, None):
            connection.invalidate(error)
        raise DBAPIError.instance(sql, None, error, dialect.loaded_dbapi.Error, dialect=dialect) from error
    except (UnicodeEncodeError, OverflowError) as error:  # a value that the driver cannot write: nothing was asked
        raise DataError(sql, None, error) from error
    except BaseException:  # cut off before the answer had come
        if dialect.name == "sqlite":  # which, closed, keeps its lock until the last cursor of it is forgotten
            raw.driver_connection.rollback()
        connection.invalidate()
        raise
    return found


async def _execute_async(driver: Any, sql: str, given: Sequence[Mapping[str, Any]], fetch: bool) -> list[Row]:
    cursor = driver.cursor()
    if len(given) > 1:
        await cursor.executemany(sql, given)
    else:
        await cursor.execute(sql, *given)
    return await cursor.fetchall() if fetch else []
