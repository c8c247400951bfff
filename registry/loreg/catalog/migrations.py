"""Bringing a database to the schema of this code. Alembic is the only truth of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from loreg.catalog.engine import disable_timeouts, write_connection
from loreg.catalog.schema import TableBase
from loreg.catalog.sqlite import is_read_only
from loreg.errors import ConflictError, UnavailableError
from loreg.settings import masked

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision; a test holds it against the migrations, so that opening a catalog needs no Alembic.
HEAD = "0008"
_FIRST_TABLE = "adapters"  # which every schema has
_OUTSIDE = "the catalog is not this server's: another loreg, or nobody, has it in order"


def current(engine: Engine) -> str | None:
    """The revision of the database; None if it has no schema."""
    with engine.connect() as connection:
        return _revision(connection)


def require_current(engine: Engine, url: str) -> None:
    """Make sure that the schema is this code's. A SQLite file is upgraded by whoever may write it, a server never.

    Raises UnavailableError if somebody must run ``loreg db upgrade``, ConflictError if the database is newer.
    """
    found = current(engine)
    if found == HEAD:
        return
    _refuse_newer(found, url)
    if engine.dialect.name != "sqlite" or is_read_only(engine):
        state = f"has schema {found}, this loreg expects {HEAD}" if found else "has no schema yet"
        raise UnavailableError(
            f"the catalog {url} {state}", hint="loreg db upgrade", outside="the catalog waits for its owner"
        )
    upgrade(engine)


def upgrade(engine: Engine) -> None:
    """Run every migration that the database lacks, in one transaction; two at once wait for each other.

    Raises ConflictError for a database that is newer, or that has tables and does not say of which schema.
    """
    from alembic import command
    from alembic.util import CommandError

    url = masked(engine.url.render_as_string(hide_password=True))
    config = alembic_config()
    with write_connection(engine) as connection:
        if engine.dialect.name == "postgresql":
            disable_timeouts(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg migrations'))"))
        found = _revision(connection)
        _refuse_newer(found, url)
        if found is None and inspect(connection).has_table(_FIRST_TABLE):
            raise ConflictError(
                f"the catalog {url} has tables, but does not say of which schema: alembic_version is empty or missing",
                hint=f"restore it from a backup; if it was of this loreg, put '{HEAD}' back into alembic_version",
                outside=_OUTSIDE,
            )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConflictError(
                f"the catalog {url} cannot be upgraded from {found}: {error}",
                hint="restore it from a backup",
                outside=_OUTSIDE,
            ) from error


def missing_tables(connection: Connection) -> tuple[str, ...]:
    """The tables and columns that the code expects and the database lacks."""
    expected = TableBase.metadata.tables
    there = inspect(connection).get_multi_columns(filter_names=list(expected))
    columns = {name: {column["name"] for column in found} for (_, name), found in there.items()}
    lacks = [name for name in sorted(expected) if name not in columns]
    for name in sorted(columns):
        lacks += [f"{name}.{column.name}" for column in expected[name].columns if column.name not in columns[name]]
    return tuple(lacks)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_newer(found: str | None, url: str) -> None:
    if found is not None and found > HEAD:
        raise ConflictError(
            f"the catalog {url} has schema {found}, this loreg knows up to {HEAD}",
            hint="pip install --upgrade loreg",
            outside=_OUTSIDE,
        )


def alembic_config() -> Config:
    """Alembic's settings, with the migrations of the wheel or of the checkout."""
    from alembic.config import Config

    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "migrations"  # an editable install may leave a stale copy in site-packages
    config = Config()
    config.set_main_option("script_location", str(checkout if checkout.is_dir() else package / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
