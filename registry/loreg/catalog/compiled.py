"""Statements that are compiled once and run by the driver: for the few questions that a server is asked all the time.

They are: the version that a ref means (show), the token of a request, whether a blob may be read, and search.
SQLAlchemy takes longer to recognize such a statement, and to run it, than PostgreSQL to answer it. The driver runs it
on SQLAlchemy's connection, whose events ``before_cursor_execute`` and ``after_cursor_execute`` tell of it. All other
statements are run by SQLAlchemy.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import ARRAY, JSON, BigInteger, BindParameter, Boolean, Connection, Dialect, Text, bindparam
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import ReturnsRows
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from psycopg import AsyncCursor

Row = tuple[Any, ...]  # of cells, whose types the statement says


class TextArray(TypeDecorator[Sequence[str]]):
    """A list of strings as one parameter: an array, or JSON in a database that has no arrays."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that the database has for it."""
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else JSON())


class IdArray(TypeDecorator[Sequence[int]]):
    """A list of ids as one parameter, as :class:`TextArray`."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that the database has for it."""
        return dialect.type_descriptor(ARRAY(BigInteger()) if dialect.name == "postgresql" else JSON())


class AnyOf(FunctionElement[bool]):
    """The condition ``AnyOf(column, text_array(…))``: the column is in the list, which may have any length."""

    name = "any_of"
    type = Boolean()
    inherit_cache = True


@compiles(AnyOf, "postgresql")
def _compile_any_of_array(element: AnyOf, compiler: SQLCompiler, **options: object) -> str:
    column, array = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY({array})"


@compiles(AnyOf, "sqlite")
def _compile_any_of_json(element: AnyOf, compiler: SQLCompiler, **options: object) -> str:
    column, array = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({array}))"  # noqa: S608  only what the compiler wrote


def text_array(name: str) -> BindParameter[Sequence[str]]:
    """Return the parameter ``name``, whose value is a list of strings."""
    return bindparam(name, type_=TextArray())


def id_array(name: str) -> BindParameter[Sequence[int]]:
    """Return the parameter ``name``, whose value is a list of ids."""
    return bindparam(name, type_=IdArray())


class CompiledStatement(msgspec.Struct, frozen=True):
    """A statement as a driver takes it, with its own parameters and the converters between Python and the driver.

    ``parameter_converters`` are by parameter name, ``cell_converters`` by the column's position.
    """

    sql: str
    parameters: Mapping[str, object]
    parameter_converters: Mapping[str, Callable[[object], object]]
    cell_converters: Mapping[int, Callable[[object], object]]

    def bind(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return all parameters as the driver takes them: the statement's own and ``values``."""
        parameters = {**self.parameters, **values}
        for name, convert in self.parameter_converters.items():
            parameters[name] = convert(parameters[name])
        return parameters

    def convert_row(self, row: Row) -> Row:
        """Return the cells of a row as Python values, which not every driver makes of them."""
        converters = self.cell_converters
        return tuple(converters[i](cell) if i in converters else cell for i, cell in enumerate(row))


def select_rows(connection: Connection, statement: ReturnsRows, values: Mapping[str, object]) -> list[Row]:
    """Return the rows that ``statement`` selects with these values of its parameters. Raises DBAPIError."""
    compiled = _compile(statement, connection.dialect)
    rows = _fetch(connection, compiled.sql, compiled.bind(values))
    return [compiled.convert_row(row) for row in rows] if compiled.cell_converters else rows


@functools.lru_cache(maxsize=512)
def _compile(statement: ReturnsRows, dialect: Dialect) -> CompiledStatement:
    compiled = dialect.statement_compiler(dialect, statement)
    binds = {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in compiled.binds.items()}
    parameter_converters = {name: convert for name, convert in binds.items() if convert is not None}
    cell_converters = {}
    if dialect.name != "postgresql":  # whose driver makes times, arrays and JSON of what comes
        for index, column in enumerate(statement.exported_columns):
            if convert := column.type.dialect_impl(dialect).result_processor(dialect, None):
                cell_converters[index] = convert
    return CompiledStatement(str(compiled), compiled.params, parameter_converters, cell_converters)


def _fetch(connection: Connection, sql: str, parameters: dict[str, object]) -> list[Row]:
    """Run ``sql`` and return its rows. The driver's errors become SQLAlchemy's."""
    dialect = connection.dialect
    raw: Any = connection.connection
    try:
        cursor = raw.driver_connection.cursor()
        watched = _has_listeners(connection)
        if watched:  # the listeners get no ExecutionContext: SQLAlchemy has none for a statement that it does not run
            for listener in connection.dispatch.before_cursor_execute:
                sql, parameters = listener(connection, cursor, sql, parameters, None, False)
        if dialect.is_async:
            rows: list[Row] = raw.dbapi_connection.run_async(lambda _: _fetch_async(cursor, sql, parameters))
        else:
            with contextlib.closing(cursor):
                cursor.execute(sql, parameters)
                rows = cursor.fetchall()
        if watched:
            connection.dispatch.after_cursor_execute(connection, cursor, sql, parameters, None, False)
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
    return rows


def _has_listeners(connection: Connection) -> bool:
    """Whether anything listens to statements of the connection, its engine or all engines.

    The own ``dispatch`` of a connection would tell as well, but makes objects for the answer: 3.2 µs instead of 0.4.
    """
    events = connection.engine.dispatch
    return connection._has_events or bool(events.before_cursor_execute) or bool(events.after_cursor_execute)


async def _fetch_async(cursor: AsyncCursor[Row], sql: str, parameters: Mapping[str, object]) -> list[Row]:
    await cursor.execute(sql, parameters)
    return await cursor.fetchall()
