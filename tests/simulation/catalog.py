"""The real catalog on SQLite in memory, with the world's clock, set back to an image for each schedule."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, StaticPool, create_engine

from loreg.catalog import Catalog, Transaction, schema
from loreg.catalog.engine import translate_errors
from loreg.entities import Access
from simulation.world import EPOCH, World

_TABLES = tuple(table.name for table in schema.metadata.sorted_tables)
_CLOCK_FORMAT = "%Y-%m-%d %H:%M:%f000"  # what loreg.catalog.clock asks SQLite for


@dataclass(frozen=True)
class Image:
    """The rows of a catalog at one time: the database beside it that has them, and which tables are not empty."""

    name: str
    tables: tuple[str, ...]


class SimulatedCatalog(Catalog):
    """A catalog whose transactions begin when the world lets them, and happen at once."""

    def __init__(self) -> None:
        super().__init__("sqlite:///:memory:")
        self.world: World | None = None
        #: Whether transactions are opened as the real catalog does; else on one connection, which is quicker.
        self.is_whole = True
        with self._engine.connect() as connection:
            self.driver: Any = connection.connection.driver_connection
        self.driver.create_function("strftime", -1, self._strftime)
        self.upgrade()
        engine = create_engine("sqlite://", creator=lambda: self.driver, poolclass=StaticPool, paramstyle="named")
        self._quick = engine
        self._connection = engine.connect()
        self._images = 0
        #: How many hold off collectors at this moment.
        self.holders = 0

    def image(self) -> Image:
        """Return a copy of all rows, in tables beside the real ones."""
        self._images += 1
        name = f"image{self._images}"
        self.driver.execute(f"ATTACH ':memory:' AS {name}")
        for table in _TABLES:
            self.driver.execute(f"CREATE TABLE {name}.{table} AS SELECT * FROM main.{table}")
        filled = [t for t in _TABLES if self.driver.execute(f"SELECT 1 FROM {name}.{t}").fetchone()]
        return Image(name, tuple(filled))

    def load(self, image: Image, world: World | None) -> None:
        """Have the rows of ``image``, in another world. (A copy of the database would let SQLite prepare all anew.)"""
        self.driver.execute("BEGIN")
        for table in reversed(_TABLES):
            self.driver.execute(f"DELETE FROM main.{table}")
        self.driver.execute("DELETE FROM main.sqlite_sequence")  # or ids go on where another world ended
        for table in image.tables:
            self.driver.execute(f"INSERT INTO main.{table} SELECT * FROM {image.name}.{table}")
        self.driver.execute("COMMIT")
        self.world, self.holders = world, 0

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query that takes no time: of whoever looks on, and is no actor."""
        rows: list[tuple[Any, ...]] = self.driver.execute(sql, values).fetchall()
        return rows

    def on_commit(self) -> None:
        """Look at what was committed just now."""

    @contextlib.contextmanager
    def read_snapshot(self) -> Iterator[Transaction]:
        with self._transaction(Access.superuser(""), writes=False) as tx, self._quick.connect() as connection:
            yield replace(tx, connection=connection)  # of its own: a dump sets options of the connection

    @contextlib.contextmanager
    def hold_removals(
        self, *, alone: bool = False, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[Callable[[], None]]:
        with super().hold_removals(alone=alone, on_wait=on_wait) as beat:
            self.holders += 1
            try:
                yield beat
            finally:
                self.holders -= 1

    @contextlib.contextmanager
    def _transaction(self, access: Access, *, writes: bool) -> Iterator[Transaction]:
        world = self.world
        if world is None:
            with super()._transaction(access, writes=writes) as tx:
                yield Transaction(tx.connection, access, EPOCH)
            return
        what = "write" if writes else "read"
        fate = world.before_transaction(what)
        world.in_transaction = True
        before = self.driver.total_changes
        try:
            with self._open(access, writes=writes) as connection:
                yield Transaction(connection, access, world.time)
        finally:
            world.in_transaction = False
        if self.driver.total_changes != before:
            self.on_commit()
        world.after_transaction(what, fate)

    @contextlib.contextmanager
    def _open(self, access: Access, *, writes: bool) -> Iterator[Connection]:
        if self.is_whole:
            with super()._transaction(access, writes=writes) as tx:
                yield tx.connection
            return
        with translate_errors(self._url):
            self.driver.execute("BEGIN")
            try:
                yield self._connection
                self.driver.commit()
            except BaseException:
                self.driver.rollback()
                raise
            finally:
                self._connection.rollback()  # SQLAlchemy's own part, which may have seen no statement

    def _strftime(self, *arguments: str) -> str:
        form, moment, modifier = arguments
        if (form, moment) != (_CLOCK_FORMAT, "now"):
            raise sqlite3.ProgrammingError(f"the simulation has no {arguments}")
        shift = timedelta(seconds=float(modifier.removesuffix(" seconds")))
        time = (self.world.time if self.world is not None else EPOCH) + shift
        return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}000"
