"""Alembic is the only truth of the schema."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from concurrency import all_at_once
from loreg.catalog import Catalog, jobs, lineage, migrations, versions
from loreg.catalog.engine import open_engine
from loreg.catalog.search import search
from loreg.catalog.version_details import version_details
from loreg.entities import Access, Query
from loreg.errors import ConflictError, MissingExtraError, UnavailableError, UsageError
from loreg.refs import parse_ref
from version_factories import new_version

OLD = Path(__file__).parents[1] / "data"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def test_the_migrations_make_the_tables_that_the_code_expects(url: str):
    engine = open_engine(url)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.check(config)


def test_the_revision_that_the_code_expects_is_the_newest():
    scripts = ScriptDirectory.from_config(migrations.alembic_config())
    assert scripts.get_heads() == [migrations.HEAD]


def downgrade(connection: Connection, revision: str) -> None:
    config = migrations.alembic_config()
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def test_every_migration_can_be_taken_back(url: str):
    engine = open_engine(url)
    migrations.upgrade(engine)
    with engine.connect() as connection, connection.begin():
        downgrade(connection, "base")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 0
    migrations.upgrade(engine)
    assert migrations.current(engine) == migrations.HEAD


def test_a_sqlite_catalog_is_made_on_first_use(tmp_path: Path):
    assert migrations.HEAD in Catalog(f"sqlite:///{tmp_path}/new/folder/c.db").describe()


@pytest.mark.parametrize("dump", sorted(OLD.glob("catalog-*.sql")), ids=lambda path: path.stem)
def test_a_catalog_of_an_old_release_is_upgraded_and_goes_on(tmp_path: Path, dump: Path):
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.executescript(dump.read_text())
    catalog = Catalog(f"sqlite:///{tmp_path}/c.db")
    assert migrations.HEAD in catalog.describe()
    with catalog.write(Access.superuser("ada")) as tx:
        version = versions.resolve(tx, parse_ref("team/science")).version
        assert (version.base.digest[:6], version.target, version.tasks) == ("58c97f", None, ("qa",))
        on_its_base = search(tx, Query(tasks=("qa",), base=version.base.names[0])).items
        assert [other.ref for other in on_its_base] == [version.ref]
        in_production = version_details(tx, parse_ref("team/history:prod"))
        assert [(move.alias, move.number) for move in in_production.alias_moves] == [("prod", 1)]
        assert sum(file.size for file in in_production.files) == in_production.version.size
        assert len(lineage.list_ancestors(tx, versions.resolve(tx, parse_ref("team/blend")).id)) == 2
        assert versions.record(tx, new_version("team/science", "new"))[0].version.number == 2
        bases = tx.connection.execute(text("SELECT substr(digest, 1, 2), author FROM bases"))
        authors = dict(bases.all())
        assert (authors["58"], authors.get("ab", "ada")) == ("", "ada")  # the events say who added the one


def test_the_path_of_a_base_leaves_what_everybody_sees(url: str):
    """Revision 0009 had it in one column with the names; taken back it is there again."""
    Catalog(url).upgrade()
    with Catalog(url).write(Access.superuser("ada")) as tx:
        hints = {
            "path": ("llama", "/home/ada/llama"),
            "cached": ("org/m", "/x/models--org--m/y"),
            "name": ("org/m", ""),
        }
        for name, (hint, path) in hints.items():
            versions.record(tx, new_version(name, name, base_hint=hint, base_path=path, tasks=("qa",)))
    engine = open_engine(url)
    statement = text(
        "SELECT adapters.name, base_hint, tasks.base FROM versions JOIN adapters ON adapters.id = adapter_id"
        " JOIN tasks ON tasks.version_id = versions.id ORDER BY versions.id"
    )
    with engine.connect() as connection, connection.begin():
        downgrade(connection, "0009")
        before = [(name, path or hint, path or hint) for name, (hint, path) in hints.items()]
        assert [tuple(row) for row in connection.execute(statement)] == before
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(statement)] == [
            (name, hint, hint) for name, (hint, _) in hints.items()
        ]
        paths = connection.execute(text("SELECT base_path FROM versions ORDER BY id")).scalars().all()
        assert paths == [path for _, path in hints.values()]


@pytest.mark.parametrize("tokens", ["there are", "there are none"])
def test_a_job_of_an_old_release_whose_token_is_not_known_goes_on_only_where_there_are_none(
    url: str, tokens: str, tmp_path: Path
):
    engine = open_engine(url)
    migrations.upgrade(engine)
    with engine.connect() as connection, connection.begin():
        downgrade(connection, "0007")
        values = {"at": datetime.now(UTC).replace(tzinfo=None).isoformat(" "), "grants": '{"*": "admin"}'}
        connection.execute(text(_JOB), values)
        if tokens == "there are":
            connection.execute(text(_TOKEN), values)
    migrations.upgrade(engine)
    catalog = Catalog(url)
    with catalog.write(Access.superuser("w")) as tx:
        job = jobs.list_page(tx, 1, None).items[0]
        ended = ("failed", "unauthenticated") if tokens == "there are" else ("queued", None)
        assert (job.state, job.error.get("code")) == ended
        assert job.ended == (job.finished_at is not None) == (jobs.claim(tx, "w") is None)


_JOB = """INSERT INTO jobs
(kind, request, namespace, author, grants, state, attempts, worker, what, done, total, result, error, created_at)
VALUES ('merge', '{}', 'team', 'eve', :grants, 'queued', 0, '', '', 0, 0, '{}', '{}', :at)"""
_TOKEN = "INSERT INTO tokens (digest, name, grants, author, created_at) VALUES ('x', 'root', :grants, 'ada', :at)"


def test_a_shared_catalog_without_schema_waits_for_its_owner(postgres: str, postgres_url: str):
    with open_engine(postgres_url).connect() as connection, connection.begin():
        connection.execute(text("DROP TABLE alembic_version"))
    with pytest.raises(UnavailableError, match="has no schema yet") as error:
        Catalog(postgres_url).describe()
    assert error.value.hint == "loreg db upgrade"


def test_a_catalog_from_a_newer_loreg_is_left_alone(url: str):
    Catalog(url).upgrade()
    with open_engine(url).connect() as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConflictError, match="has schema 9999, this loreg knows up to"):
        Catalog(url).describe()


def test_a_new_sqlite_database_that_many_open_at_once(tmp_path: Path):
    for number in range(50):  # without waiting for each other one of them failed in every tenth
        engines = [open_engine(f"sqlite:///{tmp_path}/{number}.db") for _ in range(4)]
        all_at_once([engine.connect for engine in engines])
        for engine in engines:
            engine.dispose()


def test_two_first_uses_at_once_both_succeed(tmp_path: Path):
    descriptions = all_at_once([lambda: Catalog(f"sqlite:///{tmp_path}/c.db").describe()] * 4)
    assert all(migrations.HEAD in description for description in descriptions)


def test_sqlite_keeps_foreign_keys_and_a_write_ahead_log(tmp_path: Path):
    with Catalog(f"sqlite:///{tmp_path}/c.db").read() as tx:
        assert tx.connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert tx.connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "postgresql+asyncpg//"])
def test_other_databases_are_refused(url: str):
    with pytest.raises(UsageError, match="the database URL is not understood"):
        Catalog(url)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError) as error:
        Catalog("postgresql://127.0.0.1/x")
    assert "loreg[postgres]" in error.value.hint


def test_a_password_is_never_shown():
    with pytest.raises(UnavailableError) as error:
        Catalog("postgresql://ada:secret@127.0.0.1:9/x").describe()
    assert "secret" not in str(error.value)
    assert "ada:***@127.0.0.1:9" in error.value.message


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path):
    (tmp_path / "c.db").write_text("this is not a database, it is a text of some length")
    with pytest.raises(UnavailableError, match="file is not a database"):
        Catalog(f"sqlite:///{tmp_path}/c.db").describe()
