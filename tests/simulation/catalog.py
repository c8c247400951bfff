"""The real catalog on SQLite in memory, with the world's clock, set back to an image for each schedule."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from loreg.catalog import Catalog, Transaction
from loreg.entities import Access
from simulation.world import EPOCH, World

_CLOCK_FORMAT = "%Y-%m-%d %H:%M:%f000"  # what loreg.catalog.clock asks SQLite for


class SimulatedCatalog(Catalog):
    """A catalog whose transactions begin when the world lets them, and happen at once."""

    def __init__(self) -> None:
        super().__init__("sqlite:///:memory:")
        self.world: World | None = None
        with self._engine.connect() as connection:
            self.driver: Any = connection.connection.driver_connection
        self.driver.create_function("strftime", -1, self._strftime)
        self.upgrade()

    def image(self) -> sqlite3.Connection:
        """Return a copy of the whole database."""
        copy = sqlite3.connect(":memory:")
        self.driver.backup(copy)
        return copy

    def load(self, image: sqlite3.Connection, world: World | None) -> None:
        """Become the database that ``image`` is, in another world."""
        image.backup(self.driver)  # sqlite3's deserialize would be faster, and crashes after a use of json_each
        self.world = world

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query that takes no time: of whoever looks on, and is no actor."""
        rows: list[tuple[Any, ...]] = self.driver.execute(sql, values).fetchall()
        return rows

    def on_commit(self) -> None:
        """Look at what was committed just now."""

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
            with super()._transaction(access, writes=writes) as tx:
                yield Transaction(tx.connection, access, world.time)
        finally:
            world.in_transaction = False
        if self.driver.total_changes != before:
            self.on_commit()
        world.after_transaction(what, fate)

    def _strftime(self, *arguments: str) -> str:
        form, moment, modifier = arguments
        if (form, moment) != (_CLOCK_FORMAT, "now"):
            raise sqlite3.ProgrammingError(f"the simulation has no {arguments}")
        shift = timedelta(seconds=float(modifier.removesuffix(" seconds")))
        time = (self.world.time if self.world is not None else EPOCH) + shift
        return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}000"
