"""loreg doctor finds what is gone: a store, a catalog, a table; and a catalog that cannot be upgraded says why."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from deployments import NEWS, SCIENCE, Deployment, Loreg, Outcome, command_line
from factories import write_base
from live_server import live_server
from loreg.catalog import Catalog, migrations
from loreg.catalog.engine import open_engine
from loreg.catalog.schema import metadata
from loreg.entities import Access
from loreg.errors import UnavailableError
from loreg.registry import Registry
from services import S3Server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of the fixture ``local``."""
    return tmp_path / "home"


def failed(outcome: Outcome) -> dict[str, str]:
    """What doctor says is not well."""
    assert "Traceback" not in outcome.stderr
    checks = json.loads(outcome.stdout)
    wrong = {check["name"]: check["value"] for check in checks if not check["ok"]}
    assert outcome.exit_code == (1 if wrong else 0)
    assert all(check["hint"] for check in checks if not check["ok"])
    return wrong


def test_a_registry_that_is_new_is_well_and_stays_as_it_is(local: Loreg, home: Path):
    assert failed(local("doctor", "--format", "json")) == {}
    assert not (home / "store").exists()


def test_a_registry_that_is_used_is_well(loreg: Loreg):
    loreg("push", NEWS, "team/news")
    assert failed(loreg("doctor", "--format", "json")) == {}


def test_a_store_that_is_gone_is_found_and_not_made_anew(local: Loreg, home: Path):
    local("push", NEWS, "team/news")
    (home / "store").rename(home / "elsewhere")
    assert "is not there, though the catalog knows versions" in failed(local("doctor", "--format", "json"))["store"]
    assert not (home / "store").exists()


def test_an_empty_folder_in_place_of_the_store_is_found(local: Loreg, home: Path):
    local("push", NEWS, "team/news")
    (home / "store").rename(home / "elsewhere")
    (home / "store").mkdir()
    assert "is not there, though the catalog knows versions" in failed(local("doctor", "--format", "json"))["store"]


def test_another_store_in_place_of_the_store_is_found(local: Loreg, home: Path):
    local("push", NEWS, "team/news")
    (home / "store").rename(home / "elsewhere")
    (home / "store" / "sha256").mkdir(parents=True)
    failures = failed(local("doctor", "--format", "json"))
    assert "adapter_config.json of team/news:v1 is not in" in failures["weights"]


def test_another_bucket_or_folder_in_place_of_the_store_is_found(postgres_and_s3: Deployment):
    command_line(postgres_and_s3.environment)("push", NEWS, "team/news")
    other = {**postgres_and_s3.environment, "LOREG_STORAGE_URL": postgres_and_s3.storage_url + "-other"}
    assert "is not in s3://" in failed(command_line(other)("doctor", "--format", "json"))["weights"]


