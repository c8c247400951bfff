"""Bring a database to the schema of this code. Alembic is the only truth of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from loreg.catalog import search_text
from loreg.catalog.engine import disable_timeouts, write_connection
from loreg.catalog.schema import metadata
from loreg.catalog.sqlite import is_read_only
from loreg.errors import ConflictError, UnavailableError
from loreg.settings import mask_url

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision; a test holds it against the migrations, so that opening a catalog needs no Alembic.
HEAD = "0021"
_FIRST_TABLE = "adapters"  # which every schema has
_OUTSIDE = "the catalog is not this server's: another loreg, or nobody, has it in order"


def current(engine: Engine) -> str | None:
    """Return the revision of the database; None if it has no schema."""
    with engine.connect() as connection:
        return revision_of(connection)


def require_current(engine: Engine, url: str) -> None:
    """Raise unless the schema is this code's; a SQLite file that may be written is upgraded instead.

    Raises UnavailableError if ``loreg db upgrade`` is to be run, ConflictError if the database is newer.
    """
    revision = current(engine)
    if revision == HEAD:
        return
    _refuse_newer(revision, url)
    if engine.dialect.name != "sqlite" or is_read_only(engine):
        state = f"has schema {revision}, this loreg expects {HEAD}" if revision else "has no schema yet"
        raise UnavailableError(
            f"the catalog {url} {state}", hint="loreg db upgrade", outside="the catalog waits for its owner"
        )
    upgrade(engine)


def upgrade(engine: Engine) -> None:
    """Run every migration that the database lacks, in one transaction; concurrent upgrades wait for each other.

    Raises ConflictError for a database that is newer, or that has tables but no revision.
    """
    from alembic import command
    from alembic.util import CommandError

    url = mask_url(engine.url.render_as_string(hide_password=True))
    config = alembic_config()
    with write_connection(engine) as connection:
        if engine.dialect.name == "postgresql":
            disable_timeouts(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg migrations'))"))
        revision = revision_of(connection)
        _refuse_newer(revision, url)
        if revision is None and inspect(connection).has_table(_FIRST_TABLE):
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
                f"the catalog {url} cannot be upgraded from {revision}: {error}",
                hint="restore it from a backup",
                outside=_OUTSIDE,
            ) from error
        search_text.fill_missing(connection)


def change_to(connection: Connection, revision: str) -> None:
    """Bring a database to a revision, forth or, without content, back, in the connection's transaction.

    At the newest the full text of its versions is filled in, which no dump carries.

    Raises ConflictError for a revision that this code does not know, and for a database of one.
    """
    from alembic import command
    from alembic.util import CommandError

    url = mask_url(connection.engine.url.render_as_string(hide_password=True))
    current_revision = revision_of(connection)
    for known in (revision, current_revision):
        _refuse_newer(known, url)
    config = alembic_config()
    config.attributes["connection"] = connection
    try:
        if current_revision is None or current_revision < revision:
            command.upgrade(config, revision)
        elif current_revision > revision:
            command.downgrade(config, revision)
    except CommandError as error:
        raise ConflictError(
            f"the catalog {url} cannot be brought from schema {current_revision} to {revision}: {error}",
            hint="pip install --upgrade loreg",
            outside=_OUTSIDE,
        ) from error
    if revision == HEAD:
        search_text.fill_missing(connection)


def missing_tables(connection: Connection) -> tuple[str, ...]:
    """Return the tables and columns that the code expects and the database lacks, as ``table`` and ``table.column``."""
    expected = metadata.tables
    reflected = inspect(connection).get_multi_columns(filter_names=list(expected))
    names = {table: {column["name"] for column in columns} for (_, table), columns in reflected.items()}
    missing = [table for table in sorted(expected) if table not in names]
    missing += [] if inspect(connection).has_table(search_text.TABLE) else [search_text.TABLE]
    for table in sorted(names):
        missing += [f"{table}.{column.name}" for column in expected[table].columns if column.name not in names[table]]
    return tuple(missing)


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the schema; None if there is none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_newer(revision: str | None, url: str) -> None:
    if revision is not None and revision > HEAD:
        raise ConflictError(
            f"the catalog {url} has schema {revision}, this loreg knows up to {HEAD}",
            hint="pip install --upgrade loreg",
            outside=_OUTSIDE,
        )


def alembic_config() -> Config:
    """Return Alembic's configuration, with the migrations of the checkout, or else of the wheel."""
    from alembic.config import Config

    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "migrations"  # an editable install may leave a stale copy in site-packages
    config = Config()
    config.set_main_option("script_location", str(checkout if checkout.is_dir() else package / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
