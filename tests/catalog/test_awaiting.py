"""A catalog that an event loop awaits, and connections that died while nobody used them."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

from loreg.catalog import Catalog, engine, versions
from loreg.entities import Access
from loreg.errors import NotFoundError
from loreg.refs import parse_ref
from version_factories import new_version


def record(catalog: Catalog, name: str) -> str:
    with catalog.write(Access.superuser("ada")) as tx:
        return versions.record(tx, new_version(name, name))[0].version.ref


def resolve(catalog: Catalog, ref: str) -> str:
    with catalog.read() as tx:
        return versions.resolve(tx, parse_ref(ref)).version.ref


def test_what_is_awaited_reads_and_writes_as_in_a_thread(catalog: Catalog):
    async def both() -> list[str]:
        recorded = await catalog.run_async(record, catalog, "team/a")
        resolved = await asyncio.gather(*(catalog.run_async(resolve, catalog, "team/a") for _ in range(8)))
        await catalog.aclose()
        return [recorded, *resolved]

    catalog.use_event_loop()
    assert asyncio.run(both()) == ["team/a:v1"] * 9
    assert resolve(catalog, "team/a") == "team/a:v1"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_statement_that_is_compiled_once_is_an_event_of_sqlalchemy(catalog: Catalog, is_async: bool):
    seen: list[tuple[str, str, Any]] = []

    def resolve_watched() -> None:
        with catalog.read() as tx:
            for name in ("before_cursor_execute", "after_cursor_execute"):
                event.listen(tx.connection, name, lambda *call, name=name: seen.append((name, call[2], call[3])))
            versions.resolve(tx, parse_ref("team/a"))

    async def run() -> None:
        await catalog.run_async(resolve_watched)
        await catalog.aclose()

    record(catalog, "team/a")
    catalog.use_event_loop()
    asyncio.run(run()) if is_async else resolve_watched()
    (before, sql, parameters), (after, *same) = seen
    assert (before, after, same) == ("before_cursor_execute", "after_cursor_execute", [sql, parameters])
    assert sql.startswith("SELECT")
    assert (parameters["namespace"], parameters["name"]) == ("team", "a")


def test_an_error_reaches_who_awaits_and_leaves_nothing(catalog: Catalog):
    def fails(catalog: Catalog) -> None:
        with catalog.write(Access.superuser("ada")) as tx:
            versions.record(tx, new_version("team/a", "one"))
            raise NotFoundError("on purpose")

    async def fail() -> None:
        try:
            await catalog.run_async(fails, catalog)
        finally:
            await catalog.aclose()

    catalog.use_event_loop()
    with pytest.raises(NotFoundError, match="on purpose"):
        asyncio.run(fail())
    with pytest.raises(NotFoundError, match="there is no adapter"):
        resolve(catalog, "team/a")


def test_the_loop_goes_on_while_the_database_works(catalog: Catalog, postgres_url: str):
    """A question that waits for a lock, which the loop itself lets go of later."""
    slow = Catalog(postgres_url)
    slow.use_event_loop()

    def ask(catalog: Catalog) -> int:
        with catalog.read() as tx:
            return tx.connection.execute(text("SELECT pg_advisory_lock(7) IS NOT NULL")).scalar_one()

    async def both() -> bool:
        with psycopg.connect(postgres_url, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(7)")
            answer = asyncio.ensure_future(slow.run_async(ask, slow))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not answer.done()
            holder.execute("SELECT pg_advisory_unlock(7)")
            await answer
        await slow.aclose()
        return True

    assert asyncio.run(both())


def kill_all_but_me(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_connection_that_died_while_it_lay_idle_is_replaced(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "_IDLE_SECONDS", -1.0)
    catalog = Catalog(postgres_url)
    catalog.use_event_loop()

    async def twice() -> list[str]:
        refs = []
        for _ in range(2):
            refs.append(await catalog.run_async(resolve, catalog, "team/a"))
            kill_all_but_me(postgres_url)
        await catalog.aclose()
        return refs

    record(catalog, "team/a")
    kill_all_but_me(postgres_url)
    assert resolve(catalog, "team/a") == "team/a:v1"
    assert asyncio.run(twice()) == ["team/a:v1"] * 2