def test_a_server_that_lost_its_store_is_not_ready(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    command_line(deployment.environment)("push", NEWS, "team/news")
    with live_server(deployment) as endpoint:
        assert httpx.get(f"{endpoint}/readyz").status_code == 200
        shutil.rmtree(tmp_path / "store")
        answer = httpx.get(f"{endpoint}/readyz")
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text
        asked = command_line({"LOREG_ENDPOINT": endpoint})("doctor", "--format", "json")
    assert "store" in failed(asked)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_an_empty_catalog_over_a_full_store_is_found(local: Loreg, home: Path, how: str):
    local("push", NEWS, "team/news")
    for path in home.glob("catalog.db*"):
        path.unlink()
    if how == "emptied":
        (home / "catalog.db").touch()
    failures = failed(local("doctor", "--format", "json"))
    assert "the catalog is empty, but" in failures["weights"]


def test_an_empty_catalog_over_a_full_bucket_is_found(postgres_and_s3: Deployment, s3: S3Server, tmp_path: Path):
    loreg = command_line(postgres_and_s3.environment)
    assert failed(loreg("doctor", "--format", "json")) == {}
    elsewhere = {**postgres_and_s3.environment, "LOREG_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    command_line(elsewhere)("push", NEWS, "team/news")
    assert "the catalog is empty, but s3://" in failed(loreg("doctor", "--format", "json"))["weights"]


def test_a_base_that_is_known_is_no_empty_catalog(registry: Registry, tmp_path: Path):
    registry.bases.add(write_base(tmp_path / "base"))
    assert all(check.ok for check in registry.doctor())


TABLES = sorted(metadata.tables)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_missing_is_found(local: Loreg, home: Path, table: str):
    local("push", NEWS, "team/news")
    with sqlite3.connect(home / "catalog.db") as connection:
        connection.execute(f"DROP TABLE {table}")
    connection.close()
    assert f"lacks {table}" in failed(local("doctor", "--format", "json"))["database"]


def test_a_column_that_is_missing_is_found(postgres_url: str):
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE versions DROP COLUMN message"))
        connection.execute(text("DROP TABLE events"))
    engine.dispose()
    with pytest.raises(UnavailableError, match=r"lacks events, versions\.message, which its schema has"):
        Catalog(postgres_url).describe()


def test_who_meets_a_missing_table_is_sent_to_doctor(local: Loreg, home: Path):
    local("push", NEWS, "team/news")
    with sqlite3.connect(home / "catalog.db") as connection:
        connection.execute("DROP TABLE events")
    connection.close()
    done = local("push", SCIENCE, "team/science")
    assert done.exit_code == 1
    assert "lacks what its schema has: no such table: events. Hint: loreg doctor" in done.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def change(url: str, statement: str) -> None:
    engine = open_engine(url)
    with engine.connect() as connection, connection.begin():
        connection.execute(text(statement))
    engine.dispose()


def test_an_upgrade_of_a_newer_catalog_is_one_line(url: str):
    Catalog(url).upgrade()
    change(url, "UPDATE alembic_version SET version_num = '9999'")
    done = command_line({"LOREG_DATABASE_URL": url})("db", "upgrade")
    assert done.exit_code == 7
    assert f"has schema 9999, this loreg knows up to {migrations.HEAD}. Hint: pip install" in done.stderr


def test_an_upgrade_from_a_revision_that_nobody_knows_is_one_line(url: str):
    Catalog(url).upgrade()
    change(url, "UPDATE alembic_version SET version_num = '0000'")
    done = command_line({"LOREG_DATABASE_URL": url})("db", "upgrade")
    assert done.exit_code == 7
    assert "cannot be upgraded from 0000" in done.stderr


@pytest.mark.parametrize("how", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
def test_a_catalog_that_does_not_say_its_schema_is_mended_by_what_is_said(url: str, how: str):
    catalog = Catalog(url)
    catalog.upgrade()
    change(url, how)
    loreg = command_line({"LOREG_DATABASE_URL": url})
    done = loreg("db", "upgrade")
    assert done.exit_code == 7
    assert "has tables, but does not say of which schema" in done.stderr
    assert f"'{migrations.HEAD}'" in done.stderr
    if how.startswith("DROP"):
        change(url, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    change(url, f"INSERT INTO alembic_version VALUES ('{migrations.HEAD}')")
    assert loreg("db", "upgrade").stdout == f"schema {migrations.HEAD}, no change\n"
    assert loreg("ls").exit_code == 0


class TestTimeouts:
    """On PostgreSQL no statement and no idle transaction keeps a connection, or what others wait for, for ever."""

    def test_a_statement_and_an_idle_transaction_have_a_longest_time(self, postgres_url: str):
        catalog = Catalog(postgres_url)
        for open_ in (catalog.read, lambda: catalog.write(Access.superuser("ada"))):
            with open_() as tx:
                shown = [
                    tx.connection.execute(text(f"SHOW {name}")).scalar()
                    for name in ("statement_timeout", "idle_in_transaction_session_timeout")
                ]
                assert shown == ["30s", "1min"]
        catalog.close()

    def test_statements_are_planned_once_for_pages_and_as_the_administrator_says(self, postgres_url: str):
        name = postgres_url.rpartition("/")[2]
        for own, workers in (("", "0"), ("4", "4")):
            if own:
                change(postgres_url, f"ALTER DATABASE {name} SET max_parallel_workers_per_gather = {own}")
            catalog = Catalog(postgres_url)
            with catalog.read() as tx:
                settings = ("max_parallel_workers_per_gather", "jit", "random_page_cost", "plan_cache_mode")
                shown = [tx.connection.execute(text(f"SHOW {setting}")).scalar() for setting in settings]
                assert shown == [workers, "off", "1.1", "force_generic_plan"]
            catalog.close()

    def test_those_that_a_server_awaits_have_them_too(self, postgres_url: str):
        catalog = Catalog(postgres_url)

        def ask() -> str:
            with catalog.read() as tx:
                return str(tx.connection.execute(text("SHOW statement_timeout")).scalar())

        async def lock_timeout() -> str:
            try:
                return await catalog.run_async(ask)
            finally:
                await catalog.aclose()

        assert asyncio.run(lock_timeout()) == "30s"

    def test_who_runs_the_database_may_set_another(self, postgres_url: str):
        name = postgres_url.rpartition("/")[2]
        change(postgres_url, f"ALTER DATABASE {name} SET statement_timeout = '5s'")
        catalog = Catalog(postgres_url)
        with catalog.read() as tx:
            assert tx.connection.execute(text("SHOW statement_timeout")).scalar() == "5s"
        catalog.close()

    def test_what_takes_too_long_is_one_line(self, postgres_url: str):
        catalog = Catalog(postgres_url)
        with pytest.raises(UnavailableError, match="took over 30 s") as error, catalog.read() as tx:
            tx.connection.execute(text("SET statement_timeout = '1ms'"))
            tx.connection.execute(text("SELECT pg_sleep(10)"))
        assert "postgresql" not in error.value.outside
        catalog.close()

    def test_a_migration_may_take_longer(self, postgres_url: str, monkeypatch: pytest.MonkeyPatch):
        name = postgres_url.rpartition("/")[2]
        change(postgres_url, f"ALTER DATABASE {name} SET statement_timeout = '5s'")
        shown = []
        engine = open_engine(postgres_url)

        def upgrade(config, revision: str) -> None:
            connection = config.attributes["connection"]
            shown.append(connection.execute(text("SHOW statement_timeout")).scalar())

        monkeypatch.setattr("alembic.command.upgrade", upgrade)
        migrations.upgrade(engine)
        assert shown == ["0"]
        engine.dispose()


def test_a_file_that_is_no_database_is_found(local: Loreg, home: Path):
    home.mkdir()
    (home / "catalog.db").write_text("this is not a database, it is a text of some length")
    assert "file is not a database" in failed(local("doctor", "--format", "json"))["database"]
